"""Model Runner V2 in a worker process without Triton."""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import TYPE_CHECKING

import vllm.triton_utils as triton_utils
from vllm.triton_utils.dispatcher import register_kernels

from vllm_mdlm.compat import cpu_kernels

if TYPE_CHECKING:
    from vllm.v1.worker.gpu.block_table import BlockTables

_registered = False


def register_step_kernels() -> None:
    """Give torch bodies to the kernels that a step launches; nothing where Triton works."""
    global _registered
    if triton_utils.HAS_TRITON or _registered:
        return
    placeholder = triton_utils.triton
    if not hasattr(placeholder, "next_power_of_2"):
        placeholder.next_power_of_2 = lambda n: 1 << (n - 1).bit_length() if n > 0 else 0
    register_kernels(
        {cpu_kernels.PREFIX + name: body for name, body in cpu_kernels.KERNELS.items()}
    )
    _registered = True


def replace_block_table_methods(tables: BlockTables) -> None:
    """The same for the two methods whose kernels take raw pointers, on this worker's tables."""
    if triton_utils.HAS_TRITON:
        return
    for name in ("gather_block_tables", "compute_slot_mappings"):
        body = partial(getattr(cpu_kernels, name))
        setattr(tables, name, MethodType(body, tables))
