"""Sums of powers of a row's probabilities, in float64."""

from __future__ import annotations

import torch

from vllm_mdlm.kernels.tiles import Scratch, chunk_max, row_sum, row_tiles

_TILE = 1 << 18  # elements of eight bytes


def log_power_sum(logits: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """log sum_v p(v)^power of every row, p = softmax(logits).

    Args:
        logits: [M, V] of any floating dtype, -inf for a token that is impossible; every row has
            a token that is not.
        power: [M] float64, above 0.

    Returns:
        [M] float64, nats: 0 at power 1, and for a certain token; negative above power 1. A row's
        sums are added in the same order whatever the other rows are.
    """
    result = torch.empty(len(logits), dtype=torch.float64, device=logits.device)
    scratch = Scratch(logits, _TILE, torch.float64)
    num_rows, num_columns = logits.shape
    for rows in row_tiles(num_rows, num_columns, _TILE):
        tile = scratch.load(logits[rows])
        tile -= chunk_max(tile).amax(dim=1, keepdim=True)
        degree = power[rows]
        total = row_sum(tile.exp())
        powered = row_sum(tile.mul_(degree.unsqueeze(1)).exp_())
        # At power 1 both logarithms are the same number, and the difference is 0.
        result[rows] = powered.log_() - degree * total.log_()
    return result
