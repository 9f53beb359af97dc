"""The Monte-Carlo bound: which masks are drawn, and that it is unbiased, on an enumerable toy."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from vllm_mdlm.routes.estimators import (
    Estimate,
    draw_masks,
    estimate,
    mask_counts,
    sample_value,
)

LENGTH = 4


def toy_logprobs(mask: tuple[int, ...]) -> list[float]:
    """A model's log-probabilities of the tokens at the masked positions: any numbers that depend
    on position and mask."""
    return [-0.2 - 0.3 * position - 0.5 * len(mask) - 0.1 * (sum(mask) % 3) for position in mask]


def exact_bound() -> float:
    """The mean over the number of masked positions and over the subsets of that number."""
    by_count = []
    for count in range(1, LENGTH + 1):
        subsets = list(itertools.combinations(range(LENGTH), count))
        by_count.append(
            sum(sample_value(LENGTH, toy_logprobs(one)) for one in subsets) / len(subsets)
        )
    return sum(by_count) / LENGTH


def bound(num_samples: int, seed: int) -> Estimate:
    masks = draw_masks(LENGTH, num_samples, seed)
    values = [sample_value(LENGTH, toy_logprobs(mask)) for mask in masks]
    return estimate(values, [len(mask) for mask in masks])


@pytest.mark.parametrize("num_samples", [1, 6])
def test_unbiased(num_samples: int) -> None:
    means = np.array([bound(num_samples, seed)[0] for seed in range(1000)])
    error = means.std(ddof=1) / math.sqrt(len(means))
    assert abs(means.mean() - exact_bound()) < 4 * error
    assert error < 0.08


@pytest.mark.parametrize("num_samples", [16, 48])
def test_the_standard_error_is_that_of_the_mean(num_samples: int) -> None:
    found = [bound(num_samples, seed) for seed in range(500)]
    spread = np.std([mean for mean, _ in found], ddof=1)
    claimed = math.sqrt(np.mean([(error or 0) ** 2 for _, error in found]))
    assert 0.8 * spread < claimed < 1.35 * spread


def test_a_single_sample_has_no_standard_error() -> None:
    assert bound(1, 0)[1] is None


def test_one_token_is_exact() -> None:
    assert set(draw_masks(1, 5, 3)) == {(0,)}
    assert estimate([-1.5] * 5, [1] * 5) == (-1.5, 0.0)


def test_numbers_of_masked_positions_are_spread_evenly() -> None:
    for seed in range(20):
        counts = Counter(len(mask) for mask in draw_masks(LENGTH, 3 * LENGTH, seed))
        assert counts == dict.fromkeys(range(1, LENGTH + 1), 3)


def published_counts(length: int, size: int, k: int) -> list[int]:
    """A mini-batch of `forward_process` in LLaDA's `get_log_likelihood.py`, which draws k."""
    x = torch.round(torch.linspace(float(k), k + (size - 1) * (length / size), steps=size)).long()
    found: list[int] = (((x - 1) % length) + 1).tolist()
    return found


@pytest.mark.parametrize(("length", "size"), [(8, 16), (7, 16), (48, 32), (50, 16), (20, 16)])
def test_no_number_of_masked_positions_is_favoured(length: int, size: int) -> None:
    """The published numbers are the same up to rounding, and even ones come more often."""
    own, published = Counter[int](), Counter[int]()
    for start in range(length):
        counts = mask_counts(length, size, start).tolist()
        theirs = published_counts(length, size, start + 1)
        own.update(counts)
        published.update(theirs)
        assert all((b - a) % length in (0, 1) for a, b in zip(counts, theirs, strict=True))
    assert own == dict.fromkeys(range(1, length + 1), size)
    even = sum(number for count, number in published.items() if count % 2 == 0)
    if length % 2 == 0:
        assert even > length * size / 2
    if (length, size) == (8, 16):
        assert [published[count] for count in range(1, 9)] == [8, 24] * 4


def test_every_mask_of_a_number_is_as_likely() -> None:
    drawn = Counter(mask for seed in range(1000) for mask in draw_masks(LENGTH, 1, seed))
    assert len(drawn) == 2**LENGTH - 1
    for mask, number in drawn.items():
        expected = 1000 / LENGTH / math.comb(LENGTH, len(mask))
        assert abs(number - expected) < 5 * math.sqrt(expected)


def test_noise_comes_from_the_seed_alone() -> None:
    assert draw_masks(9, 16, 5) == draw_masks(9, 16, 5)
    assert draw_masks(9, 16, 5) != draw_masks(9, 16, 6)
    assert draw_masks(9, 16, -(2**63)) != draw_masks(9, 16, 2**63 - 1)
