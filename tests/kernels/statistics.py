"""Chi-square tests with a stated probability of a false alarm."""

from __future__ import annotations

import torch

_Z = 4.753  # a standard normal number exceeds it with probability 1e-6


def chi_square(counts: torch.Tensor, expected: torch.Tensor) -> float:
    """Pearson's statistic of two tensors of one shape."""
    return ((counts - expected) ** 2 / expected).sum().item()


def limit(degrees: int) -> float:
    """What a chi-square number with so many degrees of freedom exceeds with probability 1e-6.

    Wilson and Hilferty's approximation, within 2 % of the exact quantile from 2 degrees on.
    """
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + _Z * spread**0.5) ** 3
