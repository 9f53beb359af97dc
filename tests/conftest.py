"""Settings of every test process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from recipes.server import free_port, stop, wait_for_health
from tests.pages import ROOT, environment, marked

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


@pytest.fixture(scope="session")
def readme_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of the server that README.md starts, with the routes of docs/reasoning.md: the model of
    the repository, for all tests that ask it something over HTTP."""
    (block,) = marked("server")
    number = free_port()
    log = tmp_path_factory.mktemp("readme") / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {block.code} --port {number}"],
            cwd=ROOT,
            env=environment() | {"VLLM_PLUGINS": "mdlm"},  # as docs/reasoning.md asks
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for_health(f"http://127.0.0.1:{number}/health", process, log, 540)
        yield number
    finally:
        stop(process)
