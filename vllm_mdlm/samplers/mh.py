"""Independent Metropolis-Hastings on p^alpha, over blocks or over the whole canvas.

Source: the global tempering of "Locally Confident, Globally Stuck" (Fang et al. 2026), which
samples pi(x) proportional to p(x)^alpha by independent Metropolis-Hastings while it decodes. How
its candidates are weighed could not be read in full. Built here is the exact form, which follows
from the target alone:

* a candidate is a whole block (or canvas) whose positions are chosen from the canvas and never
  from a sampled token, and whose tokens are drawn from q_t(v) = p_t(v)^alpha / z_t with
  z_t = sum_v p_t(v)^alpha;
* then p(x)^alpha / q(x) is the product of the z_t over all committed tokens, so the log-weight of
  a candidate is the sum of log z_t;
* candidate n is accepted with probability min(1, exp(w_n - w_current)).

p is the law of the proposing sampler at temperature 1 with `commit_order=position_first`, after
the request's biases and forbidden tokens. Over blocks the target of each is
p(block | prefix)^alpha, which is not p^alpha of the whole canvas: what a block makes of later ones
is ignored.

Our choices: `mh_steps`, `mh_scope` and their defaults; alpha's default is that of power sampling
(Karan and Du 2025, arXiv 2510.14901).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from vllm_mdlm.samplers.base import ChainParams, ChainSampler

MOST_STEPS = 4096
"""Most candidates after the first; our choice, so that one request ends in bearable time."""


class MhParams(ChainParams, frozen=True, kw_only=True):
    mh_steps: Annotated[
        int,
        Meta(
            ge=0,
            le=MOST_STEPS,
            description="Candidates that are accepted or rejected, one after another, in every "
            "block (or canvas) after the first; 0: the first is the answer.",
        ),
    ] = 8
    mh_scope: Annotated[
        Literal["block", "sequence"],
        Meta(description="What a candidate is: a block, given the blocks before it; the canvas."),
    ] = "block"
    proposal: Annotated[
        str,
        Meta(
            description="The sampler that chooses the positions of a candidate, with its default "
            "parameters. One that reads the canvas only: no noise, no memory."
        ),
    ] = "left_to_right"


class ChainEnd(NamedTuple):
    """Where a chain ended."""

    result: int  # index of the candidate
    acceptances: int


def acceptance(log_ratio: float) -> float:
    """Probability of accepting a candidate.

    Args:
        log_ratio: its log-weight minus that of the current state, nats.
    """
    return math.exp(min(log_ratio, 0.0))


def run_chain(log_weights: Sequence[float], uniforms: Sequence[float]) -> ChainEnd:
    """Independent Metropolis-Hastings over candidates that were all drawn beforehand.

    Args:
        log_weights: log p^alpha / q of every candidate, nats; the first is the chain's start.
        uniforms: in (0, 1), one for every candidate but the first.

    Returns:
        The last state, and how often the chain moved.
    """
    current = acceptances = 0
    for index, uniform in enumerate(uniforms, start=1):
        if uniform < acceptance(log_weights[index] - log_weights[current]):
            current = index
            acceptances += 1
    return ChainEnd(current, acceptances)


SAMPLER = ChainSampler("mh", MhParams)
