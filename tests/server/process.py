"""`vllm serve` in its own process group."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

REPOSITORY = Path(__file__).parents[2]
SERVE = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve"]
START_LIMIT_S = 240
STOP_LIMIT_S = 20
TINY = [
    "--dtype=float32",
    "--enforce-eager",
    "--disable-uvicorn-access-log",
    "--max-model-len=512",
    "--kv-cache-memory-bytes=67108864",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(folder: Path, log: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start `vllm serve folder` with this repository's code; output goes to `log`."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    # Tests of the engine set this for themselves.
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    with log.open("wb") as output:
        return subprocess.Popen(
            [*SERVE, str(folder), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=environment,
            start_new_session=True,
        )


class Server:
    """A running server.

    Args:
        folder: the checkpoint.
        log: file for its output.
        arguments: options of `vllm serve`.

    Raises:
        RuntimeError: it ended, or did not become healthy in time; with the end of the log.
    """

    def __init__(self, folder: Path, log: Path, arguments: Sequence[str] = ()) -> None:
        self.log = log
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.model = "tiny"
        self.process = launch(
            folder,
            log,
            [f"--port={port}", "--host=127.0.0.1", "--served-model-name=tiny", *TINY, *arguments],
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        limit = time.monotonic() + START_LIMIT_S
        while not self.is_healthy():
            code = self.process.poll()
            if code is not None or time.monotonic() > limit:
                what = f"did not start in {START_LIMIT_S} s" if code is None else f"ended: {code}"
                raise RuntimeError(f"the server {what}\n{self.log_tail()}")
            time.sleep(0.5)

    def is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def metric(self, name: str) -> float:
        """Sum of a metric over its labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=10).text
        samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        ]
        assert samples, f"the server has no metric {name}"
        return float(sum(sample.value for sample in samples))

    def load(self) -> dict[str, float]:
        """What requests hold now, by the engine's own gauges; all 0 when it is idle."""
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        return {name: self.metric(f"vllm:{name}") for name in names}

    def log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End the whole process group."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, kind)
            except ProcessLookupError:
                break
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait(STOP_LIMIT_S)
