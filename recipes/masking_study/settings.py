"""The settings of a study: one TOML file for all its runs, unknown fields refused."""

from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from recipes.train.settings import (
    ModelSettings,
    Natural,
    OptimSettings,
    PaplMasking,
    Positive,
    PumaMasking,
    RandomMasking,
    RunSettings,
    Settings,
    TaskData,
)

Order = Literal["low_confidence", "max_logit", "random", "left_to_right", "oracle", "threshold"]
"""``threshold`` commits all cells above 0.9 in a pass, as PUMA reveals them; the others one."""


WATCHED_ORDERS: tuple[Order, ...] = ("low_confidence", "oracle")


class Decoding(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is decoded after training: every order on every stratum, greedily.

    watched: puzzles of the last stratum that every probe of the training decodes in
    ``WATCHED_ORDERS``, for the learning curves.
    """

    orders: tuple[Order, ...]
    strata: tuple[Natural, ...]
    natural: Positive
    per_stratum: Positive
    watched: Natural = 0


class Study(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One task, every scheme under every seed."""

    model: ModelSettings
    data: TaskData
    optim: OptimSettings
    run: RunSettings = RunSettings()
    schemes: dict[str, RandomMasking | PaplMasking | PumaMasking]
    seeds: tuple[int, ...]
    test: Decoding

    def settings(self, scheme: str, seed: int) -> Settings:
        """The training settings of one run."""
        run = msgspec.structs.replace(self.run, seed=seed)
        return Settings(
            model=self.model,
            data=self.data,
            masking=self.schemes[scheme],
            optim=self.optim,
            run=run,
        )


def load_study(path: Path) -> Study:
    """Decode a TOML file; ``msgspec.ValidationError`` names the field that is wrong."""
    return msgspec.toml.decode(path.read_bytes(), type=Study)
