"""The torch body, which is the specification: against hand-computed numbers, naive float64 and
the law that draws must follow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.statistics import chi_square, limit
from vllm_mdlm.kernels import row_stats
from vllm_mdlm.kernels.noise import row_keys
from vllm_mdlm.kernels.row_stats import RowStats
from vllm_mdlm.kernels.tiles import TILE

NEG_INF = float("-inf")


def keys(num_rows: int, seed: int = 0) -> torch.Tensor:
    rows = torch.arange(num_rows)
    return row_keys(torch.full_like(rows, seed), rows, torch.zeros_like(rows))


def noisy(num_rows: int, temperature: float, seed: int = 0) -> dict[str, torch.Tensor]:
    return {
        "temperature": torch.full((num_rows,), temperature, dtype=torch.float64),
        "noise_keys": keys(num_rows, seed),
    }


def everything(logits: torch.Tensor, *args: Any, **options: Any) -> RowStats:
    return row_stats(logits, *args, need_entropy=True, need_margin=True, **options)


def random_logits(num_rows: int, num_columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_rows, num_columns, generator=generator) * 4


def test_hand_computed_numbers() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0, 1.0], [1.0, 1.0, 1.0, 1.0]]).log()
    stats = everything(logits)
    assert stats.token.tolist() == [2, 0]
    assert stats.logprob.exp().tolist() == pytest.approx([0.5, 0.25])
    assert stats.top_logprob.exp().tolist() == pytest.approx([0.5, 0.25])
    # 2 (1/8 log 8) + 1/4 log 4 + 1/2 log 2 = 1.75 log 2.
    assert stats.entropy is not None
    assert stats.entropy.tolist() == pytest.approx([1.75 * math.log(2), math.log(4)])
    assert stats.margin is not None
    assert stats.margin.tolist() == pytest.approx([0.25, 0.0], abs=1e-7)


def test_only_what_is_asked_for() -> None:
    stats = row_stats(random_logits(3, 5))
    assert stats.entropy is None
    assert stats.margin is None
    assert [field.dtype for field in stats[:3]] == [torch.int64, torch.float32, torch.float32]


def test_no_rows() -> None:
    stats = everything(torch.empty(0, 7))
    assert [len(field) for field in stats if field is not None] == [0] * 5


@pytest.mark.parametrize("num_columns", [1, 2, 255, 256, 257, 3000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_agrees_with_float64(num_columns: int, dtype: torch.dtype) -> None:
    logits = random_logits(5, num_columns).to(dtype)
    stats = everything(logits)
    exact = logits.double().log_softmax(1)
    top = exact.topk(min(2, num_columns), dim=1).values
    second = top[:, 1].exp() if num_columns > 1 else torch.zeros(5)
    tolerance = {"rtol": 1e-5, "atol": 2e-6, "check_dtype": False}
    assert torch.equal(stats.token, logits.argmax(1))
    torch.testing.assert_close(stats.logprob, top[:, 0], **tolerance)
    torch.testing.assert_close(stats.entropy, -(exact * exact.exp()).sum(1), **tolerance)
    torch.testing.assert_close(stats.margin, top[:, 0].exp() - second, **tolerance)


def test_a_long_row_keeps_its_digits() -> None:
    # torch's float32 softmax alone is off by 1e-5 in the entropy of such a row.
    logits = random_logits(4, 126_464)
    stats = everything(logits)
    exact = logits.double().log_softmax(1)
    assert stats.entropy is not None
    entropy = -(exact * exact.exp()).sum(1)
    torch.testing.assert_close(stats.entropy.double(), entropy, rtol=0, atol=2e-6)
    torch.testing.assert_close(stats.logprob.double(), exact.amax(1), rtol=0, atol=2e-6)


def test_large_logits_and_sharp_rows_keep_their_digits() -> None:
    logits = torch.tensor([[60000.0, 60000.0, 59990.0], [-500.0, -514.0, -600.0]])
    stats = everything(logits)
    exact = logits.double().log_softmax(1)
    # A float32 log-sum-exp of these would be off by 3e-5 and more.
    torch.testing.assert_close(stats.logprob.double(), exact.amax(1), rtol=1e-6, atol=1e-7)
    entropy = -(exact * exact.exp()).sum(1)
    assert stats.entropy is not None
    torch.testing.assert_close(stats.entropy.double(), entropy, rtol=1e-6, atol=2e-7)


def test_impossible_tokens_count_nothing() -> None:
    logits = random_logits(4, 300)
    removed = logits.clone()
    removed[:, 100:] = NEG_INF
    for got, wanted in zip(everything(removed), everything(logits[:, :100]), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
    one = torch.full((1, 300), NEG_INF)
    one[0, 42] = -3.0
    stats = everything(one)
    assert [field.item() for field in stats if field is not None] == [42, 0.0, 0.0, 0.0, 1.0]


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


def test_a_row_does_not_depend_on_the_others() -> None:
    # More than one tile, and a last one that is not full.
    num_columns = 5000
    num_rows = TILE // num_columns + 40
    logits = random_logits(num_rows, num_columns).bfloat16()
    options = noisy(num_rows, 1.0)
    options["temperature"][::3] = 0
    together = everything(logits, mask_token=8, **options)
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(0))[:77]
    part = {name: column[order] for name, column in options.items()}
    for got, wanted in zip(everything(logits[order], mask_token=8, **part), together, strict=True):
        assert torch.equal(got, wanted[order])
    for row in (0, num_rows - 1):
        alone = {name: column[[row]] for name, column in options.items()}
        single = everything(logits[[row]], mask_token=8, **alone)
        for got, wanted in zip(single, together, strict=True):
            assert torch.equal(got, wanted[[row]])


class Allocations(TorchDispatchMode):
    """Element counts and dtypes of what every operation returns, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not func.is_view:
            self.largest = max(self.largest, result.numel())
            self.dtypes.add(result.dtype)
        return result


def test_greedy_rows_cost_no_float64_and_one_tile() -> None:
    logits = random_logits(1500, 4096)
    with Allocations() as allocations:
        everything(logits, mask_token=1)
    assert allocations.largest <= TILE < logits.numel()
    assert torch.float64 not in allocations.dtypes


def test_arguments_are_not_modified() -> None:
    logits, choice = random_logits(6, 300), random_logits(2, 300, seed=1)
    options = noisy(6, 1.0) | {"choice_rows": torch.tensor([1, 2]), "mask_token": 4}
    arguments = [logits, choice, *(o for o in options.values() if isinstance(o, torch.Tensor))]
    before = [argument.clone() for argument in arguments]
    everything(logits, choice, **options)
    for argument, copy in zip(arguments, before, strict=True):
        assert torch.equal(argument, copy)
