"""What one pass works on: the active block of every request in the batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vllm_mdlm.denoise.answers import AnswerRows, answer_rows
from vllm_mdlm.denoise.guidance import NO_SLOT, Companions, Guidance
from vllm_mdlm.denoise.slots import INT, SlotTable, some
from vllm_mdlm.denoise.template_table import TemplateTable
from vllm_mdlm.denoise.transfer import to_device


class PassView(NamedTuple):
    """One pass over R requests whose active blocks are padded to B positions; N masked rows."""

    slots: torch.Tensor  # [R] int64
    slots_np: np.ndarray  # [R]
    ints: torch.Tensor  # [R, F] int64, gathered slot state before the pass
    positions: torch.Tensor  # [R, B] int64, position in prompt plus canvas
    undecided: torch.Tensor  # [R, B] bool, still a mask
    masked: torch.Tensor  # [R, B] bool, undecided and may be committed in this pass
    active: torch.Tensor | None  # [R] bool, takes this pass; None: all do
    rows: torch.Tensor  # [N] int64, flat index into [R, B] of every logits row
    request: torch.Tensor  # [N] int64, batch row of every logits row
    request_np: np.ndarray  # [N], the same on the host
    row_positions: torch.Tensor  # [N] int64, position in prompt plus canvas
    answer: AnswerRows | None  # E rows behind the active blocks whose entropy is traced
    query_indices: torch.Tensor  # [N + E + G] int64, logits rows in the model's output
    guidance: Guidance | None  # where G requests' rows are guided
    companion_slots: tuple[torch.Tensor, torch.Tensor] | None  # batch rows guided, their slots

    def canvas_positions(self, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Of some logits rows, [M] int64; None: of all."""
        if rows is None:
            return self.row_positions - self.ints[self.request, INT["prompt_len"]]
        return self.row_positions[rows] - self.ints[self.request[rows], INT["prompt_len"]]


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

    How many there are, only the device knows. The host asks here, before the network is queued:
    later it would wait for the network.

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
        active = to_device(~waits, slots.device)
        masked = undecided & active.unsqueeze(1)
    rows_np = np.flatnonzero(masked.cpu().numpy())
    rows = to_device(rows_np, slots.device)
    request = read_request = rows // width
    row_positions = read_positions = positions.flatten()[rows]
    answer = answer_rows(templates, slots, slots_np, ints, active, all_token_ids, mask_token_id)
    if answer is not None:
        read_request = torch.cat([request, answer.request])
        read_positions = torch.cat([row_positions, answer.positions])
    first_query = query_starts[: len(slots)].long() - span_starts[slots].long()
    query_indices = read_positions + first_query[read_request]
    guidance = companion_slots = None
    if companion_row is not None:
        pairs = to_device(companion_row, slots.device)
        together = to_device(np.flatnonzero(companion_row >= 0), slots.device)
        companion_slots = (together, slots[pairs[together]])
        guidance = _guidance(slots, pairs, read_request, read_positions, first_query)
        query_indices = torch.cat([query_indices, guidance.query_indices])
    return PassView(
        slots,
        slots_np,
        ints,
        safe_positions,
        undecided,
        masked,
        active,
        rows,
        request,
        rows_np // width,
        row_positions,
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


def rows_of(chosen: np.ndarray, request: np.ndarray, device: torch.device) -> torch.Tensor:
    """Rows that belong to some requests; the host does not wait for the device.

    Args:
        chosen: [R] bool.
        request: [M] int64, batch row of every row.
        device: of the result.

    Returns:
        [n] int64, ascending.
    """
    if chosen.all():
        return torch.arange(len(request), device=device)
    return to_device(np.flatnonzero(chosen[request]), device)


def dense(values: torch.Tensor, view: PassView) -> torch.Tensor:
    """Spread [N] values of logits rows over [R, B]; 0 where there is no row."""
    flat = values.new_zeros(view.masked.numel())
    return flat.index_copy_(0, view.rows, values).view(view.masked.shape)


def _companion_rows(
    companions: Companions, table: SlotTable, slots_np: np.ndarray
) -> np.ndarray | None:
    """Batch row of every request's companion, [R]; -1 for none, None when nothing is guided."""
    if not some(table.host.guided[slots_np]):
        return None
    row_of_slot = np.full(len(companions.slot_of) + 1, NO_SLOT, dtype=np.int64)
    row_of_slot[slots_np] = np.arange(len(slots_np))
    # NO_SLOT indexes the last element, which stays NO_SLOT.
    rows: np.ndarray = row_of_slot[companions.slot_of[slots_np]]
    return rows
