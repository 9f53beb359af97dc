"""Settings of every test process."""

from __future__ import annotations

import torch
from hypothesis import settings

# The networks of the tests are far too small to gain from more threads.
torch.set_num_threads(1)

# No deadline: machines are shared. Derandomised: a failure is the change's, not the draw's.
settings.register_profile("repository", deadline=None, derandomize=True, database=None)
settings.load_profile("repository")
