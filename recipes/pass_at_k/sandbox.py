"""Programs of a model, and parsers fed with its text, in processes that cannot do harm by accident.

Limits of time, memory and file size hold everywhere. Where Linux lets an ordinary user make
namespaces (``unshare`` of util-linux), the process has no network, sees no other process, takes all
its children with it when it ends, and finds every file system read-only but an empty one of its
own. Elsewhere the network is closed by a preamble alone. Neither is a barrier against code written
to break out: run the study in a container where that is to be feared.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

JAIL = Path(__file__).with_name("jail.py")
START_SECONDS = 10.0
"""Granted beside a limit for a process to start (our choice)."""

_UNSHARE = ("unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child")
_OWN_FILES = (
    'mount -t tmpfs -o size=64m none "$PWD" && cd "$PWD" && mount -o remount,bind,ro / || exit 125;'
)
# The shell stays first in its process namespace: the first one there is deaf to most signals.
_RUN = '"$@"; exit $?'
PREFIXES = {
    "namespaces": (*_UNSHARE, "--mount", "sh", "-c", f"{_OWN_FILES} {_RUN}", "sh"),
    "namespaces, files writable": (*_UNSHARE, "sh", "-c", _RUN, "sh"),
    "preamble": (),
}
NOTES = {
    "namespaces": "Programs ran without network, in read-only file systems (namespaces).",
    "namespaces, files writable": "Programs ran without network (namespaces).",
    "preamble": "No namespaces here: programs were kept from the network by a preamble that "
    "replaces Python's sockets, which a subprocess does not have.",
}


class Limits(NamedTuple):
    """Seconds of wall time, and MiB of address space."""

    seconds: float
    memory_mib: int


class Outcome(NamedTuple):
    """Whether a program ran to its end, and what stopped it if not."""

    passed: bool
    note: str


@cache
def isolation() -> str:
    """The strongest of ``PREFIXES`` that works here."""
    for name, prefix in PREFIXES.items():
        with suppress(OSError, subprocess.TimeoutExpired), tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [*prefix, "true"], cwd=folder, capture_output=True, timeout=START_SECONDS
            )
            if done.returncode == 0:
                return name
    return "preamble"


def start(
    script: Path, limits: Limits, folder: str, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a script that calls ``jail.enter`` first; its stdin and stdout are pipes."""
    name = isolation()
    settings = {"memory_mib": limits.memory_mib, "block_sockets": name == "preamble"}
    return subprocess.Popen(
        [*PREFIXES[name], sys.executable, "-P", str(script), json.dumps(settings)],
        cwd=folder,
        env={"PATH": os.environ.get("PATH", ""), "HOME": folder, "OMP_NUM_THREADS": "1"}
        | dict(env or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group, now."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_program(program: str, limits: Limits) -> Outcome:
    """Run Python code to its end.

    It passes when its last line was reached: an exception, ``exit()``, a crash and a limit that was
    hit all fail. What it prints is dropped.
    """
    token = secrets.token_hex(16)
    order = json.dumps({"program": program, "token": token}).encode()
    with tempfile.TemporaryDirectory(prefix="pass-at-k-") as folder:
        process = start(JAIL, limits, folder)
        timed_out = False
        try:
            output, _ = process.communicate(order, timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
            kill(process)
            output, _ = process.communicate()
        finally:
            kill(process)
    with suppress(ValueError):
        verdict: Any = json.loads(output)
        if verdict["token"] == token:
            return Outcome(verdict["error"] is None, verdict["error"] or "")
    if timed_out:
        return Outcome(False, f"no end after {limits.seconds:g} s")
    return Outcome(False, f"ended by itself with status {process.returncode}")
