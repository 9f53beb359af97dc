"""How many positions a fixed-schedule sampler commits in each pass of a block.

Source: LLaDA `get_num_transfer_tokens` (Nie et al. 2025, arXiv 2502.09992): a block that starts
with `m` masked positions and is given `s` passes commits `m // s` in each, and the first
`m mod s` passes commit one more.
"""

from __future__ import annotations

import torch


def block_quota(
    num_masked: torch.Tensor, num_steps: torch.Tensor, block_pass: torch.Tensor
) -> torch.Tensor:
    """Positions to commit in one pass of a block.

    Args:
        num_masked: [R] int64, masked positions when the block started.
        num_steps: [R] int64, passes granted to the block, at least 1.
        block_pass: [R] int64, passes of the block already taken.

    Returns:
        [R] int64. A rule that falls behind the schedule goes on with its last quota (our choice).
        At least 1: a block with fewer masked positions than passes ends early, where
        LLaDA's loop would go on with passes that commit nothing.
    """
    base = torch.div(num_masked, num_steps, rounding_mode="floor")
    return (base + (block_pass < num_masked % num_steps)).clamp_(min=1)


def num_block_passes(num_masked: int, num_steps: int) -> int:
    """Passes that a fixed-schedule sampler takes over a block: every one commits something."""
    return min(num_masked, num_steps)
