"""The study's table and plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from recipes.intervals import wilson

R = TypeVar("R")


class Result(NamedTuple):
    """One setting's outcome: ``right`` of ``questions`` answers, passes in the mean.

    changed: share of the answers' tokens that are not those of the setting it is compared with.
    seconds: wall-clock time of all questions.
    """

    sampler: str
    label: str
    questions: int
    right: int
    reasoning: int
    passes: float
    changed: float
    seconds: float

    @property
    def accuracy(self) -> float:
        return self.right / self.questions

    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the accuracy."""
        return wilson(self.right, self.questions)


def changed_tokens(answers: Sequence[list[int]], compared: Sequence[list[int]]) -> float:
    """The share of positions that differ, of all positions of the longer answer of every pair."""
    pairs = list(zip(answers, compared, strict=True))
    total = sum(max(len(a), len(b)) for a, b in pairs)
    same = sum(x == y for a, b in pairs for x, y in zip(a, b, strict=False))
    return 1 - same / total if total else 0.0


def write(path: Path, results: Sequence[Any]) -> None:
    """Write NamedTuples, one JSON line each."""
    path.write_text("".join(json.dumps(result._asdict()) + "\n" for result in results))


def read(path: Path, kind: Callable[..., R]) -> list[R]:
    """What `write` wrote of one kind of NamedTuple."""
    return [kind(**json.loads(line)) for line in path.read_text().splitlines()]


def table(results: Sequence[Result]) -> str:
    """Markdown. `fewer`: how many times fewer passes than the first result takes; `changed`: the
    share of tokens that differ from what the setting is compared with."""
    baseline = results[0]
    lines = [
        "| sampler | parameter | accuracy (95 % interval) | reasoning | passes | fewer | changed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        low, high = result.interval()
        lines.append(
            f"| `{result.sampler}` | {result.label} | {result.accuracy:.3f} ({low:.3f} to "
            f"{high:.3f}) | {result.reasoning / result.questions:.3f} | {result.passes:.1f} | "
            f"{baseline.passes / result.passes:.2f} | {result.changed:.4f} |"
        )
    return "\n".join(lines)


def plot(results: Sequence[Result], path: Path) -> None:
    """Accuracy against mean passes, one line a sampler and, where they differ, a block length."""
    with picture(path) as panels:
        _lines(panels[0], results)


@contextmanager
def picture(path: Path, panels: int = 1) -> Iterator[list[Any]]:
    """A picture's panels side by side, to be drawn on and then written."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, panels, figsize=(8 if panels == 1 else 6 * panels, 5))
    axes = [axes] if panels == 1 else list(axes)
    yield axes
    for panel in axes:
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, framealpha=0.5)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _lines(axes: Any, results: Sequence[Result]) -> None:
    for line in dict.fromkeys(map(_line, results)):
        points = sorted((r.passes, r.accuracy) for r in results if _line(r) == line)
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=line)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("forward passes per answer (mean)")
    axes.set_ylabel("exact match")


def _line(result: Result) -> str:
    """The plot's line that a result belongs to: its sampler and what is not a number swept."""
    kept = [p for p in result.label.split(", ") if p.startswith("block ") or " " not in p]
    return ", ".join([result.sampler, *kept])
