"""One server for all tests of this folder, and clients for it.

The server is started with a server-wide default for `block_length`, which every request that names
none must follow.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.reference.checkpoints import Shape, make_llada
from tests.server.oracle import Oracle
from tests.server.process import Server

DEFAULT_BLOCK_LENGTH = 8
_running: list[Server] = []


class Post:
    """Sends raw bodies, which may hold what no client would; NaN and Infinity included."""

    def __init__(self, http: httpx.Client, model: str) -> None:
        self._http = http
        self._model = model

    def __call__(self, path: str, **body: Any) -> httpx.Response:
        return self.raw(path, json.dumps({"model": self._model, **body}))

    def raw(self, path: str, content: str) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return self._http.post(f"/v1/{path}", content=content, headers=headers)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llada(tmp_path_factory.mktemp("server") / "llada", Shape())


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[Server]:
    defaults = json.dumps({"mdlm": {"block_length": DEFAULT_BLOCK_LENGTH}})
    options = [f"--additional-config={defaults}", "--enable-scale-out"]
    running = Server(folder, folder.parent / "server.log", options)
    _running.append(running)
    yield running
    _running.remove(running)
    running.stop()


@pytest.fixture(scope="session")
def oracle(folder: Path) -> Oracle:
    return Oracle(folder, DEFAULT_BLOCK_LENGTH)


@pytest.fixture(scope="session")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def post(server: Server) -> Iterator[Post]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield Post(http, server.model)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [("end of the server's log", one.log_tail()) for one in _running]
    return report
