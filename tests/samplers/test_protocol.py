"""What every sampler promises: the built-in ones, those of installed packages, the skeleton."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samplers.batches import Batch, batches, columns, padded, rows_of
from tests.waits import noted_waits
from vllm_mdlm.samplers import BlockView, Sampler, Selection, samplers

SKELETON = Path(__file__).parents[2] / "docs" / "skeletons" / "sampler.py"


def load_skeleton() -> Sampler:
    spec = importlib.util.spec_from_file_location("sampler_skeleton", SKELETON)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # msgspec looks its annotations up there
    spec.loader.exec_module(module)
    return module.SAMPLER


EVERY_SAMPLER = [*samplers().values(), load_skeleton()]
every_sampler = pytest.mark.parametrize("sampler", EVERY_SAMPLER, ids=lambda sampler: sampler.name)
examples = settings(max_examples=25)


def select(sampler: Sampler, batch: Batch) -> Selection:
    return sampler.select(batch.view, columns(batch.params), batch.state)


def assert_same(got: Selection, wanted: Selection) -> None:
    assert torch.equal(got.commit, wanted.commit)
    assert (got.state is None) == (wanted.state is None)
    if got.state is not None and wanted.state is not None:
        assert torch.equal(got.state, wanted.state)


@every_sampler
def test_parameters_have_defaults_in_their_own_bounds(sampler: Sampler) -> None:
    defaults = sampler.params()
    assert msgspec.convert(msgspec.to_builtins(defaults), sampler.params) == defaults


@every_sampler
@given(data=st.data())
@examples
def test_commits_masked_positions_only_and_always_progresses(
    sampler: Sampler, data: st.DataObject
) -> None:
    batch = data.draw(batches(sampler))
    commit = select(sampler, batch).commit
    assert commit.dtype == torch.bool
    assert commit.shape == batch.view.masked.shape
    assert not (commit & ~batch.view.masked).any()
    assert torch.equal(commit.any(1), batch.view.masked.any(1))


@every_sampler
@given(data=st.data())
@examples
def test_never_modifies_its_arguments(sampler: Sampler, data: st.DataObject) -> None:
    batch = data.draw(batches(sampler))
    arguments = (batch.view, columns(batch.params), batch.state)
    tensors = [t for t in (*batch.view, *arguments[1].values(), batch.state) if t is not None]
    before = [t.clone() for t in tensors]
    first = sampler.select(*arguments)
    for tensor, copy in zip(tensors, before, strict=True):
        assert torch.equal(tensor.nan_to_num(7.5), copy.nan_to_num(7.5))
    assert_same(sampler.select(*arguments), first)


@every_sampler
@given(data=st.data())
@settings(max_examples=3)
def test_never_waits_for_the_device(sampler: Sampler, data: st.DataObject) -> None:
    batch = data.draw(batches(sampler))
    arguments = (batch.view, columns(batch.params), batch.state)
    with noted_waits() as waits:
        sampler.select(*arguments)
    assert waits == []


@every_sampler
@given(data=st.data())
@examples
def test_a_row_alone_in_any_order_and_padded_gives_the_same(
    sampler: Sampler, data: st.DataObject
) -> None:
    batch = data.draw(batches(sampler))
    together = select(sampler, batch)
    num_rows, block = batch.view.masked.shape
    order = data.draw(st.permutations(range(num_rows)))
    shuffled = select(sampler, rows_of(batch, order))
    assert torch.equal(shuffled.commit, together.commit[order])
    for row in range(num_rows):
        alone = select(sampler, rows_of(batch, [row]))
        state = None if together.state is None else together.state[row : row + 1]
        assert_same(alone, Selection(together.commit[row : row + 1], state))
    wide = select(sampler, padded(batch, 3)).commit
    assert torch.equal(wide[:, :block], together.commit)


@every_sampler
@given(data=st.data())
@examples
def test_equal_statistics_go_by_position(sampler: Sampler, data: st.DataObject) -> None:
    batch = data.draw(batches(sampler, max_rows=1))
    masked = batch.view.masked

    def flat(table: torch.Tensor | None) -> torch.Tensor | None:
        if table is None or table.dim() == 1 or table.dtype == torch.bool:
            return table
        return table[masked][:1].expand(masked.shape) if masked.any() else table

    view = BlockView(*map(flat, batch.view))
    state = torch.zeros(masked.shape) if sampler.has_state else None
    commit = sampler.select(view, columns(batch.params), state).commit
    by_position = commit[masked].int()
    assert (by_position.diff() <= 0).all()


@every_sampler
@given(data=st.data())
@examples
def test_state_is_numbers_of_the_block(sampler: Sampler, data: st.DataObject) -> None:
    batch = data.draw(batches(sampler))
    state = select(sampler, batch).state
    assert (state is not None) == sampler.has_state
    if state is not None:
        assert state.shape == batch.view.masked.shape
        assert state.dtype == torch.float32
        assert not state.isnan().any()


@every_sampler
@given(data=st.data())
@examples
def test_ends_within_one_pass_a_position(sampler: Sampler, data: st.DataObject) -> None:
    batch = data.draw(batches(sampler))
    masked, state, params = batch.view.masked, batch.state, columns(batch.params)
    for _ in range(masked.shape[1]):
        commit, state = sampler.select(batch.view._replace(masked=masked), params, state)
        masked = masked & ~commit
    assert not masked.any()


@every_sampler
def test_fixed_schedule_says_whether_the_quota_is_read(sampler: Sampler) -> None:
    # Nothing is certain and nothing is stable here, so only a quota commits more than one.
    generator = torch.Generator().manual_seed(0)
    table = torch.rand(1, 6, generator=generator) / 2 + 0.2
    view = BlockView(
        masked=torch.ones(1, 6, dtype=torch.bool),
        confidence=table,
        quota=torch.tensor([3]),
        entropy=table + 1,
        margin=table,
        draw=table.double(),
        divergence=torch.full((1, 6), float("inf")),
    )
    state = torch.zeros(1, 6) if sampler.has_state else None
    params = columns([sampler.params()])
    three = sampler.select(view, params, state).commit
    six = sampler.select(view._replace(quota=torch.tensor([6])), params, state).commit
    if sampler.fixed_schedule:
        assert three.sum() == 3
        assert six.all()
    else:
        assert torch.equal(three, six)
