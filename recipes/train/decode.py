"""A batched denoising loop in plain torch: LLaDA's semi-autoregressive decoding at temperature 0.

For training-time checks and studies; serving goes through vLLM.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from recipes.train.model import LLaDA

Score = Callable[[Tensor, Tensor], Tensor]
"""(logits [rows, positions, vocab], positions int64 [positions]) to scores [rows, positions]."""


class Decoded(NamedTuple):
    """tokens: int64 [rows, length], prompts and filled canvases. order: the pass that committed
    each position, -1 for the prompt."""

    tokens: Tensor
    order: Tensor


def confidence(logits: Tensor, positions: Tensor) -> Tensor:
    """The highest probability: LLaDA's low-confidence remasking."""
    return logits.float().softmax(-1).amax(-1)


def left_to_right(logits: Tensor, positions: Tensor) -> Tensor:
    """The lower the position, the higher the score."""
    return -positions.float().expand(logits.shape[:2])


@torch.no_grad()
def decode(
    model: LLaDA,
    tokens: Tensor,
    first: int,
    mask_id: int,
    block_length: int,
    per_pass: int = 1,
    score: Score = confidence,
) -> Decoded:
    """Fill the masked cells of ``tokens`` from position ``first`` on, block by block.

    tokens: int64 [rows, length], every row's canvas at the same place (group prompts by length).
    per_pass: cells committed a pass in every row, the rest of a block in its last pass. Ties go to
    the lowest position.
    """
    x, order = tokens.clone(), torch.full_like(tokens, -1)
    passes = 0
    for start in range(first, tokens.shape[1], block_length):
        positions = torch.arange(start, min(start + block_length, x.shape[1]), device=x.device)
        for _ in range(0, len(positions), per_pass):
            _commit(model, x, order, positions, mask_id, per_pass, passes, score)
            passes += 1
    return Decoded(x, order)


def _commit(
    model: LLaDA,
    x: Tensor,
    order: Tensor,
    positions: Tensor,
    mask_id: int,
    per_pass: int,
    number: int,
    score: Score,
) -> None:
    """One pass: predict the block, commit the best masked cells of every row in place."""
    rows = x.shape[0]
    where = (torch.arange(rows, device=x.device)[:, None] * x.shape[1] + positions).flatten()
    logits = model(x, where=where).unflatten(0, (rows, -1))
    logits[..., mask_id] = -torch.inf
    block = x[:, positions]
    masked = block == mask_id
    ranking = score(logits, positions).masked_fill(~masked, -torch.inf)
    best = ranking.argsort(dim=1, descending=True, stable=True)[:, :per_pass]
    chosen = torch.zeros_like(masked).scatter_(1, best, True) & masked
    x[:, positions] = torch.where(chosen, logits.argmax(-1), block)
    order[:, positions] = torch.where(chosen, number, order[:, positions])
