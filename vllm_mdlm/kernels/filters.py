"""What temperature, min-p, top-k and top-p remove from the tokens that may be drawn.

The order is vLLM's: temperature, then min-p, then top-k, then top-p on what is left,
renormalised. Each of them keeps the tokens above some probability, so a row's outcome is one
limit on the distance from its largest logit. The limit is found by bisection over the bits of
that distance, which needs no sort: the cost is a few dozen reads of a cached tile.

Only the *set* of tokens is decided here. Kept logits stay as they are, and the draw divides by
the temperature (`row_stats`), so it samples softmax(logits / T) restricted to the set.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from vllm_mdlm.kernels.tiles import Scratch, row_sum, row_tiles

_INFINITY_BITS = 0x7F800000  # of a float32; non-negative floats order as their bits do


def filter_logits(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    min_p: torch.Tensor | None = None,
    top_k: torch.Tensor | None = None,
    top_p: torch.Tensor | None = None,
) -> torch.Tensor:
    """Set the tokens that a row's parameters exclude to -inf, in place.

    Args:
        logits: [M, V] of any floating dtype, the rows' own copy: with biases, -inf for tokens
            that are forbidden, untempered. It is modified.
        temperature: [M], >= 0; a greedy row (0) is left alone, for its token is kept anyway.
        min_p: [M] in [0, 1], 0 for none: keeps p >= min_p * max p.
        top_k: [M], below 1 for none: keeps the k most probable.
        top_p: [M] in (0, 1], 1 for none: keeps the fewest most probable with mass >= top_p.
            A parameter is None where no row asks for it.

    Returns:
        `logits`. Tokens of equal probability are kept or removed together (vLLM does so for
        top-k; for top-p its choice among equals is arbitrary). The largest is always kept.
    """
    scratch, exp_scratch, kept_scratch = Scratch(logits), Scratch(logits), Scratch(logits)
    for rows in row_tiles(*logits.shape):
        tile = scratch.load(logits[rows])
        degree = temperature[rows].float().clamp(min=1e-30).unsqueeze(1)
        distance = tile.neg_().add_(-tile.amin(dim=1, keepdim=True)).div_(degree)
        limit = torch.full_like(distance[:, 0], float("inf"))
        kept = kept_scratch.rows(len(limit))
        if min_p is not None:
            limit = torch.minimum(limit, -min_p[rows].float().log())
        if top_k is not None:
            limit = torch.minimum(limit, _top_k_limit(distance, kept, top_k[rows]))
        if top_p is not None:
            exps = torch.neg(distance, out=exp_scratch.rows(len(limit))).exp_()
            exps.masked_fill_(distance > limit.unsqueeze(1), 0.0)
            limit = torch.minimum(limit, _top_p_limit(distance, exps, kept, top_p[rows]))
        limit = limit.masked_fill_(temperature[rows] == 0, float("inf")).unsqueeze(1)
        logits[rows].masked_fill_((distance > limit)[:, : logits.shape[1]], float("-inf"))
    return logits


def _top_k_limit(distance: torch.Tensor, kept: torch.Tensor, top_k: torch.Tensor) -> torch.Tensor:
    """Distance of the k-th token: [n] float32, +inf for no limit."""

    def enough(limit: torch.Tensor) -> torch.Tensor:
        return row_sum(torch.le(distance, limit, out=kept)) >= top_k

    asked = (top_k >= 1) & (top_k < distance.shape[1])
    return _smallest(enough, top_k).masked_fill_(~asked, float("inf"))


def _top_p_limit(
    distance: torch.Tensor, exps: torch.Tensor, kept: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    """Distance of the token that completes the mass: [n] float32, +inf for no limit."""
    wanted = row_sum(exps) * top_p.float()

    def enough(limit: torch.Tensor) -> torch.Tensor:
        # Float into float: torch vectorises that comparison, and not one into bool.
        return row_sum(torch.le(distance, limit, out=kept).mul_(exps)) >= wanted

    return _smallest(enough, top_p).masked_fill_(top_p >= 1, float("inf"))


def _smallest(enough: Callable[[torch.Tensor], torch.Tensor], column: torch.Tensor) -> torch.Tensor:
    """Smallest non-negative float32 that is enough, +inf where none is: [n].

    Args:
        enough: from limits [n, 1] float32 to [n] bool, monotone.
        column: [n], any tensor of that size.
    """
    low = torch.zeros_like(column, dtype=torch.int32)
    high = torch.full_like(low, _INFINITY_BITS)
    for _ in range(_INFINITY_BITS.bit_length()):
        middle = low + (high - low) // 2
        is_enough = enough(middle.view(torch.float32).unsqueeze(1))
        high = torch.where(is_enough, middle, high)
        low = torch.where(is_enough, low, middle + 1)
    return high.view(torch.float32)
