"""`entropy_bound`: the longest prefix of the entropy ranking with sum H - max H <= bound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import JointTable
from tests.samplers.passes import (
    committed,
    decode,
    distinct,
    entropy_of,
    independent,
    kl,
    num_passes,
    one_block,
)
from vllm_mdlm.samplers.entropy_bound import SAMPLER, EntropyBoundParams


def bound(nats: float) -> EntropyBoundParams:
    return EntropyBoundParams(entropy_bound=nats)


def test_the_largest_entropy_of_a_prefix_is_free() -> None:
    view = one_block([2.0, 0.25, 0.5, 3.0])
    assert committed(SAMPLER, bound(0.24), view) == [1]
    assert committed(SAMPLER, bound(0.25), view) == [1, 2]
    assert committed(SAMPLER, bound(0.75), view) == [0, 1, 2]
    assert committed(SAMPLER, bound(2.74), view) == [0, 1, 2]
    assert committed(SAMPLER, bound(2.75), view) == [0, 1, 2, 3]


@given(distinct)
def test_zero_is_a_pass_a_token_and_a_huge_one_is_one_pass(values: list[float]) -> None:
    view = one_block(values)
    assert num_passes(SAMPLER, bound(0), view) == len(values)
    assert num_passes(SAMPLER, bound(len(values)), view) == 1


@given(distinct, st.floats(0, 5), st.floats(0, 5))
def test_a_larger_bound_commits_no_less(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    view = one_block(values)
    few = set(committed(SAMPLER, bound(low), view))
    assert few <= set(committed(SAMPLER, bound(high), view))


@given(st.integers(0, 10_000), st.floats(1, 6), st.floats(0, 2))
@settings(max_examples=60)
def test_the_error_of_a_pass_is_within_the_bound(seed: int, spread: float, nats: float) -> None:
    """KL(joint || product of marginals) = sum H_i - H(joint) <= sum H_i - max H_i <= bound."""
    for passed in decode(JointTable.random(seed=seed, spread=spread), SAMPLER, bound(nats)):
        error = kl(passed.joint, independent(passed.marginals))
        total = passed.entropies.sum().item()
        assert error == pytest.approx(total - entropy_of(passed.joint), abs=1e-9)
        slack = total - passed.entropies.max().item()
        assert error <= slack + 1e-9
        # The sampler saw the entropies in float32.
        assert slack <= nats + 1e-6
