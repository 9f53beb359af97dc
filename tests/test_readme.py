"""Every command of README.md and of the pages in docs/ is run, or says beside it why not.

The line above a block of shell or Python decides:

* `<!-- run: quick start -->`: as it is;
* `<!-- run: server -->`: as it is, with a free port appended, for as long as the clients need it;
* `<!-- run: client -->`: against that server, its port in the place of 8000;
* `<!-- run: alone -->`: as it is, without the server;
* `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, Block, blocks, environment, marked

MODEL = "recipes/models/arithmetic"
COMMANDS = {"sh", "python"}
OTHER_LANGUAGES = {"toml", "text"}
MARK = re.compile(r"run: (quick start|server|client|alone)|not run: .+")

has_model = pytest.mark.skipif(
    not (ROOT / MODEL / "config.json").is_file(), reason=f"{MODEL} is not in this checkout"
)
has_environment = pytest.mark.skipif(
    not (ROOT / ".venv" / "bin" / "python").exists(),
    reason="the quick start would install .venv; bash tests/run.sh does so",
)


def run(block: Block, code: str, folder: Path) -> str:
    """Run a block's code at the top of the repository; its output."""
    script = folder / ("block." + ("py" if block.language == "python" else "sh"))
    script.write_text(code + "\n")
    program = [sys.executable] if block.language == "python" else ["bash", "-e"]
    done = subprocess.run(
        [*program, str(script)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def test_every_fence_is_read() -> None:
    fences = sum(page.read_text().count("\n```") for page in PAGES)
    assert fences == 2 * len(blocks())


@pytest.mark.parametrize("block", blocks(), ids=lambda block: f"{block.page}-{block.code[:30]}")
def test_a_command_is_run_or_says_why_not(block: Block) -> None:
    assert block.language in COMMANDS | OTHER_LANGUAGES, block
    if block.language in COMMANDS:
        assert MARK.fullmatch(block.mark), f"{block.page}: no mark above the block\n{block.code}"


def test_the_readme_shows_every_way() -> None:
    ways = {(block.mark, block.language) for block in blocks() if block.page == "README.md"}
    assert {
        ("run: quick start", "sh"),
        ("run: server", "sh"),
        ("run: client", "sh"),
        ("run: client", "python"),
        ("run: alone", "python"),
    } <= ways
    assert len(marked("server")) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@has_model
@has_environment
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", marked("quick start"), ids=lambda block: block.code)
def test_quick_start(block: Block, tmp_path: Path) -> None:
    output = run(block, block.code, tmp_path)
    assert output.count("forward passes") == 2
    assert output.rstrip().endswith("server stopped")


@has_model
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "block", marked("client"), ids=lambda block: f"{block.page}-{block.language}"
)
def test_client(block: Block, readme_port: int, tmp_path: Path) -> None:
    assert "localhost:8000" in block.code
    output = run(block, block.code.replace("localhost:8000", f"localhost:{readme_port}"), tmp_path)
    assert '"error"' not in output
    if "/v1/systemone" in block.code:  # vLLM's own route: its usage has no passes
        assert '"probabilities"' in output
        return
    passes = re.search(r'"forward_passes":\s*(\d+)|(\d+) passes', output)
    assert passes, output
    assert int(passes[1] or passes[2]) > 0


@has_model
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", marked("alone"), ids=lambda block: block.language)
def test_alone(block: Block, tmp_path: Path) -> None:
    output = run(block, block.code, tmp_path)
    passes = re.search(r"(\d+) passes", output)
    assert passes, output
    assert int(passes[1]) > 0
