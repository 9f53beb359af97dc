"""One line: what is committed.

Source: authors, year, identifier, equation or algorithm number. What the source leaves open and
is chosen here is called our choice.
"""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection, take_first


class SkeletonParams(SamplerParams, frozen=True, kw_only=True):
    """`gap`: the least probability between the best two tokens that is committed."""

    gap: Annotated[float, Meta(ge=0, le=1)] = 0.5


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    assert view.margin is not None  # asked for in `needs`
    wide = view.masked & (view.margin >= params["gap"].unsqueeze(1))
    # A pass must always commit something.
    return Selection(wide | take_first(view.margin, view.masked))


SAMPLER = Sampler(
    "skeleton",
    SkeletonParams,
    select,
    needs=frozenset({"margin"}),  # statistics that the view then carries
    fixed_schedule=False,  # it does not read `view.quota`
)
