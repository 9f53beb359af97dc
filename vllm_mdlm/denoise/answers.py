"""The entropy of a request's answer, from the pass that denoises its reasoning.

The joint entropy of the answer is at most the sum of the entropies of its undecided positions;
every pass can tell that sum (Horvitz et al. 2025, arXiv 2510.19990). A sum, where the source leaves
open whether sum, mean or maximum, is our choice. Once it is below a bound, what is left of the
reasoning stays undecided and the answer comes next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from vllm_mdlm.denoise.slots import INT
from vllm_mdlm.denoise.template_table import TemplateTable
from vllm_mdlm.denoise.transfer import to_device
from vllm_mdlm.kernels import row_stats
from vllm_mdlm.spans import KV_MODES

if TYPE_CHECKING:
    from vllm_mdlm.denoise.passes import PassView

DUAL = KV_MODES.index("dual")


class AnswerRows(NamedTuple):
    """Undecided positions of answers that lie behind the active block; E logits rows of a pass
    over R requests."""

    traced: torch.Tensor  # [R] bool, the request traces its answer
    computed: torch.Tensor  # [R] bool, the pass computes what lies behind the active block
    rows: torch.Tensor  # [E] int64, flat index into [R, width]
    width: int
    positions: torch.Tensor  # [E] int64, position in prompt plus canvas
    request: torch.Tensor  # [E] int64, batch row


def answer_rows(
    table: TemplateTable,
    slots: torch.Tensor,
    slots_np: np.ndarray,
    ints: torch.Tensor,
    active: torch.Tensor | None,
    all_token_ids: torch.Tensor,
    mask_token_id: int,
) -> AnswerRows | None:
    """Find what the entropy of the answers needs beside the active blocks.

    Args:
        table: templates by slot.
        slots: [R] int64.
        slots_np: [R], the same on the host.
        ints: [R, F] int64, slot state before the pass.
        active: [R] bool, takes this pass; None: all do.
        all_token_ids: [S, max_len] prompt and canvas, by slot.
        mask_token_id: id that marks an undecided canvas position.

    Returns:
        None when the batch traces no answer.
    """
    width = int(table.host.answer_length[slots_np].max())
    if width == 0:
        return None
    computed = (ints[:, INT["kv_cache"]] != DUAL) | (ints[:, INT["block_pass"]] == 0)
    if active is not None:
        computed &= active
    block_end = ints[:, INT["block_start"]] + ints[:, INT["block_size"]]
    traced = to_device(table.host.answer_length[slots_np] > 0, slots.device)
    start = table.answer_start[slots].unsqueeze(1)
    positions = start + torch.arange(width, device=slots.device)
    wanted = (traced & computed).unsqueeze(1) & (positions < table.answer_end[slots].unsqueeze(1))
    wanted &= positions >= block_end.unsqueeze(1)
    safe = positions.clamp(max=all_token_ids.shape[1] - 1)
    wanted &= all_token_ids[slots.unsqueeze(1), safe] == mask_token_id
    rows = wanted.flatten().nonzero().squeeze(1)
    return AnswerRows(traced, computed, rows, width, positions.flatten()[rows], rows // width)


class Answers(NamedTuple):
    """What a pass says of the answers of its R requests."""

    entropy: torch.Tensor  # [R] float64, nats; 0 where none is traced
    exits: torch.Tensor  # [R] bool, the reasoning is left


def observe(
    table: TemplateTable, view: PassView, entropy: torch.Tensor, logits: torch.Tensor
) -> Answers:
    """Sum the entropies of the answers, and decide who leaves the reasoning before this pass
    commits anything.

    A pass that computes the active block alone (`kv_cache=dual`) counts what lies behind it as the
    block's first pass did: nothing there has been computed since.

    Args:
        table: templates by slot.
        view: the pass, with `answer`.
        entropy: [R, B] nats, of the masked positions of the active blocks.
        logits: [E, V] of the rows of `view.answer`.
    """
    answer = view.answer
    assert answer is not None
    slots = view.slots
    start = table.answer_start[slots].unsqueeze(1)
    end = table.answer_end[slots].unsqueeze(1)
    part = view.masked & (view.positions >= start) & (view.positions < end)
    active = torch.where(part, entropy.double(), 0).sum(dim=1)
    behind = torch.zeros(len(slots) * answer.width, dtype=torch.float64, device=slots.device)
    if len(answer.rows):
        stats = row_stats(logits, need_entropy=True)
        assert stats.entropy is not None
        behind[answer.rows] = stats.entropy.double()
    now = behind.view(len(slots), answer.width).sum(dim=1)
    behind = torch.where(answer.computed, now, table.behind[slots])
    table.behind[slots] = behind
    total = torch.where(answer.traced, active + behind, 0)
    exits = answer.traced & (total < table.early_exit[slots])
    exits &= table.block_index[slots] < table.answer_block[slots]
    if view.active is not None:
        exits &= view.active
    return Answers(total, exits)
