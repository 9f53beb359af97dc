"""The quick start on a real server: what it prints, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from recipes.quickstart import judge
from recipes.train.questions import parse
from tests.reference.checkpoints import make_llada

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llada(tmp_path_factory.mktemp("quickstart") / "tiny")


def server_groups(model: Path) -> set[int]:
    """The process groups of servers of the model; what a server starts stays in its group."""
    return {
        os.getpgid(process.pid)
        for process in psutil.process_iter(["cmdline"])
        if {"serve", str(model)} <= set(process.info["cmdline"] or [])
    }


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def quickstart(model: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "recipes.quickstart", str(model)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts what it puts in the background with this signal ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


RIGHT = "1+9+0=10\n7+5+1=13\n8+3+1=12\n4+0+1=05\nThe answer is 5230"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (RIGHT, ("right", False)),
        (RIGHT.replace("1=12", "1=13"), ("right, but not every line", False)),
        (RIGHT.replace("5230", "5231"), ("wrong, the answer is 5230", True)),
        ("", ("wrong, the answer is 5230", True)),
    ],
)
def test_an_answer_is_judged(answer: str, expected: tuple[str, bool]) -> None:
    assert judge(parse("What is 4871 + 359?"), answer) == expected
    assert judge(None, answer) == (None, False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_asks_with_two_samplers_and_stops_the_server(model: Path) -> None:
    process = quickstart(model)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert re.findall(r"sampler  (\w+)", output) == ["low_confidence", "threshold"]
    passes = [int(count) for count in re.findall(r"forward passes  (\d+)", output)]
    tokens = [int(count) for count in re.findall(r"tokens  (\d+), [\d.]+ per second", output)]
    assert len(passes) == len(tokens) == 2
    assert all(count > 0 for count in [*passes, *tokens])
    assert "What is 4871 + 359?" in output
    assert server_groups(model) == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_server_too(model: Path, number: signal.Signals) -> None:
    process = quickstart(model)
    deadline = time.monotonic() + 60
    while not (groups := server_groups(model)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(groups) == 1
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert not any(group_exists(group) for group in groups)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    process = quickstart(tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 2
    assert "has no config.json; name a LLaDA's folder" in output
