"""The patches of `patches/`, read from their files."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[2] / "patches"

FIELDS = {
    "Description",
    "Origin",
    "Forwarded",
    "Applies-To",
    "Replaces",
    "Removes-When",
    "Last-Update",
}
"""Fields of a patch header: DEP-3's, and what a shim needs beside them."""


class Patch(NamedTuple):
    """One patch file."""

    path: Path
    header: dict[str, str]  # continuation lines joined by newlines
    touched: list[str]  # paths below the folder that holds `vllm/`
    added: list[str]  # those of them that the patch creates

    def replaces(self) -> dict[str, list[str]]:
        """Name of a shim -> names of what it wraps or replaces in vLLM."""
        lines = self.header["Replaces"].splitlines()
        pairs = (line.strip().partition(":") for line in lines if line.strip())
        return {
            shim: [name.strip() for name in names.split(",") if name.strip()]
            for shim, _colon, names in pairs
        }


def read(path: Path) -> Patch:
    """Split a patch file into header and diff."""
    head, _rule, diff = path.read_text().partition("\n---\n")
    header: dict[str, str] = {}
    name = ""
    for line in head.splitlines():
        if line.startswith(" "):
            header[name] += "\n" + line[1:]
        else:
            name, _colon, value = line.partition(":")
            header[name] = value.strip()
    sections = [part.splitlines() for part in diff.split("diff --git ")[1:]]
    touched = [lines[0].split(" b/")[1] for lines in sections]
    added = [
        path
        for path, lines in zip(touched, sections, strict=True)
        if lines[1].startswith("new file")
    ]
    return Patch(path, header, touched, added)


def series() -> list[Patch]:
    """All patches, in the order in which they apply."""
    lines = (FOLDER / "series").read_text().splitlines()
    return [read(FOLDER / line) for line in lines if line and not line.startswith("#")]


def copy_sources(patches: list[Patch], target: Path) -> None:
    """Copy what the patches touch from the installed vLLM to `target`/vllm.

    A repository is made of `target`, so that `git apply` does not look for one above it.
    """
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parents[1]
    for name in {name for patch in patches for name in patch.touched}:
        if (installed / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(installed / name, target / name)
    subprocess.run(["git", "init", "-q", str(target)], check=True)


def apply(patch: Patch, target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `git apply` with a patch in `target`."""
    return subprocess.run(
        ["git", "apply", *options, str(patch.path)],
        cwd=target,
        capture_output=True,
        text=True,
        check=False,
    )
