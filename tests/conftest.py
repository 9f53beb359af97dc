"""Settings of every test process."""

from __future__ import annotations

import torch

# The networks of the tests are far too small to gain from more threads.
torch.set_num_threads(1)
