"""Templates are the tokens that the model was trained on; replies are read as the checker does."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from recipes.infill_study.exits import sweep
from recipes.infill_study.layout import ANSWER_TOKENS, LINE_TOKENS, Reply, items, pieces, reply
from recipes.train.questions import held_out
from vllm_mdlm.params import decode
from vllm_mdlm.results import Infill

FILE = Path(__file__).parents[2] / "recipes" / "models" / "arithmetic" / "tokenizer.json"
EOS, MASK = 0, 2
QUESTIONS = list(held_out(200))

pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="no arithmetic model in this checkout")


class Words:
    """The model's tokenizer, without transformers."""

    eos_token_id, mask_token_id = EOS, MASK

    def __init__(self) -> None:
        self.own = Tokenizer.from_file(str(FILE))

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return list(self.own.encode(text, add_special_tokens=add_special_tokens).ids)

    def decode(self, token_ids: list[int]) -> str:
        return str(self.own.decode(token_ids, skip_special_tokens=False))


@pytest.fixture(scope="module")
def words() -> Words:
    return Words()


def test_the_special_tokens_are_the_models(words: Words) -> None:
    assert words.own.token_to_id("<|endoftext|>") == EOS
    assert words.own.token_to_id("<|mdm_mask|>") == MASK


def test_a_template_filled_with_the_gold_answer_is_the_training_text(words: Words) -> None:
    for question in QUESTIONS:
        cut = pieces(question, words.encode)
        reasoning, delimiter, answer = items(len(question.reasoning), cut.delimiter)
        gold = [*chain(*cut.lines)]
        assert reasoning["mask"] == len(gold) == LINE_TOKENS * len(question.reasoning)
        assert gold + delimiter + cut.answer == words.encode(question.completion)
        # One EOS at least, as behind every answer of the training rows.
        assert answer["mask"] == ANSWER_TOKENS > len(cut.answer)


def test_a_tokenizer_that_joins_pieces_is_refused() -> None:
    with pytest.raises(ValueError, match="use the tokenizer of the arithmetic model"):
        pieces(QUESTIONS[0], lambda text: [len(text)])


def test_a_reply_ends_at_its_first_eos(words: Words) -> None:
    question = QUESTIONS[0]
    cut = pieces(question, words.encode)
    template = items(len(cut.lines), cut.delimiter)
    gold = [*chain(*cut.lines)]
    answer = [*cut.answer, EOS, *words.encode("7" * (ANSWER_TOKENS - 1 - len(cut.answer)))]
    found = reply(template, _infill(gold + cut.delimiter + answer), words)
    assert found == Reply("".join(f"{line}\n" for line in question.reasoning), str(question.answer))
    assert found.answer_right(question)
    assert found.reasoning_right(question)
    left = [MASK] * len(gold) + cut.delimiter + words.encode("9" * ANSWER_TOKENS)
    found = reply(template, _infill(left), words)
    assert found == Reply("", "9" * ANSWER_TOKENS)
    assert not found.answer_right(question)
    assert not found.reasoning_right(question)


def test_every_setting_is_a_valid_request_and_unique() -> None:
    settings = sweep()
    for setting in settings:
        decode(setting.arguments(items(3, [5])))
        assert settings.index(setting._replace(early_exit=None)) <= settings.index(setting)
    assert len({(setting.sampler, setting.label) for setting in settings}) == len(settings)


def _infill(tokens: list[int]) -> Infill:
    return Infill(tokens, [None] * len(tokens), [], [], False)
