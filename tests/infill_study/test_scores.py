"""One line is wrong and no other; AUC is scipy's; the tables compare what they say."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from recipes.infill_study.auc import auc_with_interval, contest
from recipes.infill_study.layout import Pieces
from recipes.infill_study.score_report import Scored, partial_table, picture_of, whole_table
from recipes.infill_study.scores import (
    Variant,
    corrupted,
    earlier_lines,
    reasoning,
    target,
    variants,
)
from recipes.train.questions import check, held_out, is_true_equation

QUESTIONS = list(held_out(100))


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_the_corrupted_line_is_false_and_only_that_one() -> None:
    for question in QUESTIONS:
        gold = question.reasoning
        for wrong in range(len(gold)):
            text = "".join(map(chr, reasoning(question, Variant(len(gold), wrong), letters)))
            verdict = check(question, f"{text}The answer is {question.answer}")
            assert verdict.lines_right == tuple(i != wrong for i in range(len(gold)))
            assert verdict.answer_right
            line = corrupted(question, wrong)
            assert not is_true_equation(line)
            assert line == text.splitlines()[wrong]
            assert (line[:-1], len(line)) == (gold[wrong][:-1], len(gold[wrong]))


def test_a_prefix_has_its_lines_and_nothing_else() -> None:
    question = next(q for q in QUESTIONS if len(q.reasoning) == 3)
    first, second = question.reasoning[:2]
    assert reasoning(question, Variant(0, None), letters) == []
    assert reasoning(question, Variant(2, None), letters) == letters(f"{first}\n{second}\n")
    assert reasoning(question, Variant(1, 0), letters) == letters(f"{corrupted(question, 0)}\n")


def test_the_lines_of_an_earlier_step_are_those_of_the_first() -> None:
    for question in QUESTIONS:
        first = question._replace(steps=question.steps[:1])
        steps = len(question.steps)
        assert earlier_lines(question) == (3 if steps == 2 else 0)
        assert len(question.reasoning) > earlier_lines(question)
        if steps == 2:
            lines = first.reasoning
            assert question.reasoning[: len(lines)] == lines


def test_the_target_fills_its_span_with_eos() -> None:
    assert target(Pieces([], [], [7, 8]), 0) == [7, 8, 0, 0, 0, 0]


def test_variants_are_all_prefixes_and_every_line_of_them() -> None:
    assert variants(2) == [
        Variant(0, None),
        Variant(1, None),
        Variant(1, 0),
        Variant(2, None),
        Variant(2, 0),
        Variant(2, 1),
    ]


def test_the_auc_of_known_cases() -> None:
    assert contest({0: 1.0, 1: 2.0}, {0: [0.0], 1: [0.5]}).auc == 1
    assert contest({0: 1.0, 1: 2.0}, {0: [3.0], 1: [4.0]}).auc == 0
    assert contest({0: 1.0, 1: 1.0}, {0: [1.0, 1.0], 1: [1.0]}).auc == 0.5
    # Each right one is above its own, the first is not above the second's.
    mixed = contest({0: 1.0, 1: 3.0}, {0: [0.0], 1: [2.0]})
    assert (mixed.auc, mixed.paired) == (0.75, 1)


def test_the_auc_is_scipys_and_its_interval_holds_it() -> None:
    rng = random.Random(0)
    right = {q: round(rng.gauss(0.5, 1), 1) for q in range(40)}
    wrong = {q: [round(rng.gauss(0, 1), 1) for _ in range(1 + q % 3)] for q in range(40)}
    every = [score for scores in wrong.values() for score in scores]
    found = contest(right, wrong)
    statistic = mannwhitneyu(list(right.values()), every).statistic
    assert found.auc == pytest.approx(statistic / (40 * len(every)))
    estimate = auc_with_interval(found)
    assert estimate.value == found.auc
    assert found.auc - 0.2 < estimate.low < found.auc < estimate.high < found.auc + 0.2
    assert auc_with_interval(found) == estimate


def test_one_question_alone_has_no_interval() -> None:
    estimate = auc_with_interval(contest({0: 1.0}, {0: [0.0]}))
    assert estimate.value == 1
    assert np.isnan([estimate.low, estimate.high]).all()


def scored(question: int, visible: int, wrong: int | None, logprob: float) -> Scored:
    """Of a question of two steps, one line the first, one the second."""
    return Scored(
        question=question,
        lines=2,
        earlier=1,
        visible=visible,
        corrupted=wrong,
        logprob=logprob,
        logprob_with_end=0.0,
    )


SCORED = [
    one
    for question in range(3)
    for one in (
        scored(question, 0, None, -9.0),
        scored(question, 1, None, -3.0),
        scored(question, 1, 0, -4.0),
        scored(question, 2, None, -1.0),
        scored(question, 2, 0, -1.0),  # the answer does not depend on it
        scored(question, 2, 1, -2.0),
    )
]


def test_the_tables_compare_equal_prefixes() -> None:
    sure, chance = "1.000 (1.000 to 1.000)", "0.500 (0.500 to 0.500)"
    assert whole_table(SCORED).splitlines()[2:] == [
        f"| any | 3 | 6 | 0.750 (0.750 to 0.750) | 0.750 | {chance} |",
        f"| of the last step | 3 | 3 | {sure} | 1.000 | {chance} |",
        f"| of an earlier step | 3 | 3 | {chance} | 0.500 | {chance} |",
        f"| 1, two steps | 3 | 3 | {chance} | 0.500 | {chance} |",
        f"| 2, two steps | 3 | 3 | {sure} | 1.000 | {chance} |",
    ]
    assert partial_table(SCORED).splitlines()[2:] == [
        "| 0 | 3 | -9.000 |  |  |  |  |",
        f"| 1 | 3 | -3.000 | {sure} | 1.000 |  |  |",
    ]


def test_the_picture_is_a_picture(tmp_path: Path) -> None:
    picture_of(SCORED, tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
