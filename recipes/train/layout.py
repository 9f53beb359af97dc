"""Read and write the published Hugging Face layout of LLaDA: config.json, weights, tokenizer."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from recipes.train.model import LLaDA
from recipes.train.settings import ModelSettings
from recipes.train.tokenizer import write_tokenizer

WEIGHTS = "model.safetensors"


def config_of(s: ModelSettings, tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    """``config.json`` with the field names of the published LLaDA configurations."""
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "d_model": s.d_model,
        "n_layers": s.n_layers,
        "n_heads": s.n_heads,
        "n_kv_heads": s.n_kv_heads,
        "mlp_hidden_size": s.mlp_hidden_size,
        "mlp_ratio": 4,
        "vocab_size": s.vocab_size,
        "embedding_size": s.vocab_size,
        "max_sequence_length": s.max_sequence_length,
        "mask_token_id": tokenizer.mask_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "activation_type": "silu",
        "block_type": "llama",
        "block_group_size": 1,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "rms_norm_eps": s.rms_norm_eps,
        "include_bias": False,
        "include_qkv_bias": False,
        "bias_for_layer_norm": False,
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "residual_dropout": 0.0,
        "attention_layer_norm": False,
        "multi_query_attention": None,
        "alibi": False,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": s.rope_theta,
        "input_emb_norm": False,
        "scale_logits": False,
        "weight_tying": False,
        "use_cache": False,
        "init_device": "cpu",
        "torch_dtype": "bfloat16",
    }


def write_model(
    folder: Path,
    settings: ModelSettings,
    weights: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Write a checkpoint that ``vllm serve`` loads, the weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {n: w.detach().cpu().to(torch.bfloat16).contiguous() for n, w in weights.items()}
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})
    config = config_of(settings, tokenizer)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write_tokenizer(folder, tokenizer)


def read_model(folder: Path, dtype: torch.dtype = torch.float32) -> LLaDA:
    """Load a checkpoint of this layout into the plain-torch network, in eval mode."""
    config = json.loads((folder / "config.json").read_text())
    names = set(ModelSettings.__struct_fields__) & set(config)
    model = LLaDA(ModelSettings(**{n: config[n] for n in names}))
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model.to(dtype).eval()
