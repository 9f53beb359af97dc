"""A `vllm serve` of this installation on a free port, for as long as a `with` block runs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

HOST = "127.0.0.1"
START_SECONDS = 600.0
STOP_SECONDS = 30.0
LOG_LINES_SHOWN = 300  # vLLM's root cause stands far above the end.


class Server(NamedTuple):
    """A server that answers: its OpenAI address, its process (a group of its own), its log."""

    base_url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def serve(
    model: str | Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    start_seconds: float = START_SECONDS,
) -> Iterator[Server]:
    """Run `vllm serve MODEL OPTIONS`; enter once it is healthy, stop all its processes on leaving.

    `env` is added to this process's environment. The log lies in a temporary folder and goes with
    the server.

    Raises:
        RuntimeError: the server ended, or was not healthy after `start_seconds`; with its log's
            last lines.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="vllm-serve-") as folder:
        log = Path(folder) / "server.log"
        command = [vllm_command(), "serve", str(model), "--host", HOST, "--port", str(port)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        try:
            wait_for_health(f"http://{HOST}:{port}/health", process, log, start_seconds)
            yield Server(f"http://{HOST}:{port}/v1", process, log)
        finally:
            stop(process)


def vllm_command() -> str:
    """The `vllm` beside this interpreter, or else the one on PATH."""
    beside = Path(sys.executable).with_name("vllm")
    found = str(beside) if beside.exists() else shutil.which("vllm")
    if found is None:
        raise RuntimeError(f"no vllm command beside {sys.executable}; run: bash recipes/setup.sh")
    return found


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_health(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Return once `url` answers 200; raise RuntimeError with the log's end if it will not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"vllm serve ended with status {process.returncode}\n{_end_of(log)}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise RuntimeError(f"vllm serve was not healthy after {seconds:.0f} s\n{_end_of(log)}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's process group: ask, wait `STOP_SECONDS` at most, then kill what is left."""
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"vllm serve did not end in {STOP_SECONDS:.0f} s: killing it", file=sys.stderr)
    finally:  # Also when a second Ctrl-C ends the wait.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(["--- the log's last lines:", *lines[-LOG_LINES_SHOWN:]])
