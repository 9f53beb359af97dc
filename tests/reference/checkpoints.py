"""Tiny checkpoints with random weights: LLaDA in its published layout, and a Llama.

The weights are made so that greedy decoding gives varied text: attention is sharp and depends on
distance, and one coordinate of the residual stream, which no layer writes, carries a constant that
the head turns into a preference for letters (and, as asked, for EOS).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from tests.reference.tokenizer import save_tokenizer, token_ids


@dataclass(frozen=True)
class Shape:
    """What a tiny LLaDA is made of. Widths are in elements, vocabularies in rows.

    `vocab_size` exceeds the tokenizer's 262 tokens, as LLaDA's own does; `embedding_size` (None:
    the same) may exceed `vocab_size`. `sharpness` scales queries and keys, `contrast` the head:
    larger is more peaked. `eos_preference` is EOS's, where a letter has 4 and the rest -4.
    `specials_first` gives the special tokens the lowest ids, so that no id may be taken for
    granted. `shard_bytes` splits the tensors over several files with an index.
    """

    d_model: int = 64
    n_heads: int = 2
    n_kv_heads: int = 2
    n_layers: int = 2
    mlp_hidden_size: int = 128
    vocab_size: int = 320
    embedding_size: int | None = None
    max_sequence_length: int = 1024
    weight_tying: bool = False
    sharpness: float = 1.5
    contrast: float = 1.0
    eos_preference: float = 4.0
    specials_first: bool = False
    shard_bytes: int | None = None


MHA = Shape()
GQA = Shape(d_model=128, n_heads=4, n_kv_heads=2, mlp_hidden_size=192)
TIED = Shape(weight_tying=True)
PADDED = Shape(embedding_size=384)


def llada_config(shape: Shape) -> dict[str, Any]:
    """config.json with the fields of the published LLaDA-8B."""
    ids = token_ids(specials_first=shape.specials_first)
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "auto_map": {
            "AutoConfig": "configuration_llada.LLaDAConfig",
            "AutoModel": "modeling_llada.LLaDAModelLM",
            "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
        },
        "d_model": shape.d_model,
        "n_heads": shape.n_heads,
        "n_kv_heads": shape.n_kv_heads,
        "n_layers": shape.n_layers,
        "mlp_hidden_size": shape.mlp_hidden_size,
        "mlp_ratio": 4,
        "vocab_size": shape.vocab_size,
        "embedding_size": shape.embedding_size or shape.vocab_size,
        "max_sequence_length": shape.max_sequence_length,
        "weight_tying": shape.weight_tying,
        "bos_token_id": ids["<|startoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "mask_token_id": ids["<|mdm_mask|>"],
        "activation_type": "silu",
        "alibi": False,
        "alibi_bias_max": 8.0,
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "attention_layer_norm_with_affine": True,
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "embedding_dropout": 0.0,
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_cutoff_factor": None,
        "init_device": "cpu",
        "init_fn": "mitchell",
        "init_std": 0.02,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "multi_query_attention": None,
        "precision": "amp_bf16",
        "residual_dropout": 0.0,
        "rms_norm_eps": 1e-5,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": 500000.0,
        "scale_logits": False,
        "use_cache": False,
    }


def llada_weights(shape: Shape, seed: int) -> dict[str, Tensor]:
    """Random float32 tensors under the published names; the same for the same arguments."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*size, generator=generator) * scale

    def norm_weight() -> Tensor:
        weight = 1 + normal(shape.d_model, scale=0.1)
        weight[0] = 0.05  # Layers hardly see the constant coordinate.
        return weight

    def query_or_key(heads: int) -> Tensor:
        """The coordinates that rotate fastest count double: attention then tells neighbours."""
        head_dim = d // shape.n_heads
        tensor = normal(heads, 2, head_dim // 2, d, scale=shape.sharpness / d**0.5)
        tensor[:, :, :3] *= 2
        return tensor.reshape(heads * head_dim, d)

    d, hidden = shape.d_model, shape.mlp_hidden_size
    kv = d // shape.n_heads * shape.n_kv_heads
    rows = shape.embedding_size or shape.vocab_size
    weights = {"model.transformer.wte.weight": normal(rows, d, scale=0.5)}
    for layer in range(shape.n_layers):
        block = {
            "attn_norm": norm_weight(),
            "ff_norm": norm_weight(),
            "q_proj": query_or_key(shape.n_heads),
            "k_proj": query_or_key(shape.n_kv_heads),
            "v_proj": normal(kv, d, scale=d**-0.5),
            "attn_out": _keep_constant(normal(d, d, scale=d**-0.5)),
            "ff_proj": normal(hidden, d, scale=1.5 / d**0.5),
            "up_proj": normal(hidden, d, scale=1.5 / d**0.5),
            "ff_out": _keep_constant(normal(d, hidden, scale=hidden**-0.5)),
        }
        for name, tensor in block.items():
            weights[f"model.transformer.blocks.{layer}.{name}.weight"] = tensor
    weights["model.transformer.ln_f.weight"] = norm_weight()
    head = weights["model.transformer.wte.weight"]
    if not shape.weight_tying:
        head = normal(rows, d, scale=0.5)
        weights["model.transformer.ff_out.weight"] = head
    _prefer_letters(weights, head, shape)
    return weights


def make_llada(folder: str | Path, shape: Shape = MHA, seed: int = 0) -> Path:
    """Write a tiny LLaDA checkpoint into `folder` (made if missing) and return the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    size = shape.shard_bytes or 2**40
    save_torch_state_dict(llada_weights(shape, seed), folder, max_shard_size=size)
    config = json.dumps(llada_config(shape), indent=2)
    (folder / "config.json").write_text(config + "\n")
    save_tokenizer(folder, specials_first=shape.specials_first)
    return folder


def make_llama(folder: str | Path, seed: int = 0) -> Path:
    """Write a tiny autoregressive Llama with the same tokenizer; return the folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ids = token_ids()
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=ids["<|startoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        pad_token_id=ids["<|endoftext|>"],
        initializer_range=0.3,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llama_class: Any = LlamaForCausalLM  # Untyped in transformers.
        llama_class(config).float().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def _keep_constant(projection: Tensor) -> Tensor:
    """Stop a layer's output projection `[d_model, inputs]` from writing coordinate 0."""
    projection[0] = 0
    return projection


def _prefer_letters(weights: dict[str, Tensor], head: Tensor, shape: Shape) -> None:
    """Put each token's preference on coordinate 0 of its head row; scale the head.

    A masked position holds the mask's embedding, -2 on that coordinate, and the final norm's
    negative weight turns it positive: with a tied head the mask is then disfavoured too.
    """
    ids = token_ids(specials_first=shape.specials_first)
    head[:, 0] = -4.0
    for entry, i in ids.items():
        if entry == "\u0120" or (len(entry) == 1 and entry.isascii()):  # U+0120 stands for a space
            head[i, 0] = 4.0
    head[ids["<|endoftext|>"], 0] = shape.eos_preference
    mask = ids["<|mdm_mask|>"]
    weights["model.transformer.wte.weight"][mask, 0] = -2.0
    final = weights["model.transformer.ln_f.weight"]
    final *= shape.contrast * 8 / shape.d_model**0.5
    final[0] = -shape.contrast
