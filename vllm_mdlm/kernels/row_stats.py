"""Statistics of logits rows: what the samplers rank by, and the proposed token of every row."""

from __future__ import annotations

from typing import NamedTuple

import torch


class RowStats(NamedTuple):
    """One number a logits row; entropies and log-probabilities in nats."""

    token: torch.Tensor  # [N] int64, proposed token
    logprob: torch.Tensor  # [N] float32, log of its untempered probability
    top_logprob: torch.Tensor  # [N] float32, log of the largest probability among allowed tokens
    entropy: torch.Tensor | None  # [N] float32
    margin: torch.Tensor | None  # [N] float32, first minus second largest probability
