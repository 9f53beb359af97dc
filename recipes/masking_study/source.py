"""Tokens of a task: its vocabulary, its training stream and its test sets."""

import random
import re
from collections.abc import Sequence

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Generator, Tensor
from transformers import PreTrainedTokenizerFast

from recipes.masking_study.tasks import Example, Task
from recipes.train.data import Batch
from recipes.train.settings import TaskData
from recipes.train.tokenizer import EOS, MASK


class Vocabulary:
    """Ids of a task's symbols; 0 is EOS, 1 the mask."""

    def __init__(self, task: Task) -> None:
        self.names = (EOS, MASK, *task.symbols)
        self.ids = {name: i for i, name in enumerate(self.names)}
        self.mask_id = self.ids[MASK]

    def encode(self, symbols: Sequence[str]) -> list[int]:
        """Ids of symbols."""
        return [self.ids[s] for s in symbols]

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Symbols of ids; an id beyond the task's symbols is spelled as EOS, which no answer
        has.
        """
        return tuple(self.names[i] if i < len(self.names) else EOS for i in ids)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The same table as a tokenizer for the published layout."""
        table = Tokenizer(models.WordLevel(self.ids, unk_token=EOS))
        pattern = "|".join(re.escape(s) for s in sorted(self.names[2:], key=len, reverse=True))
        table.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        table.decoder = decoders.Fuse()
        return PreTrainedTokenizerFast(
            tokenizer_object=table, eos_token=EOS, pad_token=EOS, mask_token=MASK
        )


class TaskSource:
    """A finite training set drawn once from a seed; every epoch goes through it in a new order."""

    def __init__(self, data: TaskData, task: Task, vocabulary: Vocabulary, seed: int) -> None:
        rng = random.Random(f"{seed}/train")
        examples = [task.draw(rng) for _ in range(data.examples)]
        self.tokens = rows_of(examples, vocabulary)
        self.prompt = len(examples[0].prompt)
        self.batch_rows, self.seed = data.batch, seed

    def batch(self, step: int) -> Batch:
        """Rows ``step * batch`` and on of the endless sequence of epochs."""
        count = len(self.tokens)
        index = torch.arange(step * self.batch_rows, (step + 1) * self.batch_rows)
        rows = torch.empty_like(index)
        for epoch in (index // count).unique().tolist():
            generator = Generator().manual_seed(self.seed << 20 | epoch)
            order = torch.randperm(count, generator=generator)
            here = index // count == epoch
            rows[here] = order[index[here] % count]
        tokens = self.tokens[rows]
        return Batch(tokens, (torch.arange(tokens.shape[1]) >= self.prompt).expand(tokens.shape))


def rows_of(examples: Sequence[Example], vocabulary: Vocabulary) -> Tensor:
    """Prompt and gold answer of every example: int64 [examples, length]."""
    return torch.tensor([vocabulary.encode((*e.prompt, *e.answer)) for e in examples])


def held_out_examples(
    task: Task, count: int, difficulty: int | None, seed: int = 2026
) -> list[Example]:
    """Examples of a stratum, or of the training distribution where ``difficulty`` is None."""
    rng = random.Random(f"{seed}/test/{difficulty}")
    if difficulty is None:
        return [task.draw(rng) for _ in range(count)]
    return [task.draw_stratum(rng, difficulty) for _ in range(count)]
