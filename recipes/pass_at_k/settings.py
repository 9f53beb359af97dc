"""The settings of a study: one TOML file, checked when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Positive = Annotated[int, Meta(ge=1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Seconds = Annotated[float, Meta(gt=0)]
Arguments = dict[str, str | int | float]
TaskName = Literal["arithmetic", "math500", "aime24", "aime25", "humaneval", "mbpp"]
Kind = Literal["all", "addition", "subtraction", "two steps", "new words"]

RANDOM_AT_ZERO = ("random", "mh", "mh_lookahead")
"""Samplers that draw numbers at temperature 0 too."""

OWN_FIELDS = {"sampler", "commit_order", "temperature", "seed", "max_tokens", "n", "stream"}


class Task(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A set of questions and the canvas that they are answered on.

    ``questions`` takes the first so many, unset all; ``arithmetic`` is endless and needs it.
    ``kind`` is of ``arithmetic`` alone. ``arguments`` go into ``vllm_xargs``.
    """

    name: TaskName
    max_tokens: Positive
    questions: Positive | None = None
    kind: Kind = "all"
    arguments: Arguments = {}

    def __post_init__(self) -> None:
        if self.name == "arithmetic" and self.questions is None:
            raise ValueError("arithmetic draws questions without end; set its `questions`")
        if self.name != "arithmetic" and self.kind != "all":
            raise ValueError(f"`kind` is {self.kind!r} for {self.name}; only arithmetic has kinds")
        _refuse_own_fields(self.arguments)


class Sampler(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One curve of the study: a sampler, its temperature and its own parameters."""

    sampler: str
    temperature: Temperature
    commit_order: Literal["sample_first", "position_first"] | None = None
    arguments: Arguments = {}

    def __post_init__(self) -> None:
        _refuse_own_fields(self.arguments)

    @property
    def label(self) -> str:
        """Names the setting in files and tables; everything that shapes an answer is in it."""
        parts = [self.sampler, f"T {self.temperature:g}", self.commit_order or ""]
        parts += [f"{name} {value}" for name, value in self.arguments.items()]
        return ", ".join(filter(None, parts))

    @property
    def is_deterministic(self) -> bool:
        """Every seed gives the same answer, so one sample tells all."""
        return self.temperature == 0 and self.sampler not in RANDOM_AT_ZERO

    def vllm_xargs(self, task: Task) -> Arguments:
        """Request parameters of the plugin, flat."""
        order = {"commit_order": self.commit_order} if self.commit_order else {}
        return {"sampler": self.sampler, **order, **task.arguments, **self.arguments}


class Grading(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Limits of one graded answer. All values are our choice."""

    seconds: Seconds = 10.0
    memory_mib: Positive = 1024
    workers: Positive = 2


class Study(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every task answered with every sampler, ``samples`` times a question.

    ``budgets`` are forward passes a question. ``compare`` holds pairs of labels of samplers, whose
    difference is reported question by question. ``serve`` are options of ``vllm serve`` where the
    study starts the server itself.
    """

    model: str
    seed: int
    samples: Positive
    ks: tuple[Positive, ...]
    budgets: tuple[Positive, ...]
    concurrency: Positive
    tasks: tuple[Task, ...]
    samplers: tuple[Sampler, ...]
    compare: tuple[tuple[str, str], ...] = ()
    grading: Grading = Grading()
    serve: tuple[str, ...] = ()
    request_seconds: Seconds = 3600.0

    def __post_init__(self) -> None:
        _refuse_twice("tasks", [task.name for task in self.tasks])
        _refuse_twice("samplers", [sampler.label for sampler in self.samplers])
        labels = {sampler.label for sampler in self.samplers}
        if unknown := sorted({label for pair in self.compare for label in pair} - labels):
            raise ValueError(f"`compare` names {unknown}; the samplers are {sorted(labels)}")
        if not self.ks or sorted(set(self.ks)) != list(self.ks) or self.ks[-1] > self.samples:
            raise ValueError(
                f"`ks` is {list(self.ks)}; it must ascend and end at `samples` "
                f"({self.samples}) at most"
            )

    def samples_of(self, sampler: Sampler) -> int:
        """Answers to one question."""
        return 1 if sampler.is_deterministic else self.samples


def load_study(path: Path) -> Study:
    """Decode a TOML file; ``msgspec.ValidationError`` names the field that is wrong."""
    return msgspec.toml.decode(path.read_bytes(), type=Study)


def _refuse_own_fields(arguments: Arguments) -> None:
    if found := sorted(OWN_FIELDS & set(arguments)):
        raise ValueError(f"`arguments` names {', '.join(found)}; the study sets these itself")


def _refuse_twice(name: str, values: list[str]) -> None:
    if twice := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f"`{name}` has {'; '.join(twice)} more than once")
