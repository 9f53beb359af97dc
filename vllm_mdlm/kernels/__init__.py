"""Numerical work on logits rows: one name for every operation, in torch and, where it pays, in
Triton. The torch body is the specification."""

from __future__ import annotations

from typing import Protocol

import torch

from vllm_mdlm.kernels.row_stats import RowStats


class RowStatsFunction(Protocol):
    """Signature of `vllm_mdlm.kernels.row_stats.row_stats`, which documents it."""

    def __call__(
        self,
        logits: torch.Tensor,
        choice_logits: torch.Tensor | None = None,
        *,
        choice_rows: torch.Tensor | None = None,
        mask_token: int | None = None,
        temperature: torch.Tensor | None = None,
        noise_keys: torch.Tensor | None = None,
        drawn_rows: torch.Tensor | None = None,
        need_entropy: bool = False,
        need_margin: bool = False,
    ) -> RowStats: ...


def row_stats_for(device: torch.device) -> RowStatsFunction:
    """The body of `row_stats` for tensors on a device: Triton's on CUDA, torch's elsewhere.

    Raises:
        ModuleNotFoundError: CUDA without Triton.
    """
    if device.type == "cuda":
        from vllm_mdlm.kernels import row_stats_triton

        return row_stats_triton.row_stats
    from vllm_mdlm.kernels import row_stats

    return row_stats.row_stats
