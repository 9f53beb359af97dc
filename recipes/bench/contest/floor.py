"""The least a pass must compute, and how fast this machine multiplies plain matrices."""

from __future__ import annotations

import time
from statistics import median

import torch

from recipes.bench.contest.messages import Cell
from recipes.train.settings import ModelSettings


def pass_operations(
    s: ModelSettings, requests: int, span: float, length: int, rows: float
) -> float:
    """Floating-point operations of one pass of so many requests.

    The layers over the span and its attention to `length` positions; of the last layer, keys and
    values over the span, all else over the rows whose logits are read, and so is the head.
    """
    keys_and_values = 2 * s.d_model * (s.d_model // s.n_heads * s.n_kv_heads)
    others = 2 * s.d_model**2 + 3 * s.d_model * s.mlp_hidden_size
    of_a_row = 2 * others + 4 * length * s.d_model
    computed = (s.n_layers - 1) * span + rows
    head = 2 * rows * s.d_model * s.vocab_size
    return requests * (s.n_layers * 2 * span * keys_and_values + computed * of_a_row + head)


def product_speed(s: ModelSettings, tokens: int, dtype: torch.dtype = torch.bfloat16) -> float:
    """Operations per second of plain matrix products [tokens, d] x [d, mlp]."""
    x = torch.randn(tokens, s.d_model, dtype=dtype)
    w = torch.randn(s.d_model, s.mlp_hidden_size, dtype=dtype)
    times = []
    for _ in range(12):
        begun = time.perf_counter()
        for _ in range(4):
            x @ w
        times.append((time.perf_counter() - begun) / 4)
    return 2 * tokens * s.d_model * s.mlp_hidden_size / median(times[2:])


def floor_seconds(s: ModelSettings, cell: Cell, passes: float, dtype: torch.dtype) -> float:
    """Time of a cell's operations at that speed, all requests in every pass.

    One pass of a block covers prompt and canvas; the others cover what the mode must. Half of a
    block is read in the mean. `passes` is how many an answer took.
    """
    length = cell.prompt + cell.canvas
    blocks = cell.canvas // cell.block
    # From a block's start on lies, in the mean over the blocks, half of canvas and block together.
    spans = {"exact": length, "prefix": (cell.canvas + cell.block) // 2, "dual": cell.block}

    def seconds(span: int) -> float:
        operations = pass_operations(s, cell.batch, span, length, cell.block / 2)
        return operations / product_speed(s, cell.batch * span, dtype)

    return blocks * seconds(length) + max(passes - blocks, 0) * seconds(spans[cell.mode])
