"""vLLM's own fused CPU kernels, where vLLM 0.32 falls back to a chain of torch operations.

Its compiled extension has them; without Inductor nothing calls them on a CPU. They are offered
under a provider name of ours, and the configuration of our architectures asks for it.
"""

from __future__ import annotations

import torch
from torch import nn

from vllm_mdlm.config import CPU_KERNELS


def register() -> None:
    """Offer the normalisations to vLLM's operation registry; safe to call more than once."""
    from vllm import ir

    if CPU_KERNELS in ir.ops.rms_norm.impls:
        return
    ir.ops.rms_norm.register_impl(CPU_KERNELS, supports_args=_plain)(rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(CPU_KERNELS, supports_args=_plain_add, inplace=True)(
        fused_add_rms_norm
    )


def _plain(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    return variance_size is None and weight is not None and weight.dtype == x.dtype


def _plain_add(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    return _plain(x, weight, epsilon, variance_size) and x.is_contiguous()


def rms_norm(
    x: torch.Tensor, weight: torch.Tensor | None, epsilon: float, variance_size: int | None = None
) -> torch.Tensor:
    """Normalised rows, [N, hidden] in the dtype of `x`."""
    out = torch.empty_like(x)
    torch.ops._C.rms_norm(out, x, weight, epsilon)
    return out


def fused_add_rms_norm(
    x: torch.Tensor,
    x_residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add, then normalise; both arguments are overwritten and returned."""
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual


class CpuSiluAndMul(nn.Module):
    """silu(gate) * up of a fused projection: [N, 2 * width] to [N, width]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
        torch.ops._C.silu_and_mul(out, x)
        return out
