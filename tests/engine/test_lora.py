"""Adapters: tokens are those of a checkpoint with the adapter merged into its weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput

from tests.engine.harness import Engine, job
from tests.reference.generate import Settings, generate
from tests.reference.model import Llada

RANK, ALPHA = 8, 16
MODULES = ("q_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out")


def adapt(folder: Path, base: Path, *, head: bool = False) -> Path:
    """Write a random adapter in PEFT's format, and `folder`/merged, the checkpoint with it."""
    adapter, merged = folder / "adapter", folder / "merged"
    shutil.copytree(base, merged)
    (weights_file,) = merged.glob("*.safetensors")
    weights = load_file(weights_file)
    generator = torch.Generator().manual_seed(0)
    names = [f"model.transformer.blocks.{i}.{name}" for i in range(2) for name in MODULES]
    factors: dict[str, torch.Tensor] = {}
    for name in [*names, "model.transformer.ff_out"] if head else names:
        rows, columns = weights[f"{name}.weight"].shape
        a = torch.randn(RANK, columns, generator=generator) * 0.2
        b = torch.randn(rows, RANK, generator=generator) * 0.2
        factors |= {
            f"base_model.model.{name}.lora_A.weight": a,
            f"base_model.model.{name}.lora_B.weight": b,
        }
        weights[f"{name}.weight"] += b @ a * (ALPHA / RANK)
    save_file(weights, weights_file, metadata={"format": "pt"})
    adapter.mkdir()
    save_file(factors, adapter / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    about |= {"target_modules": list(MODULES), "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(about))
    return folder


def test_an_adapter_is_its_merged_checkpoint(
    engine: Callable[..., Engine],
    checkpoint: Callable[[str], Path],
    reference: Callable[[str], Llada],
    tmp_path: Path,
) -> None:
    # vLLM's kernels for CPUs give a request without an adapter the last slot's: it stays empty.
    running = engine("mha", enable_lora=True, max_lora_rank=RANK, max_loras=2)
    folder = adapt(tmp_path / "blocks", checkpoint("mha"))
    requests = {
        "base": None,
        "adapted": LoRARequest("blocks", 1, str(folder / "adapter")),
        "guided": LoRARequest("blocks", 1, str(folder / "adapter")),
    }
    prompt = list(range(40))
    for name, lora in requests.items():
        one = job(prompt, 16, block_length=8, cfg_scale=float(name == "guided"))
        tokens = TokensPrompt(prompt_token_ids=one.prompt)
        running.core.add_request(name, tokens, one.params, lora_request=lora)
    found: dict[str, list[int]] = {}
    while running.core.has_unfinished_requests():
        for output in running.core.step():
            assert isinstance(output, RequestOutput)
            found[output.request_id] = list(output.outputs[0].token_ids)
    plain, merged = reference("mha"), Llada.load(folder / "merged")
    settings = Settings(16, 8, 16)
    assert found["base"] == generate(plain, prompt, settings).tokens
    assert found["adapted"] == generate(merged, prompt, settings).tokens != found["base"]
    guided = Settings(16, 8, 16, cfg_scale=1.0)
    assert found["guided"] == generate(merged, prompt, guided).tokens

    with_head = adapt(tmp_path / "head", checkpoint("mha"), head=True) / "adapter"
    with pytest.raises(ValueError, match="lm_head"):
        running.core.add_lora(LoRARequest("head", 2, str(with_head)))
