"""The contract of a sampler: which positions of the active block to commit in this pass.

A sampler is a pure function of one pass. It sees dense rows, one per request, over the positions
of that request's active block, and returns which of them become final. It never sees logits, the
vocabulary, vLLM, or which other requests share the batch; the executor draws the proposed tokens
and their statistics beforehand and writes what the sampler chose.

Invariants, checked for every registered sampler by tests/samplers/test_protocol.py:

* only masked positions may be chosen, and at least one in every row that has a masked position
  (a request always makes progress);
* ties are broken by the lowest position;
* a row's answer depends on that row alone;
* arguments are never modified.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import torch


class SamplerParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sampler's own request parameters: numbers only. Subclasses add fields with defaults."""


class BlockView(NamedTuple):
    """One pass over the active blocks of R requests, padded to B positions.

    Statistics that a sampler did not ask for in `Sampler.needs` may be None; values at positions
    that are not masked are meaningless.
    """

    masked: torch.Tensor  # [R, B] bool: may be committed; padding is False
    confidence: torch.Tensor  # [R, B] float32: untempered probability that ranks the position
    quota: torch.Tensor  # [R] int64: positions a fixed-schedule sampler commits in this pass
    entropy: torch.Tensor | None = None  # [R, B] float32, nats, of the untempered distribution
    margin: torch.Tensor | None = None  # [R, B] float32: first minus second largest probability
    draw: torch.Tensor | None = None  # [R, B] float64 in (0, 1), keyed by (seed, position, pass)
    divergence: torch.Tensor | None = None  # [R, B] float32, nats: KL(this pass || pass before),
    #   +inf where the position was not yet seen in this block


class Selection(NamedTuple):
    """What a sampler decided."""

    commit: torch.Tensor  # [R, B] bool, a subset of `masked`
    state: torch.Tensor | None = None  # [R, B] float32: carried to the block's next pass


Select = Callable[[BlockView, dict[str, torch.Tensor], torch.Tensor | None], Selection]


class Sampler(NamedTuple):
    """A published unmasking rule.

    `select(view, params, state)` receives `params` as one [R] float64 column per field of the
    parameter struct, and `state` as returned for the same block's previous pass (zeros in its
    first pass; None when `has_state` is False).
    """

    name: str
    params: type[SamplerParams]
    select: Select
    needs: frozenset[str] = frozenset()  # of {"entropy", "margin", "draw", "divergence"}
    has_state: bool = False
    fixed_schedule: bool = True  # passes follow `steps`; False: as many as the rule takes


def rank(key: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Rank of every position by descending key among the masked ones.

    Args:
        key: [R, B] floating point, larger is committed earlier.
        masked: [R, B] bool.

    Returns:
        [R, B] int64; 0 is the first. Equal keys rank by position; positions that are not masked
        rank last.
    """
    order = key.masked_fill(~masked, float("-inf")).argsort(dim=1, descending=True, stable=True)
    # A masked position whose key is -inf must still precede every unmasked one.
    order = order.gather(1, (~masked.gather(1, order)).to(torch.int8).argsort(dim=1, stable=True))
    ranks = torch.empty_like(order)
    positions = torch.arange(key.shape[1], device=key.device).expand_as(order)
    return ranks.scatter_(1, order, positions)


def take_best(key: torch.Tensor, masked: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The `count` masked positions with the largest keys.

    Args:
        key: [R, B] floating point.
        masked: [R, B] bool.
        count: [R] int64; more than there are takes all.

    Returns:
        [R, B] bool.
    """
    return (rank(key, masked) < count.unsqueeze(1)) & masked
