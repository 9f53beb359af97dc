"""LLaDA's Monte-Carlo bound on a log-likelihood: which masks are drawn, and what is made of them.

Source: LLaDA, arXiv 2502.09992, equation 6, and its published `get_log_likelihood.py` and
`eval_llada.py`. Where the numbers of masked positions differ from theirs, `mask_counts` says.
Knows nothing of a model: `draw_masks` says what to score, `estimate` what the scores amount to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from operator import itemgetter
from typing import NamedTuple

import torch

from vllm_mdlm.kernels.noise import row_keys, uniform

POSITION_LANE = 0
OFFSET_LANE = 1

CELLS = 2**22
"""Positions times samples that are drawn at a time, which bounds the memory."""


class Estimate(NamedTuple):
    """A Monte-Carlo mean, in nats, and its standard error; None for a single sample."""

    mean: float
    standard_error: float | None


def mask_counts(length: int, num_samples: int, start: int) -> torch.Tensor:
    """How many positions every sample masks: evenly spread over 1..`length`, from a start on.

    With a start drawn from all alike, every sample by itself has each number with the same
    probability. Two things are ours. The source draws a start for every mini-batch (16 samples, or
    32), here all samples of a request have one, so their numbers differ as little as they can. And
    the source rounds the evenly spread numbers half to even, which favours even ones where halves
    occur (in mini-batches of 16 of an 8-token answer they come three times as often as odd ones);
    here they are rounded down, which favours none.

    Args:
        length: positions of the continuation, at least 1.
        num_samples: samples, at least 1.
        start: in [0, `length`); the first sample masks one more.

    Returns:
        [num_samples] int64.
    """
    return (start + torch.arange(num_samples) * length // num_samples) % length + 1


def draw_masks(length: int, num_samples: int, seed: int) -> list[tuple[int, ...]]:
    """Positions to mask, sample by sample.

    Their numbers are `mask_counts` from a random start. Given its number, a sample masks every
    subset of that size with the same probability.

    Args:
        length: positions of the continuation, at least 1.
        num_samples: samples, at least 1.
        seed: signed 64-bit integer, the only source of randomness.

    Returns:
        `num_samples` ascending tuples of positions in [0, `length`).
    """
    first = torch.zeros(1, dtype=torch.int64)
    start = uniform(row_keys(first + seed, first, first), torch.tensor([OFFSET_LANE]))
    counts = mask_counts(length, num_samples, int(start * length))
    masks = []
    for part in torch.arange(num_samples).split(max(1, CELLS // length)):
        sample = part.repeat_interleave(length)
        position = torch.arange(length).repeat(len(part))
        keys = row_keys(torch.full_like(sample, seed), position, sample)
        draw = uniform(keys, torch.tensor([POSITION_LANE])).view(len(part), length)
        rank = draw.argsort(dim=1, stable=True).argsort(dim=1)
        hidden = rank < counts[part].unsqueeze(1)
        masks += [tuple(row.nonzero().flatten().tolist()) for row in hidden]
    return masks


def sample_value(length: int, token_logprobs: Sequence[float]) -> float:
    """One sample's estimate of the bound, nats: `length` / (masked positions) times the sum of
    the masked tokens' log-probabilities."""
    return length / len(token_logprobs) * math.fsum(token_logprobs)


def estimate(values: Sequence[float], counts: Sequence[int]) -> Estimate:
    """The mean of the samples and its standard error.

    Samples that are spread evenly are no independent draws: their mean varies less than the spread
    of the values says, because much of that spread is the trend over the numbers of masked
    positions. The error comes from successive differences along that trend, the usual estimator
    for systematic samples (Wolter, Introduction to Variance Estimation, chapter 8); our choice,
    the source gives none. It is too large where the trend is steep from one sample to the next.

    Args:
        values: `sample_value` of every sample, at least one.
        counts: masked positions of every sample.
    """
    number = len(values)
    mean = math.fsum(values) / number
    if number == 1:
        return Estimate(mean, None)
    along = [value for _, value in sorted(zip(counts, values, strict=True), key=itemgetter(0))]
    squares = math.fsum((after - before) ** 2 for before, after in pairwise(along))
    return Estimate(mean, math.sqrt(squares / (2 * (number - 1) * number)))
