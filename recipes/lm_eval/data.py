"""Writes the questions of the two tasks: python -m recipes.lm_eval.data

Held-out questions of the arithmetic model, of one step. A wrong choice is the right worked answer
with another number stated.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from recipes.train.questions import ANSWER_PREFIX, Question, held_out

TASKS = Path(__file__).with_name("tasks")
QUESTIONS = 20


def choice(question: Question, rng: random.Random) -> dict[str, Any]:
    """Four statements of an answer, one of them right."""
    near = [n for n in range(question.answer - 12, question.answer + 13) if n >= 0]
    near.remove(question.answer)
    numbers = [question.answer, *rng.sample(near, 3)]
    rng.shuffle(numbers)
    return {
        "question": "\n".join([question.text, *question.reasoning]),
        "choices": [f"{ANSWER_PREFIX}{number}" for number in numbers],
        "answer": numbers.index(question.answer),
    }


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def main(folder: Path = TASKS) -> None:
    rng = random.Random(0)
    questions = list(islice((q for q in held_out(sys.maxsize) if len(q.steps) == 1), QUESTIONS))
    write(folder / "arithmetic_choice.jsonl", (choice(q, rng) for q in questions))
    words = ({"question": q.text, "answer": str(q.answer)} for q in questions)
    write(folder / "arithmetic_words.jsonl", words)


if __name__ == "__main__":
    main()
