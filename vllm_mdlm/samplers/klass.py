"""Commit every position that is confident and has stopped changing; else the quota.

Source: KLASS (Kim et al. 2025, arXiv 2511.05664, and its published code). A position is stable
when KL(p_t || p_{t-1}) < kl_threshold in each of the last `history` passes. All positions that
are stable and whose confidence exceeds `threshold` are committed; where there is none, the
schedule's quota of the most confident ones. Since that fallback reads the quota, `steps` bounds
the passes of a block, and the schedule counts as fixed.

Our choice: the history begins with the block. The published code carries it over from earlier
blocks, for which it evaluates the logits of the whole canvas in every pass.
"""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection, take_best


class KlassParams(SamplerParams, frozen=True, kw_only=True):
    threshold: Annotated[
        float, Meta(ge=0, le=1, description="Confidence that a position must exceed.")
    ] = 0.9
    kl_threshold: Annotated[
        float,
        Meta(ge=0, description="Nats: a pass whose KL to the one before is below it is stable."),
    ] = 0.01
    history: Annotated[
        int, Meta(ge=1, description="Passes in a row, up to this one, that must be stable.")
    ] = 2


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    """State: [R, B] float32, consecutive passes up to this one that were stable."""
    assert view.divergence is not None
    assert state is not None
    still = view.divergence < params["kl_threshold"].unsqueeze(1)
    stable_passes = torch.where(still, state + 1, 0.0)
    ready = (
        view.masked
        & (view.confidence > params["threshold"].unsqueeze(1))
        & (stable_passes >= params["history"].unsqueeze(1))
    )
    quota = take_best(view.confidence, view.masked, view.quota)
    commit = torch.where(ready.any(dim=1, keepdim=True), ready, quota)
    return Selection(commit, stable_passes)


SAMPLER = Sampler("klass", KlassParams, select, needs=frozenset({"divergence"}), has_state=True)
