"""Every built-in sampler as a slow function of one row, by the plain rules of tests.reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.reference import rules
from tests.samplers.batches import Batch
from vllm_mdlm.samplers.base import SamplerParams

Rule = Callable[[rules.Chosen, int, SamplerParams], rules.Chosen]

RULES: dict[str, Rule] = {
    "low_confidence": lambda c, quota, p: rules.low_confidence(c, quota),
    "random": lambda c, quota, p: rules.random(c, quota),
    "entropy": lambda c, quota, p: rules.entropy(c, quota),
    "margin": lambda c, quota, p: rules.margin(c, quota),
    "left_to_right": lambda c, quota, p: rules.left_to_right(c, quota),
    "threshold": lambda c, quota, p: rules.threshold(c, threshold=p.threshold),
    "factor": lambda c, quota, p: rules.factor(c, factor=p.factor),
    "entropy_bound": lambda c, quota, p: rules.entropy_bound(c, bound=p.entropy_bound),
    "med": lambda c, quota, p: rules.med(
        c, entropy_threshold=p.entropy_threshold, most=p.max_tokens_per_step or len(c)
    ),
    "klass": lambda c, quota, p: rules.klass(
        c,
        quota,
        threshold=p.threshold,
        kl_threshold=p.kl_threshold,
        history=p.history,
    ),
}


def chosen(
    name: str, batch: Batch, row: int, earlier_divergences: Sequence[Sequence[float]] = ()
) -> list[int]:
    """Positions that a rule commits in one row, ascending.

    Args:
        earlier_divergences: of the row's earlier passes in this block, oldest first.
    """
    view = batch.view

    def value(table: object, position: int) -> float:
        return 0.0 if table is None else table[row, position].item()

    candidates = []
    for position in view.masked[row].nonzero().flatten().tolist():
        history = [divergences[position] for divergences in earlier_divergences]
        history.append(value(view.divergence, position))
        candidates.append(
            rules.Candidate(
                position,
                token=0,
                confidence=value(view.confidence, position),
                margin=value(view.margin, position),
                entropy=value(view.entropy, position),
                noise=value(view.draw, position),
                divergences=history[::-1],
            )
        )
    if not candidates:
        return []
    quota = int(view.quota[row])
    return sorted(c.position for c in RULES[name](candidates, quota, batch.params[row]))
