"""Which tokens a request may choose, and where: bias, allowed and bad words, early stops.

Rules act on the choice of a token only; the confidence of what was chosen stays the model's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from vllm.sampling_params import SamplingParams

NO_RULE = 0  # a row of the table that adds nothing


class TokenRules:
    """Rules by slot. A rule is one row of additive bias over the vocabulary, -inf to forbid.

    A request has up to two rows: one for the positions below its `min_tokens`, where stop tokens
    are forbidden too, and one for the rest. Rows are allocated when the first request with rules
    comes, and reused.
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self.device = device
        # [S, 2] row of the table at positions below min_tokens, and from there on.
        self.row_of = torch.full((num_slots, 2), NO_RULE, dtype=torch.int64, device=device)
        self.min_tokens = torch.zeros(num_slots, dtype=torch.int64, device=device)
        self.has_rules = np.zeros(num_slots, dtype=np.bool_)  # host mirror
        self._rows_np = np.full((num_slots, 2), NO_RULE, dtype=np.int64)
        self._table: torch.Tensor | None = None  # [capacity, V] float32
        self._free: list[int] = []

    def set(self, slot: int, params: SamplingParams | None, vocab_size: int) -> None:
        """Replace the rules of a slot; None leaves it without any."""
        self._release(slot)
        if params is None:
            return
        general = _general_bias(params, vocab_size)
        early = _early_bias(params, vocab_size, general)
        if general is None and early is None:
            return
        rows = [
            NO_RULE if bias is None else self._store(bias)
            for bias in (general if early is None else early, general)
        ]
        self._rows_np[slot] = rows
        self.has_rules[slot] = True
        self.row_of[slot] = torch.tensor(rows, device=self.device)
        self.min_tokens[slot] = params.min_tokens

    def apply(
        self,
        choice_logits: torch.Tensor,
        rows: torch.Tensor,
        slots: torch.Tensor,
        canvas_positions: torch.Tensor,
    ) -> None:
        """Add the bias of some rows, in place.

        Args:
            choice_logits: [K, V] float32.
            rows: [M] int64, rows of K.
            slots: [M] int64, slot of every row; one without rules adds nothing.
            canvas_positions: [M] int64.
        """
        assert self._table is not None
        late = (canvas_positions >= self.min_tokens[slots]).long()
        choice_logits.index_add_(0, rows, self._table[self.row_of[slots, late]])

    def _store(self, bias: torch.Tensor) -> int:
        if not self._free:
            old = self._table
            capacity = 8 if old is None else 2 * old.shape[0]
            table = torch.empty(capacity, len(bias), device=self.device)
            if old is None:
                table[NO_RULE] = 0
            else:
                table[: old.shape[0]] = old
            self._free = list(range(NO_RULE + 1 if old is None else old.shape[0], capacity))
            self._table = table
        row = self._free.pop()
        assert self._table is not None
        self._table[row] = bias
        return row

    def _release(self, slot: int) -> None:
        if not self.has_rules[slot]:
            return
        self._free.extend({int(row) for row in self._rows_np[slot] if row != NO_RULE})
        self._rows_np[slot] = NO_RULE
        self.has_rules[slot] = False
        self.row_of[slot] = NO_RULE


def _general_bias(params: SamplingParams, vocab_size: int) -> torch.Tensor | None:
    bad = [word[0] for word in params.bad_words_token_ids or () if len(word) == 1]
    if not (params.logit_bias or params.allowed_token_ids or bad):
        return None
    bias = torch.zeros(vocab_size)
    for token, value in (params.logit_bias or {}).items():
        bias[int(token)] += value
    if params.allowed_token_ids:
        allowed = torch.tensor(params.allowed_token_ids)
        kept = bias[allowed]
        bias.fill_(float("-inf"))
        bias[allowed] = kept
    if bad:
        bias[torch.tensor(bad)] = float("-inf")
    return bias


def _early_bias(
    params: SamplingParams, vocab_size: int, general: torch.Tensor | None
) -> torch.Tensor | None:
    stops = sorted(params.all_stop_token_ids)
    if not params.min_tokens or not stops:
        return None
    bias = torch.zeros(vocab_size) if general is None else general.clone()
    bias[torch.tensor(stops)] = float("-inf")
    return bias
