"""Who can run what, and how a contender is loaded inside its process."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol

import msgspec

from recipes.bench.contest.messages import Answer, Cell

OURS = "vllm-mdlm"
OURS_INT8 = "vllm-mdlm-int8"
"""The same engine, on the weights that `recipes.quantize` writes of the others'."""


class Setting(msgspec.Struct, frozen=True):
    """What every contender of a contest is given alike: folders as strings, a torch dtype by name.

    `code` is a peer's checkout, `network` a folder with `modeling_llada.py`.
    """

    model: str
    dtype: str
    threads: int
    code: str | None = None
    network: str | None = None


class Contender(Protocol):
    """A loaded engine."""

    versions: Mapping[str, str]

    def run(self, cell: Cell, prompts: list[list[int]]) -> list[Answer]:
        """Answer the prompts, all given at once; this is what is timed."""


class Kind(msgspec.Struct, frozen=True):
    """A module with a function `load(Setting) -> Contender`, and the cells that it can run."""

    module: str
    modes: tuple[str, ...]
    samplers: tuple[str, ...]

    def runs(self, cell: Cell) -> bool:
        return cell.mode in self.modes and cell.sampler in self.samplers


_OUR_ENGINE = Kind(
    "recipes.bench.contest.ours",
    ("exact", "prefix", "dual"),
    ("low_confidence", "threshold", "med"),
)

KINDS = {
    OURS: _OUR_ENGINE,
    OURS_INT8: _OUR_ENGINE,
    "LLaDA": Kind("recipes.bench.contest.llada", ("exact",), ("low_confidence",)),
    "Fast-dLLM": Kind(
        "recipes.bench.contest.fast_dllm",
        ("exact", "prefix", "dual"),
        ("low_confidence", "threshold"),
    ),
}


def load(name: str, setting: Setting) -> Contender:
    """Load a contender's model in this process."""
    contender: Contender = importlib.import_module(KINDS[name].module).load(setting)
    return contender
