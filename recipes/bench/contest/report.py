"""From rounds to numbers: speed, ratio with its spread, passes, agreement; Markdown and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, median
from typing import NamedTuple

import msgspec
import numpy as np

from recipes.bench.contest.contenders import OURS
from recipes.bench.contest.driver import Round
from recipes.bench.contest.messages import Answer, Cell, Lap

HEADER = (
    "| workload | engine | tokens/s, median (range) | passes | floor / time | "
    "{reference} / it, median (range; middle half) | same tokens | same answers |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


MOST_IDLE = 0.1
"""Cores that waiting contenders may use without a note: they slow down the one whose turn it is."""


class Spread(msgspec.Struct, frozen=True):
    """A quantity over the repetitions."""

    median: float
    low: float
    high: float
    quartiles: tuple[float, float]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One contender on one cell.

    `speeds`, by repetition, and `speed` are in tokens before EOS per wall second. `passes` is the
    mean of an answer, `seconds` and `cpu_seconds` the wall and the processor time of a lap, the
    medians, `idle_share` what the other contenders used meanwhile, in cores. `floor_share` is the
    share of `seconds` that the operations of so many passes would take in plain matrix products of
    the same run. Against the reference, the contest's first contender:
    `ratio` is the reference's speed over this one's, `cpu_ratio` this one's processor time over the
    reference's, both of the same repetition; `same_tokens` is the share of positions where both
    answers have one token, `same_answers` the share of equal answers.
    """

    cell: Cell
    name: str
    speeds: list[float]
    speed: Spread
    passes: float
    seconds: float
    cpu_seconds: float
    idle_share: float
    floor_share: float | None = None
    ratio: Spread | None = None
    cpu_ratio: Spread | None = None
    same_tokens: float | None = None
    same_answers: float | None = None


class Finished(NamedTuple):
    """A round that gave a lap."""

    lap: Lap
    cpu_seconds: float
    idle: float

    @property
    def speed(self) -> float:
        return sum(len(answer.tokens) for answer in self.lap.answers) / self.lap.seconds


def spread(values: Sequence[float]) -> Spread:
    """Median, range and quartiles (linear between the values) of at least one value."""
    low, high = np.percentile(values, [25, 75]).tolist()
    return Spread(median(values), min(values), max(values), (low, high))


def agreement(left: Sequence[Answer], right: Sequence[Answer]) -> tuple[float, float]:
    """Share of equal tokens and of equal answers. Where one answer is longer, the rest differs."""
    pairs = [(a.tokens, b.tokens) for a, b in zip(left, right, strict=True)]
    equal = sum(sum(x == y for x, y in zip(a, b, strict=False)) for a, b in pairs)
    longest = sum(max(len(a), len(b)) for a, b in pairs)
    return equal / max(longest, 1), mean(a == b for a, b in pairs)


def results(rounds: Iterable[Round], reference: str = OURS) -> list[Result]:
    """Results of one cell, in the order in which the contenders ran; those that failed are not
    among them."""
    laps: dict[str, dict[int, Finished]] = {}
    cells = set()
    for one in rounds:
        cells.add(one.cell)
        if isinstance(one.lap, Lap):
            finished = Finished(one.lap, one.cpu_seconds, one.idle)
            laps.setdefault(one.name, {})[one.repetition] = finished
    if not laps:
        return []
    (cell,) = cells
    return [
        _result(cell, name, own, {} if name == reference else laps.get(reference, {}))
        for name, own in laps.items()
    ]


def _result(
    cell: Cell, name: str, laps: dict[int, Finished], reference: dict[int, Finished]
) -> Result:
    wall = sum(each.lap.seconds for each in laps.values())
    result = Result(
        cell=cell,
        name=name,
        speeds=[each.speed for each in laps.values()],
        speed=spread([each.speed for each in laps.values()]),
        passes=mean(answer.passes for each in laps.values() for answer in each.lap.answers),
        seconds=median(each.lap.seconds for each in laps.values()),
        cpu_seconds=median(each.cpu_seconds for each in laps.values()),
        idle_share=sum(each.idle for each in laps.values()) / wall,
    )
    pairs = [(reference[i], laps[i]) for i in sorted(laps.keys() & reference.keys())]
    if not pairs:
        return result
    same = [agreement(a.lap.answers, b.lap.answers) for a, b in pairs]
    return msgspec.structs.replace(
        result,
        ratio=spread([a.speed / b.speed for a, b in pairs]),
        cpu_ratio=spread([b.cpu_seconds / max(a.cpu_seconds, 1e-9) for a, b in pairs]),
        same_tokens=mean(tokens for tokens, _ in same),
        same_answers=mean(answers for _, answers in same),
    )


def line(result: Result) -> str:
    """A row of the table."""
    speed = result.speed
    fields = [
        result.cell.label,
        result.name,
        f"{speed.median:.1f} ({speed.low:.1f} to {speed.high:.1f})",
        f"{result.passes:.1f}",
        "" if result.floor_share is None else f"{100 * result.floor_share:.0f} %",
        "",
        "",
        "",
    ]
    if result.ratio is not None:
        low, high = result.ratio.quartiles
        fields[5] = (
            f"{result.ratio.median:.2f} ({result.ratio.low:.2f} to {result.ratio.high:.2f}; "
            f"{low:.2f} to {high:.2f})"
        )
        fields[6] = f"{100 * (result.same_tokens or 0):.1f} %"
        fields[7] = f"{100 * (result.same_answers or 0):.0f} %"
    return "| " + " | ".join(fields) + " |"


def table(found: Sequence[Result], reference: str = OURS) -> str:
    """The Markdown table."""
    return "\n".join([HEADER.format(reference=reference), *map(line, found)]) + "\n"


def disturbed(found: Iterable[Result]) -> list[str]:
    """A sentence for every result that others took processor time from while they waited."""
    return [
        f"{one.name}, {one.cell.label}: waiting contenders used {one.idle_share:.2f} cores."
        for one in found
        if one.idle_share > MOST_IDLE
    ]
