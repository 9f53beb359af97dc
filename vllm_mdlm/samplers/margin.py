"""Commit the quota of the positions with the largest gap between their two best tokens.

Source: the top-k margin score of Dream (Ye et al. 2025, arXiv 2508.15487, `alg="topk_margin"`),
from Kim et al. 2025 (arXiv 2502.06768), top-K probability margin. Dream scores the tempered,
filtered distribution; here the two probabilities are the untempered ones, our choice.
"""

from __future__ import annotations

import torch

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection, take_best


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    assert view.margin is not None
    return Selection(take_best(view.margin, view.masked, view.quota))


SAMPLER = Sampler("margin", SamplerParams, select, needs=frozenset({"margin"}))
