"""Server-wide defaults; that a request follows and overrides them is in test_answers.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.process import START_LIMIT_S, TINY, free_port, launch


def test_wrong_defaults_refuse_to_start(folder: Path, tmp_path: Path) -> None:
    wrong: dict[str, tuple[Any, str]] = {
        "value": ({"block_length": 0}, "block_length: got 0"),
        "name": ({"blocklength": 8}, "blocklength: got 8; not a parameter"),
        "kind": (5, "got 5"),
    }
    started = {
        name: launch(
            folder,
            tmp_path / name,
            [f"--port={free_port()}", *TINY, "--additional-config", json.dumps({"mdlm": value})],
        )
        for name, (value, _) in wrong.items()
    }
    try:
        for name, (_, message) in wrong.items():
            assert started[name].wait(START_LIMIT_S) != 0
            log = (tmp_path / name).read_text(errors="replace")
            assert "--additional-config 'mdlm'" in log, log[-3000:]
            assert message in log
    finally:
        for process in started.values():
            process.kill()


@pytest.mark.parametrize("option", [["--pipeline-parallel-size", "2"]])
def test_options_that_cannot_work_refuse_to_start(
    folder: Path, tmp_path: Path, option: list[str]
) -> None:
    process = launch(folder, tmp_path / "log", [f"--port={free_port()}", *TINY, *option])
    try:
        assert process.wait(START_LIMIT_S) != 0
    finally:
        process.kill()
    assert "do not run with pipeline parallelism" in (tmp_path / "log").read_text()
