"""`med`: all entropies under a threshold, at most so many, at least the lowest."""

from __future__ import annotations

import msgspec
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
from vllm_mdlm.samplers.base import param_values
from vllm_mdlm.samplers.entropy import SAMPLER as ENTROPY
from vllm_mdlm.samplers.med import SAMPLER, MedParams


def test_commits_what_is_under_the_threshold() -> None:
    view = one_block([0.25, 0.1, 0.5, 0.2])
    assert committed(SAMPLER, MedParams(entropy_threshold=0.25), view) == [1, 3]
    assert committed(SAMPLER, MedParams(entropy_threshold=0.26), view) == [0, 1, 3]


def test_commits_the_lowest_when_none_is() -> None:
    assert committed(SAMPLER, MedParams(), one_block([0.5, 0.3, 0.9, 0.3])) == [1]


def test_the_limit_keeps_the_lowest() -> None:
    view = one_block([0.125, 0.1, 0.5, 0.05])
    assert committed(SAMPLER, MedParams(max_tokens_per_step=2), view) == [1, 3]


def test_no_limit_is_carried_as_infinity() -> None:
    assert param_values(MedParams()) == (0.2, float("inf"))


@given(distinct)
def test_zero_is_entropy_decoding_and_a_huge_one_is_one_pass(values: list[float]) -> None:
    view = one_block(values)
    zero = MedParams(entropy_threshold=0)
    assert num_passes(SAMPLER, zero, view) == len(values)
    assert committed(SAMPLER, zero, view) == committed(ENTROPY, ENTROPY.params(), view)
    assert num_passes(SAMPLER, MedParams(entropy_threshold=1), view) == 1
    one_by_one = MedParams(entropy_threshold=1, max_tokens_per_step=1)
    assert num_passes(SAMPLER, one_by_one, view) == len(values)


@given(distinct, st.floats(0, 1), st.floats(0, 1))
def test_a_larger_threshold_commits_no_less(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    view = one_block(values)
    few = set(committed(SAMPLER, MedParams(entropy_threshold=low), view))
    assert few <= set(committed(SAMPLER, MedParams(entropy_threshold=high), view))


@given(st.integers(0, 10_000), st.floats(1, 6), st.floats(0, 1.1), st.integers(1, 4))
@settings(max_examples=60)
def test_the_error_of_a_pass_is_within_the_bound(
    seed: int, spread: float, threshold: float, most: int
) -> None:
    """KL(joint || product of marginals) = sum H_i - H(joint) <= |S| threshold."""
    params = MedParams(entropy_threshold=threshold, max_tokens_per_step=most)
    for passed in decode(JointTable.random(seed=seed, spread=spread), SAMPLER, params):
        size = len(passed.positions)
        assert size <= most
        error = kl(passed.joint, independent(passed.marginals))
        total = passed.entropies.sum().item()
        assert error == pytest.approx(total - entropy_of(passed.joint), abs=1e-9)
        # One position alone has no error, whatever its entropy. float32 entropies.
        assert error <= (size * threshold if size > 1 else 0) + 1e-6


def test_a_limit_of_no_tokens_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"max_tokens_per_step"):
        msgspec.convert({"max_tokens_per_step": 0}, MedParams)
