"""`row_stats` for CUDA: one program a row, one pass over it, a second one where it draws.

`vllm_mdlm.kernels.row_stats` is the specification. Noise is that of `noise.gumbel`: the same
integers, hence the same uniform numbers; logarithms may differ in the last bit of a float64.
Compiled for compute capability 9.0 and tested in Triton's interpreter (`TRITON_INTERPRET=1`), but
not yet run on hardware: block size and number of warps are untuned.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vllm_mdlm.kernels.row_stats import RowStats

_BLOCK = 4096  # columns
_NUM_WARPS = 8

_GAMMA = tl.constexpr(0x9E3779B97F4A7C15)
_MIX_1 = tl.constexpr(0xBF58476D1CE4E5B9)
_MIX_2 = tl.constexpr(0x94D049BB133111EB)


@triton.jit
def _gumbel(key, lanes):  # type: ignore[no-untyped-def]
    """Standard Gumbel numbers in float64; key: uint64 scalar, lanes: [BLOCK] integers."""
    bits = key + (lanes + 1).to(tl.uint64) * _GAMMA
    bits = (bits ^ (bits >> 30)) * _MIX_1
    bits = (bits ^ (bits >> 27)) * _MIX_2
    bits = bits ^ (bits >> 31)
    uniform = ((bits >> 12).to(tl.float64) + 0.5) * 2.220446049250313e-16  # 2^-52
    return -tl.log(-tl.log(uniform))


@triton.jit
def _choice_block(  # type: ignore[no-untyped-def]
    logit, choice_row, num_edited, columns, mask_token, HAS_CHOICE: tl.constexpr
):
    """Logits to choose from, [BLOCK] float32; -inf for padding and the mask token."""
    if HAS_CHOICE:
        edited = columns < num_edited
        choice = tl.load(choice_row + columns, mask=edited, other=float("-inf"))
        logit = tl.where(edited, choice.to(tl.float32), logit)
    return tl.where(columns == mask_token, float("-inf"), logit)


@triton.jit
def _drawn_token(  # type: ignore[no-untyped-def]
    logits_row,
    choice_row,
    num_edited,
    num_columns,
    mask_token,
    degree,
    key,
    HAS_CHOICE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """argmax of min(1, T) (option / T + gumbel), as in the torch body."""
    best = tl.full((), float("-inf"), tl.float64)
    token = tl.full((), 0, tl.int32)
    for start in range(0, num_columns, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < num_columns
        logit = tl.load(logits_row + columns, mask=inside, other=float("-inf")).to(tl.float32)
        option = _choice_block(logit, choice_row, num_edited, columns, mask_token, HAS_CHOICE)
        score = option.to(tl.float64) / tl.maximum(degree, 1.0)
        score += _gumbel(key, columns) * tl.minimum(degree, 1.0)
        block_best = tl.max(score, axis=0)
        token = tl.where(block_best > best, start + tl.argmax(score, axis=0), token)
        best = tl.maximum(best, block_best)
    return token


@triton.jit
def _fold_block(  # type: ignore[no-untyped-def]
    logit,
    lanes,
    top,
    second,
    total,
    weighted,
    NEED_ENTROPY: tl.constexpr,
    NEED_MARGIN: tl.constexpr,
):
    """Add a block to the running values of a row."""
    block_top = tl.max(logit, axis=0)
    new_top = tl.maximum(top, block_top)
    # Finite while only -inf was read, for -inf - -inf is not a number.
    origin = tl.where(new_top == float("-inf"), 0.0, new_top)
    shifted = tl.maximum(logit - origin, -1e30)
    exps = tl.exp(shifted)
    drop = tl.maximum(top - origin, -1e30)
    scale = tl.exp(drop)
    if NEED_ENTROPY:
        weighted = scale * (weighted + total * drop) + tl.sum(exps * shifted, axis=0)
    total = scale * total + tl.sum(exps, axis=0)
    if NEED_MARGIN:
        others = tl.where(lanes == tl.argmax(logit, axis=0), float("-inf"), logit)
        rest = tl.maximum(second, tl.max(others, axis=0))
        second = tl.maximum(tl.minimum(top, block_top), rest)
    return new_top, second, total, weighted


@triton.jit
def _row_stats_kernel(  # type: ignore[no-untyped-def]
    logits,
    logits_stride,
    choice,
    choice_stride,
    choice_slots,
    temperature,
    noise_keys,
    token_out,
    logprob_out,
    top_logprob_out,
    entropy_out,
    margin_out,
    num_columns,
    mask_token,
    HAS_CHOICE: tl.constexpr,
    HAS_DRAW: tl.constexpr,
    NEED_ENTROPY: tl.constexpr,
    NEED_MARGIN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    logits_row = logits + row * logits_stride
    choice_row = choice
    num_edited = 0
    if HAS_CHOICE:
        slot = tl.load(choice_slots + row)
        num_edited = tl.where(slot >= 0, num_columns, 0)
        choice_row = choice + tl.maximum(slot, 0) * choice_stride

    # Running values over the blocks read so far; sums are relative to `top`.
    top = float("-inf")
    second = float("-inf")
    total = 0.0  # sum of exp(logit - top)
    weighted = 0.0  # sum of exp(logit - top) (logit - top)
    allowed_top = float("-inf")
    best = float("-inf")
    token = tl.full((), 0, tl.int32)
    for start in range(0, num_columns, BLOCK):
        columns = start + lanes
        inside = columns < num_columns
        logit = tl.load(logits_row + columns, mask=inside, other=float("-inf")).to(tl.float32)
        top, second, total, weighted = _fold_block(
            logit, lanes, top, second, total, weighted, NEED_ENTROPY, NEED_MARGIN
        )
        option = _choice_block(logit, choice_row, num_edited, columns, mask_token, HAS_CHOICE)
        allowed = tl.where(option == float("-inf"), float("-inf"), logit)
        allowed_top = tl.maximum(allowed_top, tl.max(allowed, axis=0))
        block_best = tl.max(option, axis=0)
        token = tl.where(block_best > best, start + tl.argmax(option, axis=0), token)
        best = tl.maximum(best, block_best)

    if HAS_DRAW:
        degree = tl.load(temperature + row)
        if degree > 0:
            key = tl.load(noise_keys + row).to(tl.uint64, bitcast=True)
            token = _drawn_token(
                logits_row,
                choice_row,
                num_edited,
                num_columns,
                mask_token,
                degree,
                key,
                HAS_CHOICE,
                BLOCK,
            )

    log_total = tl.log(total)
    token_logit = tl.load(logits_row + token).to(tl.float32)
    tl.store(token_out + row, token.to(tl.int64))
    tl.store(logprob_out + row, (token_logit - top) - log_total)
    tl.store(top_logprob_out + row, (allowed_top - top) - log_total)
    if NEED_ENTROPY:
        tl.store(entropy_out + row, log_total - weighted / total)
    if NEED_MARGIN:
        tl.store(margin_out + row, tl.exp(-log_total) - tl.exp((second - top) - log_total))


def row_stats(
    logits: torch.Tensor,
    choice_logits: torch.Tensor | None = None,
    *,
    choice_rows: torch.Tensor | None = None,
    mask_token: int | None = None,
    temperature: torch.Tensor | None = None,
    noise_keys: torch.Tensor | None = None,
    drawn_rows: torch.Tensor | None = None,
    need_entropy: bool = False,
    need_margin: bool = False,
) -> RowStats:
    """As `vllm_mdlm.kernels.row_stats.row_stats`. Rows of `logits` and `choice_logits` must be
    contiguous. Every row reads its own temperature, so `drawn_rows` is not needed and ignored."""
    assert logits.stride(1) == 1
    assert choice_logits is None or choice_logits.stride(1) == 1
    assert temperature is None or noise_keys is not None
    num_rows, num_columns = logits.shape

    def column(dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(num_rows, dtype=dtype, device=logits.device)

    stats = RowStats(
        column(torch.int64),
        column(),
        column(),
        column() if need_entropy else None,
        column() if need_margin else None,
    )
    if num_rows == 0:
        return stats
    unused = stats.logprob  # stands in for pointers that the kernel does not follow
    _row_stats_kernel[(num_rows,)](
        logits,
        logits.stride(0),
        logits if choice_logits is None else choice_logits,
        0 if choice_logits is None else choice_logits.stride(0),
        unused if choice_logits is None else _slots(num_rows, choice_rows, logits.device),
        unused if temperature is None else temperature,
        unused if noise_keys is None else noise_keys,
        stats.token,
        stats.logprob,
        stats.top_logprob,
        unused if stats.entropy is None else stats.entropy,
        unused if stats.margin is None else stats.margin,
        num_columns,
        -1 if mask_token is None else mask_token,
        HAS_CHOICE=choice_logits is not None,
        HAS_DRAW=temperature is not None,
        NEED_ENTROPY=need_entropy,
        NEED_MARGIN=need_margin,
        BLOCK=_BLOCK,
        num_warps=_NUM_WARPS,
    )
    return stats


def _slots(num_rows: int, choice_rows: torch.Tensor | None, device: torch.device) -> torch.Tensor:
    """Row of the choice logits for every row, -1 for none: [N] int64."""
    if choice_rows is None:
        return torch.arange(num_rows, device=device)
    slots = torch.full((num_rows,), -1, dtype=torch.int64, device=device)
    slots[choice_rows] = torch.arange(len(choice_rows), device=device)
    return slots
