"""The CPU's activation: a row's bits do not depend on its batch or on the number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from vllm.platforms import current_platform

from vllm_mdlm.models.cpu_ops import CpuSiluAndMul

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="kernels of the CPU")

# In an engine, the worker loads vLLM's kernels.
current_platform.import_kernels()

HALF = [torch.bfloat16, torch.float16]
DTYPES = [*HALF, torch.float32]


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def activation(x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = CpuSiluAndMul()(x)
    return out


def bits(x: torch.Tensor) -> torch.Tensor:
    """The bits of numbers; one value for whatever is no number."""
    return x.nan_to_num(0.125).view(torch.int16 if x.element_size() == 2 else torch.int32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_silu_times_the_other_half(dtype: torch.dtype) -> None:
    x = torch.randn(5, 2 * 48, generator=torch.Generator().manual_seed(0))
    gate, up = x.to(dtype).double().chunk(2, dim=-1)
    wanted = gate * gate.sigmoid() * up
    # Half precision rounds the factor and the product.
    tolerance = 2 * torch.finfo(dtype).eps
    found = activation(x.to(dtype))
    assert found.dtype == dtype
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("dtype", HALF)
def test_every_value_gives_the_same_bits_in_a_vector_and_alone(dtype: torch.dtype) -> None:
    values = torch.arange(1 << 16).to(torch.int16).view(dtype)
    together = torch.nn.functional.silu(values)
    # What does not lie side by side is computed one by one.
    apart = torch.nn.functional.silu(values.repeat_interleave(2)[::2])
    assert torch.equal(bits(together), bits(apart))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [48, 2096])
def test_a_row_is_the_same_in_every_batch_and_with_every_number_of_threads(
    dtype: torch.dtype, width: int
) -> None:
    # Above 32768 elements torch uses more than one thread.
    rows = 200_000 // width
    x = torch.randn(rows, 2 * width, generator=torch.Generator().manual_seed(1)).mul_(4).to(dtype)
    torch.set_num_threads(1)
    alone = bits(torch.cat([activation(row) for row in x.split(1)]))
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert torch.equal(bits(activation(x)), alone)
        assert torch.equal(bits(activation(x[5 : rows - 7])), alone[5 : rows - 7])
