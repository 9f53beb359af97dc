"""The questions in new words: what they ask, and that training has nothing of them."""

from __future__ import annotations

import random
import re
from itertools import islice

from recipes.pass_at_k.harder import NEW_WORDS, new_words
from recipes.train.questions import THREE_NUMBERS, TWO_NUMBERS, check, side_of, training


def shape(text: str) -> str:
    """A text with every number replaced."""
    return re.sub(r"\d+", "9", text)


def test_the_questions_are_the_same_every_time_and_none_twice() -> None:
    first = list(islice(new_words(), 200))
    assert first == list(islice(new_words(), 200))
    assert len({question.steps for question in first}) == 200
    assert first[:5] != list(islice(new_words(seed=1), 5))


def test_a_number_of_questions_that_the_phrases_divide_has_each_as_often() -> None:
    shapes = [shape(question.text) for question in islice(new_words(), 5 * len(NEW_WORDS))]
    assert len(set(shapes)) == len(NEW_WORDS)
    assert all(shapes.count(one) == 5 for one in shapes)


def test_the_answer_is_the_sum_of_the_numbers_in_the_text() -> None:
    for question in islice(new_words(), 300):
        assert question.answer == sum(map(int, re.findall(r"\d+", question.text)))
        assert check(question, question.completion).reasoning_right
        assert all(10 <= number < 1000 for number in question.steps[0][::2])


def test_training_has_neither_the_phrases_nor_the_operands() -> None:
    trained = [*TWO_NUMBERS["+"], *TWO_NUMBERS["-"], *THREE_NUMBERS]
    assert not set(NEW_WORDS) & set(trained)
    rng = random.Random(0)
    seen = {shape(training(rng).text).lower() for _ in range(2000)}
    for question in islice(new_words(), 300):
        assert shape(question.text).lower() not in seen
        assert side_of(question.steps[0]) == "held_out"
