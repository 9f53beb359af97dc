"""The oracle order of addition as a sampler of the plugin: least significant digit first.

The folder is laid out as an installed package is, so that putting it on the path offers the sampler
to vLLM through the entry-point group `vllm_mdlm.samplers`, as any other package would.
"""

from __future__ import annotations

import torch

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    """The quota from the right."""
    from_right = view.masked.flip(1).cumsum(dim=1).flip(1)
    return Selection(view.masked & (from_right <= view.quota.unsqueeze(1)))


RIGHT_TO_LEFT = Sampler("right_to_left", SamplerParams, select)
