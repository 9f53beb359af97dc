"""Statistics of logits rows: what the samplers rank by, and the proposed token of every row.

This torch body is the specification; `row_stats_triton` computes the same on a GPU. Rows are
independent of one another, bit for bit.

Three kinds of rows differ in cost. All rows are read once, for the greedy token and the
statistics. Rows of `choice_rows` are read once more together with their edited logits. Rows of
`drawn_rows` pay for float64 and noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from vllm_mdlm.kernels import noise
from vllm_mdlm.kernels.tiles import Scratch, chunk_max, first_max, row_sum, row_tiles

_DRAW_TILE = 1 << 18  # elements; eight bytes each and several temporaries: keeps them in cache


class RowStats(NamedTuple):
    """One number a logits row; entropies and log-probabilities in nats.

    Probabilities, entropy and margin are those of the full softmax of `logits`: untempered,
    unfiltered, nothing removed, the mask token included.
    """

    token: torch.Tensor  # [N] int64, proposed token
    logprob: torch.Tensor  # [N] float32, log of its untempered probability
    top_logprob: torch.Tensor  # [N] float32, log of the largest probability among allowed tokens
    entropy: torch.Tensor | None  # [N] float32
    margin: torch.Tensor | None  # [N] float32, first minus second largest probability


class _Normaliser(NamedTuple):
    """log p(v) = (logit[v] - top) - log_total; apart, the two keep the digits that a
    log-sum-exp loses when the logits are large and the distribution is sharp."""

    top: torch.Tensor  # [N] float32, largest logit
    log_total: torch.Tensor  # [N] float32, log of the sum of exp(logit - top); not negative


class _Choice(NamedTuple):
    """Where the logits to choose from lie."""

    logits: torch.Tensor  # [N, V]
    edited: torch.Tensor | None  # [K, V]
    slot: torch.Tensor | None  # [N] int64, row of `edited`, -1 for none; None: K = N, in order

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """[n] int64 to [n, V]."""
        if self.edited is None or len(self.edited) == 0:
            return self.logits[index]
        if self.slot is None:
            return self.edited[index]
        slot = self.slot[index]
        edited = self.edited[slot.clamp(min=0)]
        return torch.where((slot >= 0).unsqueeze(1), edited, self.logits[index])


def row_stats(
    logits: torch.Tensor,
    choice_logits: torch.Tensor | None = None,
    *,
    choice_rows: torch.Tensor | None = None,
    mask_token: int | None = None,
    temperature: torch.Tensor | None = None,
    noise_keys: torch.Tensor | None = None,
    drawn_rows: torch.Tensor | None = None,
    need_entropy: bool = False,
    need_margin: bool = False,
) -> RowStats:
    """Statistics and proposed token of every row.

    At temperature 0 the token is the argmax of the choice logits, the lowest id among equals.
    At temperature T > 0 it is the argmax of `choice_logits / T + gumbel` in float64: a draw from
    softmax(choice_logits / T), LLaDA's sampling (Nie et al. 2025, arXiv 2502.09992).

    Args:
        logits: [N, V] of any floating dtype, the model's (guided) distribution.
        choice_logits: [N, V], or [K, V] with `choice_rows`; None: `logits`. Biased if asked,
            -inf for a token that must not be chosen, *not* tempered: `filter_logits` removes
            what top-p and the like remove and leaves the rest alone. Every row must leave one
            token allowed beside `mask_token`.
        choice_rows: [K] int64, K >= 0, distinct: the rows that `choice_logits` replaces; the others
            choose from `logits`. None: all, in order.
        mask_token: an id that is never proposed, in any row.
        temperature: [N] float64, >= 0; None: greedy.
        noise_keys: [N] int64 from `noise.row_keys`, the lanes being token ids; read only in
            rows that draw, and required with `temperature`.
        drawn_rows: [M] int64, distinct: the rows whose temperature is not 0, known on the host.
            Other rows are greedy. None: all rows are computed as if they drew, which costs the
            most and gives the same tokens.
        need_entropy, need_margin: False leaves the field None.

    Returns:
        `RowStats`. `logprob` is that of the proposed token; `top_logprob` is the largest among
        the tokens whose choice logit is not -inf, ranked by probability before any bias.
    """
    edited_slot = None
    if choice_logits is not None and choice_rows is not None:
        edited_slot = torch.full(logits.shape[:1], -1, dtype=torch.int64, device=logits.device)
        edited_slot[choice_rows] = torch.arange(len(choice_rows), device=logits.device)
    choice = _Choice(logits, choice_logits, edited_slot)
    stats, normaliser = _describe(logits, mask_token, need_entropy, need_margin)
    every_row = torch.arange(logits.shape[0], device=logits.device)
    if choice_logits is not None:
        rows = every_row if choice_rows is None else choice_rows
        _choose(stats, normaliser, logits, choice_logits, rows, mask_token)
    if temperature is not None:
        assert noise_keys is not None
        rows = every_row if drawn_rows is None else drawn_rows
        _draw(stats, normaliser, choice, rows, temperature, noise_keys, mask_token)
    return stats


def _describe(
    logits: torch.Tensor, mask_token: int | None, need_entropy: bool, need_margin: bool
) -> tuple[RowStats, _Normaliser]:
    """What all rows need, the token greedy."""
    num_rows, num_columns = logits.shape

    def column(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(num_rows, dtype=dtype, device=logits.device)

    stats = RowStats(
        column(torch.int64),
        column(),
        column(),
        column() if need_entropy else None,
        column() if need_margin else None,
    )
    normaliser = _Normaliser(column(), column())
    scratch, exp_scratch = Scratch(logits), Scratch(logits)
    for rows in row_tiles(num_rows, num_columns):
        tile = scratch.load(logits[rows])
        chunk_maxima = chunk_max(tile)
        top, top_token = first_max(tile, chunk_maxima)
        exps = torch.softmax(tile, dim=1, out=exp_scratch.rows(len(top)))
        total = row_sum(exps)  # near 1; dividing by it mends softmax's own, cruder sum
        log_total = (total / exps.gather(1, top_token.unsqueeze(1)).squeeze(1)).log_()
        allowed, token = top, top_token
        barred = _rows_of(top_token, mask_token)
        if len(barred) > 0:
            second = first_max(tile[barred], chunk_maxima[barred], without=top_token[barred])
            allowed = top.index_copy(0, barred, second[0])
            token = top_token.index_copy(0, barred, second[1])
        stats.token[rows] = token
        stats.logprob[rows] = stats.top_logprob[rows] = (allowed - top) - log_total
        normaliser.top[rows] = top
        normaliser.log_total[rows] = log_total
        if stats.margin is not None:
            runner_up, _ = first_max(tile, chunk_maxima, without=top_token)
            stats.margin[rows] = (-log_total).exp() - ((runner_up - top) - log_total).exp()
        if stats.entropy is not None:
            # Finite, for 0 * -inf is not 0.
            shifted = tile.sub_(top.unsqueeze(1)).clamp_(min=-1e30)
            stats.entropy[rows] = log_total - row_sum(exps.mul_(shifted)) / total
    return stats, normaliser


def _rows_of(token: torch.Tensor, wanted: int | None) -> torch.Tensor:
    """Rows whose token is `wanted`: [n] int64; none for None."""
    return (token == (-1 if wanted is None else wanted)).nonzero().squeeze(1)


def _choose(
    stats: RowStats,
    normaliser: _Normaliser,
    logits: torch.Tensor,
    choice_logits: torch.Tensor,
    rows: torch.Tensor,
    mask_token: int | None,
) -> None:
    """Redo in `stats` what depends on the choice logits, for `rows` [K], greedily."""
    choice_scratch, scratch = Scratch(choice_logits), Scratch(choice_logits)
    for part in row_tiles(*choice_logits.shape):
        index = rows[part]
        choice = choice_scratch.load(choice_logits[part])
        if mask_token is not None:
            choice[:, mask_token] = float("-inf")
        _, token = first_max(choice, chunk_max(choice))
        allowed = scratch.load(logits[index]).masked_fill_(choice == float("-inf"), float("-inf"))
        top, log_total = normaliser.top[index], normaliser.log_total[index]
        stats.token[index] = token
        stats.logprob[index] = (logits[index, token].float() - top) - log_total
        stats.top_logprob[index] = (allowed.amax(dim=1) - top) - log_total


def _draw(
    stats: RowStats,
    normaliser: _Normaliser,
    choice: _Choice,
    rows: torch.Tensor,
    temperature: torch.Tensor,
    noise_keys: torch.Tensor,
    mask_token: int | None,
) -> None:
    """Redo the token in `stats` for `rows` [M], with noise."""
    num_columns = choice.logits.shape[1]
    lanes = torch.arange(num_columns, device=rows.device)
    scratch = Scratch(choice.logits, _DRAW_TILE, torch.float64)
    for part in row_tiles(len(rows), num_columns, _DRAW_TILE):
        index = rows[part]
        degree = temperature[index].unsqueeze(1)
        gumbel = noise.gumbel(noise_keys[index], lanes)
        # l / T + g times min(1, T): the same argmax, finite for every T, greedy at T = 0.
        score = scratch.load(choice.rows(index)).div_(degree.clamp(min=1))
        score[:, :num_columns].add_(gumbel.mul_(degree.clamp(max=1)))
        if mask_token is not None:
            score[:, mask_token] = float("-inf")
        _, token = first_max(score, chunk_max(score))
        logit = choice.logits[index, token].float()
        stats.token[index] = token
        stats.logprob[index] = (logit - normaliser.top[index]) - normaliser.log_total[index]
