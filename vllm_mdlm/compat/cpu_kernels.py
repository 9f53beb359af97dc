"""Torch bodies for the Triton kernels that a denoising step launches, for machines without Triton.

Each function has the parameters of the kernel it stands for (names and order are vLLM's, which is
why they end in `_ptr` although they are tensors) and does the work of the whole grid at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def apply_write(
    output_ptr: torch.Tensor,
    output_stride: int,
    write_indices_ptr: torch.Tensor,
    write_starts_ptr: torch.Tensor,
    write_contents_ptr: torch.Tensor,
    write_cu_lens_ptr: torch.Tensor,
    write_group_ids_ptr: torch.Tensor | None,
    BLOCK_SIZE: int,
    MULTI_GROUP: bool,
    **_: Any,
) -> None:
    """Write variable-length rows into a 1-D or 2-D tensor."""
    assert not MULTI_GROUP, "a denoising model has one KV cache group"
    ends = write_cu_lens_ptr.long()
    lengths = torch.diff(ends, prepend=ends.new_zeros(1))
    row_starts = write_indices_ptr.long() * output_stride + write_starts_ptr.long()
    offsets = torch.arange(int(ends[-1])) - torch.repeat_interleave(ends - lengths, lengths)
    targets = torch.repeat_interleave(row_starts, lengths) + offsets
    flat = output_ptr.view(-1)
    flat[targets] = write_contents_ptr[: len(targets)].to(flat.dtype)


def _query_grid(
    idx_mapping: torch.Tensor, query_start_loc: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Per query token: its batch row and its offset in that row's span; per row: its length."""
    num_reqs = idx_mapping.shape[0]
    starts = query_start_loc[: num_reqs + 1].long()
    lengths = torch.diff(starts)
    rows = torch.repeat_interleave(torch.arange(num_reqs), lengths)
    offsets = torch.arange(len(rows)) - starts[rows]
    return rows, offsets, lengths


def prepare_prefill_inputs(
    input_ids_ptr: torch.Tensor,
    next_prefill_tokens_ptr: torch.Tensor,
    next_prefill_tokens_stride: int,
    num_lookahead: int,
    idx_mapping_ptr: torch.Tensor,
    query_start_loc_ptr: torch.Tensor,
    all_token_ids_ptr: torch.Tensor,
    all_token_ids_stride: int,
    prefill_lens_ptr: torch.Tensor,
    num_computed_tokens_ptr: torch.Tensor,
    BLOCK_SIZE: int,
    LOOKAHEAD_BLOCK: int,
    **_: Any,
) -> None:
    """Copy every span's tokens to the model's input. Nothing reads ahead of a span."""
    rows, offsets, _lengths = _query_grid(idx_mapping_ptr, query_start_loc_ptr)
    slots = idx_mapping_ptr.long()[rows]
    positions = num_computed_tokens_ptr.long()[slots] + offsets
    input_ids_ptr[: len(rows)] = all_token_ids_ptr[slots, positions]


def prepare_pos_seq_lens(
    pos_ptr: torch.Tensor,
    seq_lens_ptr: torch.Tensor,
    idx_mapping_ptr: torch.Tensor,
    query_start_loc_ptr: torch.Tensor,
    num_computed_tokens_ptr: torch.Tensor,
    max_num_reqs: int,
    BLOCK_SIZE: int,
    **_: Any,
) -> None:
    """Position of every query token and length of every sequence; unused rows are 0."""
    rows, offsets, lengths = _query_grid(idx_mapping_ptr, query_start_loc_ptr)
    computed = num_computed_tokens_ptr.long()[idx_mapping_ptr.long()]
    num_reqs = len(computed)
    pos_ptr[: len(rows)] = computed[rows] + offsets
    seq_lens_ptr[:num_reqs] = (computed + lengths).to(seq_lens_ptr.dtype)
    seq_lens_ptr[num_reqs:max_num_reqs] = 0


def combine_sampled_and_draft_tokens(
    input_ids_ptr: torch.Tensor,
    idx_mapping_ptr: torch.Tensor,
    last_sampled_tokens_ptr: torch.Tensor,
    query_start_loc_ptr: torch.Tensor,
    seq_lens_ptr: torch.Tensor,
    prefill_len_ptr: torch.Tensor,
    draft_tokens_ptr: torch.Tensor,
    draft_tokens_stride: int,
    cu_num_logits_ptr: torch.Tensor,
    logits_indices_ptr: torch.Tensor,
    BLOCK_SIZE: int,
    NUM_NEW_SAMPLED_TOKENS: int = 1,
    **_: Any,
) -> None:
    """One logits row a request, its span's last. The model state chooses the real rows later;
    a span never reaches beyond the known tokens, so no sampled token is copied."""
    num_reqs = idx_mapping_ptr.shape[0]
    logits_indices_ptr.copy_(query_start_loc_ptr[1 : num_reqs + 1] - 1)


def post_update(
    idx_mapping_ptr: torch.Tensor,
    num_computed_tokens_ptr: torch.Tensor,
    last_sampled_tokens_ptr: torch.Tensor,
    output_bin_counts_ptr: torch.Tensor | None,
    output_bin_counts_stride: int,
    sampled_tokens_ptr: torch.Tensor,
    sampled_tokens_stride: int,
    num_sampled_ptr: torch.Tensor,
    num_rejected_ptr: torch.Tensor,
    query_start_loc_ptr: torch.Tensor | None,
    all_token_ids_ptr: torch.Tensor,
    all_token_ids_stride: int,
    total_len_ptr: torch.Tensor,
    **_: Any,
) -> None:
    """Append the sampled tokens to the request's tokens and advance its counters."""
    assert output_bin_counts_ptr is None, "penalties are not supported"
    slots = idx_mapping_ptr.long()
    num_sampled = num_sampled_ptr.long()
    total = total_len_ptr.long()[slots]
    columns = torch.arange(sampled_tokens_ptr.shape[1])
    rows, cols = (columns < num_sampled.unsqueeze(1)).nonzero(as_tuple=True)
    all_token_ids_ptr[slots[rows], total[rows] + cols] = sampled_tokens_ptr[rows, cols].to(
        all_token_ids_ptr.dtype
    )
    total_len_ptr[slots] = (total + num_sampled).to(total_len_ptr.dtype)
    if query_start_loc_ptr is not None:
        lengths = torch.diff(query_start_loc_ptr[: len(slots) + 1].long())
        advance = lengths - num_rejected_ptr.long()
        num_computed_tokens_ptr[slots] += advance.to(num_computed_tokens_ptr.dtype)


PREFIX = "vllm.v1.worker.gpu."

KERNELS: dict[str, Callable[..., None]] = {
    "buffer_utils._apply_write_kernel": apply_write,
    "input_batch._prepare_prefill_inputs_kernel": prepare_prefill_inputs,
    "input_batch._prepare_pos_seq_lens_kernel": prepare_pos_seq_lens,
    "input_batch._combine_sampled_and_draft_tokens_kernel": combine_sampled_and_draft_tokens,
    "input_batch._post_update_kernel": post_update,
}


def gather_block_tables(
    tables: Any,
    idx_mapping: torch.Tensor,
    num_reqs_padded: int,
    out: tuple[torch.Tensor, ...] | None = None,
    out_ptrs: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """`BlockTables.gather_block_tables`, replaced whole: its kernel takes raw pointers."""
    targets = tuple(tables.input_block_tables) if out is None else out
    num_reqs = idx_mapping.shape[0]
    for group, target in enumerate(targets):
        width = int(tables.num_blocks.np[group].max(initial=0))
        source = tables.block_tables[group].gpu
        target[:num_reqs, :width] = source[idx_mapping, :width]
        target[num_reqs:num_reqs_padded].zero_()
    return tuple(target[:num_reqs_padded] for target in targets)


def compute_slot_mappings(
    tables: Any,
    idx_mapping: torch.Tensor,
    query_start_loc: torch.Tensor,
    positions: torch.Tensor,
    num_tokens_padded: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`BlockTables.compute_slot_mappings`, for the same reason."""
    assert tables.cp_size == 1, "context parallelism is not supported"
    mappings: torch.Tensor = tables.slot_mappings if out is None else out
    rows, _offsets, _lengths = _query_grid(idx_mapping, query_start_loc)
    num_tokens = len(rows)
    for group, block_size in enumerate(np.asarray(tables.block_sizes).tolist()):
        position = positions[:num_tokens].long()
        blocks = tables.block_tables[group].gpu[idx_mapping.long()[rows], position // block_size]
        mappings[group, :num_tokens] = blocks.long() * block_size + position % block_size
        mappings[group, num_tokens:num_tokens_padded] = -1
    return mappings[:, :num_tokens_padded]
