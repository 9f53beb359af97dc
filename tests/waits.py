"""What would make the host wait for a CUDA device, found on a machine that has none.

The host waits where the shape of a result depends on data, where it reads a number, and where it
copies memory that is not pinned. A CPU runs the same operations; here they are noted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import vllm_mdlm
from vllm_mdlm import kernels
from vllm_mdlm.denoise.transfer import to_device

PACKAGE = Path(vllm_mdlm.__file__).parent
READS = {"cpu", "numpy", "tolist", "__array__"}
DEPENDS_ON_DATA = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
BY_INDEX = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_}
FREE = {
    to_device.__code__,  # from pinned memory
    kernels._torch_row_stats.__code__,  # on CUDA it is Triton's
}


class _Operations(TorchDispatchMode):
    """Sees the operations of torch's core."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found
        self.fills = False  # a number is assigned to a slice: it stays on the host

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in BY_INDEX:
            # Integers fix the shape.
            waits = any(index is not None and index.dtype == torch.bool for index in args[1])
        elif func.overloadpacket is torch.ops.aten.lift_fresh:
            # Memory of the host becomes a tensor.
            waits = not self.fills
        else:
            waits = not DEPENDS_ON_DATA.isdisjoint(func.tags)
        if waits:
            _note(self.found, func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    """Sees what Python calls: on a CPU some reads are no operation."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self.operations = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS:
            _note(self.operations.found, name)
        if name != "__setitem__":
            return func(*args, **(kwargs or {}))
        _, index, value = args
        parts = index if isinstance(index, tuple) else (index,)
        # By index tensors it is copied to the device.
        by_tensor = any(isinstance(part, torch.Tensor | list) for part in parts)
        self.operations.fills = not by_tensor and not isinstance(value, torch.Tensor)
        try:
            return func(*args)
        finally:
            self.operations.fills = False


@contextmanager
def noted_waits() -> Iterator[list[str]]:
    """Gives a list that grows by "module.function: operation" wherever the host would wait."""
    operations = _Operations([])
    with _Calls(operations), operations:
        yield operations.found


def _note(found: list[str], operation: str) -> None:
    """Note the innermost function of the package, unless it is free."""
    place = "outside"
    frame = sys._getframe(1)
    while frame is not None:
        code, path = frame.f_code, Path(frame.f_code.co_filename)
        if code in FREE:
            return
        if place == "outside" and path.is_relative_to(PACKAGE):
            place = f"{path.stem}.{code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    found.append(f"{place}: {operation}")
