"""What a finished answer tells beside its text, from vLLM's output objects."""

from __future__ import annotations

from typing import Any


def num_passes(output: Any) -> int:
    """Forward passes (NFE) of one finished `CompletionOutput`; 0 while it is unfinished."""
    metrics = output.spec_decode_metrics
    return 0 if metrics is None else sum(metrics.histogram)


def trace(output: Any) -> dict[str, list[Any]] | None:
    """Trace of one finished `CompletionOutput`, if the request asked for it with `trace=1`.

    Returns:
        Lists over the tokens of the answer: `forward_pass` (the pass that committed the token,
        from 0), `confidence` (its probability in that pass), `entropy` (nats).
    """
    if output.routed_experts is None:
        return None
    passes, confidence, entropy = output.routed_experts.T
    return {
        "forward_pass": passes.astype(int).tolist(),
        "confidence": confidence.tolist(),
        "entropy": entropy.tolist(),
    }
