"""Whether the program can tell a trace to be right: arithmetic."""

from __future__ import annotations

from recipes.posterior_traces.questions import Item
from recipes.train.questions import ANSWER_PREFIX, check, parse


def is_right(item: Item, reasoning: str) -> bool | None:
    """Whether every line of the calculation is right, none missing, none too many.

    What is asked says ``calculation``, or else the question; None where neither is arithmetic that
    `parse` understands.
    """
    found = parse(item.calculation or item.question)
    if found is None:
        return None
    return check(found, f"{reasoning.strip()}\n{ANSWER_PREFIX}").reasoning_right
