"""Where batches come from: every batch is a function of (seed, step), so a resumed run repeats
none.
"""

import random
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from recipes.train import questions
from recipes.train.settings import QuestionData
from recipes.train.tokenizer import build_tokenizer, chat_prompt


class Batch(NamedTuple):
    """tokens: int64 [rows, length], the gold text. maskable: bool of the same shape, the answer.

    computed: bool of the same shape, the answer cells that are computed from others rather than
    copied, or None where the source does not know. lengths: the real length of every row where rows
    are padded on the right, else None.
    """

    tokens: Tensor
    maskable: Tensor
    computed: Tensor | None = None
    lengths: tuple[int, ...] | None = None


class Source(Protocol):
    """A stream of batches without a state of its own."""

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        ...


class QuestionSource:
    """Chat prompts with worked answers, filled with EOS to the row length as LLaDA's SFT does."""

    def __init__(self, data: QuestionData, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.data, self.tokenizer, self.seed = data, tokenizer, seed
        self.before_number = tokenizer.encode(" is", add_special_tokens=False)[0]

    def batch(self, step: int) -> Batch:
        rng = random.Random(f"{self.seed}/{step}")
        length = rng.choices(self.data.row_lengths, weights=self.data.row_weights)[0]
        rows = max(1, self.data.tokens_per_batch // length)
        tokens = torch.full((rows, length), int(self.tokenizer.eos_token_id))
        maskable, computed = torch.zeros(2, rows, length, dtype=torch.bool)
        for row in range(rows):
            prompt, answer, cells = self._fitting(rng, length)
            end = len(prompt) + len(answer)
            tokens[row, :end] = torch.tensor(prompt + answer)
            maskable[row, len(prompt) :] = True
            computed[row, len(prompt) : end] = torch.tensor(cells)
        return Batch(tokens, maskable, computed)

    def _fitting(self, rng: random.Random, length: int) -> tuple[list[int], list[int], list[bool]]:
        """A question whose prompt, answer and one EOS fit in a row, and its computed cells."""
        while True:
            question = questions.training(rng)
            prompt, answer = encode(self.tokenizer, question)
            if len(prompt) + len(answer) < length:
                return prompt, answer, self._computed(question, answer)

    def _computed(self, question: questions.Question, answer: list[int]) -> list[bool]:
        """One entry a token: those of the lines, whose characters are tokens, and of the number."""
        cells = [cell for line in question.computed for cell in (*line, False)]
        sentence = answer[len(cells) :]
        number = sentence.index(self.before_number) + 1
        return cells + [i >= number for i in range(len(sentence))]


def encode(
    tokenizer: PreTrainedTokenizerFast, question: questions.Question
) -> tuple[list[int], list[int]]:
    """Token ids of the chat prompt and of the completion, without EOS."""
    prompt, answer = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in (chat_prompt(question.text), question.completion)
    )
    return prompt, answer


def question_tokenizer(vocab_size: int, seed: int = 0) -> PreTrainedTokenizerFast:
    """The tokenizer whose merges are the words of the questions.

    Raises ValueError where ``vocab_size`` cannot hold them.
    """
    rng = random.Random(seed)
    drawn = (questions.training(rng) for _ in range(4000))
    corpus = [f"user assistant system {q.text} {q.completion}" for q in drawn]
    tokenizer = build_tokenizer(corpus, vocab_size)
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"the tokenizer needs {len(tokenizer)} entries, vocab_size is {vocab_size}"
        )
    return tokenizer
