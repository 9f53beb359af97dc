"""A canvas of decisions leaves open what follows from arithmetic, and the table counts right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recipes.infill_study.decision_report import Outcome, answers, table, whole
from recipes.infill_study.decisions import (
    Canvas,
    DecisionStudy,
    decisions_of,
    read,
    stated,
    together,
)
from recipes.infill_study.layout import ANSWER_TOKENS, Pieces
from recipes.train.questions import Question, held_out

EOS = 0
QUESTIONS = list(held_out(60))


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def cut(question: Question) -> Pieces:
    lines = [letters(f"{line}\n") for line in question.reasoning]
    return Pieces(lines, letters("The answer is "), letters(str(question.answer)))


def fill(canvas: Canvas) -> list[int]:
    """The canvas with every decision right, and 1 where a position is no decision."""
    tokens = list[int]()
    for item in canvas.items:
        tokens += item if isinstance(item, list) else [1] * item["mask"]
    for place, gold in zip(canvas.places, canvas.gold, strict=True):
        assert set(tokens[place]) == {1}
        tokens[place] = gold
    return tokens


def test_what_the_question_says_is_fixed_and_the_rest_is_open() -> None:
    for question in QUESTIONS:
        canvas = decisions_of(question, cut(question), EOS)
        text = "".join(map(chr, fill(canvas)))
        assert text.rstrip("\0") == question.completion
        opened = [one for flags in question.computed for one in flags]
        assert len(canvas.places) == sum(opened) + 1
        assert (
            sum(item["mask"] for item in canvas.items if isinstance(item, dict))
            == sum(opened) + ANSWER_TOKENS
        )


@pytest.mark.parametrize("count", [1, 2, 4])
def test_answers_of_questions_together_lie_where_they_are_stated(count: int) -> None:
    asked = QUESTIONS[:count]
    canvas = together([cut(question) for question in asked], letters("\n"), EOS)
    tokens = fill(canvas)
    assert [stated(tokens[place], EOS) for place in canvas.places] == [
        letters(str(question.answer)) for question in asked
    ]
    assert tokens.count(ord("\n")) == count - 1


def test_a_span_that_is_read_has_a_target() -> None:
    items: list[Any] = [{"mask": 1}, [5], {"mask": 2}]
    assert read(items, 9) == [{"mask": 1, "target": [9]}, [5], {"mask": 2, "target": [9, 9]}]
    assert read(items, 9, 1) == [{"mask": 1}, [5], {"mask": 2, "target": [9, 9]}]


def test_a_decision_ends_before_the_first_eos() -> None:
    assert stated([4, 5, EOS, 6], EOS) == [4, 5]
    assert stated([EOS], EOS) == []
    assert stated([4], EOS) == [4]


def outcome(way: str, right: list[bool], sizes: list[int], **more: int) -> Outcome:
    found = [[1] if one else [2] for one in right]
    costs = {"requests": 2, "passes": 8, "positions": 80} | more
    return Outcome(way=way, decisions=sizes, found=found, right=right, **costs)


def test_the_table_compares_with_the_first_row() -> None:
    first = outcome("one after another", [True] * 5, [2, 3])
    second = outcome("in one pass", [True, False, True, False, True], [2, 3], requests=4)
    alone, both = outcome("1", [True, True], [1, 1]), outcome("2", [False, True], [1, 1])
    assert answers(second) == [False, True]
    assert whole(second) == [False, False]
    rows = table([first, second, alone, both]).split("\n")
    assert rows[2].startswith("| one after another | 1.000 of 5 | 1.000 (")
    assert rows[2].endswith("| 4.0 | 1.00 | 40 |  |")
    assert rows[3].startswith("| in one pass | 0.600 of 5 | 0.500 (")
    assert rows[3].endswith("| 4.0 | 2.00 | 40 | 0.600 |")
    assert rows[8].startswith("| 2 | 0.500 (")
    assert rows[8].endswith(" | 0.500 |")


def test_canvases_of_every_size_hold_the_same_questions(tmp_path: Path) -> None:
    study = DecisionStudy(tmp_path, QUESTIONS[:7])
    assert study.questions == QUESTIONS[:4]
    assert not study.is_done
