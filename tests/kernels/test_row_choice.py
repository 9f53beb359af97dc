"""The proposed token: what may be chosen, and the law that draws must follow."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.rows import NEG_INF, everything, noisy, random_logits
from tests.kernels.statistics import chi_square, limit
from vllm_mdlm.kernels import row_stats


@pytest.mark.parametrize("temperature", [None, 0.0])
def test_the_lowest_id_wins_among_equals(temperature: float | None) -> None:
    logits = torch.zeros(3, 2000)
    logits[1, [5, 1500]] = 1.0
    logits[2, [1999, 300, 299]] = 1.0
    options = {} if temperature is None else noisy(3, temperature)
    assert row_stats(logits, **options).token.tolist() == [0, 5, 299]
    assert row_stats(logits, mask_token=0, **options).token.tolist() == [1, 5, 299]


def test_the_mask_token_counts_but_is_never_proposed() -> None:
    logits = torch.tensor([[1.0, 6.0, 3.0]]).log()
    stats = everything(logits, mask_token=1)
    assert stats.token.tolist() == [2]
    assert stats.logprob.exp().item() == pytest.approx(0.3)
    assert stats.top_logprob.exp().item() == pytest.approx(0.3)
    whole = everything(logits)
    assert torch.equal(stats.entropy, whole.entropy)
    assert torch.equal(stats.margin, whole.margin)


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-3, 1.0, 50.0, 1e300])
@pytest.mark.parametrize("edited", [False, True])
def test_what_is_forbidden_is_never_proposed(temperature: float, edited: bool) -> None:
    logits = random_logits(400, 12)
    logits[:, 7] = 100.0
    choice = None
    if edited:
        choice = logits.clone()
        choice[:, [0, 3]] = NEG_INF
    stats = row_stats(logits, choice, mask_token=7, **noisy(400, temperature))
    assert not torch.isin(stats.token, torch.tensor([7, 0, 3] if edited else [7])).any()
    assert stats.logprob.isfinite().all()


def test_choice_decides_the_token_and_not_the_probability() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0, 1.0]]).log()
    choice = torch.tensor([[5.0, 1.0, NEG_INF, 0.0]])
    stats = row_stats(logits, choice)
    assert stats.token.tolist() == [0]
    assert stats.logprob.exp().item() == pytest.approx(1 / 8)
    # The most probable token that is allowed, whatever the bias says of it.
    assert stats.top_logprob.exp().item() == pytest.approx(2 / 8)


def test_choice_rows_name_the_rows_that_choose_otherwise() -> None:
    logits = random_logits(6, 500)
    rows = torch.tensor([4, 1])
    choice = logits[rows].flip(1)
    choice[:, 9] = NEG_INF
    full = logits.clone()
    full[rows] = choice
    drawn = torch.tensor([0, 4, 5])
    options = noisy(6, 0.8) | {"mask_token": 3}
    options["temperature"][[1, 2, 3]] = 0
    some = everything(logits, choice, choice_rows=rows, drawn_rows=drawn, **options)
    for got, wanted in zip(some, everything(logits, full, **options), strict=True):
        assert torch.equal(got, wanted)


def test_no_row_chooses_otherwise() -> None:
    logits = random_logits(6, 500)
    none = torch.zeros(0, dtype=torch.int64)
    stats = everything(logits, logits[:0], choice_rows=none, **noisy(6, 0.8))
    for got, wanted in zip(stats, everything(logits, **noisy(6, 0.8)), strict=True):
        assert torch.equal(got, wanted)


def test_drawn_rows_are_those_with_a_temperature() -> None:
    logits = random_logits(8, 300)
    options = noisy(8, 1.0)
    options["temperature"][::2] = 0
    named = everything(logits, drawn_rows=torch.tensor([1, 3, 5, 7]), **options)
    for got, wanted in zip(named, everything(logits, **options), strict=True):
        assert torch.equal(got, wanted)


def test_temperature_zero_ignores_the_noise() -> None:
    logits = random_logits(50, 300)
    greedy = everything(logits)
    for seed in (1, 2):
        for got, wanted in zip(everything(logits, **noisy(50, 0.0, seed)), greedy, strict=True):
            assert torch.equal(got, wanted)


def test_statistics_ignore_temperature_and_noise() -> None:
    logits = random_logits(50, 300)
    greedy, hot = everything(logits), everything(logits, **noisy(50, 2.0))
    assert not torch.equal(hot.token, greedy.token)
    for field in ("top_logprob", "entropy", "margin"):
        assert torch.equal(getattr(hot, field), getattr(greedy, field))
    exact = logits.double().log_softmax(1).gather(1, hot.token.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(hot.logprob.double(), exact, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("removed", [(), (2, 5)])
def test_draws_follow_the_tempered_distribution(
    temperature: float, removed: tuple[int, ...]
) -> None:
    # n = 40,000 draws, seed 0; one choice of seeds in a million would fail.
    n = 40_000
    logits = torch.tensor([[0.3, -1.0, 1.2, 0.0, 2.0, 1.9, -0.5]]).expand(n, -1)
    choice = logits.clone()
    choice[:, list(removed)] = NEG_INF
    stats = row_stats(logits, choice if removed else None, **noisy(n, temperature))
    law = (choice[0].double() / temperature).softmax(0)
    kept = law > 0
    counts = torch.bincount(stats.token, minlength=7)
    assert counts[~kept].sum() == 0
    assert chi_square(counts[kept], n * law[kept]) < limit(int(kept.sum()) - 1)
