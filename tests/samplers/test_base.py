"""What samplers are made of."""

from __future__ import annotations

import pytest
import torch

from vllm_mdlm.samplers.base import rank, ranking, take_best, take_first, take_prefix

INF = float("inf")


def test_ranking_is_by_key_then_by_position() -> None:
    key = torch.tensor([[1.0, 3.0, 3.0, 2.0, 9.0]])
    masked = torch.tensor([[True, True, True, True, False]])
    assert ranking(key, masked).tolist() == [[1, 2, 3, 0, 4]]
    assert rank(key, masked).tolist() == [[3, 0, 1, 2, 4]]


def test_ties_go_by_position_in_long_blocks_too() -> None:
    # Short rows are sorted by a method that is stable whatever one asks for.
    key = torch.zeros(3, 2048, dtype=torch.float64)
    masked = torch.ones(3, 2048, dtype=torch.bool)
    assert torch.equal(rank(key, masked), torch.arange(2048).expand(3, -1))
    assert take_first(key, masked).nonzero().tolist() == [[0, 0], [1, 0], [2, 0]]


@pytest.mark.parametrize("key", [0.0, -INF, torch.finfo(torch.float32).min, INF])
def test_a_masked_position_precedes_every_other(key: float) -> None:
    keys = torch.full((1, 4), key)
    masked = torch.tensor([[False, False, True, True]])
    assert rank(keys, masked)[0, 2:].tolist() == [0, 1]
    assert take_best(keys, masked, torch.tensor([1])).tolist() == [[False, False, True, False]]
    assert take_first(keys, masked).tolist() == [[False, False, True, False]]


def test_no_masked_position_takes_nothing() -> None:
    keys, masked = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    assert not take_best(keys, masked, torch.tensor([2, 9])).any()
    assert not take_first(keys, masked).any()
    assert not take_prefix(ranking(keys, masked), ~masked, masked).any()


def test_a_prefix_ends_at_its_first_failure_but_the_first_is_taken() -> None:
    order = torch.tensor([[2, 0, 1, 3], [3, 2, 1, 0]])
    passes = torch.tensor([[True, True, False, True], [False, True, False, True]])
    taken = take_prefix(order, passes, torch.ones(2, 4, dtype=torch.bool))
    assert taken.tolist() == [[True, False, True, False], [False, False, True, True]]
