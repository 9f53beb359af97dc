"""Questions that the embedded model is unsure of: sums and differences in words it has not seen.

The numbers are of the sizes that it was trained on, at most three digits, and the worked answer is
that of ``recipes/train/questions.py``. Only the wording is new. No phrase here is one of training,
and the pair of operands of every question is on the held-out side.

The phrases were chosen by a probe with other numbers, from some eighty: those of which some answers
at temperature 1 are right, and not all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from recipes.train.questions import Operator, Question, Step, side_of

MOST_DIGITS = 3

NEW_WORDS: dict[str, Operator] = {
    "{a} and {b}": "+",
    "Sum {a} and {b}.": "+",
    "What is {a} and {b}?": "+",
    "Add {a} plus {b}.": "+",
    "What is {b} more than {a}?": "+",
    "Count {a} apples and {b} apples.": "+",
}
"""Phrases by their operator; ``a >= b`` where it is a subtraction."""


def new_words(seed: int = 2026) -> Iterator[Question]:
    """Different questions without end, every phrase in its turn."""
    rng, seen = random.Random(seed), set[Step]()
    while True:
        for phrase, operator in NEW_WORDS.items():
            step = _step(rng, operator)
            while step in seen:
                step = _step(rng, operator)
            seen.add(step)
            yield Question(phrase.format(a=step.a, b=step.b), (step,))


def _step(rng: random.Random, operator: Operator) -> Step:
    """A held-out step on two numbers of two or three digits."""
    while True:
        a, b = (rng.randrange(10, 10**MOST_DIGITS) for _ in range(2))
        step = Step(max(a, b), "-", min(a, b)) if operator == "-" else Step(a, operator, b)
        if side_of(step) == "held_out":
            return step
