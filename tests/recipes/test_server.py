"""`recipes.server` with a stand-in for the `vllm` command: starting, failing, stopping."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from recipes import server

StandIn = Callable[[str], None]

HEALTHY = """#!/usr/bin/env python3
import http.server, os, subprocess, sys
child = subprocess.Popen(["sleep", "600"])
print("child", child.pid, flush=True)

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""
BROKEN = "#!/bin/sh\necho 'no such model' >&2\nexit 3\n"
DEAF = "#!/bin/sh\necho 'still loading'\nexec sleep 600\n"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A function that puts a script in the place of the `vllm` command."""

    def put(script: str) -> None:
        command = tmp_path / "vllm"
        command.write_text(script)
        command.chmod(0o755)
        monkeypatch.setattr(server, "vllm_command", lambda: str(command))

    return put


def is_running(pid: int) -> bool:
    """Whether the process is there and not a zombie that waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt, SystemExit])
def test_leaving_stops_the_server_and_its_children(
    stand_in: StandIn, failure: type[BaseException] | None
) -> None:
    stand_in(HEALTHY)
    pids: list[int] = []

    def use() -> None:
        with server.serve("model") as running:
            health = running.base_url.removesuffix("/v1") + "/health"
            assert urllib.request.urlopen(health, timeout=5).status == 200
            child = int(running.log.read_text().split()[1])
            pids.extend([running.process.pid, child])
            assert os.getpgid(child) == running.process.pid
            if failure is not None:
                raise failure

    if failure is None:
        use()
    else:
        with pytest.raises(failure):
            use()
    assert len(pids) == 2
    assert all(wait_until_gone(pid) for pid in pids)


def test_a_server_that_ends_raises_with_its_log(stand_in: StandIn) -> None:
    stand_in(BROKEN)
    match = r"ended with status 3\n(.*\n)*no such model"
    with pytest.raises(RuntimeError, match=match), server.serve("model"):
        pytest.fail("entered without a server")


def test_a_server_that_never_answers_is_given_up(stand_in: StandIn) -> None:
    stand_in(DEAF)
    match = r"not healthy after 1 s\n(.*\n)*still loading"
    with pytest.raises(RuntimeError, match=match), server.serve("model", start_seconds=1):
        pytest.fail("entered without a server")
