"""What a step on a CPU is prepared with, against loops over requests and positions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.platforms import current_platform

from vllm_mdlm.compat.cpu_kernels import (
    compute_slot_mappings,
    prepare_pos_seq_lens,
    prepare_prefill_inputs,
)

BLOCK = 32
NUM_SLOTS, MAX_LEN, NUM_TOKENS = 5, 4 * BLOCK, 300

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="kernels of the CPU")

# In an engine, the worker loads vLLM's kernels.
current_platform.import_kernels()


def assert_as_by_loops(slots: list[int], first: list[int], lengths: list[int]) -> None:
    """Spans of `lengths` that start at `first`, of the requests in `slots`."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(256, (NUM_SLOTS, MAX_LEN), dtype=torch.int32, generator=generator)
    blocks = torch.randperm(NUM_SLOTS * 4, generator=generator).view(NUM_SLOTS, 4).int()
    computed = torch.full((NUM_SLOTS,), 7, dtype=torch.int32)
    computed[slots] = torch.tensor(first, dtype=torch.int32)
    index = torch.tensor(slots)
    starts = torch.zeros(NUM_SLOTS + 1, dtype=torch.int32)
    starts[1 : len(slots) + 1] = torch.tensor(lengths).cumsum(0)
    ids = torch.zeros(NUM_TOKENS, dtype=torch.int32)
    positions = torch.zeros(NUM_TOKENS, dtype=torch.int64)
    seq_lens = torch.full((NUM_SLOTS,), 9, dtype=torch.int32)
    nothing = torch.zeros(0)
    prepare_prefill_inputs(
        ids, nothing, 1, 1, index, starts, tokens, tokens.stride(0), nothing, computed, 1, 1
    )
    prepare_pos_seq_lens(positions, seq_lens, index, starts, computed, NUM_SLOTS, 1)
    tables = SimpleNamespace(
        cp_size=1,
        block_sizes=[BLOCK],
        block_tables=[SimpleNamespace(gpu=blocks)],
        num_blocks=SimpleNamespace(np=np.full((1, NUM_SLOTS), 4)),
        slot_mappings=torch.zeros(1, NUM_TOKENS, dtype=torch.int64),
    )
    total = sum(lengths)
    mapped = compute_slot_mappings(tables, index, starts, positions, total + 3)

    spans = [
        (slot, position)
        for slot, start, length in zip(slots, first, lengths, strict=True)
        for position in range(start, start + length)
    ]
    assert ids[:total].tolist() == [int(tokens[slot, at]) for slot, at in spans]
    assert positions[:total].tolist() == [at for _slot, at in spans]
    ends = [start + length for start, length in zip(first, lengths, strict=True)]
    assert seq_lens.tolist() == ends + [0] * (NUM_SLOTS - len(slots))
    expected = [int(blocks[slot, at // BLOCK]) * BLOCK + at % BLOCK for slot, at in spans]
    assert mapped.tolist() == [expected + [-1] * 3]


def test_steps_one_after_the_other() -> None:
    """Spans of equal lengths too, which share what was found for them."""
    assert_as_by_loops([2, 0, 4], [0, 0, 0], [96, 40, 70])
    assert_as_by_loops([4, 2, 0], [0, 33, 64], [96, 40, 64])
    assert_as_by_loops([4, 2, 0], [32, 1, 50], [96, 40, 64])
    assert_as_by_loops([1], [63], [2])
