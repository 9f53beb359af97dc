"""Commit the longest prefix of the entropy ranking whose dependence is bounded.

Source: EB-Sampler (Ben-Hamu et al. 2025, arXiv 2505.24857). With entropies in ascending order,
the longest prefix U such that

    sum_{i in U} H_i  -  max_{i in U} H_i  <=  entropy_bound

The left side bounds what is lost by treating the members of U as independent: the joint entropy
of U is at least max H_i. The first position always satisfies it. The source allows other orders;
ascending entropy, then position, is the one used here. In that order the left side is the sum of
all entropies before the last one, added in float64.
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


class EntropyBoundParams(SamplerParams, frozen=True, kw_only=True):
    entropy_bound: Annotated[
        float,
        Meta(ge=0, description="Nats: what the entropies before the last one may add up to."),
    ] = 0.1


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    assert view.entropy is not None
    order = ranking(-view.entropy, view.masked)
    entropy = view.entropy.gather(1, order).double()
    sum_before = torch.zeros_like(entropy)
    torch.cumsum(entropy[:, :-1], dim=1, out=sum_before[:, 1:])
    passes = sum_before <= params["entropy_bound"].unsqueeze(1)
    return Selection(take_prefix(order, passes, view.masked))


SAMPLER = Sampler(
    "entropy_bound",
    EntropyBoundParams,
    select,
    needs=frozenset({"entropy"}),
    fixed_schedule=False,
)
