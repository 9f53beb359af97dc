"""Torch bodies for the Triton kernels that a denoising step launches, for machines without Triton.

Each function has the parameters of the kernel it stands for (names and order are vLLM's, which is
why they end in `_ptr` although they are tensors) and does the work of the whole grid at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
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
    """Per query token: its batch row and its offset in that row's span; per row: its length.

    int64; to be read only, for a step asks three times and the next one often for the same.
    """
    return _grid(tuple(query_start_loc[: idx_mapping.shape[0] + 1].tolist()))


@lru_cache(maxsize=1)
def _grid(starts: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    bounds = np.array(starts)
    lengths = np.diff(bounds)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    offsets = np.arange(len(rows)) - bounds[rows]
    return torch.from_numpy(rows), torch.from_numpy(offsets), torch.from_numpy(lengths)


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
    first = idx_mapping_ptr * all_token_ids_stride + num_computed_tokens_ptr[idx_mapping_ptr]
    tokens = all_token_ids_ptr.view(-1)
    torch.index_select(tokens, 0, first[rows] + offsets, out=input_ids_ptr[: rows.shape[0]])


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
    computed = num_computed_tokens_ptr[idx_mapping_ptr]
    num_reqs = computed.shape[0]
    torch.add(computed[rows], offsets, out=pos_ptr[: rows.shape[0]])
    torch.add(computed, lengths, out=seq_lens_ptr[:num_reqs])
    seq_lens_ptr[num_reqs:max_num_reqs].zero_()


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
    """Count the sampled tokens.

    The executor has written them, where the kernel would write them again, and the model state
    sets the computed tokens of a span right after.
    """
    total_len_ptr[idx_mapping_ptr] += num_sampled_ptr


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
    starts = query_start_loc[: idx_mapping.shape[0] + 1]
    num_tokens = int(starts[-1])
    for group, block_size in enumerate(tables.block_sizes):
        width = int(tables.num_blocks.np[group].max(initial=0))
        blocks = tables.block_tables[group].gpu[idx_mapping, :width]
        torch.ops._C.compute_slot_mapping_kernel_impl(
            starts, positions, blocks, mappings[group], block_size
        )
        mappings[group, num_tokens:num_tokens_padded] = -1
    return mappings[:, :num_tokens_padded]
