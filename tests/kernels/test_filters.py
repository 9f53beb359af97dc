"""Min-p, top-k and top-p against a naive sort in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.statistics import chi_square, limit
from vllm_mdlm.kernels import filter_logits, row_stats
from vllm_mdlm.kernels.noise import row_keys

NEG_INF = float("-inf")


def kept(logits: list[float], temperature: float, min_p: float, top_k: int, top_p: float) -> set:
    """Ids that stay in one row: temperature, then min-p, then top-k, then top-p."""
    if temperature == 0:
        return {i for i, logit in enumerate(logits) if logit > NEG_INF}
    weights = ((torch.tensor(logits, dtype=torch.float64) / temperature).softmax(0)).tolist()
    left = [i for i, w in enumerate(weights) if w > 0 and w >= min_p * max(weights)]
    if top_k >= 1:
        least = sorted((weights[i] for i in left), reverse=True)[:top_k][-1]
        left = [i for i in left if weights[i] >= least]
    if top_p < 1:
        wanted, mass = top_p * sum(weights[i] for i in left), 0.0
        for i in sorted(left, key=lambda i: -weights[i]):
            mass, least = mass + weights[i], weights[i]
            if mass >= wanted:
                break
        left = [i for i in left if weights[i] >= least]
    return set(left)


def ids(row: torch.Tensor) -> set[int]:
    return set((row > NEG_INF).nonzero().flatten().tolist())


rows = st.tuples(
    st.lists(st.integers(-6, 6), min_size=9, max_size=9),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.sampled_from([0.0, 0.013, 0.21, 1.0]),
    st.integers(-1, 11),
    st.sampled_from([0.011, 0.37, 0.71, 0.953, 1.0]),
)


@given(st.lists(rows, min_size=1, max_size=5))
@settings(max_examples=150)
def test_agrees_with_a_naive_sort(batch: list[tuple]) -> None:
    # Integer logits, so that ties are common and a rounding error cannot decide.
    table, temperature, min_p, top_k, top_p = zip(*batch, strict=True)
    logits = torch.tensor(table, dtype=torch.float32)
    filtered = filter_logits(
        logits.clone(),
        torch.tensor(temperature, dtype=torch.float64),
        torch.tensor(min_p),
        torch.tensor(top_k),
        torch.tensor(top_p),
    )
    for row, before, wanted in zip(filtered, logits, batch, strict=True):
        assert ids(row) == kept(*wanted)
        assert torch.equal(row[row > NEG_INF], before[row > NEG_INF])


def test_agrees_over_a_vocabulary() -> None:
    logits = torch.randn(4, 3001, generator=torch.Generator().manual_seed(0)) * 3
    logits[:, ::7] = NEG_INF
    temperature = torch.tensor([1.0, 0.7, 1.3, 1.0], dtype=torch.float64)
    min_p = torch.tensor([0.001, 0.0, 0.0, 0.01])
    top_k = torch.tensor([0, 50, 0, 7])
    top_p = torch.tensor([1.0, 1.0, 0.9, 0.5])
    filtered = filter_logits(logits.clone(), temperature, min_p, top_k, top_p)
    for i, row in enumerate(filtered):
        parameters = (temperature[i].item(), min_p[i].item(), int(top_k[i]), top_p[i].item())
        assert ids(row) == kept(logits[i].tolist(), *parameters)


def test_nothing_asked_changes_nothing() -> None:
    logits = torch.randn(3, 700, generator=torch.Generator().manual_seed(0)).bfloat16()
    ones = torch.ones(3, dtype=torch.float64)
    assert torch.equal(filter_logits(logits.clone(), ones), logits)
    off = (torch.zeros(3), torch.tensor([0, -1, 700]), torch.ones(3))
    assert torch.equal(filter_logits(logits.clone(), ones, *off), logits)


def test_a_greedy_row_is_left_alone() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    asked = (torch.tensor([0.9]), torch.tensor([1]), torch.tensor([0.1]))
    assert torch.equal(filter_logits(logits.clone(), torch.zeros(1), *asked), logits)


def test_temperature_comes_first() -> None:
    # softmax([2, 1, 0] / T) at T = 1: .665 .245 .090; at T = 4: .420 .327 .254.
    logits = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    temperature = torch.tensor([1.0, 4.0])
    filtered = filter_logits(logits, temperature, top_p=torch.tensor([0.66, 0.66]))
    assert [ids(row) for row in filtered] == [{0}, {0, 1}]


def test_top_p_renormalises_what_top_k_left() -> None:
    # Of .5 .3 .2, top-k 2 leaves .625 .375: 0.6 is then reached by the first alone.
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log()
    ones = torch.ones(1)
    together = filter_logits(
        logits.clone(), ones, top_k=torch.tensor([2]), top_p=torch.tensor([0.6])
    )
    assert ids(together[0]) == {0}
    assert ids(filter_logits(logits.clone(), ones, top_p=torch.tensor([0.6]))[0]) == {0, 1}


def test_equal_tokens_stay_together() -> None:
    logits = torch.tensor([[1.0, 3.0, 1.0, 1.0]])
    assert ids(filter_logits(logits.clone(), torch.ones(1), top_k=torch.tensor([2]))[0]) == {
        0,
        1,
        2,
        3,
    }


@pytest.mark.parametrize("temperature", [1e-300, 1e-12, 1e12])
def test_the_largest_is_always_kept(temperature: float) -> None:
    logits = torch.tensor([[NEG_INF, 1.0, 5.0, 4.0]])
    asked = (torch.tensor([1.0]), torch.tensor([1]), torch.tensor([1e-6]))
    degree = torch.tensor([temperature], dtype=torch.float64)
    left = ids(filter_logits(logits, degree, *asked)[0])
    assert 2 in left
    assert 0 not in left


def test_draws_follow_the_distribution_restricted_to_what_is_kept() -> None:
    # n = 40,000 draws, seed 0; one choice of seeds in a million would fail.
    n, degree = 40_000, 1.5
    logits = torch.tensor([[0.3, -1.0, 1.2, 0.0, 2.0, 1.9, -0.5]]).repeat(n, 1)
    temperature = torch.full((n,), degree, dtype=torch.float64)
    choice = filter_logits(logits.clone(), temperature, top_p=torch.full((n,), 0.8))
    count = torch.arange(n)
    tokens = row_stats(
        logits,
        choice,
        temperature=temperature,
        noise_keys=row_keys(torch.zeros_like(count), count, torch.zeros_like(count)),
    ).token
    law = (choice[0].double() / degree).softmax(0)
    left = law > 0
    assert left.sum() == 4
    counts = torch.bincount(tokens, minlength=7)
    assert counts[~left].sum() == 0
    assert chi_square(counts[left], n * law[left]) < limit(3)
