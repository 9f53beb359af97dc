"""That `tests.waits` sees what it is for, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.waits import noted_waits
from vllm_mdlm.denoise.transfer import to_device

Body = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], object]

WAITS: dict[str, Body] = {
    "nonzero": lambda numbers, flags, rows: flags.nonzero(),
    "boolean index": lambda numbers, flags, rows: numbers[flags],
    "boolean assignment": lambda numbers, flags, rows: numbers.__setitem__(flags, numbers[:2] + 1),
    "masked_select": lambda numbers, flags, rows: numbers.masked_select(flags),
    "unique": lambda numbers, flags, rows: numbers.unique(),
    "item": lambda numbers, flags, rows: numbers[0].item(),
    "if": lambda numbers, flags, rows: bool(flags.any()),
    "equal": lambda numbers, flags, rows: torch.equal(numbers, numbers),
    "tolist": lambda numbers, flags, rows: numbers.tolist(),
    "cpu": lambda numbers, flags, rows: numbers.cpu(),
    "numpy": lambda numbers, flags, rows: numbers.numpy(),
    "asarray": lambda numbers, flags, rows: np.asarray(numbers),
    "tensor": lambda numbers, flags, rows: torch.tensor([1], device=rows.device),
    "from_numpy": lambda numbers, flags, rows: torch.from_numpy(np.arange(3)).to(rows.device),
    "index of a list": lambda numbers, flags, rows: numbers[[0, 1]],
    "number at rows": lambda numbers, flags, rows: numbers.__setitem__(rows, 2.0),
}

QUEUED: dict[str, Body] = {
    "index": lambda numbers, flags, rows: numbers[rows],
    "assignment": lambda numbers, flags, rows: numbers.__setitem__(rows, numbers[:2] + 1),
    "number in a slice": lambda numbers, flags, rows: numbers.__setitem__(slice(2), 2.0),
    "scatter": lambda numbers, flags, rows: numbers.scatter(0, rows, 2.0),
    "where": lambda numbers, flags, rows: torch.where(flags, numbers, 0.0),
    "fill": lambda numbers, flags, rows: torch.full((2,), 3, device=rows.device),
    "to_device": lambda numbers, flags, rows: to_device(np.arange(3), rows.device),
}


def tensors(device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    numbers = torch.arange(4.0)
    return numbers.to(device), (numbers > 1).to(device), torch.tensor([0, 2], device=device)


@pytest.mark.parametrize("name", WAITS)
def test_notes(name: str) -> None:
    arguments = tensors()
    with noted_waits() as waits:
        WAITS[name](*arguments)
    assert len(waits) > 0


@pytest.mark.parametrize("name", QUEUED)
def test_does_not_note(name: str) -> None:
    arguments = tensors()
    with noted_waits() as waits:
        QUEUED[name](*arguments)
    assert waits == []


@pytest.mark.gpu
@pytest.mark.parametrize("name", QUEUED)
def test_what_is_not_noted_does_not_wait_for_a_gpu(name: str) -> None:
    """In this mode torch raises where the host waits."""
    arguments = tensors("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        QUEUED[name](*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
