"""What a finished answer tells beside its text, from vLLM's output objects."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class ChainReport(NamedTuple):
    """How one chain went."""

    proposals: int  # candidates that were accepted or rejected
    acceptances: int
    log_weight: float  # of the result, nats


_REPORT, _TOKEN = 1.0, 0.0
_WIDTH = 4


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
    rows = np.full((1 + num_tokens, _WIDTH), np.nan)
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
        committed the token, from 0), `confidence` (its probability in that pass), `entropy`
        (nats). Where chains ran, lists over them: `proposals`, `acceptances`, `log_weight` (of
        the result, nats).
    """
    rows = output.routed_experts
    if rows is None:
        return None
    if rows.shape[1] < _WIDTH:
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
    passes, confidence, entropy = rows.T
    return {
        "forward_pass": passes.astype(int).tolist(),
        "confidence": confidence.tolist(),
        "entropy": entropy.tolist(),
    }
