"""One server with the routes for all tests of this folder, and a way to send bodies to it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from recipes.server import Server, serve
from tests.reference.checkpoints import Shape, make_llada
from tests.server.oracle import Oracle
from tests.server.process import REPOSITORY, TINY

KEY = "secret"
BLOCK_LENGTH = 32


class Routes:
    """A client that may send what no client would, NaN included."""

    def __init__(self, server: Server) -> None:
        self.root = server.base_url.removesuffix("/v1")
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        self.http = httpx.Client(base_url=server.base_url, timeout=60, headers=headers)

    def raw(self, path: str, content: str) -> httpx.Response:
        return self.http.post(f"/{path}", content=content)

    def send(self, path: str, **body: Any) -> httpx.Response:
        return self.raw(path, json.dumps({"model": "tiny", **body}))

    def ask(self, path: str, **body: Any) -> Any:
        response = self.send(path, **body)
        assert response.status_code == 200, response.text
        return response.json()

    def events(self, path: str, **body: Any) -> list[Any]:
        """What a stream's events hold, the end left out."""
        response = self.send(path, stream=True, **body)
        assert response.headers["content-type"].startswith("text/event-stream"), response.text
        *lines, end, empty = response.text.split("\n\n")
        assert (end, empty) == ("data: [DONE]", "")
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        families = text_string_to_metric_families(httpx.get(f"{self.root}/metrics").text)
        samples = [one.value for family in families for one in family.samples if one.name == name]
        assert samples, f"the server has no metric {name}"
        return float(sum(samples))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llada(tmp_path_factory.mktemp("routes") / "llada", Shape())


@pytest.fixture(scope="session")
def routes(folder: Path) -> Iterator[Routes]:
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {"PYTHONPATH": path, "VLLM_PLUGINS": "mdlm", "HF_HUB_OFFLINE": "1"}
    options = [*TINY, "--served-model-name=tiny", f"--api-key={KEY}"]
    with serve(folder, *options, env=environment) as server:
        try:
            yield Routes(server)
        except BaseException:
            print(server.log.read_text()[-4000:])
            raise


@pytest.fixture(scope="session")
def oracle(folder: Path) -> Oracle:
    return Oracle(folder, BLOCK_LENGTH)
