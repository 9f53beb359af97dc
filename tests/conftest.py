"""Settings of every test process."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

# The networks of the tests are far too small to gain from more threads.
torch.set_num_threads(1)

# No deadline: machines are shared. Derandomised: a failure is the change's, not the draw's.
settings.register_profile("repository", deadline=None, derandomize=True, database=None)
settings.load_profile("repository")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
