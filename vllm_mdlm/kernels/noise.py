"""Counter-based noise: a pure function of (seed, position, pass, lane).

A value never depends on which requests share the batch, on the batch size or on the device. The
mixer is the finaliser of SplitMix64 (Steele, Lea, Flood 2014), applied once for each part of the
key; over lanes it is the SplitMix64 sequence started from the row's key.
"""

from __future__ import annotations

import torch

_GAMMA = -0x61C8864680B583EB  # 0x9E3779B97F4A7C15 as a signed 64-bit integer
_MIX_1 = -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
_MIX_2 = -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift; torch's >> keeps the sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Works in place: over a vocabulary, fresh tensors would cost more than the arithmetic."""
    x.bitwise_xor_(_shift_right(x, 30)).mul_(_MIX_1)
    x.bitwise_xor_(_shift_right(x, 27)).mul_(_MIX_2)
    return x.bitwise_xor_(_shift_right(x, 31))


def row_keys(seed: torch.Tensor, position: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """One 64-bit key a row.

    Args:
        seed: [N] int64, the request's seed.
        position: [N] int64, position in the canvas.
        step: [N] int64, passes already taken in the block that holds the position.

    Returns:
        [N] int64.
    """
    key = _mix(seed + _GAMMA)
    key = _mix(key + (position + 1) * _GAMMA)
    return _mix(key + (step + 1) * _GAMMA)


def uniform(keys: torch.Tensor, lanes: torch.Tensor) -> torch.Tensor:
    """Uniform numbers in the open interval (0, 1), 52 bits each: the centres of 2^52 cells, all
    of them exact (with 53 bits the last centre would round to 1).

    Args:
        keys: [N] int64 from `row_keys`.
        lanes: [M] int64, not negative; a token id, or a purpose of its own.

    Returns:
        [N, M] float64.
    """
    bits = _mix(keys.unsqueeze(1) + (lanes + 1) * _GAMMA)
    return _shift_right(bits, 12).double().add_(0.5).mul_(2.0**-52)


def gumbel(keys: torch.Tensor, lanes: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel numbers, float64 as in LLaDA: float32 Gumbel sampling lowers the entropy
    of what is drawn (Zheng et al. 2024, arXiv 2409.02908).

    Args, Returns: as `uniform`.
    """
    return uniform(keys, lanes).log_().neg_().log_().neg_()


_SEED_POSITION = -1  # no position of a canvas


def wrap_int64(value: int) -> int:
    """The answers of one request (`n`) have consecutive seeds, which may leave the range."""
    return (value + 2**63) % 2**64 - 2**63


def derived_keys(seeds: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Seeds of independent noise, for what one request draws more than once.

    Args:
        seeds: [N] int64, the requests'.
        index: [N] int64, which; 0 is the request's own noise.

    Returns:
        [N] int64; the seed itself for index 0.
    """
    keys = row_keys(seeds, torch.full_like(seeds, _SEED_POSITION), index)
    return torch.where(index == 0, seeds, keys)


def derived_seeds(seed: int, indices: range) -> list[int]:
    """`derived_keys` of one seed, of any size, as integers."""
    index = torch.tensor(indices, dtype=torch.int64)
    found: list[int] = derived_keys(torch.full_like(index, wrap_int64(seed)), index).tolist()
    return found
