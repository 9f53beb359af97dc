"""`low_confidence`: a quota of the most probable."""

from __future__ import annotations

from hypothesis import given

from tests.samplers.passes import committed, distinct, num_passes, one_block
from vllm_mdlm.samplers.low_confidence import SAMPLER


def test_commits_the_most_probable() -> None:
    view = one_block([0.2, 0.9, 0.4, 0.9, 0.3], quota=3)
    assert committed(SAMPLER, SAMPLER.params(), view) == [1, 2, 3]


@given(distinct)
def test_a_quota_of_the_block_is_one_pass_and_of_one_a_pass_a_token(values: list[float]) -> None:
    params = SAMPLER.params()
    assert num_passes(SAMPLER, params, one_block(values, quota=len(values))) == 1
    assert num_passes(SAMPLER, params, one_block(values, quota=1)) == len(values)
