"""A question's worked answer as a template: its reasoning, the fixed delimiter, the answer."""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple, Protocol

from recipes.train.questions import ANSWER_PREFIX, Question, check
from vllm_mdlm.results import Infill
from vllm_mdlm.routes.canvas import Layout, Markers
from vllm_mdlm.templates import Encode, parse_template

REASONING, ANSWER = "reasoning", "answer"

LINE_TOKENS = 9
"""Every line has eight characters and its newline, a token each."""

ANSWER_TOKENS = 6
"""The longest answer, five digits, and one EOS: the model has seen EOS behind every answer."""


class Pieces(NamedTuple):
    """Token ids of a question's whole worked answer."""

    lines: list[list[int]]  # of the reasoning, each with its newline
    delimiter: list[int]
    answer: list[int]  # without EOS


def pieces(question: Question, encode: Encode) -> Pieces:
    """Cut the worked answer where a template cuts it.

    Raises:
        ValueError: the pieces are other tokens than the whole, which the model was trained on, or a
            line has not `LINE_TOKENS`.
    """
    found = Pieces(
        [encode(f"{line}\n") for line in question.reasoning],
        encode(ANSWER_PREFIX),
        encode(str(question.answer)),
    )
    joined = [*chain(*found.lines), *found.delimiter, *found.answer]
    if joined != encode(question.completion):
        raise ValueError(
            f"{question.completion!r} in pieces is {joined}, as a whole "
            f"{encode(question.completion)}: use the tokenizer of the arithmetic model"
        )
    if any(len(line) != LINE_TOKENS for line in found.lines):
        raise ValueError(
            f"lines of {question.reasoning} have {[*map(len, found.lines)]} tokens, "
            f"{LINE_TOKENS} are wanted"
        )
    return found


def items(lines: int, delimiter: list[int]) -> list[Any]:
    """The template of an answer with that many lines of reasoning: how many says the question."""
    return [
        {"mask": LINE_TOKENS * lines, "name": REASONING},
        delimiter,
        {"mask": ANSWER_TOKENS, "name": ANSWER},
    ]


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    eos_token_id: int
    mask_token_id: int

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Any) -> str: ...


def encoder(tokenizer: Tokenizer) -> Encode:
    return lambda text: tokenizer.encode(text, add_special_tokens=False)


class Reply(NamedTuple):
    """A filled template as text, every free span up to its first EOS."""

    reasoning: str
    answer: str

    def answer_right(self, question: Question) -> bool:
        return check(question, ANSWER_PREFIX + self.answer).answer_right

    def reasoning_right(self, question: Question) -> bool:
        """Every line right, none missing, none too many."""
        return check(question, self.reasoning + ANSWER_PREFIX).reasoning_right


def reply(template: list[Any], filled: Infill, tokenizer: Tokenizer) -> Reply:
    """Read a filled template."""
    markers = Markers(tokenizer.mask_token_id, frozenset({tokenizer.eos_token_id}))
    layout = Layout(parse_template(template, None), markers, tokenizer.decode)
    spans = layout.spans(filled.token_ids, filled.logprobs)
    return Reply(spans[REASONING]["text"], spans[ANSWER]["text"])
