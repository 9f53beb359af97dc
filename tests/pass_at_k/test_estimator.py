"""pass@k against enumeration of subsets; its interval against what it must cover."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from recipes.pass_at_k.estimator import mean_with_interval, pass_at_k


def by_enumeration(n: int, c: int, k: int) -> float:
    """Share of the k-subsets of n samples, the first c right, that hold a right one."""
    subsets = list(itertools.combinations(range(n), k))
    return sum(min(subset) < c for subset in subsets) / len(subsets)


def test_it_is_the_share_of_subsets_with_a_right_sample() -> None:
    for n in range(1, 8):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            value = pass_at_k(np.array([n]), np.array([c]), k)[0]
            assert value == pytest.approx(by_enumeration(n, c, k), abs=1e-12), (n, c, k)


def test_it_is_unbiased() -> None:
    """With every sample right with chance p, its expectation is 1 - (1 - p)^k exactly."""
    n, p = 9, 0.23
    c = np.arange(n + 1)
    weights = [math.comb(n, x) * p**x * (1 - p) ** (n - x) for x in c]
    for k in range(1, n + 1):
        expected = np.dot(weights, pass_at_k(np.full(n + 1, n), c, k))
        assert expected == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_large_counts_neither_overflow_nor_lose_digits() -> None:
    n, c, k = 20_000, 3, 10_000
    exact = 1 - math.comb(n - c, k) / math.comb(n, k)
    assert pass_at_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(exact, rel=1e-9)


def test_questions_may_have_different_counts() -> None:
    values = pass_at_k(np.array([4, 8]), np.array([1, 8]), 2)
    assert values.tolist() == [0.5, 1.0]


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 5), (4, 1, 0)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="needs 0 <= c <= n"):
        pass_at_k(np.array([n]), np.array([c]), k)


def test_the_interval_is_of_the_mean_over_questions() -> None:
    """For 0/1 values the percentile bootstrap is close to mean ± 1.96 standard errors."""
    values = np.repeat([0.0, 1.0], [150, 250])
    found = mean_with_interval(values)
    error = 1.96 * math.sqrt(found.value * (1 - found.value) / 400)
    assert found.value == 0.625
    assert found.low == pytest.approx(0.625 - error, abs=0.01)
    assert found.high == pytest.approx(0.625 + error, abs=0.01)


def test_one_question_has_no_interval() -> None:
    found = mean_with_interval(np.array([0.25]))
    assert found.value == 0.25
    assert math.isnan(found.low)
    assert math.isnan(found.high)
