"""Numerical work on logits rows: one name for every operation, in torch and, where it pays, in
Triton. The torch body is the specification."""

from __future__ import annotations

import torch

from vllm_mdlm.kernels.divergence import row_divergence
from vllm_mdlm.kernels.filters import filter_logits
from vllm_mdlm.kernels.power import log_power_sum
from vllm_mdlm.kernels.row_stats import RowStats
from vllm_mdlm.kernels.row_stats import row_stats as _torch_row_stats

__all__ = ["RowStats", "filter_logits", "log_power_sum", "row_divergence", "row_stats"]


def row_stats(
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
) -> RowStats:
    """`vllm_mdlm.kernels.row_stats.row_stats`, by the body for the logits' device: Triton's on
    CUDA, torch's elsewhere.

    Raises:
        ModuleNotFoundError: CUDA without Triton.
    """
    body = _torch_row_stats
    if logits.is_cuda:
        from vllm_mdlm.kernels.row_stats_triton import row_stats as body
    return body(
        logits,
        choice_logits,
        choice_rows=choice_rows,
        mask_token=mask_token,
        temperature=temperature,
        noise_keys=noise_keys,
        drawn_rows=drawn_rows,
        need_entropy=need_entropy,
        need_margin=need_margin,
    )
