"""`threshold`: all that are confident enough, at least the best."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.samplers.passes import committed, distinct, num_passes, one_block
from vllm_mdlm.samplers.threshold import SAMPLER, ThresholdParams


def test_commits_what_reaches_the_threshold() -> None:
    view = one_block([0.5, 0.75, 0.25, 1.0])
    assert committed(SAMPLER, ThresholdParams(threshold=0.75), view) == [1, 3]
    assert committed(SAMPLER, ThresholdParams(threshold=0.76), view) == [3]


def test_commits_the_best_when_nothing_reaches_it() -> None:
    assert committed(SAMPLER, ThresholdParams(), one_block([0.5, 0.75, 0.25, 0.75])) == [1]


@given(distinct)
def test_zero_is_one_pass_and_an_unreachable_one_a_pass_a_token(values: list[float]) -> None:
    view = one_block(values)
    assert num_passes(SAMPLER, ThresholdParams(threshold=0), view) == 1
    assert num_passes(SAMPLER, ThresholdParams(threshold=1), view) == len(values)


@given(distinct, st.floats(0, 1), st.floats(0, 1))
def test_a_lower_threshold_commits_no_less(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    view = one_block(values)
    strict = set(committed(SAMPLER, ThresholdParams(threshold=high), view))
    assert strict <= set(committed(SAMPLER, ThresholdParams(threshold=low), view))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_probability(value: float) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"\$\.threshold"):
        msgspec.convert({"threshold": value}, ThresholdParams)
