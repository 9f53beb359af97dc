"""The fenced blocks of README.md and docs/, and what their commands run in."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "patches" / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>.+) -->\n)?^```(?P<language>.*)\n(?P<code>(?s:.*?))^```$", re.M
)


class Block(NamedTuple):
    """One fenced block of a page."""

    page: str
    mark: str
    language: str
    code: str


def blocks() -> list[Block]:
    return [
        Block(
            str(page.relative_to(ROOT)),
            found["mark"] or "",
            found["language"],
            found["code"].strip(),
        )
        for page in PAGES
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def marked(mark: str) -> list[Block]:
    return [block for block in blocks() if block.mark == f"run: {mark}"]


def environment() -> dict[str, str]:
    """This checkout's code and the installation that runs the tests."""
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return os.environ | {
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
