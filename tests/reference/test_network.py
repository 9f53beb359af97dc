"""The reference network and the checkpoints made for it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.reference import checkpoints
from tests.reference.checkpoints import GQA, MHA, PADDED, TIED, Shape
from tests.reference.model import Llada
from tests.reference.tokenizer import token_ids

SHAPES = {"mha": MHA, "gqa": GQA, "tied": TIED, "padded": PADDED}
PROMPT = [10, 20, 30, 40, 50, 60, 70]


def tiny(shape: Shape = MHA, seed: int = 0) -> Llada:
    model = Llada(checkpoints.llada_config(shape), checkpoints.llada_weights(shape, seed))
    model.eot_token_id = token_ids(specials_first=shape.specials_first)["<|eot_id|>"]
    return model


@pytest.mark.parametrize("name", SHAPES)
def test_a_later_token_changes_an_earlier_logit(name: str) -> None:
    model = tiny(SHAPES[name])
    one, other = model.logits([*PROMPT, 5]), model.logits([*PROMPT, 6])
    assert one.shape == (len(PROMPT) + 1, 320)
    assert (one[0] - other[0]).abs().max() > 1e-3


def test_gqa_is_mha_with_repeated_key_and_value_heads() -> None:
    gqa = tiny(GQA)
    repeated = dict(gqa.weights)
    head_dim = GQA.d_model // GQA.n_heads
    for name, tensor in gqa.weights.items():
        if ".k_proj." in name or ".v_proj." in name:
            heads = tensor.view(GQA.n_kv_heads, head_dim, GQA.d_model)
            repeated[name] = heads.repeat_interleave(2, dim=0).reshape(-1, GQA.d_model)
    mha = Llada(gqa.config | {"n_kv_heads": GQA.n_heads}, repeated)
    torch.testing.assert_close(mha.logits(PROMPT), gqa.logits(PROMPT))


def test_tied_head_is_the_embedding() -> None:
    tied = tiny(TIED)
    wte = tied.weights["model.transformer.wte.weight"]
    untied = Llada(
        tied.config | {"weight_tying": False},
        tied.weights | {"model.transformer.ff_out.weight": wte.clone()},
    )
    assert torch.equal(tied.logits(PROMPT), untied.logits(PROMPT))


def test_attention_sees_distances_only() -> None:
    """Rotary positions: the same tokens further right have the same logits."""
    model = tiny()

    class Shifted(Llada):
        def _rotate(self, x: Tensor, start: int) -> Tensor:
            return super()._rotate(x, start + 9)

    shifted = Shifted(model.config, model.weights).logits(PROMPT)
    torch.testing.assert_close(model.logits(PROMPT), shifted, atol=1e-4, rtol=1e-4)


def test_agrees_with_transformers_llama_when_that_attends_both_ways() -> None:
    """A Llama without its causal mask is LLaDA's network under other tensor names."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=320,
        hidden_size=GQA.d_model,
        intermediate_size=GQA.mlp_hidden_size,
        num_hidden_layers=GQA.n_layers,
        num_attention_heads=GQA.n_heads,
        num_key_value_heads=GQA.n_kv_heads,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    )
    config._attn_implementation = "eager"
    llama_class: Any = LlamaForCausalLM  # Untyped in transformers.
    llama = llama_class(config).float().eval()
    names = {
        "attn_norm": "input_layernorm",
        "ff_norm": "post_attention_layernorm",
        "q_proj": "self_attn.q_proj",
        "k_proj": "self_attn.k_proj",
        "v_proj": "self_attn.v_proj",
        "attn_out": "self_attn.o_proj",
        "ff_proj": "mlp.gate_proj",
        "up_proj": "mlp.up_proj",
        "ff_out": "mlp.down_proj",
    }
    model = tiny(GQA)
    state = {
        "model.embed_tokens.weight": model.weights["model.transformer.wte.weight"],
        "model.norm.weight": model.weights["model.transformer.ln_f.weight"],
        "lm_head.weight": model.weights["model.transformer.ff_out.weight"],
    }
    for layer, (ours, theirs) in itertools.product(range(GQA.n_layers), names.items()):
        tensor = model.weights[f"model.transformer.blocks.{layer}.{ours}.weight"]
        state[f"model.layers.{layer}.{theirs}.weight"] = tensor
    llama.load_state_dict(state)
    everything = torch.zeros(1, 1, len(PROMPT), len(PROMPT))  # Additive: nothing is masked.
    with torch.no_grad():
        theirs = llama(torch.tensor([PROMPT]), attention_mask=everything).logits[0]
    torch.testing.assert_close(model.logits(PROMPT), theirs, atol=1e-4, rtol=1e-4)


def test_another_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="alibi is True"):
        Llada(checkpoints.llada_config(MHA) | {"alibi": True}, {})


@pytest.mark.parametrize("shape", [PADDED, replace(GQA, specials_first=True, shard_bytes=200_000)])
def test_a_written_checkpoint_reads_back(shape: Shape, tmp_path: Path) -> None:
    folder = checkpoints.make_llada(tmp_path / "tiny", shape, seed=3)
    model, expected = Llada.load(folder), tiny(shape, seed=3)
    assert model.weights.keys() == expected.weights.keys()
    assert all(torch.equal(model.weights[k], expected.weights[k]) for k in model.weights)
    assert model.eot_token_id == expected.eot_token_id
    assert (folder / "model.safetensors.index.json").exists() == (shape.shard_bytes is not None)


def test_tokenizer_and_chat_template(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = checkpoints.make_llada(tmp_path / "tiny")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    text = "a\n é<|mdm_mask|>"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len("a\n é".encode()) + 1
    assert ids[-1] == checkpoints.llada_config(MHA)["mask_token_id"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_tiny_llama_generates(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = checkpoints.make_llama(tmp_path / "llama")
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)("Hello", return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert out.shape == (1, 13)
    assert len(set(out[0, 5:].tolist())) > 1
