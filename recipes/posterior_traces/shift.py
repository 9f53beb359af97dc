"""A task that the embedded model does not know: sums asked with signs that it has never seen.

    python -m recipes.posterior_traces.shift --questions 256 --out runs/questions.jsonl

The frames are those of its training questions, the sign between the numbers is not. What it means
is known only from the answers. Operands of training and held-out questions are disjoint as those of
the model's own (recipes/train/questions.py).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec

from recipes.posterior_traces.questions import Item
from recipes.train.questions import Question, Side, Step, draw

PHRASES = (
    "What is {a} * {b}?",
    "How much is {a} , {b}?",
    "Compute {a} @ {b}.",
    "{a} & {b} = ?",
)

LINE_TOKENS = 9
"""Every line has eight characters and its newline, a token each."""


def questions(count: int, side: Side, seed: int) -> Iterator[Question]:
    """``count`` different questions of a side, one phrase after the other."""
    rng, seen = random.Random(f"{seed}/{side}"), set[tuple[Step, ...]]()
    while len(seen) < count:
        question = draw(rng, side, weights=(1, 0, 0))
        if question.steps not in seen:
            phrase = PHRASES[len(seen) % len(PHRASES)]
            seen.add(question.steps)
            (step,) = question.steps
            yield Question(phrase.format(a=step.a, b=step.b), question.steps)


def item_of(question: Question) -> Item:
    """A question for the recipe; its reasoning gets the positions of the worked answer, whose lines
    are the digits of the longer operand.
    """
    (step,) = question.steps
    return Item(
        question=question.text,
        answer=str(question.answer),
        positions=LINE_TOKENS * len(question.reasoning),
        calculation=f"{step.a} + {step.b}",
        reasoning="\n".join(question.reasoning),
    )


def write_questions(path: Path, items: Iterator[Item]) -> None:
    """Write lines that `read_questions` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in items))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    drawn = questions(args.questions, "train", args.seed)
    write_questions(args.out, (item_of(question) for question in drawn))


if __name__ == "__main__":
    main()
