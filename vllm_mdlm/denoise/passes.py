"""What one pass works on: the active block of every request in the batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vllm_mdlm.denoise.slots import INT, SlotTable


class PassView(NamedTuple):
    """One pass over R requests whose active blocks are padded to B positions; N masked rows."""

    slots: torch.Tensor  # [R] int64
    slots_np: np.ndarray  # [R]
    ints: torch.Tensor  # [R, F] int64, gathered slot state before the pass
    positions: torch.Tensor  # [R, B] int64, position in prompt plus canvas
    inside: torch.Tensor  # [R, B] bool, False on padding
    masked: torch.Tensor  # [R, B] bool
    rows: torch.Tensor  # [N] int64, flat index into [R, B] of every logits row
    query_indices: torch.Tensor  # [N] int64, index of every logits row in the model's output


def plan_pass(
    table: SlotTable,
    slots: torch.Tensor,
    slots_np: np.ndarray,
    query_starts: torch.Tensor,
    span_starts: torch.Tensor,
    all_token_ids: torch.Tensor,
    mask_token_id: int,
) -> PassView:
    """Find the masked positions of the active blocks.

    Args:
        table: state of every slot.
        slots: [R] slots in the batch, on the device; `slots_np` the same on the host.
        query_starts: [R] index of every request's first token in the model's input.
        span_starts: [S] position of that token in the request, by slot.
        all_token_ids: [S, max_len] prompt and canvas, by slot.
        mask_token_id: id that marks an undecided canvas position.
    """
    slots = slots.long()
    ints = table.ints[slots]
    block_start = ints[:, INT["block_start"]]
    block_length = int(table.host.block_length[slots_np].max())
    offsets = torch.arange(block_length, device=slots.device)
    positions = block_start.unsqueeze(1) + offsets
    block_end = torch.minimum(
        block_start + ints[:, INT["block_length"]], ints[:, INT["canvas_end"]]
    )
    inside = positions < block_end.unsqueeze(1)
    safe_positions = positions.clamp(max=all_token_ids.shape[1] - 1)
    tokens = all_token_ids[slots.unsqueeze(1), safe_positions]
    masked = inside & (tokens == mask_token_id)
    rows = masked.flatten().nonzero().squeeze(1)
    first_query = query_starts[: len(slots)].long() - span_starts[slots].long()
    query_indices = (positions + first_query.unsqueeze(1)).flatten()[rows]
    return PassView(slots, slots_np, ints, safe_positions, inside, masked, rows, query_indices)
