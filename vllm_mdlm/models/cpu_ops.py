"""CPU operations of a layer, where vLLM 0.32 has faster ones than it calls.

The normalisations are its own fused kernels: its compiled extension has them, and without Inductor
nothing calls them on a CPU. They are offered under a provider name of ours, and the configuration
of our architectures asks for it.
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
    """silu(gate) * up of a fused projection: [N, 2 * width] to [N, width].

    Torch's operations take a third of the time of vLLM's kernel. They split a tensor between
    threads and vector lanes anywhere, so that an element may be computed alone or in a vector, as
    its batch has it. In half precision both give the same bits for every value; in float32 they
    do not, and there vLLM's kernel computes, so that no answer depends on its neighbours.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, dim=-1)
        if x.dtype in (torch.bfloat16, torch.float16):
            return nn.functional.silu(gate).mul_(up)
        out = torch.empty_like(gate, memory_format=torch.contiguous_format)
        torch.ops._C.silu_and_mul(out, x)
        return out
