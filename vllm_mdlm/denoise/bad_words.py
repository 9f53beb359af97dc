"""Bad words of several tokens: no canvas may come to hold one, in whatever order it is filled.

A position is forbidden the token that would complete a word whose other tokens stand around it;
and of the tokens committed in the same pass that would complete one together, only the leftmost
is kept. Words of a single token are `TokenRules`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vllm_mdlm.denoise.passes import PassView
from vllm_mdlm.denoise.slots import INT
from vllm_mdlm.denoise.transfer import to_device

PADDING = -1


class _Words(NamedTuple):
    request: torch.Tensor  # [W] int64, batch row that forbids the word
    tokens: torch.Tensor  # [W, n] int64, padded with PADDING
    used: torch.Tensor  # [W, n] bool


class BadWords:
    """Words by slot.

    Args:
        num_slots: requests that the model runner can hold.
    """

    def __init__(self, num_slots: int) -> None:
        self.has_words = np.zeros(num_slots, dtype=np.bool_)
        self._words: dict[int, list[list[int]]] = {}
        self._cached: tuple[tuple[int, ...], _Words] | None = None

    def set(self, slot: int, words: list[list[int]] | None) -> None:
        """Replace a slot's words; shorter ones than two tokens are not ours."""
        longer = [word for word in words or () if len(word) > 1]
        self.has_words[slot] = bool(longer)
        self._words[slot] = longer
        self._cached = None

    def forbid(
        self,
        choice_logits: torch.Tensor,
        view: PassView,
        rows: torch.Tensor,
        all_token_ids: torch.Tensor,
    ) -> None:
        """Forbid, in place, the tokens that would complete a word.

        Where that would leave a row no token at all, the row keeps its own: the request must go on.

        Args:
            choice_logits: [K, V] floating point.
            view: the pass.
            rows: [K] int64, logits rows of the pass.
            all_token_ids: [S, max_len] prompt and canvas, by slot.
        """
        words = self._of_batch(view)
        request = view.request[rows]
        positions = view.row_positions[rows]
        owns = request.unsqueeze(1) == words.request  # [K, W]
        length = words.tokens.shape[1]
        num_rows, nowhere = choice_logits.shape
        forbidden = torch.zeros(num_rows, nowhere + 1, dtype=torch.bool, device=owns.device)
        for place in range(length):
            around = positions[:, None, None] + torch.arange(length, device=owns.device) - place
            there = _canvas_tokens(view, all_token_ids, request[:, None, None], around)
            same = (there == words.tokens) | ~words.used  # [K, W, n]
            same[..., place] = True
            completes = same.all(dim=2) & owns & words.used[:, place]
            column = torch.where(completes, words.tokens[:, place], nowhere)
            forbidden.scatter_(1, column, True)
        forbidden = forbidden[:, :nowhere]
        allowed = choice_logits > float("-inf")
        stuck = (forbidden | ~allowed).all(dim=1, keepdim=True)
        choice_logits.masked_fill_(forbidden & ~stuck, float("-inf"))

    def separate(
        self,
        commit: torch.Tensor,
        proposed: torch.Tensor,
        view: PassView,
        all_token_ids: torch.Tensor,
    ) -> torch.Tensor:
        """Hold back commits that would complete a word together with another one.

        Args:
            commit: [R, B] bool, what the samplers chose.
            proposed: [R, B] int64, tokens to be committed.
            view: the pass.
            all_token_ids: [S, max_len] prompt and canvas before the commit.

        Returns:
            [R, B] bool; the leftmost commit of every request is always kept.
        """
        words = self._of_batch(view)
        _num_words, length = words.tokens.shape
        width = commit.shape[1]
        device = commit.device
        block_start = view.ints[:, INT["block_start"]][words.request]
        starts = torch.arange(width + length - 1, device=device) - (length - 1)  # in the block
        offsets = starts[:, None] + torch.arange(length, device=device)  # [T, n], in the block
        inside = (offsets >= 0) & (offsets < width)
        column = offsets.clamp(0, width - 1)
        is_new = commit[words.request][:, column] & inside & words.used[:, None, :]  # [W, T, n]
        there = _canvas_tokens(
            view,
            all_token_ids,
            words.request[:, None, None],
            block_start[:, None, None] + offsets,
        )
        would_be = torch.where(is_new, proposed[words.request][:, column], there)
        same = (would_be == words.tokens[:, None, :]) | ~words.used[:, None, :]
        first = is_new & (is_new.cumsum(dim=2) == 1)
        drop = same.all(dim=2, keepdim=True) & is_new & ~first  # [W, T, n]
        # One column more takes what is not dropped.
        dropped = commit.new_zeros(commit.shape[0], width + 1)
        place = words.request[:, None, None] * (width + 1) + torch.where(drop, column, width)
        dropped.view(-1).scatter_(0, place.flatten(), True)
        return commit & ~dropped[:, :width]

    def _of_batch(self, view: PassView) -> _Words:
        slots = tuple(view.slots_np.tolist())
        if self._cached is not None and self._cached[0] == slots:
            return self._cached[1]
        owned = [
            (row, word)
            for row, slot in enumerate(slots)
            if self.has_words[slot]
            for word in self._words[slot]
        ]
        length = max(len(word) for _, word in owned)
        padded = [word + [PADDING] * (length - len(word)) for _, word in owned]
        device = view.slots.device
        tokens = to_device(np.array(padded), device)
        request = to_device(np.array([row for row, _ in owned]), device)
        words = _Words(request, tokens, tokens != PADDING)
        self._cached = (slots, words)
        return words


def _canvas_tokens(
    view: PassView, all_token_ids: torch.Tensor, request: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """Tokens at positions of a request's canvas; PADDING - 1, which equals nothing, outside it."""
    start = view.ints[:, INT["prompt_len"]][request]
    end = view.ints[:, INT["canvas_end"]][request]
    tokens = all_token_ids[
        view.slots[request], positions.clamp(0, all_token_ids.shape[1] - 1)
    ].long()
    return torch.where((positions >= start) & (positions < end), tokens, PADDING - 1)
