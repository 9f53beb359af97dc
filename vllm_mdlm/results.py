"""What a finished answer tells beside its text, from vLLM's output objects."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

FIXED, COMMITTED, UNDECIDED, PASS, END = range(5)
"""Kinds of the rows that a request with a template sends. Of a canvas position: fixed text, a token
that a pass committed, a mask that was left. Then one row a pass, and one at the end."""

NUM_INFILL_COLUMNS = 5
"""Of a position: pass, log-probability, entropy, token id, kind. Of a pass: entropy of the answer,
and in the last column the kind. At the end: trace asked for, scores asked for."""


class ChainReport(NamedTuple):
    """How one chain went."""

    proposals: int  # candidates that were accepted or rejected
    acceptances: int
    log_weight: float  # of the result, nats


_REPORT, _TOKEN = 1.0, 0.0
_NUM_CHAIN_COLUMNS = 4


def pack(report: ChainReport, trace: np.ndarray | None, num_tokens: int) -> np.ndarray:
    """The array of a chain's tokens: one row of the report, then one row a token.

    There is a row for every token, so that vLLM, which cuts rows from the end with the tokens
    behind a stop string, leaves the report.

    Args:
        report: of the chain.
        trace: [num_tokens, 3], or None when the request is not traced.
        num_tokens: tokens sent with it.

    Returns:
        [1 + num_tokens, 4] float64: the kind of the row, then its numbers, NaN for none.
    """
    rows = np.full((1 + num_tokens, _NUM_CHAIN_COLUMNS), np.nan)
    rows[0] = (_REPORT, *report)
    rows[1:, 0] = _TOKEN
    if trace is not None:
        rows[1:, 1:] = trace
    return rows


def num_passes(output: Any) -> int:
    """Forward passes (NFE) of one finished `CompletionOutput`; 0 while it is unfinished."""
    metrics = output.spec_decode_metrics
    return 0 if metrics is None else sum(metrics.histogram)


def trace(output: Any) -> dict[str, list[Any]] | None:
    """Trace of one finished `CompletionOutput`, if it ran chains or asked for it with `trace=1`.

    Returns:
        With `trace=1`, lists over the tokens of the answer: `forward_pass` (the pass that
        committed the token, from 0; -1 for fixed text of a template and for masks that were left),
        `confidence` (its probability in that pass), `entropy` (nats). Where chains ran, lists over
        them: `proposals`, `acceptances`, `log_weight` (of the result, nats).
    """
    rows = output.routed_experts
    if rows is None:
        return None
    if rows.shape[1] == NUM_INFILL_COLUMNS:
        traced, _ = _end_of(rows)
        return _tokens(_positions_of(rows)[:, :3]) if traced else None
    if rows.shape[1] != _NUM_CHAIN_COLUMNS:
        return _tokens(rows)
    reports = rows[rows[:, 0] == _REPORT, 1:]
    tokens = rows[rows[:, 0] == _TOKEN, 1:]
    found = {
        "proposals": reports[:, 0].astype(int).tolist(),
        "acceptances": reports[:, 1].astype(int).tolist(),
        "log_weight": reports[:, 2].tolist(),
    }
    return found if np.isnan(tokens).any() else _tokens(tokens) | found


def _tokens(rows: np.ndarray) -> dict[str, list[Any]]:
    passes, logprob, entropy = rows.T
    return {
        "forward_pass": passes.astype(int).tolist(),
        "confidence": np.exp(logprob).tolist(),
        "entropy": entropy.tolist(),
    }


class Infill(NamedTuple):
    """A template after its last pass."""

    token_ids: list[int]  # the whole canvas; the mask token where nothing was decided
    logprobs: list[float | None]  # nats, untempered, of committed tokens; None for the others
    undecided: list[int]  # canvas positions that an early exit left, or that had no target
    answer_entropy: list[float]  # nats, one number a pass; empty without `answer`
    exited_early: bool


def infill(output: Any) -> Infill | None:
    """The filled template of one finished `CompletionOutput`; None for a request without one.

    `answer_entropy` is the sum over the answer's undecided positions of the untempered entropies of
    one forward pass, before it commits. It bounds the answer's joint entropy from above (Horvitz et
    al. 2025, arXiv 2510.19990; that it is a sum, not a mean or a maximum, is our choice). Passes
    that a preemption repeats count once.
    """
    rows = output.routed_experts
    if rows is None or rows.shape[1] != NUM_INFILL_COLUMNS:
        return None
    positions = _positions_of(rows)
    kinds = positions[:, -1]
    undecided = np.flatnonzero(kinds == UNDECIDED).tolist()
    _, scored = _end_of(rows)
    return Infill(
        token_ids=positions[:, 3].astype(int).tolist(),
        logprobs=[
            float(row[1]) if kind == COMMITTED else None
            for row, kind in zip(positions, kinds, strict=True)
        ],
        undecided=undecided,
        answer_entropy=rows[rows[:, -1] == PASS, 0].tolist(),
        exited_early=bool(undecided) and not scored,
    )


def scores(output: Any) -> list[float] | None:
    """Log-probabilities of a template's targets, nats, from the left; None for other requests.

    They are those of the full untempered softmax of one pass in which all free positions are masked
    (under guidance, of the guided logits).
    """
    rows = output.routed_experts
    if rows is None or rows.shape[1] != NUM_INFILL_COLUMNS:
        return None
    _, scored = _end_of(rows)
    return rows[rows[:, -1] == COMMITTED, 1].tolist() if scored else None


def _positions_of(rows: np.ndarray) -> np.ndarray:
    return rows[rows[:, -1] <= UNDECIDED]


def _end_of(rows: np.ndarray) -> tuple[bool, bool]:
    ends = rows[rows[:, -1] == END]
    return (bool(ends[0, 0]), bool(ends[0, 1])) if len(ends) else (False, False)
