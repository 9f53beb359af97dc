"""Questions that the embedded model is unsure of: sums in words that it has not seen.

The numbers are of sizes that it was trained on, two or three digits, and the worked answer is that
of ``recipes/train/questions.py``; only the wording is new. The operands of every question are on
the held-out side.

The phrases were chosen, from some eighty for sums, differences and two steps, by a probe with other
numbers: those of which some answers at temperature 1 were right, and not all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from recipes.train.questions import Question, Step, side_of

NEW_WORDS = (
    "{a} and {b}",
    "Sum {a} and {b}.",
    "What is {a} and {b}?",
    "Add {a} plus {b}.",
    "What is {b} more than {a}?",
    "Count {a} apples and {b} apples.",
)


def new_words(seed: int = 2026) -> Iterator[Question]:
    """Different questions without end, every phrase in its turn."""
    rng, seen = random.Random(seed), set[Step]()
    while True:
        for phrase in NEW_WORDS:
            step = _sum(rng)
            while step in seen:
                step = _sum(rng)
            seen.add(step)
            yield Question(phrase.format(a=step.a, b=step.b), (step,))


def _sum(rng: random.Random) -> Step:
    """A held-out sum of two numbers of two or three digits."""
    while True:
        step = Step(rng.randrange(10, 1000), "+", rng.randrange(10, 1000))
        if side_of(step) == "held_out":
            return step
