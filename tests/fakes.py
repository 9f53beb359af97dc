"""Enumerable stand-ins for a network: a joint table whose every conditional is exact."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


class JointTable:
    """A distribution over sequences of `length` tokens below `vocab`, small enough to enumerate.

    `table` is float64 `[vocab] * length`, positive, and sums to 1; `table[x]` is p(x). Token id
    `vocab` is the mask. Serves as a network (`new_cache`, `forward`) whose last `length` rows are
    the table's positions; rows before them are a prompt that it ignores.
    """

    eos_token_id = 0
    eot_token_id = None

    def __init__(self, table: Tensor) -> None:
        if (table <= 0).any() or abs(table.sum().item() - 1) > 1e-12:
            raise ValueError("a joint table must be positive and sum to 1")
        self.table = table.double()
        self.length = table.dim()
        self.vocab = table.shape[0]
        self.mask_token_id = self.vocab

    @classmethod
    def random(
        cls, vocab: int = 3, length: int = 4, seed: int = 0, spread: float = 1.5
    ) -> JointTable:
        """Softmax of normal numbers with standard deviation `spread`: 3^4 entries by default."""
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn([vocab] * length, generator=generator, dtype=torch.float64) * spread
        return cls(logits.flatten().softmax(0).view_as(logits))

    def conditional(self, tokens: list[int], positions: list[int]) -> Tensor:
        """p(x at `positions` | visible tokens), float64 `[vocab] * len(positions)`.

        `tokens` has `length` ids, the mask where nothing is known. `positions` are ascending and
        masked. Masked positions not asked for are summed over.
        """
        if any(tokens[i] != self.mask_token_id for i in positions):
            raise ValueError(f"positions {positions} are not all masked in {tokens}")
        index = tuple(slice(None) if t == self.mask_token_id else t for t in tokens)
        masked = [i for i, t in enumerate(tokens) if t == self.mask_token_id]
        rest = [axis for axis, i in enumerate(masked) if i not in positions]
        weight = self.table[index]
        weight = weight.sum(dim=rest) if rest else weight
        return weight / weight.sum()

    def marginals(self, tokens: list[int]) -> Tensor:
        """p(x_i | visible) of every position, float64 `[length, vocab]`; one-hot where visible."""
        rows = []
        for i, token in enumerate(tokens):
            if token == self.mask_token_id:
                rows.append(self.conditional(tokens, [i]))
            else:
                rows.append(torch.eye(self.vocab, dtype=torch.float64)[token])
        return torch.stack(rows)

    def sequences(self) -> list[tuple[int, ...]]:
        """Every sequence, in the order of `table.flatten()`."""
        return list(itertools.product(range(self.vocab), repeat=self.length))

    def new_cache(self, rows: int) -> None:
        """The table keeps nothing between passes."""

    def forward(self, tokens: list[int], start: int, end: int, cache: None) -> Tensor:
        """Logits `[end - start, vocab + 1]`, log p(x_i | visible); the mask's is -inf."""
        prompt = len(tokens) - self.length
        logits = torch.full((len(tokens), self.vocab + 1), -torch.inf, dtype=torch.float64)
        logits[:prompt, 0] = 0.0
        logits[prompt:, : self.vocab] = self.marginals(tokens[prompt:]).log()
        return logits[start:end]
