"""Commit the quota of the most probable positions.

Source: LLaDA, low-confidence remasking (Nie et al. 2025, arXiv 2502.09992, Algorithm 5).
"""

from __future__ import annotations

import torch

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection, take_best


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    return Selection(take_best(view.confidence, view.masked, view.quota))


SAMPLER = Sampler("low_confidence", SamplerParams, select)
