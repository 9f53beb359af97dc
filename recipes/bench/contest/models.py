"""Checkpoints of random weights in the published layout, for measuring speed and agreement.

EOS, EoT and the mask token cannot be chosen: coordinate 0 of the residual stream holds a constant
that no layer writes, and their rows of the head turn it into a logit far below all others. So every
contender fills the whole canvas, without being told to.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from recipes.train.layout import write_model
from recipes.train.model import LLaDA
from recipes.train.settings import ModelSettings
from recipes.train.tokenizer import EOS, EOT, MASK, build_tokenizer

SHARPNESS = 1.5
"""Scale of queries and keys: attention that tells one position from another. Ours."""

CONTRAST = 12.0
"""Standard deviation of a row of logits: some positions are certain and some are not, so that a
threshold commits more than one token in some passes and not all in the first. Ours."""

FORBIDDEN_LOGIT = -1000.0

SIZES = {
    "tiny": ModelSettings(
        d_model=64,
        n_layers=2,
        n_heads=2,
        n_kv_heads=2,
        mlp_hidden_size=128,
        vocab_size=512,
        max_sequence_length=1024,
    ),
    "134m": ModelSettings(
        d_model=768,
        n_layers=12,
        n_heads=12,
        n_kv_heads=12,
        mlp_hidden_size=2048,
        vocab_size=32000,
        max_sequence_length=1024,
    ),
    "350m": ModelSettings(
        d_model=1024,
        n_layers=24,
        n_heads=16,
        n_kv_heads=16,
        mlp_hidden_size=2560,
        vocab_size=32000,
        max_sequence_length=1024,
    ),
}


def random_model(folder: Path, size: str, seed: int = 0) -> Path:
    """Write the checkpoint of `size` under `folder`, unless it is there; return its folder."""
    path = folder / f"{size}-seed{seed}"
    if not (path / "config.json").exists():
        tokenizer = build_tokenizer(["a canvas of masks"], 300)
        forbidden = [tokenizer.get_vocab()[token] for token in (EOS, EOT, MASK)]
        write_model(path, SIZES[size], random_weights(SIZES[size], forbidden, seed), tokenizer)
    return path


def random_weights(
    settings: ModelSettings, forbidden: list[int], seed: int = 0
) -> dict[str, Tensor]:
    """Float32 tensors under the published names; the same for the same arguments."""
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in LLaDA(settings).named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            weights[name] = torch.ones(shape)
            continue
        scale = 1.0 if "wte" in name else shape[1] ** -0.5
        if "q_proj" in name or "k_proj" in name:
            scale *= SHARPNESS
        weights[name] = torch.empty(shape).normal_(0, scale, generator=generator)
        if "attn_out" in name or (".blocks." in name and "ff_out" in name):
            weights[name][0] = 0
    weights["model.transformer.wte.weight"][:, 0] = 1
    head = weights["model.transformer.ff_out.weight"]
    head *= CONTRAST
    head[:, 0] = 0
    head[forbidden, 0] = FORBIDDEN_LOGIT
    return weights
