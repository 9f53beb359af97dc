"""The question generator against plain arithmetic, and the checker against spoilt answers."""

import random

import pytest

from recipes.train.questions import (
    Question,
    Step,
    check,
    columns,
    draw,
    held_out,
    is_true_equation,
    parse,
    side_of,
    step_lines,
    training,
)


def test_held_out_is_deterministic_and_has_no_repeats() -> None:
    first, again = list(held_out(300, seed=5)), list(held_out(300, seed=5))
    assert first == again
    assert len({q.steps for q in first}) == 300
    assert {q.kind for q in first} == {"addition", "subtraction", "two steps"}
    assert list(held_out(5, seed=6)) != first[:5]


def test_no_operand_pair_of_training_is_held_out() -> None:
    rng = random.Random(0)
    seen = {frozenset((s.a, s.b)) for _ in range(3000) for s in training(rng).steps}
    held = {frozenset((s.a, s.b)) for q in held_out(1000) for s in q.steps}
    assert not seen & held


@pytest.mark.parametrize("pair", [(12, 7), (359, 4871), (5, 5)])
def test_a_pair_has_one_side_whatever_its_order_and_operator(pair: tuple[int, int]) -> None:
    a, b = pair
    assert len({side_of(Step(x, op, y)) for x, y in ((a, b), (b, a)) for op in "+-"}) == 1


def test_a_question_with_its_operators_between_the_numbers_is_understood() -> None:
    rng = random.Random(4)
    understood = 0
    for _ in range(500):
        question = training(rng)
        found = parse(question.text)
        understood += found is not None
        assert found in (None, question)
    assert understood > 300


@pytest.mark.parametrize("text", ["Hello", "Add 3 and 4.", "1 + 2 - 3 + 4", "3 + four", ""])
def test_another_text_is_not_understood(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize("side", ["train", "held_out"])
def test_answers_agree_with_python(side: str) -> None:
    rng = random.Random(1)
    for _ in range(500):
        question = draw(rng, side)
        first = question.steps[0]
        value = eval("".join(str(first)))
        for step in question.steps[1:]:
            value = eval(f"{value}{step.operator}{step.b}")
        assert question.answer == value >= 0


def test_every_reasoning_line_is_a_true_equation_and_the_digits_make_the_result() -> None:
    rng = random.Random(2)
    for _ in range(500):
        question = training(rng)
        assert all(is_true_equation(line) for line in question.reasoning)
        step = question.steps[0]
        lines = step_lines(step, columns(step))
        digits = "".join(line[-1] for line in reversed(lines))
        carry = lines[-1].split("=")[1][:-1] if step.operator == "+" else ""
        assert int(carry + digits) == step.result


def test_the_worked_examples_of_the_module() -> None:
    assert step_lines(Step(4871, "+", 359), 4) == ["1+9+0=10", "7+5+1=13", "8+3+1=12", "4+0+1=05"]
    assert step_lines(Step(951, "-", 79), 3) == ["11-9-0=2", "15-7-1=7", "09-0-1=8"]


def test_a_two_step_answer_goes_on_from_its_first_result() -> None:
    question = Question("What is 120 + 34 - 56?", (Step(120, "+", 34), Step(154, "-", 56)))
    assert question.completion.split("\n") == [
        "0+4+0=04",
        "2+3+0=05",
        "1+0+0=01",
        "14-6-0=8",
        "15-5-1=9",
        "01-0-1=0",
        "00-0-0=0",
        "The answer is 98",
    ]


def test_computed_cells_are_carries_borrows_results_and_digits_of_an_earlier_result() -> None:
    question = Question("What is 120 + 34 - 56?", (Step(120, "+", 34), Step(154, "-", 56)))
    lines = zip(question.reasoning, question.computed, strict=True)
    shown = ["".join("_" if c else x for x, c in zip(*line, strict=True)) for line in lines]
    assert shown == ["0+4+_=__", "2+3+_=__", "1+0+_=__"] + [f"__-{d}-_=_" for d in "6500"]
    assert [all(line) for line in Question("1 - 1", (Step(1, "-", 1),)).computed] == [False]


def test_the_layout_of_the_lines_can_be_told_from_the_question() -> None:
    rng = random.Random(3)
    layouts: dict[str, set[tuple[int, ...]]] = {}
    for _ in range(4000):
        question = training(rng)
        shape = "".join("9" if c.isdigit() else c for c in question.text)
        layouts.setdefault(shape, set()).add(tuple(map(len, question.reasoning)))
    assert len(layouts) > 100
    assert all(len(found) == 1 for found in layouts.values())


@pytest.mark.parametrize("line", ["1+9+0=11", "11-9-0=3", "hello", "1+1", "=2", ""])
def test_a_false_line_is_not_a_true_equation(line: str) -> None:
    assert not is_true_equation(line)


def test_the_checker_accepts_the_gold_completion() -> None:
    for question in held_out(200):
        verdict = check(question, question.completion)
        assert verdict.answer_right
        assert verdict.reasoning_right


ADDITION = Question("What is 4871 + 359?", (Step(4871, "+", 359),))


@pytest.mark.parametrize(
    ("old", "new", "right_lines"),
    [
        ("1+9+0=10", "1+9+0=11", 3),
        ("7+5+1=13", "7+5+0=12", 3),
        ("8+3+1=12\n", "", 2),
        ("The answer", "4+0+1=05\nThe answer", 4),
    ],
    ids=["false equation", "true but not needed", "line missing", "line too many"],
)
def test_the_checker_finds_a_spoilt_line(old: str, new: str, right_lines: int) -> None:
    verdict = check(ADDITION, ADDITION.completion.replace(old, new))
    assert verdict.answer_right
    assert not verdict.reasoning_right
    assert sum(verdict.lines_right) == right_lines


@pytest.mark.parametrize("tail", ["5231", "", "52 30", "five", "-5230"])
def test_the_checker_refuses_another_answer(tail: str) -> None:
    text = ADDITION.completion.replace("5230", tail)
    assert not check(ADDITION, text).answer_right


def test_questions_need_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, recipes.train.questions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
