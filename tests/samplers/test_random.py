"""`random`: a quota of the largest draws."""

from __future__ import annotations

import torch
from hypothesis import given

from tests.samplers.passes import committed, distinct, num_passes, one_block
from vllm_mdlm.samplers.base import BlockView
from vllm_mdlm.samplers.random import SAMPLER


def test_commits_the_largest_draws() -> None:
    view = one_block([0.2, 0.9, 0.4, 0.9, 0.3], quota=3)
    assert committed(SAMPLER, SAMPLER.params(), view) == [1, 2, 3]


@given(distinct)
def test_a_quota_of_the_block_is_one_pass_and_of_one_a_pass_a_token(values: list[float]) -> None:
    params = SAMPLER.params()
    assert num_passes(SAMPLER, params, one_block(values, quota=len(values))) == 1
    assert num_passes(SAMPLER, params, one_block(values, quota=1)) == len(values)


def test_every_position_is_as_likely() -> None:
    # n = 8000 draws over 8 positions, seed 0; chi-square with 7 degrees of freedom exceeds 42.7
    # with probability 4e-7.
    generator = torch.Generator().manual_seed(0)
    draw = torch.rand(8000, 8, generator=generator, dtype=torch.float64)
    view = BlockView(
        masked=torch.ones(8000, 8, dtype=torch.bool),
        confidence=torch.zeros(8000, 8),
        quota=torch.ones(8000, dtype=torch.int64),
        draw=draw,
    )
    counts = SAMPLER.select(view, {}, None).commit.sum(0)
    assert ((counts - 1000) ** 2 / 1000).sum() < 42.7
