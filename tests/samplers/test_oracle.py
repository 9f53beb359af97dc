"""Every built-in sampler against its plain-Python rule, row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samplers.batches import GRIDS, batches, columns
from tests.samplers.oracle import RULES, chosen
from vllm_mdlm.samplers import Sampler, samplers
from vllm_mdlm.samplers.registry import BUILT_IN

examples = settings(max_examples=60)


def test_every_built_in_sampler_has_a_rule() -> None:
    assert set(RULES) == set(BUILT_IN)


@pytest.mark.parametrize("sampler", [samplers()[name] for name in RULES], ids=list(RULES))
@given(data=st.data())
@examples
def test_commits_what_the_rule_commits(sampler: Sampler, data: st.DataObject) -> None:
    batch = data.draw(batches(sampler))
    num_rows, block = batch.view.masked.shape
    state = torch.zeros(num_rows, block) if sampler.has_state else None
    params, earlier = columns(batch.params), []
    if sampler.has_state:
        for _ in range(data.draw(st.integers(0, 4))):
            size = num_rows * block
            values = st.lists(st.sampled_from(GRIDS["divergence"]), min_size=size, max_size=size)
            divergence = torch.tensor(data.draw(values)).view(num_rows, block)
            earlier.append(divergence)
            view = batch.view._replace(divergence=divergence)
            state = sampler.select(view, params, state).state
    commit = sampler.select(batch.view, params, state).commit
    for row in range(num_rows):
        # In float32, as the sampler sees them.
        history = [divergence[row].tolist() for divergence in earlier]
        got = commit[row].nonzero().flatten().tolist()
        assert got == chosen(sampler.name, batch, row, history)
