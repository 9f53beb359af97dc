"""Commit the longest prefix of the confidence ranking that a bound on parallel decoding allows.

Source: Fast-dLLM, factor strategy (Wu et al. 2025, arXiv 2505.22618, Theorem 1 and Algorithm 1).
With confidences c_1 >= c_2 >= ..., the largest n such that every c_k, k <= n, satisfies

    (k + 1) (1 - c_k) <= factor,    that is    c_k >= 1 - factor / (k + 1)

and at least one. By the theorem, committing n greedy tokens at once equals greedy decoding of
their joint distribution when (n + 1) (1 - c_n) < 1. The published code commits everything when
the first failure is at the very last rank; that is not part of the rule and is not copied.
"""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta

from vllm_mdlm.samplers.base import (
    BlockView,
    Sampler,
    SamplerParams,
    Selection,
    ranking,
    take_prefix,
)


class FactorParams(SamplerParams, frozen=True, kw_only=True):
    factor: Annotated[
        float,
        Meta(
            ge=0, description="0 commits beside the best only what is certain; larger commits more."
        ),
    ] = 1.0


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    order = ranking(view.confidence, view.masked)
    size = torch.arange(1, order.shape[1] + 1, dtype=torch.float64, device=order.device)
    least = 1 - params["factor"].unsqueeze(1) / (size + 1)
    passes = view.confidence.gather(1, order) >= least
    return Selection(take_prefix(order, passes, view.masked))


SAMPLER = Sampler("factor", FactorParams, select, fixed_schedule=False)
