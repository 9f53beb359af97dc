"""Statistics of the torch body, which is the specification: against hand-computed numbers and
naive float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.rows import NEG_INF, everything, noisy, random_logits
from vllm_mdlm.kernels import row_stats
from vllm_mdlm.kernels.tiles import TILE


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
