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


def num_passes(output: Any) -> int:
    """Forward passes (NFE) of one finished `CompletionOutput`; 0 while it is unfinished."""
    metrics = output.spec_decode_metrics
    return 0 if metrics is None else sum(metrics.histogram)


def trace(output: Any) -> dict[str, list[Any]] | None:
    """Trace of one finished `CompletionOutput`, if the request asked for it with `trace=1`.

    Returns:
        Lists over the tokens of the answer: `forward_pass` (the pass that committed the token,
        from 0; -1 for fixed text of a template and for masks that were left), `confidence` (its
        probability in that pass), `entropy` (nats).
    """
    rows = output.routed_experts
    if rows is None:
        return None
    if rows.shape[1] == NUM_INFILL_COLUMNS:
        traced, _ = _end_of(rows)
        if not traced:
            return None
        rows = _positions_of(rows)
    passes, logprob, entropy = rows[:, :3].T
    return {
        "forward_pass": passes.astype(int).tolist(),
        "confidence": np.exp(logprob).tolist(),
        "entropy": entropy.tolist(),
    }


class Infill(NamedTuple):
    """A template after its last pass."""

    token_ids: list[int]  # the whole canvas; the mask token where nothing was decided
    logprobs: list[float | None]  # nats, untempered, of committed tokens; None for the others
    undecided: list[int]  # canvas positions that an early exit left
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
    return Infill(
        token_ids=positions[:, 3].astype(int).tolist(),
        logprobs=[
            float(row[1]) if kind == COMMITTED else None
            for row, kind in zip(positions, kinds, strict=True)
        ],
        undecided=undecided,
        answer_entropy=rows[rows[:, -1] == PASS, 0].tolist(),
        exited_early=bool(undecided),
    )


def scores(output: Any) -> list[float] | None:
    """Log-probabilities of a template's targets, nats, from the left; None for other requests.

    They are those of the full untempered softmax of one pass in which all targets are masked
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
