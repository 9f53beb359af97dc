"""What one pass works on: the active block of every request in the batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vllm_mdlm.denoise.answers import AnswerRows, answer_rows
from vllm_mdlm.denoise.guidance import NO_SLOT, Companions, Guidance
from vllm_mdlm.denoise.slots import INT, SlotTable
from vllm_mdlm.denoise.template_table import TemplateTable


class PassView(NamedTuple):
    """One pass over R requests whose active blocks are padded to B positions; N masked rows."""

    slots: torch.Tensor  # [R] int64
    slots_np: np.ndarray  # [R]
    ints: torch.Tensor  # [R, F] int64, gathered slot state before the pass
    positions: torch.Tensor  # [R, B] int64, position in prompt plus canvas
    inside: torch.Tensor  # [R, B] bool, False on padding
    undecided: torch.Tensor  # [R, B] bool, still a mask
    masked: torch.Tensor  # [R, B] bool, undecided and may be committed in this pass
    active: torch.Tensor | None  # [R] bool, takes this pass; None: all do
    rows: torch.Tensor  # [N] int64, flat index into [R, B] of every logits row
    answer: AnswerRows | None  # E rows behind the active blocks whose entropy is traced
    query_indices: torch.Tensor  # [N + E + G] int64, logits rows in the model's output
    guidance: Guidance | None  # where G requests' rows are guided
    companion_slots: tuple[torch.Tensor, torch.Tensor] | None  # batch rows guided, their slots


def plan_pass(
    table: SlotTable,
    templates: TemplateTable,
    companions: Companions,
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
        templates: templates by slot.
        companions: of guided requests.
        slots: [R] slots in the batch, on the device; `slots_np` the same on the host.
        query_starts: [R] index of every request's first token in the model's input.
        span_starts: [S] position of that token in the request, by slot.
        all_token_ids: [S, max_len] prompt and canvas, by slot.
        mask_token_id: id that marks an undecided canvas position.
    """
    slots = slots.long()
    ints = table.ints[slots]
    block_start = ints[:, INT["block_start"]]
    width = max(1, int(table.host.block_length[slots_np].max()))
    positions = block_start.unsqueeze(1) + torch.arange(width, device=slots.device)
    block_end = block_start + ints[:, INT["block_size"]]
    inside = positions < block_end.unsqueeze(1)
    safe_positions = positions.clamp(max=all_token_ids.shape[1] - 1)
    tokens = all_token_ids[slots.unsqueeze(1), safe_positions]
    masked = undecided = inside & (tokens == mask_token_id)
    companion_row = _companion_rows(companions, table, slots_np)
    active = None
    if companion_row is not None:
        # A guided request whose companion is not in this batch waits for it.
        waits = table.host.guided[slots_np] & (companion_row < 0)
        active = torch.from_numpy(~waits).to(slots.device)
        masked = undecided & active.unsqueeze(1)
    rows = masked.flatten().nonzero().squeeze(1)
    first_query = query_starts[: len(slots)].long() - span_starts[slots].long()
    row_positions = positions.flatten()[rows]
    request = rows // width
    answer = answer_rows(templates, slots, slots_np, ints, active, all_token_ids, mask_token_id)
    if answer is not None:
        row_positions = torch.cat([row_positions, answer.positions])
        request = torch.cat([request, answer.request])
    query_indices = row_positions + first_query[request]
    guidance = companion_slots = None
    if companion_row is not None:
        pairs = torch.from_numpy(companion_row).to(slots.device)
        together = (pairs >= 0).nonzero().squeeze(1)
        companion_slots = (together, slots[pairs[together]])
        guidance = _guidance(slots, pairs, request, row_positions, first_query)
        query_indices = torch.cat([query_indices, guidance.query_indices])
    return PassView(
        slots,
        slots_np,
        ints,
        safe_positions,
        inside,
        undecided,
        masked,
        active,
        rows,
        answer,
        query_indices,
        guidance,
        companion_slots,
    )


def _guidance(
    slots: torch.Tensor,
    pairs: torch.Tensor,
    request: torch.Tensor,
    positions: torch.Tensor,
    first_query: torch.Tensor,
) -> Guidance:
    """Which rows are guided, and by which.

    Args:
        slots: [R] int64.
        pairs: [R] int64, batch row of every request's companion, -1 for none.
        request: [M] int64, batch row of every logits row.
        positions: [M] int64, position of every logits row in prompt plus canvas.
        first_query: [R] int64, where position 0 of a request would be in the model's input.
    """
    guided = (pairs[request] >= 0).nonzero().squeeze(1)
    companion = pairs[request[guided]]
    return Guidance(
        guided,
        slots[request[guided]],
        slots[companion],
        positions[guided] + first_query[companion],
    )


def dense(values: torch.Tensor, view: PassView) -> torch.Tensor:
    """Spread [N] values of logits rows over [R, B]; 0 where there is no row."""
    flat = values.new_zeros(view.masked.numel())
    return flat.index_copy_(0, view.rows, values).view(view.masked.shape)


def _companion_rows(
    companions: Companions, table: SlotTable, slots_np: np.ndarray
) -> np.ndarray | None:
    """Batch row of every request's companion, [R]; -1 for none, None when nothing is guided."""
    if not table.host.guided[slots_np].any():
        return None
    row_of_slot = np.full(len(companions.slot_of) + 1, NO_SLOT, dtype=np.int64)
    row_of_slot[slots_np] = np.arange(len(slots_np))
    # NO_SLOT indexes the last element, which stays NO_SLOT.
    rows: np.ndarray = row_of_slot[companions.slot_of[slots_np]]
    return rows
