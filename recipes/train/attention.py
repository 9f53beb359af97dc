"""Bidirectional attention over rows of different lengths: packed with xFormers, else SDPA."""

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def has_xformers() -> bool:
    """Whether xFormers can be imported."""
    try:
        import xformers.ops  # noqa: F401
    except ImportError:
        return False
    return True


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int] | None) -> Tensor:
    """Attention of every position to all real positions of its row.

    q: [rows, length, heads, head_dim]; k, v: [rows, length, kv_heads, head_dim], kv_heads a divisor
    of heads. lengths: the real length of every row, padding on the right; None means no padding.

    Returns the shape of ``q``. Rows at padded positions hold numbers of no meaning.
    """
    if lengths is not None and q.is_cuda and has_xformers():
        return attend_packed(q, k, v, lengths)
    if lengths is None and not q.is_cuda and q.requires_grad:
        return attend_products(q, k, v)
    visible = None
    if lengths is not None:
        limit = torch.tensor(lengths, device=q.device)[:, None]
        visible = (torch.arange(q.shape[1], device=q.device) < limit)[:, None, None]
    mixed = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=visible,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return mixed.transpose(1, 2)


def attend_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same without padding as two batched matrix products.

    On a CPU, with rows of about a hundred positions, the backward of SDPA in bfloat16 takes four
    times as long as this.
    """
    heads, repeat = q.shape[2], q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(repeat, 2) if repeat > 1 else x for x in (k, v))
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))
    weights = torch.bmm(q, k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1)
    return torch.bmm(weights.to(v.dtype), v).unflatten(0, (-1, heads)).transpose(1, 2)


def attend_packed(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """The same through xFormers, the real positions of all rows end to end: none spent on
    padding.
    """
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    limit = torch.tensor(lengths, device=q.device)[:, None]
    real = torch.arange(q.shape[1], device=q.device) < limit
    repeat = q.shape[2] // k.shape[2]
    k, v = (x.repeat_interleave(repeat, 2) for x in (k, v))
    packed = (x[real].unsqueeze(0) for x in (q, k, v))
    bias = BlockDiagonalMask.from_seqlens(list(lengths))
    out = torch.zeros_like(q)
    out[real] = memory_efficient_attention(*packed, attn_bias=bias).squeeze(0)
    return out
