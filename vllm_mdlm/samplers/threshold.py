"""Commit every position whose confidence reaches a threshold, and always the best one.

Source: Fast-dLLM, confidence-aware parallel decoding (Wu et al. 2025, arXiv 2505.22618,
Algorithm 1, threshold strategy).
"""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection, take_first


class ThresholdParams(SamplerParams, frozen=True, kw_only=True):
    threshold: Annotated[
        float,
        Meta(ge=0, le=1, description="The least confidence that is committed beside the best one."),
    ] = 0.9


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    confident = view.masked & (view.confidence >= params["threshold"].unsqueeze(1))
    return Selection(confident | take_first(view.confidence, view.masked))


SAMPLER = Sampler("threshold", ThresholdParams, select, fixed_schedule=False)
