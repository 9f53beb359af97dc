"""Multi-token entropy decoding: commit every position whose entropy is under a threshold.

Source: MED (Horvitz et al. 2025, arXiv 2510.19990). For the positions S committed in a pass

    KL(p(x_S | context) || prod_i p_i)  =  sum_{i in S} H_i - H(x_S | context)  <=  |S| threshold

so a threshold on every single entropy bounds the error of a pass. Left open by the source and
chosen here: entropies in nats, of the untempered distribution; a strict comparison, so that 0 is
one token a pass; where no entropy is under the threshold, the lowest one is committed; where more
than `max_tokens_per_step` are, those with the lowest entropies; the block as that limit's default.
"""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection, rank


class MedParams(SamplerParams, frozen=True, kw_only=True):
    entropy_threshold: Annotated[
        float, Meta(ge=0, description="Nats: a position below it is committed.")
    ] = 0.2
    max_tokens_per_step: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Most positions that a pass commits. Unset: the whole block."),
    ] = None


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    assert view.entropy is not None
    ranks = rank(-view.entropy, view.masked)
    certain = view.entropy < params["entropy_threshold"].unsqueeze(1)
    within = ranks < params["max_tokens_per_step"].unsqueeze(1)
    return Selection(view.masked & within & (certain | (ranks == 0)))


SAMPLER = Sampler("med", MedParams, select, needs=frozenset({"entropy"}), fixed_schedule=False)
