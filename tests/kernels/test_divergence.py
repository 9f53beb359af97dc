"""KL between the same position's distributions in two passes."""

from __future__ import annotations

import math

import pytest
import torch

from vllm_mdlm.kernels import row_divergence

NEG_INF = float("-inf")


def test_hand_computed_numbers() -> None:
    logits = torch.tensor([[1.0, 1.0, 2.0], [1.0, 1.0, 2.0]]).log()
    previous = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]]).log() + 5
    # 1/4 log(1/2) + 1/2 log 2 = 1/4 log 2.
    got = row_divergence(logits, previous)
    assert got.tolist() == pytest.approx([math.log(2) / 4, 0.0], abs=1e-7)


@pytest.mark.parametrize("num_columns", [2, 256, 3001])
def test_agrees_with_float64(num_columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(6, num_columns, generator=generator) * 4).bfloat16()
    change = torch.randn(6, num_columns, generator=generator)
    previous = (logits + change * torch.tensor([1, 0.3, 0.1, 0.03, 0.01, 0]).unsqueeze(1)).float()
    p, q = logits.double().log_softmax(1), previous.double().log_softmax(1)
    exact = (p.exp() * (p - q)).sum(1)
    got = row_divergence(logits, previous)
    torch.testing.assert_close(got.double(), exact, rtol=1e-4, atol=3e-6)
    assert (got >= 0).all()


def test_impossible_tokens() -> None:
    even = torch.zeros(2)
    first = torch.tensor([0.0, NEG_INF])
    now = torch.stack([first, even, first])
    before = torch.stack([even, first, first])
    assert row_divergence(now, before).tolist() == pytest.approx([math.log(2), math.inf, 0.0])
