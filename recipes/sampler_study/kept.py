"""The folder of a study: results that survive a stop, and what every setting answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from recipes.sampler_study.report import read, write


class Named(Protocol):
    """A setting of a sweep, or its result: the pair is unique in the sweep."""

    @property
    def sampler(self) -> str: ...

    @property
    def label(self) -> str: ...


class Kept(Named, Protocol):
    """A NamedTuple that is one line of a file."""

    @property
    def questions(self) -> int: ...

    def _asdict(self) -> dict[str, Any]: ...


S = TypeVar("S", bound=Named)
R = TypeVar("R", bound=Kept)


class Folder(Generic[R]):
    """`results.jsonl`, one line a setting that is done, and `answers/`, one file a setting."""

    def __init__(self, out: Path, kind: type[R], questions: int) -> None:
        """Open the folder, or make it.

        Raises:
            SystemExit: it holds results of another number of questions.
        """
        (out / "answers").mkdir(parents=True, exist_ok=True)
        self.out, self.file = out, out / "results.jsonl"
        self.results: list[R] = read(self.file, kind) if self.file.exists() else []
        for result in self.results:
            if result.questions != questions:
                raise SystemExit(
                    f"{self.file} has results of {result.questions} questions, {questions} are "
                    "asked for; name another folder or the same number"
                )

    def missing(self, sweep: Iterable[S]) -> list[S]:
        """The settings that have no result yet."""
        done = {(result.sampler, result.label) for result in self.results}
        return [setting for setting in sweep if (setting.sampler, setting.label) not in done]

    def keep(self, result: R) -> None:
        self.results.append(result)
        write(self.file, self.results)

    def answers(self, setting: Named) -> Path:
        name = f"{setting.sampler} {setting.label}".strip()
        return self.out / "answers" / f"{name}.json"

    def in_order(self, sweep: Sequence[Named]) -> list[R]:
        """The results in the order of the sweep."""
        order = {(s.sampler, s.label): index for index, s in enumerate(sweep)}
        return sorted(self.results, key=lambda result: order[result.sampler, result.label])
