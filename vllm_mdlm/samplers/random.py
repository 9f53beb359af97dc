"""Commit the quota at positions drawn uniformly at random.

Source: LLaDA, random remasking (Nie et al. 2025, arXiv 2502.09992, Algorithm 4).
"""

from __future__ import annotations

import torch

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection, take_best


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    assert view.draw is not None
    return Selection(take_best(view.draw, view.masked, view.quota))


SAMPLER = Sampler("random", SamplerParams, select, needs=frozenset({"draw"}))
