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

import math
from collections.abc import Callable
from typing import Annotated, NamedTuple

import msgspec
import torch
from msgspec import Meta


class SamplerParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sampler's own request parameters: numbers only. Subclasses add fields with defaults.

    A field is `float`, `int`, or one of them `| None`, its bounds given by `msgspec.Meta`.
    """


class ChainParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Request parameters of every sampler that runs chains. Subclasses add their own.

    They are read at admission and by the scheduler, never in a pass, so they may be strings.
    """

    alpha: Annotated[
        float,
        Meta(
            # vLLM carries no temperature above 2 to the worker, and none below 0.01 as it is.
            ge=0.5,
            le=100,
            description="Power of the target, p^alpha. Takes the place of `temperature`: tokens "
            "are drawn at temperature 1 / alpha.",
        ),
    ] = 4.0


class ChainSampler(NamedTuple):
    """A published way to accept or reject candidates, each decoded by an ordinary sampler."""

    name: str
    params: type[ChainParams]


def param_values(params: SamplerParams) -> tuple[float, ...]:
    """The numbers of a parameter struct in the order of its fields; None is carried as +inf."""
    values = (getattr(params, field) for field in params.__struct_fields__)
    return tuple(math.inf if value is None else float(value) for value in values)


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
    parameter struct (a field that is None arrives as +inf), and `state` as returned for the same
    block's previous pass (zeros in its first pass; None when `has_state` is False).
    """

    name: str
    params: type[SamplerParams]
    select: Select
    needs: frozenset[str] = frozenset()  # of {"entropy", "margin", "draw", "divergence"}
    has_state: bool = False
    fixed_schedule: bool = True  # reads `view.quota`, so `steps` bounds its passes; False: ignores
    #   both and takes as many passes as the rule needs

    @property
    def reads_canvas_only(self) -> bool:
        """Whether, with `commit_order=position_first`, positions are a function of the canvas."""
        return not self.has_state and self.needs.isdisjoint({"draw", "divergence"})


def ranking(key: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Positions by descending key, masked ones first.

    Args:
        key: [R, B] floating point, larger is committed earlier.
        masked: [R, B] bool.

    Returns:
        [R, B] int64, a permutation of every row. Equal keys go by position.
    """
    # The clamp lets a masked position whose key is -inf precede every unmasked one.
    floor = torch.finfo(key.dtype).min
    ranked = key.clamp(min=floor).masked_fill_(~masked, float("-inf"))
    return ranked.argsort(dim=1, descending=True, stable=True)


def rank(key: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Rank of every position in `ranking`: 0 is the first.

    Args, Returns: as `ranking`, of which this is the inverse.
    """
    order = ranking(key, masked)
    positions = torch.arange(key.shape[1], device=key.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, positions)


def take_best(key: torch.Tensor, masked: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """The `count` masked positions with the largest keys.

    Args:
        key: [R, B] floating point.
        masked: [R, B] bool.
        count: [R]; more than there are takes all.

    Returns:
        [R, B] bool.
    """
    return (rank(key, masked) < count.unsqueeze(1)) & masked


def take_first(key: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """The masked position with the largest key: `take_best` of one, without the sort.

    Args:
        key: [R, B] floating point.
        masked: [R, B] bool.

    Returns:
        [R, B] bool.
    """
    floor = torch.finfo(key.dtype).min
    first = key.clamp(min=floor).masked_fill_(~masked, float("-inf")).argmax(dim=1, keepdim=True)
    return torch.zeros_like(masked).scatter_(1, first, True) & masked


def take_prefix(order: torch.Tensor, passes: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """The longest prefix of a ranking whose members all pass; the first is always taken.

    Args:
        order: [R, B] int64 from `ranking`.
        passes: [R, B] bool, by rank.
        masked: [R, B] bool, by position.

    Returns:
        [R, B] bool, by position.
    """
    failures = passes.logical_not()
    failures[:, :1] = False
    prefix = failures.cumsum(dim=1) == 0
    return torch.empty_like(masked).scatter_(1, order, prefix) & masked
