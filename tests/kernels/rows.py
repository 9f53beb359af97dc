"""Rows of logits, and the options that make them draw."""

from __future__ import annotations

from typing import Any

import torch

from vllm_mdlm.kernels import row_stats
from vllm_mdlm.kernels.noise import row_keys
from vllm_mdlm.kernels.row_stats import RowStats

NEG_INF = float("-inf")


def keys(num_rows: int, seed: int = 0) -> torch.Tensor:
    rows = torch.arange(num_rows)
    return row_keys(torch.full_like(rows, seed), rows, torch.zeros_like(rows))


def noisy(num_rows: int, temperature: float, seed: int = 0) -> dict[str, torch.Tensor]:
    return {
        "temperature": torch.full((num_rows,), temperature, dtype=torch.float64),
        "noise_keys": keys(num_rows, seed),
    }


def everything(logits: torch.Tensor, *args: Any, **options: Any) -> RowStats:
    return row_stats(logits, *args, need_entropy=True, need_margin=True, **options)


def random_logits(num_rows: int, num_columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, num_columns, generator=generator) * 4
