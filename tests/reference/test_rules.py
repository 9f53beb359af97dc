"""The selection rules against cases small enough to decide by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests.reference import rules


def candidate(position: int, confidence: float = 0.5, entropy: float = 1.0) -> rules.Candidate:
    return rules.Candidate(position, 0, confidence, 0.0, entropy, 0.0, [])


def positions(chosen: list[rules.Candidate]) -> list[int]:
    return sorted(c.position for c in chosen)


@pytest.mark.parametrize(
    ("masked", "passes", "expected"),
    [
        (8, 8, [1] * 8),
        (8, 3, [3, 3, 2]),
        (32, 5, [7, 7, 6, 6, 6]),
        (2, 4, [1, 1, 0, 0]),
        (5, 1, [5]),
    ],
)
def test_quotas(masked: int, passes: int, expected: list[int]) -> None:
    assert rules.quotas(masked, passes) == expected


def test_ties_go_to_the_lowest_position() -> None:
    equal = [candidate(i) for i in range(4)]
    for rule in (rules.low_confidence, rules.entropy, rules.margin, rules.random):
        assert positions(rule(equal, 2)) == [0, 1]
    assert positions(rules.threshold(equal, threshold=0.9)) == [0]


def test_threshold_takes_the_best_and_all_at_the_threshold() -> None:
    three = [candidate(0, 0.2), candidate(1, 0.9), candidate(2, 0.95)]
    assert positions(rules.threshold(three, threshold=0.9)) == [1, 2]
    assert positions(rules.threshold(three, threshold=0.99)) == [2]


def test_factor_stops_at_the_first_failure() -> None:
    # Thresholds from rank 2 on, factor 1: 2/3, 3/4, 4/5.
    ranked = [candidate(i, c) for i, c in enumerate([0.9, 0.7, 0.7, 0.7])]
    assert positions(rules.factor(ranked, factor=1.0)) == [0, 1]
    last_fails = [candidate(i, c) for i, c in enumerate([0.9, 0.8, 0.7])]
    assert positions(rules.factor(last_fails, factor=1.0)) == [0, 1]
    hopeless = [candidate(i, c) for i, c in enumerate([0.1, 0.1])]
    assert positions(rules.factor(hopeless, factor=1.0)) == [0]


def test_entropy_bound_leaves_out_the_largest() -> None:
    ranked = [candidate(i, entropy=h) for i, h in enumerate([0.05, 0.04, 5.0, 6.0])]
    # 0.04 + 0.05 + 5 - 5 = 0.09 passes 0.1; with 6.0 the sum without the largest is 5.09.
    assert positions(rules.entropy_bound(ranked, bound=0.1)) == [0, 1, 2]
    assert positions(rules.entropy_bound(ranked, bound=0.0)) == [1]


def test_med_takes_all_below_the_threshold_else_the_lowest() -> None:
    ranked = [candidate(i, entropy=h) for i, h in enumerate([0.3, 0.1, 0.15, 0.2])]
    assert positions(rules.med(ranked, entropy_threshold=0.2, most=4)) == [1, 2]
    assert positions(rules.med(ranked, entropy_threshold=0.2, most=1)) == [1]
    assert positions(rules.med(ranked, entropy_threshold=0.01, most=4)) == [1]


def test_klass_needs_confidence_and_a_stable_history() -> None:
    calm, restless, young = [0.001, 0.002], [0.001, 0.5], [0.001]
    histories = [calm, restless, young, calm]
    four = [
        replace(candidate(i, 0.95 if i < 3 else 0.8), divergences=h)
        for i, h in enumerate(histories)
    ]
    rule = partial(rules.klass, threshold=0.9, kl_threshold=0.01, history=2)
    assert positions(rule(four, 1)) == [0]
    assert positions(rule(four[1:], 2)) == [1, 2]
