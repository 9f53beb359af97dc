"""The masking schemes of "The Confidence Shortcut" as pure functions on tensors.

RANDOM is LLaDA's SFT masking; PAPL (arXiv 2509.23405) weights its loss; PUMA (arXiv 2602.10314)
masks as confidence decoding would. All three average the cross-entropy over the masked positions
of a row, then over rows, without a factor 1/t. Only positions of ``maskable`` (the answer) are
ever masked.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor


def random_mask(maskable: Tensor, generator: Generator) -> Tensor:
    """RANDOM: one ratio t ~ U(0, 1) a row, each cell masked with probability t, at least one.

    maskable: bool [rows, length], at least one True a row. Returns bool of the same shape.
    """
    rows, length = maskable.shape
    ratio = torch.rand(rows, 1, generator=generator)
    masked = maskable & (torch.rand(rows, length, generator=generator) < ratio)
    forced = pick_one(maskable, generator)
    return torch.where(masked.any(1, keepdim=True), masked, forced)


def block_mask(maskable: Tensor, block_lengths: Sequence[int], generator: Generator) -> Tensor:
    """Masks that semi-autoregressive decoding meets: a clean prefix, one block masked in part, then
    nothing but masks. The block length and the block are drawn uniformly (our choice).

    maskable: bool [rows, length], every row's True cells contiguous. Returns bool of the same
    shape.
    """
    rows = len(maskable)
    count = maskable.sum(1, keepdim=True)
    sizes = torch.tensor(block_lengths)
    size = sizes[torch.randint(len(sizes), (rows, 1), generator=generator)]
    blocks = (count + size - 1) // size
    active = (torch.rand(rows, 1, generator=generator) * blocks).long()
    block = (maskable.cumsum(1) - 1) // size
    partly = random_mask(maskable & (block == active), generator)
    return maskable & (partly | (block > active))


def chain_mask(
    maskable: Tensor, computed: Tensor, block_lengths: Sequence[int], generator: Generator
) -> Tensor:
    """Masks that decoding in the order of the calculation meets: every computed cell from one on,
    and in half of the rows everything behind the block that holds this cell. The cell and the block
    length are drawn uniformly (our choice).

    maskable: bool [rows, length], every row's True cells contiguous; computed: of the same shape, a
    part of ``maskable``, at least one True a row. Returns bool of the same shape.
    """
    rows = len(maskable)
    sizes = torch.tensor(block_lengths)
    size = sizes[torch.randint(len(sizes), (rows, 1), generator=generator)]
    cut = pick_one(computed, generator).int().argmax(1, keepdim=True)
    place = maskable.cumsum(1) - 1
    end = (place.gather(1, cut) // size + 1) * size
    rest = maskable & (place >= end) & (torch.rand(rows, 1, generator=generator) < 0.5)
    return rest | (computed & (torch.arange(maskable.shape[1]) >= cut))


def pick_one(candidates: Tensor, generator: Generator) -> Tensor:
    """One True cell of every row, uniformly. candidates: bool [rows, length], none empty."""
    score = torch.rand(candidates.shape, generator=generator).masked_fill(~candidates, -1)
    return torch.zeros_like(candidates).scatter_(1, score.argmax(1, keepdim=True), True)


def mean_masked(loss: Tensor, masked: Tensor) -> Tensor:
    """The mean over masked cells of a row, then over rows: a scalar.

    loss: float [n] in nats, one entry for every True cell of ``masked`` in row-major order.
    """
    weight = (1 / masked.sum(1, keepdim=True).clamp(min=1)).expand(masked.shape)[masked]
    return (loss * weight).sum() / masked.shape[0]


def papl_weights(log_p: Tensor, masked: Tensor, alpha: float, tau: float) -> Tensor:
    """PAPL's factor 1 + alpha * w on the loss of every masked cell.

    w is the softmax of ``log_p / tau`` over the masked cells of a row, without a gradient.
    log_p: float [n], log-probability in nats of the gold token of every True cell of ``masked``.
    Returns float [n]; ``mean_masked(-log_p * papl_weights(...), masked)`` is the loss.
    """
    score = torch.full(masked.shape, -torch.inf, dtype=log_p.dtype, device=log_p.device)
    score[masked] = log_p.detach() / tau
    return 1 + alpha * score.softmax(1)[masked]


class PumaState(NamedTuple):
    """Rows partly revealed. masked: bool [rows, length]; stage: int64 [rows]."""

    masked: Tensor
    stage: Tensor


def puma_advance(
    state: PumaState, confidence: Tensor, stages: int, threshold: float
) -> tuple[PumaState, Tensor]:
    """Reveal the most confident cells of every row with their gold tokens, and count one stage.

    With K = ``stages``, a row with n masked cells at stage s reveals the max(1, ceil(n / (K - s)))
    cells of highest confidence and every cell above ``threshold``. Ties go to the lowest position.

    confidence: float [rows, length], the highest probability of every masked cell.
    Returns the new state and bool [rows]: rows with nothing masked or at stage K, to be refilled.
    """
    masked, stage = state
    count = masked.sum(1)
    left = (stages - stage).clamp(min=1)
    quota = torch.maximum(torch.ones_like(count), (count + left - 1) // left)
    score = confidence.masked_fill(~masked, -torch.inf)
    order = score.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    revealed = masked & ((rank < quota[:, None]) | (score > threshold))
    masked, stage = masked & ~revealed, stage + 1
    return PumaState(masked, stage), ~masked.any(1) | (stage >= stages)


def puma_stages(step: int, steps: int, start: int, end: int, increment: int) -> int:
    """K at a step: from ``start`` to ``end`` in equal times by ``increment``, during the first
    third.
    """
    levels = [*range(start, end, increment), end]
    index = step * len(levels) * 3 // max(1, steps)
    return int(levels[min(index, len(levels) - 1)])
