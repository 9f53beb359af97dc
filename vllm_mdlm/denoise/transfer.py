"""From the host to the device, without waiting for what the device has been given to do."""

from __future__ import annotations

import numpy as np
import torch


def to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Values of the host as a tensor; on a CPU it is the same memory.

    A copy from memory that is not pinned would wait for the device.
    """
    host = torch.from_numpy(values)
    if device.type == "cpu":
        return host
    return host.pin_memory().to(device, non_blocking=True)
