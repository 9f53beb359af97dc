"""Commit the quota from the left, whatever the model thinks of it.

Source: the `sequential` order of SDAR (Cheng et al. 2025, arXiv 2510.06303); with a quota of one
it is autoregressive decoding with a model that also sees the masks to the right.
"""

from __future__ import annotations

import torch

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    return Selection(view.masked & (view.masked.cumsum(dim=1) <= view.quota.unsqueeze(1)))


SAMPLER = Sampler("left_to_right", SamplerParams, select)
