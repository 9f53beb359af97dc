"""Table of typed decisions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import msgspec

from recipes.intervals import wilson


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one way of asking decides."""

    way: str
    decisions: list[int]  # of every question
    found: list[list[int]]  # tokens of every decision, question by question
    right: list[bool]
    requests: int
    passes: int
    positions: int  # prompt and canvas, of every pass


READING = (
    "`passes`, `requests` and `positions` (prompt and canvas, summed over passes) are means of a "
    "question. `same`: the share of decisions that are those of the first row. Brackets: Wilson's "
    "95 % intervals over questions."
)
HEAD_OF_DECISIONS = "| decisions of a question | decisions right | answer right | all right |"
HEAD_OF_ANSWERS = "| questions in a canvas | answer right |"
HEAD_OF_COSTS = " passes | requests | positions | same |"


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: ways to decide within a question, then ways to put questions together."""
    within = [one for one in outcomes if max(one.decisions) > 1]
    apart = [one for one in outcomes if max(one.decisions) == 1]
    lines = [HEAD_OF_DECISIONS + HEAD_OF_COSTS, "| --- " * 8 + "|"]
    for one in within:
        share = sum(one.right) / len(one.right)
        parts = [f"{share:.3f} of {len(one.right)}", _interval(answers(one)), _interval(whole(one))]
        lines.append(_row(one.way, parts, one, within[0]))
    lines += ["", HEAD_OF_ANSWERS + HEAD_OF_COSTS, "| --- " * 6 + "|"]
    lines += [_row(one.way, [_interval(one.right)], one, apart[0]) for one in apart]
    return "\n".join([*lines, "", READING])


def answers(one: Outcome) -> list[bool]:
    """Whether the stated answer is right, question by question: it is the last decision."""
    return [one.right[end - 1] for end in accumulate(one.decisions)]


def whole(one: Outcome) -> list[bool]:
    """Whether all decisions of a question are right."""
    ends = list(accumulate(one.decisions))
    return [all(one.right[end - size : end]) for end, size in zip(ends, one.decisions, strict=True)]


def _interval(right: Sequence[bool]) -> str:
    low, high = wilson(sum(right), len(right))
    return f"{sum(right) / len(right):.3f} ({low:.3f} to {high:.3f})"


def _row(way: str, parts: Sequence[str], one: Outcome, first: Outcome) -> str:
    count = len(one.decisions)
    equal = sum(a == b for a, b in zip(one.found, first.found, strict=True)) / len(one.found)
    costs = [
        f"{one.passes / count:.1f}",
        f"{one.requests / count:.2f}",
        f"{one.positions / count:.0f}",
        "" if one is first else f"{equal:.3f}",
    ]
    return f"| {' | '.join([way, *parts, *costs])} |"
