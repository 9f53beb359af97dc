"""Noise is uniform, independent along every part of its key, and the same everywhere.

Seeds are fixed, so nothing here is random from run to run. For noise that is what it claims to
be, each chi-square assertion would fail for one choice of seeds in a million.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from tests.kernels.statistics import chi_square, limit
from vllm_mdlm.kernels import noise
from vllm_mdlm.kernels.noise import gumbel, row_keys, uniform

N = 200_000
ZERO = torch.zeros(N, dtype=torch.int64)
COUNT = torch.arange(N)
LANE = torch.zeros(1, dtype=torch.int64)


def along_lanes() -> torch.Tensor:
    return uniform(row_keys(ZERO[:1] + 7, ZERO[:1] + 3, ZERO[:1]), COUNT)[0]


def along_positions() -> torch.Tensor:
    return uniform(row_keys(ZERO + 7, COUNT, ZERO), LANE)[:, 0]


def along_passes() -> torch.Tensor:
    return uniform(row_keys(ZERO + 7, ZERO + 3, COUNT), LANE)[:, 0]


def along_seeds() -> torch.Tensor:
    return uniform(row_keys(COUNT, ZERO + 3, ZERO), LANE)[:, 0]


along_each = pytest.mark.parametrize(
    "series", [along_lanes, along_positions, along_passes, along_seeds]
)
Series = Callable[[], torch.Tensor]


@along_each
def test_is_uniform(series: Series) -> None:
    # n = 200,000 in 100 bins.
    counts = torch.histc(series(), bins=100, min=0, max=1)
    assert chi_square(counts, torch.full_like(counts, N / 100)) < limit(99)


@along_each
def test_neighbours_are_independent(series: Series) -> None:
    # n = 100,000 disjoint pairs in 10 x 10 cells of known probability.
    pairs = (series().view(-1, 2) * 10).long()
    counts = torch.bincount(pairs[:, 0] * 10 + pairs[:, 1], minlength=100)
    assert chi_square(counts, torch.full((100,), N / 2 / 100)) < limit(99)


@along_each
def test_low_bits_are_uniform(series: Series) -> None:
    # n = 200,000: bits 20 to 26 of 52.
    counts = torch.bincount((series() * 2**26).long() % 64, minlength=64)
    assert chi_square(counts, torch.full((64,), N / 64)) < limit(63)


def test_position_and_pass_do_not_trade_places() -> None:
    keys = row_keys(ZERO[:256] + 1, COUNT[:256] // 16, COUNT[:256] % 16)
    assert keys.unique().numel() == 256


def test_lanes_are_the_splitmix64_sequence() -> None:
    # The first outputs of SplitMix64 from state 1234567, as published with the algorithm.
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    expected = [((word >> 12) + 0.5) / 2**52 for word in words]
    assert uniform(torch.tensor([1234567]), torch.arange(4))[0].tolist() == expected


@pytest.mark.parametrize(("word", "expected"), [(0, 2.0**-53), (-1, 1 - 2.0**-53)])
def test_the_interval_is_open_at_both_ends(
    monkeypatch: pytest.MonkeyPatch, word: int, expected: float
) -> None:
    # No seed is known that gives the extreme words, so the mixer is made to.
    monkeypatch.setattr(noise, "_mix", lambda words: torch.full_like(words, word))
    keys, lanes = torch.arange(2), torch.arange(2)
    assert uniform(keys, lanes).unique().tolist() == [expected]
    assert gumbel(keys, lanes).isfinite().all()


def test_gumbel_is_minus_log_minus_log() -> None:
    keys, lanes = torch.arange(4), torch.arange(1000)
    expected = -torch.log(-torch.log(uniform(keys, lanes)))
    assert torch.equal(gumbel(keys, lanes), expected)


def test_gumbel_has_the_moments_of_the_law() -> None:
    # n = 1,000,000: the mean is Euler's constant within 5 standard errors of pi / sqrt(6 n), and
    # the share above 3 is 1 - exp(-exp(-3)) within 5 standard errors; 6e-7 each.
    sample = gumbel(torch.arange(10), torch.arange(100_000)).flatten()
    n = sample.numel()
    assert abs(sample.mean().item() - 0.5772156649) < 5 * math.pi / math.sqrt(6 * n)
    share = 1 - math.exp(-math.exp(-3))
    error = math.sqrt(share * (1 - share) / n)
    assert abs((sample > 3).double().mean().item() - share) < 5 * error


def test_a_number_does_not_depend_on_its_neighbours() -> None:
    seed, position, step = COUNT[:50] * 11, COUNT[:50] * 5, COUNT[:50] % 3
    together = gumbel(row_keys(seed, position, step), COUNT[:1000])
    for i in (0, 17, 49):
        alone = gumbel(row_keys(seed[[i]], position[[i]], step[[i]]), COUNT[500:501])
        assert torch.equal(alone[0], together[i, 500:501])


def test_arguments_are_not_modified() -> None:
    seed, position, step, lanes = (COUNT[:9].clone() for _ in range(4))
    gumbel(row_keys(seed, position, step), lanes)
    for argument in (seed, position, step, lanes):
        assert torch.equal(argument, COUNT[:9])
