"""Log-probabilities of committed tokens, kept until their text is final.

A token is committed in one pass and emitted in another; what a client reads is the distribution
of the pass that committed it.
"""

from __future__ import annotations

import numpy as np
import torch
from vllm.v1.outputs import LogprobsTensors


class LogprobStore:
    """By slot and canvas position: the chosen token's log-probability and rank, and the top k.

    Nothing is allocated until a request asks for logprobs; then for the largest canvas and the
    largest k seen.
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self.device = device
        self.wanted = np.full(num_slots, -1, dtype=np.int64)  # host: k by slot, -1 for none
        self._ids = torch.zeros(num_slots, 0, 1, dtype=torch.int32, device=device)
        self._logprobs = torch.zeros(num_slots, 0, 1, device=device)
        self._ranks = torch.zeros(num_slots, 0, dtype=torch.int32, device=device)

    def set(self, slot: int, num_logprobs: int | None, gen_length: int) -> None:
        """Note what the slot's request wants; None for nothing."""
        self.wanted[slot] = -1 if num_logprobs is None else num_logprobs
        if num_logprobs is None:
            return
        _, length, width = self._ids.shape
        if gen_length <= length and num_logprobs + 1 <= width:
            return
        grow_length = max(length, gen_length) - length
        grow_width = max(width, num_logprobs + 1) - width
        pad = torch.nn.functional.pad
        self._ids = pad(self._ids, (0, grow_width, 0, grow_length))
        self._logprobs = pad(self._logprobs, (0, grow_width, 0, grow_length))
        self._ranks = pad(self._ranks, (0, grow_length))

    def clear(self, slot: int, tokens: list[int]) -> None:
        """Set what positions report that are never committed: their token, and 0 nats."""
        if self.wanted[slot] < 0:
            return
        known = torch.tensor(tokens, dtype=torch.int32, device=self.device)
        self._ids[slot, : len(tokens)] = known.unsqueeze(1)
        self._logprobs[slot] = 0
        self._ranks[slot] = 1

    def record(
        self,
        logits: torch.Tensor,
        tokens: torch.Tensor,
        slots: torch.Tensor,
        canvas_positions: torch.Tensor,
    ) -> None:
        """Store the statistics of committed rows.

        Args:
            logits: [M, V] of the committing pass.
            tokens: [M] int64, what was committed.
            slots: [M] int64.
            canvas_positions: [M] int64.
        """
        logprobs = logits.float().log_softmax(dim=1)
        chosen = logprobs.gather(1, tokens.unsqueeze(1))
        width = self._ids.shape[2]
        top = logprobs.topk(min(width - 1, logprobs.shape[1]), dim=1)
        filled = 1 + top.values.shape[1]
        where = (slots, canvas_positions)
        self._ids[where[0], where[1], :filled] = torch.cat(
            [tokens.unsqueeze(1), top.indices], dim=1
        ).int()
        self._logprobs[where[0], where[1], :filled] = torch.cat([chosen, top.values], dim=1)
        self._ranks[where] = (logprobs >= chosen).sum(dim=1).int()

    def emit(self, slots: torch.Tensor, first: torch.Tensor, width: int) -> LogprobsTensors:
        """What belongs to tokens `first` to `first + width` of every request.

        Args:
            slots: [R] int64.
            first: [R] int64, canvas position of the first emitted token.
            width: positions taken for each; more than are emitted is padding.
        """
        offsets = torch.arange(width, device=self.device)
        positions = (first.unsqueeze(1) + offsets).clamp(max=self._ids.shape[1] - 1)
        index = (slots.unsqueeze(1), positions)
        num_rows = len(slots) * width
        return LogprobsTensors(
            self._ids[index].reshape(num_rows, -1),
            self._logprobs[index].reshape(num_rows, -1),
            self._ranks[index].reshape(num_rows),
            [row * width for row in range(len(slots) + 1)],
        )
