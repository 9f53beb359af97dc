"""Tables and picture of the scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from recipes.infill_study.auc import Contest, auc_with_interval, contest
from recipes.sampler_study.report import picture


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """The score of one reasoning."""

    question: int
    lines: int  # of the whole reasoning
    earlier: int  # of them, those of a step before the last
    visible: int  # from the first; the others are masked
    corrupted: int | None  # the index of the wrong line
    logprob: float  # of the answer's tokens, nats
    logprob_with_end: float  # and of the EOS behind it, up to the end of its span


STEPS = ("one step", "two steps")

Chosen = Callable[[Scored], bool]
Value = Callable[[Scored], float]

READING = (
    "AUC: the chance that right reasoning has a higher log p(answer) than corrupted reasoning, "
    "both of questions drawn at random; 0.5 is chance. Brackets: 95 % intervals, percentile "
    "bootstrap over questions. `own`: the share of corrupted reasonings below the right one of "
    "their own question. One line is corrupted: its last digit, the others as they were."
)


def logprob(one: Scored) -> float:
    return one.logprob


def logprob_with_end(one: Scored) -> float:
    return one.logprob_with_end


def compare(scored: Sequence[Scored], chosen: Chosen, value: Value = logprob) -> Contest | None:
    """Chosen corrupted reasonings against the right ones of their questions with as many visible
    lines. All that are chosen have to leave as many lines of a question visible.
    None: nothing is chosen.
    """
    visible, corrupted = dict[int, int](), defaultdict[int, list[float]](list)
    for one in scored:
        if one.corrupted is not None and chosen(one):
            visible[one.question] = one.visible
            corrupted[one.question].append(value(one))
    right = {
        one.question: value(one)
        for one in scored
        if one.corrupted is None and visible.get(one.question) == one.visible
    }
    return contest(right, corrupted) if corrupted else None


def whole(scored: Sequence[Scored]) -> list[tuple[str, Chosen]]:
    """Rows of the first table: which corrupted reasonings, all lines visible."""
    rows: list[tuple[str, Chosen]] = [
        ("any", is_whole),
        ("of the last step", lambda one: is_whole(one) and int(one.corrupted or 0) >= one.earlier),
        ("of an earlier step", lambda one: is_whole(one) and int(one.corrupted or 0) < one.earlier),
    ]
    for steps in STEPS:
        rows += [(f"{i + 1}, {steps}", line(i, steps)) for i in range(longest(scored))]
    return rows


def is_whole(one: Scored) -> bool:
    return one.visible == one.lines


def longest(scored: Sequence[Scored]) -> int:
    return max(one.lines for one in scored)


def line(index: int, steps: str) -> Chosen:
    """Whole reasonings of which that line is wrong, of questions of one step or of two."""
    return lambda one: is_whole(one) and one.corrupted == index and STEPS[one.earlier > 0] == steps


def whole_table(scored: Sequence[Scored]) -> str:
    """Markdown: the whole reasoning, by corrupted line."""
    head = "| corrupted line | questions | corrupted | AUC | own | AUC, EOS scored too |"
    lines = [head, "| --- " * 6 + "|"]
    for name, chosen in whole(scored):
        plain = compare(scored, chosen)
        with_end = compare(scored, chosen, logprob_with_end)
        if plain is None or with_end is None:
            continue
        lines.append(
            f"| {name} | {len(plain.wins)} | {plain.corrupted.sum():.0f} | "
            f"{auc_with_interval(plain)} | {plain.paired:.3f} | {auc_with_interval(with_end)} |"
        )
    return "\n".join(lines)


def partial_table(scored: Sequence[Scored]) -> str:
    """Markdown: the first lines visible, the rest masked."""
    head = "| visible lines | questions | median log p(answer), right | AUC, newest line wrong "
    head += "| own | AUC, an earlier line wrong | own |"
    lines = [head, "| --- " * 7 + "|"]
    for count in range(longest(scored)):
        right = [
            one.logprob
            for one in scored
            if one.corrupted is None and one.visible == count < one.lines
        ]
        cells = [str(count), str(len(right)), f"{np.median(right):.3f}"]
        for is_newest in (True, False):
            found = compare(scored, partly(count, is_newest))
            cells += [str(auc_with_interval(found)), f"{found.paired:.3f}"] if found else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def partly(count: int, is_newest: bool) -> Chosen:
    """Reasonings of which so many lines are visible and not all, the last or another one wrong."""
    return lambda one: (
        one.visible == count < one.lines and (one.corrupted == count - 1) == is_newest
    )


def tables(scored: Sequence[Scored]) -> str:
    """Both tables and how to read them."""
    return "\n\n".join(
        [
            "All lines visible:",
            whole_table(scored),
            "The first lines visible, the rest of the reasoning masked:",
            partial_table(scored),
            READING,
        ]
    )


def picture_of(scored: Sequence[Scored], path: Path) -> None:
    """AUC by corrupted line with all lines visible, and by visible lines with the newest wrong."""
    lines = range(longest(scored))
    with picture(path, 2) as panels:
        for steps in STEPS:
            _curve(panels[0], scored, {i + 1: line(i, steps) for i in lines}, steps)
        rows = {i + 1: partly(i + 1, True) for i in lines}
        _curve(panels[1], scored, rows, "all questions")
        names = ("corrupted line, all lines visible", "visible lines, the newest corrupted")
        for panel, name in zip(panels, names, strict=True):
            panel.axhline(0.5, color="grey", linewidth=0.8, linestyle=":", label="chance")
            panel.set(xlabel=name, ylabel="AUC of log p(answer), 95 % intervals", ylim=(0.25, 1.02))


def _curve(panel: Any, scored: Sequence[Scored], rows: dict[int, Chosen], label: str) -> None:
    found = {x: compare(scored, chosen) for x, chosen in rows.items()}
    points = {x: auc_with_interval(one) for x, one in found.items() if one}
    values = [one.value for one in points.values()]
    below = [one.value - one.low for one in points.values()]
    above = [one.high - one.value for one in points.values()]
    panel.errorbar([*points], values, yerr=(below, above), marker="o", capsize=3, label=label)
