"""What a contest measures, and what passes between it and a contender's process, as JSON lines."""

from __future__ import annotations

from typing import Literal

import msgspec

Mode = Literal["exact", "prefix", "dual"]
Sampler = Literal["low_confidence", "threshold", "med"]


class Cell(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One workload: lengths in tokens, `batch` requests at once, greedy.

    `passes_per_block` is the schedule of `low_confidence`; `threshold` the bound of the sampler of
    that name, a probability; `entropy_threshold` that of `med`, in nats.
    """

    mode: Mode
    sampler: Sampler
    prompt: int
    canvas: int
    batch: int
    block: int = 32
    passes_per_block: int = 16
    threshold: float = 0.9
    entropy_threshold: float = 0.2

    @property
    def steps(self) -> int:
        """Passes of the schedule over the whole canvas, LLaDA's `steps`."""
        return self.canvas // self.block * self.passes_per_block

    @property
    def label(self) -> str:
        rule = {
            "low_confidence": f"{self.passes_per_block} passes a block",
            "threshold": f"threshold {self.threshold:g}",
            "med": f"med {self.entropy_threshold:g}",
        }[self.sampler]
        return (
            f"{self.mode}, {rule}; prompt {self.prompt}, canvas {self.canvas}, batch {self.batch}"
        )


class Answer(msgspec.Struct, frozen=True):
    """What one request got: the tokens before EOS, and the forward passes it took part in."""

    tokens: list[int]
    passes: int


class Order(msgspec.Struct, frozen=True):
    """To a contender: run this cell on these prompts."""

    cell: Cell
    prompts: list[list[int]]


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From a contender, once its model is loaded: what it runs on."""

    versions: dict[str, str]
    threads: int


class Lap(msgspec.Struct, frozen=True, tag="lap"):
    """From a contender: wall seconds of one order, loading and protocol excluded."""

    seconds: float
    answers: list[Answer]


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """From a contender: the order could not be carried out."""

    error: str


Report = Ready | Lap | Failure
