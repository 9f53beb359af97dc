"""Where batches come from: every batch is a function of (seed, step), so a resumed run repeats
none.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import msgspec
import torch
from msgspec import Struct
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from recipes.train import questions
from recipes.train.settings import ChatData, QuestionData, RowLengths
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


class Turn(Struct, frozen=True):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Chat(Struct, frozen=True):
    """One line of a file of conversations."""

    messages: tuple[Turn, ...]

    def __post_init__(self) -> None:
        roles = [turn.role for turn in self.messages]
        if roles[-1:] != ["assistant"] or "user" not in roles:
            raise ValueError(f"the roles are {roles}; a user and, last, the assistant are wanted")


class Example(NamedTuple):
    """Token ids of a chat prompt and of the reply, without EOS."""

    prompt: list[int]
    answer: list[int]

    @property
    def length(self) -> int:
        """Cells of a row that it takes, one EOS with it."""
        return len(self.prompt) + len(self.answer) + 1


class ChatSource:
    """Conversations drawn from a file, filled with EOS to the row length.

    Raises:
        ValueError: a line is no conversation, or is longer than the longest row.
    """

    def __init__(self, data: ChatData, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.data, self.seed, self.eos = data, seed, int(tokenizer.eos_token_id)
        self.examples = read_chats(Path(data.file), data, tokenizer)
        self.fitting = {
            length: [example for example in self.examples if example.length <= length]
            for length in data.row_lengths
        }
        if empty := sorted(length for length, found in self.fitting.items() if not found):
            raise ValueError(
                f"no line of {data.file} fits in rows of {empty}; make row_lengths longer"
            )

    def batch(self, step: int) -> Batch:
        rng = random.Random(f"{self.seed}/{step}")
        length = rng.choices(self.data.row_lengths, weights=self.data.row_weights)[0]
        rows = max(1, self.data.tokens_per_batch // length)
        tokens = torch.full((rows, length), self.eos)
        maskable = torch.zeros(rows, length, dtype=torch.bool)
        for row in range(rows):
            prompt, answer = rng.choice(self.fitting[length])
            tokens[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            maskable[row, len(prompt) :] = True
        return Batch(tokens, maskable)


def read_chats(path: Path, rows: RowLengths, tokenizer: PreTrainedTokenizerFast) -> list[Example]:
    """The conversations of a JSONL file as the tokenizer's chat template writes them.

    Raises:
        ValueError: a line is no conversation, or is longer than the longest row, or there is none.
    """
    examples = list[Example]()
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            chat = msgspec.json.decode(line, type=Chat)
        except msgspec.DecodeError as error:
            raise ValueError(
                f"{path}, line {number}: {error}; a line is "
                '{"messages": [{"role": "user", "content": "..."}, '
                '{"role": "assistant", "content": "..."}]}'
            ) from None
        example = chat_example(chat.messages, tokenizer)
        if example.length > max(rows.row_lengths):
            raise ValueError(
                f"{path}, line {number} takes {example.length} tokens, EOS with them; the longest "
                f"of row_lengths is {max(rows.row_lengths)}"
            )
        examples.append(example)
    if not examples:
        raise ValueError(f"{path} has no line; a conversation a line is wanted")
    return examples


def chat_example(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerFast) -> Example:
    """All turns but the last as the prompt, the last as the answer."""
    *asked, reply = turns
    prompt = tokenizer.apply_chat_template(
        [msgspec.structs.asdict(turn) for turn in asked], tokenize=False, add_generation_prompt=True
    )
    return Example(
        tokenizer.encode(prompt, add_special_tokens=False),
        tokenizer.encode(reply.content, add_special_tokens=False),
    )


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
