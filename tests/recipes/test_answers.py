"""`recipes.bench.answers` with stand-ins: fair batches, turns, and what the table says."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from recipes.bench.answers import PEER, WAYS, Batch, Turn, batches, contest, line, results
from recipes.bench.contest.contenders import KINDS, OURS
from recipes.bench.contest.messages import Answer, Cell, Failure, Lap, Order
from recipes.train.questions import Question

MODEL = Path(__file__).parents[2] / "recipes" / "models" / "arithmetic"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(MODEL)
    return loaded


class Fake:
    """Answers every question rightly but the first; our engine in a quarter of the time."""

    def __init__(self, name: str, answers: dict[tuple[int, ...], list[int]]) -> None:
        self.name = name
        self.answers = answers
        self.cells: list[Cell] = []

    def runs(self, cell: Cell) -> bool:
        return KINDS[self.name].runs(cell)

    def run(self, order: Order) -> Lap | Failure:
        self.cells.append(order.cell)
        assert {len(prompt) for prompt in order.prompts} == {order.cell.prompt}
        seconds = 4.0 if self.name == PEER else 1.0
        return Lap(seconds, [Answer(self.answers[tuple(p)], 96) for p in order.prompts])

    def cpu_seconds(self) -> float:
        return 0.0


def right_answers(
    tokenizer: PreTrainedTokenizerFast, given: list[Batch]
) -> dict[tuple[int, ...], list[int]]:
    pairs = [pair for batch in given for pair in zip(batch.questions, batch.prompts, strict=True)]
    return {
        tuple(prompt): tokenizer.encode(question.completion, add_special_tokens=False)
        for question, prompt in pairs
    }


def test_batches_are_full_and_of_one_prompt_length(tokenizer: PreTrainedTokenizerFast) -> None:
    given = batches(tokenizer, 24, 8)
    assert [len(batch.prompts) for batch in given] == [8, 8, 8]
    assert all(len({len(prompt) for prompt in batch.prompts}) == 1 for batch in given)
    questions: list[Question] = [question for batch in given for question in batch.questions]
    assert len({question.steps for question in questions}) == 24


def test_every_way_answers_the_same_and_is_compared_with_the_peer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    given = batches(tokenizer, 4, 2)
    answers = right_answers(tokenizer, given)
    fakes = {name: Fake(name, dict(answers)) for name in (PEER, OURS)}
    fakes[OURS].answers[tuple(given[0].prompts[0])] = [300]
    turns = list(contest(dict(fakes), given, repeat=2))
    # One batch that does not count, then all, for every way.
    assert len(fakes[OURS].cells) == (len(WAYS) - 1) * (1 + 2 * len(given))
    assert all(fakes[cell_of.engine].runs(cell_of.cell(given[0])) for cell_of in WAYS)
    peer, *ours = results(turns, tokenizer, given)
    assert (peer.right, peer.ratios, peer.same_tokens) == (4, [1, 1], 1)
    assert all((one.right, one.questions) == (3, 4) for one in ours)
    assert all(one.same_tokens < 1 for one in ours)
    tokens = sum(len(answer.tokens) for answer in turns[0][WAYS[0]].answers)
    assert peer.speeds == [tokens / 8] * 2
    assert line(peer).count("|") == line(ours[0]).count("|") == 9
    assert "| 0.750 (" in line(ours[0])


def test_a_turn_counts_all_batches() -> None:
    assert Turn(4.0, [Answer([1, 2, 3], 1), Answer([4], 1)]).speed == 1
