"""What needs a process of its own: other models, tensor parallelism, published shapes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.reference.checkpoints import make_llama

GENERATE = """
import json, sys
from vllm import LLM, SamplingParams

def main():
    options = json.loads(sys.argv[1])
    params = [SamplingParams(**one) for one in json.loads(sys.argv[2])]
    llm = LLM(**options)
    config = llm.llm_engine.vllm_config
    prompts = [{"prompt_token_ids": [5, 6, 7, i]} for i in range(len(params))]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    print("RESULT", json.dumps({
        "v2_runner": config.use_v2_model_runner,
        "scheduler": str(config.scheduler_config.scheduler_cls),
        "prefix_caching": config.cache_config.enable_prefix_caching,
        "tokens": [list(output.outputs[0].token_ids) for output in outputs],
    }))

if __name__ == "__main__":
    main()
"""

SMALL: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 256,
    "max_num_seqs": 4,
    "kv_cache_memory_bytes": 32 << 20,
}


def run(
    tmp_path: Path, options: dict[str, Any], params: list[dict[str, Any]], **env: str
) -> dict[str, Any]:
    script = tmp_path / "generate.py"
    script.write_text(GENERATE)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(options), json.dumps(params)],
        env=clean | env,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return dict(json.loads(lines[-1].removeprefix("RESULT ")))


def test_an_autoregressive_model_is_untouched(tmp_path: Path) -> None:
    """The same tiny Llama, with the plugin and with no plugin loaded at all."""
    options = SMALL | {"model": str(make_llama(tmp_path / "llama"))}
    params = [
        {"temperature": 0.0, "max_tokens": 24, "ignore_eos": True},
        {"temperature": 1.0, "seed": 3, "max_tokens": 24, "allowed_token_ids": [*range(60, 90)]},
        {"temperature": 1.0, "seed": 4, "max_tokens": 24, "min_p": 0.1, "top_k": 20},
    ]
    with ThreadPoolExecutor() as pool:  # most of a start is one thread that imports
        running = pool.submit(run, tmp_path, options, params)
        without = run(tmp_path, options, params, VLLM_PLUGINS="none")
        with_plugin = running.result()
    assert with_plugin == without
    assert len(with_plugin["tokens"][0]) == 24


def test_tensor_parallel_2_gives_the_tokens_of_1(
    tmp_path: Path, checkpoint: Callable[[str], Path]
) -> None:
    options = SMALL | {"model": str(checkpoint("gqa"))}
    params = [
        {"temperature": temperature, "seed": 3, "max_tokens": 32, "ignore_eos": True}
        for temperature in (0.0, 0.0, 1.0, 1.0)
    ]
    with ThreadPoolExecutor() as pool:
        running = pool.submit(run, tmp_path, options, params)
        two = run(
            tmp_path,
            options | {"tensor_parallel_size": 2},
            params,
            VLLM_CPU_OMP_THREADS_BIND="0|1",
        )
        one = running.result()
    assert one["v2_runner"]
    assert two["tokens"] == one["tokens"]


PUBLISHED_8B = {
    "architectures": ["LLaDAModelLM"],
    "auto_map": {
        "AutoConfig": "configuration_llada.LLaDAConfig",
        "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
    },
    "model_type": "llada",
    "activation_type": "silu",
    "alibi": False,
    "attention_layer_norm": False,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "d_model": 4096,
    "embedding_size": 126464,
    "eos_token_id": 126081,
    "include_bias": False,
    "include_qkv_bias": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "mask_token_id": 126336,
    "max_sequence_length": 4096,
    "mlp_hidden_size": 12288,
    "mlp_ratio": 4,
    "multi_query_attention": None,
    "n_heads": 32,
    "n_kv_heads": 32,
    "pad_token_id": 126081,
    "rms_norm_eps": 1e-05,
    "rope": True,
    "rope_full_precision": True,
    "rope_theta": 500000.0,
    "scale_logits": False,
    "vocab_size": 126464,
    "weight_tying": False,
    "torch_dtype": "bfloat16",
}


@pytest.mark.slow
def test_the_published_8b_configuration_starts_with_dummy_weights(tmp_path: Path) -> None:
    """Its widths and vocabulary with one layer: what this much memory and time allow."""
    folder = tmp_path / "llada-8b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(PUBLISHED_8B | {"n_layers": 1}))
    options = {
        "model": str(folder),
        "load_format": "dummy",
        "skip_tokenizer_init": True,
        "enforce_eager": True,
        "max_num_seqs": 2,
        "kv_cache_memory_bytes": 256 << 20,
    }
    params = {"temperature": 0.0, "max_tokens": 32, "detokenize": False, "ignore_eos": True}
    result = run(tmp_path, options, [params | {"extra_args": {"steps": 2}}])
    assert len(result["tokens"][0]) == 32
    assert 126336 not in result["tokens"][0]
