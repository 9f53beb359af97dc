"""Batches for any sampler: its parameters drawn from their declared bounds, its statistics from
grids full of ties and extremes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import torch
from hypothesis import strategies as st

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, param_values

GRIDS: dict[str, tuple[float, ...]] = {
    "confidence": (0.0, 1e-30, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99, 1.0),
    # Dyadic, so that sums are exact in whatever order they are added.
    "entropy": (0.0, 2**-9, 2**-6, 0.0625, 0.125, 0.1875, 0.25, 0.5, 2.0, 11.75),
    "margin": (0.0, 1e-30, 0.1, 0.5, 0.9, 1.0),
    "draw": (1e-16, 0.1, 0.3, 0.5, 0.7, 0.9, 1 - 1e-16),
    "divergence": (0.0, 0.001, 0.005, 0.01, 0.5, float("inf")),
}


class Batch(NamedTuple):
    """Arguments of `select`, and the parameter structs behind its columns."""

    view: BlockView
    params: list[SamplerParams]
    state: torch.Tensor | None


def columns(params: Sequence[SamplerParams]) -> dict[str, torch.Tensor]:
    """Parameter structs of one type as `select` gets them: [R] float64 a field."""
    values = torch.tensor([param_values(row) for row in params], dtype=torch.float64)
    names = params[0].__struct_fields__
    return {name: values[:, i] for i, name in enumerate(names)}


def number(kind: msgspec.inspect.Type) -> st.SearchStrategy[float | int | None]:
    """Values of a parameter's declared type, its bounds and default-like numbers included."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return number(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return st.one_of([number(member) for member in kind.types])
    if isinstance(kind, msgspec.inspect.NoneType):
        return st.none()
    if isinstance(kind, msgspec.inspect.IntType):
        low = 0 if kind.ge is None else kind.ge
        return st.integers(low, low + 5 if kind.le is None else kind.le)
    if isinstance(kind, msgspec.inspect.FloatType):
        low = 0.0 if kind.ge is None else kind.ge
        high = low + 3.0 if kind.le is None else kind.le
        grid = [v for v in (0.0, 0.01, 0.125, 0.25, 0.5, 0.9, 1.0, 2.0) if low <= v <= high]
        return st.floats(low, high) | st.sampled_from([low, high, *grid])
    raise TypeError(f"a sampler parameter is a number or None, got {kind}")


def params_of(sampler: Sampler) -> st.SearchStrategy[SamplerParams]:
    info = msgspec.inspect.type_info(sampler.params)
    assert isinstance(info, msgspec.inspect.StructType)
    fields = {field.name: number(field.type) for field in info.fields}
    return st.fixed_dictionaries(fields).map(lambda values: sampler.params(**values))


@st.composite
def batches(draw: st.DrawFn, sampler: Sampler, max_rows: int = 4, max_block: int = 7) -> Batch:
    """A batch of one sampler. What a sampler may not rely on is poisoned: statistics it does not
    need are None, and values at positions that are not masked are NaN."""
    num_rows = draw(st.integers(1, max_rows))
    block = draw(st.integers(1, max_block))
    size = num_rows * block
    flags = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    masked = torch.tensor(flags).view(num_rows, block)

    def statistic(name: str) -> torch.Tensor:
        values = draw(st.lists(st.sampled_from(GRIDS[name]), min_size=size, max_size=size))
        dtype = torch.float64 if name == "draw" else torch.float32
        table = torch.tensor(values, dtype=dtype).view(num_rows, block)
        return table.masked_fill(~masked, float("nan"))

    quota = draw(st.lists(st.integers(1, block + 1), min_size=num_rows, max_size=num_rows))
    view = BlockView(
        masked=masked,
        confidence=statistic("confidence"),
        quota=torch.tensor(quota),
        **{name: statistic(name) for name in sorted(sampler.needs)},
    )
    params = draw(st.lists(params_of(sampler), min_size=num_rows, max_size=num_rows))
    state = None
    if sampler.has_state:
        state = torch.zeros(num_rows, block)
        if draw(st.booleans()):
            state = sampler.select(view, columns(params), state).state
    return Batch(view, params, state)


def rows_of(batch: Batch, rows: Sequence[int]) -> Batch:
    """The batch of some of its rows, in that order."""
    index = torch.tensor(rows)
    view = BlockView(*(None if field is None else field[index] for field in batch.view))
    state = None if batch.state is None else batch.state[index]
    return Batch(view, [batch.params[row] for row in rows], state)


def padded(batch: Batch, extra: int) -> Batch:
    """The batch with `extra` positions of padding, as in a batch with longer blocks."""

    def pad(table: torch.Tensor | None) -> torch.Tensor | None:
        if table is None or table.dim() == 1:
            return table
        fill = False if table.dtype == torch.bool else float("nan")
        return torch.nn.functional.pad(table, (0, extra), value=fill)

    state = batch.state
    if state is not None:
        state = torch.nn.functional.pad(state, (0, extra))
    return Batch(BlockView(*map(pad, batch.view)), batch.params, state)
