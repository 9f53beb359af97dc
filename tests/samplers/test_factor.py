"""`factor`: the longest prefix of the ranking with c_n >= 1 - factor / (n + 1)."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import JointTable
from tests.samplers.passes import committed, decode, distinct, num_passes, one_block
from vllm_mdlm.samplers.factor import SAMPLER, FactorParams


def test_stops_at_the_first_rank_that_fails() -> None:
    # Least confidences at ranks 1 to 4: 1/2, 2/3, 3/4, 4/5.
    view = one_block([0.6, 0.9, 0.65, 0.1])
    assert committed(SAMPLER, FactorParams(factor=1), view) == [1]
    view = one_block([0.7, 0.9, 0.67, 0.75])
    assert committed(SAMPLER, FactorParams(factor=1), view) == [1, 3]
    view = one_block([0.75, 0.9, 0.8, 0.7])
    assert committed(SAMPLER, FactorParams(factor=1), view) == [0, 1, 2]


def test_the_best_needs_no_confidence() -> None:
    assert committed(SAMPLER, FactorParams(factor=1), one_block([0.1, 0.4])) == [1]


def test_a_failure_at_the_last_rank_does_not_commit_everything() -> None:
    view = one_block([0.95, 0.9, 0.1])
    assert committed(SAMPLER, FactorParams(factor=1), view) == [0, 1]


@given(distinct)
def test_zero_is_a_pass_a_token_and_a_huge_one_is_one_pass(values: list[float]) -> None:
    view = one_block(values)
    assert num_passes(SAMPLER, FactorParams(factor=0), view) == len(values)
    assert num_passes(SAMPLER, FactorParams(factor=len(values) + 1), view) == 1


@given(distinct, st.floats(0, 5), st.floats(0, 5))
def test_a_larger_factor_commits_no_less(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    view = one_block(values)
    few = set(committed(SAMPLER, FactorParams(factor=low), view))
    assert few <= set(committed(SAMPLER, FactorParams(factor=high), view))


@given(st.integers(0, 10_000), st.floats(1, 5))
@settings(max_examples=60)
def test_under_one_parallel_greedy_is_joint_greedy(seed: int, spread: float) -> None:
    """Fast-dLLM's theorem: the tokens of a pass are the mode of their joint distribution."""
    joint = JointTable.random(seed=seed, spread=spread)
    for commitment in decode(joint, SAMPLER, FactorParams(factor=0.999)):
        mode = torch.unravel_index(commitment.joint.argmax(), commitment.joint.shape)
        assert [int(token) for token in mode] == commitment.marginals.argmax(1).tolist()
