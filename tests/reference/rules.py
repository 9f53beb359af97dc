"""Which masked positions of the active block a pass commits: one plain function a rule.

Every rule looks at the same `Candidate`s (the masked positions of the active block, lowest
position first) and returns those to commit, at least one. All are for temperature 0. Python's
`sorted` and `max` keep the first of equals, so ties go to the lowest position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A masked position of the active block, as one pass sees it.

    `position` counts from the start of the canvas. `token` is what would be committed.
    `confidence` is that token's probability, `margin` the difference of the two largest
    probabilities, `entropy` in nats. `noise` is a number in [0, 1) for random order. `divergences`
    are KL(this pass || pass before) in nats, newest first, since the block began.
    """

    position: int
    token: int
    confidence: float
    margin: float
    entropy: float
    noise: float
    divergences: Sequence[float]


Chosen = list[Candidate]


def quotas(masked: int, passes: int) -> list[int]:
    """LLaDA: how many of `masked` positions each pass commits; the remainder goes first."""
    return [masked // passes + (1 if t < masked % passes else 0) for t in range(passes)]


def low_confidence(candidates: Chosen, quota: int) -> Chosen:
    """LLaDA: the most probable ones."""
    return sorted(candidates, key=lambda c: -c.confidence)[:quota]


def random(candidates: Chosen, quota: int) -> Chosen:
    """LLaDA: any, those with the largest noise."""
    return sorted(candidates, key=lambda c: -c.noise)[:quota]


def entropy(candidates: Chosen, quota: int) -> Chosen:
    """No Compute Left Behind (arXiv 2510.19990), fixed k: the lowest entropies."""
    return sorted(candidates, key=lambda c: c.entropy)[:quota]


def margin(candidates: Chosen, quota: int) -> Chosen:
    """The largest gaps between first and second."""
    return sorted(candidates, key=lambda c: -c.margin)[:quota]


def left_to_right(candidates: Chosen, quota: int) -> Chosen:
    """The leftmost ones."""
    return candidates[:quota]


def threshold(candidates: Chosen, *, threshold: float) -> Chosen:
    """Fast-dLLM (arXiv 2505.22618): the best one, and every one that is confident enough."""
    best = max(candidates, key=lambda c: c.confidence)
    return [c for c in candidates if c is best or c.confidence >= threshold]


def factor(candidates: Chosen, *, factor: float) -> Chosen:
    """Fast-dLLM: walk down the ranking until rank n is less confident than 1 - factor / (n + 1).

    The published code commits everything when the first failure is at the last rank; the paper's
    rule, taken here, does not.
    """
    ranking = sorted(candidates, key=lambda c: -c.confidence)
    chosen = ranking[:1]
    for n, candidate in enumerate(ranking[1:], start=2):
        if candidate.confidence < 1 - factor / (n + 1):
            break
        chosen.append(candidate)
    return chosen


def entropy_bound(candidates: Chosen, *, bound: float) -> Chosen:
    """EB-Sampler (arXiv 2505.24857): longest prefix with sum of H - largest H <= bound."""
    ranking = sorted(candidates, key=lambda c: c.entropy)
    chosen = ranking[:1]
    for candidate in ranking[1:]:
        entropies = [c.entropy for c in [*chosen, candidate]]
        if sum(entropies) - max(entropies) > bound:
            break
        chosen.append(candidate)
    return chosen


def med(candidates: Chosen, *, entropy_threshold: float, most: int) -> Chosen:
    """MED (arXiv 2510.19990): entropies under the threshold, the `most` lowest, else the lowest.

    The cap and the fallback are our choice: the paper's values could not be read.
    """
    ranking = sorted(candidates, key=lambda c: c.entropy)
    return [c for c in ranking if c.entropy < entropy_threshold][:most] or ranking[:1]


def klass(
    candidates: Chosen, quota: int, *, threshold: float, kl_threshold: float, history: int
) -> Chosen:
    """KLASS (arXiv 2511.05664): all that are confident and stable, else the quota by confidence.

    Stable: the last `history` divergences all exist and are below `kl_threshold`.
    """

    def ready(c: Candidate) -> bool:
        recent = c.divergences[:history]
        stable = len(recent) == history and all(kl < kl_threshold for kl in recent)
        return stable and c.confidence > threshold

    return [c for c in candidates if ready(c)] or low_confidence(candidates, quota)
