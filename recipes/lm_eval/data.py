"""Writes the questions of the two tasks: python -m recipes.lm_eval.data

Held-out questions of the arithmetic model. A wrong choice is the right worked answer with one digit
changed: in the number that it states, or in a line of its calculation.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recipes.train.questions import Question, held_out

TASKS = Path(__file__).with_name("tasks")
QUESTIONS = 100
CHOICES = 4


def choice(question: Question, rng: random.Random) -> dict[str, Any]:
    """Four worked answers, one of them right, one that states another number."""
    lines = question.completion.split("\n")
    answers = {question.completion: None, changed(lines, len(lines) - 1, rng): None}
    while len(answers) < CHOICES:
        answers[changed(lines, rng.randrange(len(lines) - 1), rng)] = None
    choices = list(answers)
    rng.shuffle(choices)
    return {
        "question": question.text,
        "choices": choices,
        "answer": choices.index(question.completion),
    }


def changed(lines: list[str], index: int, rng: random.Random) -> str:
    """The lines as one text, with another last digit in one of them; later lines stay."""
    line = lines[index]
    digit = rng.choice([digit for digit in "0123456789" if digit != line[-1]])
    return "\n".join([*lines[:index], line[:-1] + digit, *lines[index + 1 :]])


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main(folder: Path = TASKS) -> None:
    rng = random.Random(0)
    questions = list(held_out(QUESTIONS))
    write(folder / "arithmetic_choice.jsonl", (choice(q, rng) for q in questions))
    words = ({"question": q.text, "answer": str(q.answer)} for q in questions)
    write(folder / "arithmetic_words.jsonl", words)


if __name__ == "__main__":
    main()
