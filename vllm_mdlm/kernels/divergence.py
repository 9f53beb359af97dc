"""How far a position's distribution moved since the pass before."""

from __future__ import annotations

import torch

from vllm_mdlm.kernels.tiles import Scratch, row_sum, row_tiles


def row_divergence(logits: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    """KL(softmax(logits) || softmax(previous)) of every row.

    Args:
        logits: [N, V] of any floating dtype.
        previous: [N, V] of any floating dtype.

    Returns:
        [N] float32, nats, not negative; +inf where a token became possible. A token that is
        impossible now counts nothing.
    """
    divergence = torch.empty(logits.shape[0], dtype=torch.float32, device=logits.device)
    scratch, previous_scratch, exp_scratch = Scratch(logits), Scratch(logits), Scratch(logits)
    for rows in row_tiles(*logits.shape):
        tile, before = scratch.load(logits[rows]), previous_scratch.load(previous[rows])
        tile.sub_(tile.amax(dim=1, keepdim=True))
        before.sub_(before.amax(dim=1, keepdim=True))
        exps = exp_scratch.rows(tile.shape[0])
        log_total_before = row_sum(torch.exp(before, out=exps)).log_()
        total = row_sum(torch.exp(tile, out=exps))
        # 0 * inf is a token that is impossible now.
        weighted = exps.mul_(tile.sub_(before)).nan_to_num_(nan=0.0, posinf=torch.inf)
        mean_gap = row_sum(weighted) / total
        divergence[rows] = (mean_gap - total.log() + log_total_before).clamp_(min=0)
    return divergence
