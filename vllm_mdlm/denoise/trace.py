"""The trace of a request: for every token the pass that committed it, its confidence, its entropy.

From the worker to the scheduler a trace travels as the last columns of the log-probabilities,
present whenever a request of the batch is traced; from there to the front end as one array a
request, in vLLM's field for per-token arrays.
"""

from __future__ import annotations

import numpy as np
import torch
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

NUM_COLUMNS = 3
"""Pass, log-probability in nats, entropy in nats."""

NUM_SENT = NUM_COLUMNS + 1
"""What goes to the scheduler: the same, and the entropy of the answer in this pass."""

NO_PASS = -1
"""Stands for the pass of a token that was not committed: fixed text, or a mask left out."""


class TraceStore:
    """By slot and canvas position; allocated when the first request asks for it.

    Args:
        num_slots: requests that the model runner can hold.
        device: where a pass computes.
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self.wanted = np.zeros(num_slots, dtype=np.bool_)  # host
        self._values = torch.zeros(num_slots, 0, NUM_COLUMNS, device=device)

    def set(self, slot: int, wanted: bool, gen_length: int) -> None:
        """Note whether the slot's request is traced."""
        self.wanted[slot] = wanted
        grow = gen_length - self._values.shape[1]
        if wanted and grow > 0:
            self._values = torch.nn.functional.pad(self._values, (0, 0, 0, grow))

    def clear(self, slot: int) -> None:
        """Mark all positions as committed in no pass."""
        self._values[slot] = 0
        self._values[slot, :, 0] = NO_PASS

    def record(
        self,
        values: torch.Tensor,
        committed: torch.Tensor,
        slots: torch.Tensor,
        canvas_positions: torch.Tensor,
    ) -> None:
        """Keep the values of the tokens that are committed.

        Args:
            values: [M, NUM_COLUMNS] float32; the pass counts in its block.
            committed: [M] bool.
            slots, canvas_positions: [M] int64.
        """
        where = (slots, canvas_positions)
        kept = torch.where(committed.unsqueeze(1), values, self._values[where])
        self._values[where] = kept

    def append(
        self,
        logprobs: LogprobsTensors | None,
        slots: torch.Tensor,
        first: torch.Tensor,
        width: int,
        answer_entropy: torch.Tensor | None,
    ) -> LogprobsTensors:
        """Put the trace of tokens `first` to `first + width` behind the log-probabilities.

        Args:
            logprobs: of the same tokens, or None when no request of the batch wants them.
            slots: [R] int64.
            first: [R] int64, canvas position of the first emitted token.
            width: positions taken for each; more than are emitted is padding.
            answer_entropy: [R] nats; None: 0 everywhere.
        """
        offsets = torch.arange(width, device=slots.device)
        positions = (first.unsqueeze(1) + offsets).clamp(max=self._values.shape[1] - 1)
        values = self._values[slots.unsqueeze(1), positions]
        last = values.new_zeros(len(slots)) if answer_entropy is None else answer_entropy.float()
        values = torch.cat([values, last[:, None, None].expand(-1, width, 1)], dim=2)
        values = values.reshape(-1, NUM_SENT)
        ids = torch.zeros(values.shape, dtype=torch.int32, device=values.device)
        return append_columns(logprobs, ids, values, width)


def append_columns(
    logprobs: LogprobsTensors | None, ids: torch.Tensor, values: torch.Tensor, width: int
) -> LogprobsTensors:
    """Columns of ours behind the log-probabilities of a pass.

    Args:
        logprobs: of the same rows, or None when no request of the batch wants them.
        ids: [rows, C] int32.
        values: [rows, C] float32.
        width: rows of every request.
    """
    if logprobs is None:
        ends = list(range(0, len(ids) + 1, width))
        return LogprobsTensors(ids, values, ids[:, 0], ends)
    return logprobs._replace(
        logprob_token_ids=torch.cat([logprobs.logprob_token_ids, ids], dim=1),
        logprobs=torch.cat([logprobs.logprobs, values], dim=1),
    )


def split(logprobs: LogprobsLists) -> tuple[LogprobsLists | None, np.ndarray]:
    """Take the trace from behind the log-probabilities.

    Returns:
        The log-probabilities, None where there are none, and the trace, [rows, NUM_SENT].
    """
    rest, columns = take_columns(logprobs, NUM_SENT)
    return rest, columns.logprobs


def take_columns(logprobs: LogprobsLists, count: int) -> tuple[LogprobsLists | None, LogprobsLists]:
    """Take the last columns from behind the log-probabilities; None where no other is left."""
    columns = logprobs._replace(
        logprob_token_ids=logprobs.logprob_token_ids[:, -count:],
        logprobs=logprobs.logprobs[:, -count:],
    )
    if logprobs.logprobs.shape[1] == count:
        return None, columns
    rest = logprobs._replace(
        logprob_token_ids=logprobs.logprob_token_ids[:, :-count],
        logprobs=logprobs.logprobs[:, :-count],
    )
    return rest, columns


class PassClock:
    """Passes of a request from passes of its blocks: the last commit of a block is its last pass.

    Args:
        starts: canvas positions where a block starts.
    """

    def __init__(self, starts: frozenset[int]) -> None:
        self._starts = starts
        self._index = 0
        self._before = 0
        self._last = -1

    def count(self, rows: np.ndarray) -> np.ndarray:
        """Replace the pass within the block by the pass of the request, from 0.

        Args:
            rows: [n, NUM_COLUMNS] float32, the next tokens of the answer, in order.
        """
        counted = rows.copy()
        for row in counted:
            if self._index in self._starts:
                self._before += self._last + 1
                self._last = -1
            self._last = max(self._last, int(row[0]))
            if row[0] != NO_PASS:
                row[0] += self._before
            self._index += 1
        return counted

    def leave_block(self) -> None:
        """Count the pass that left the block: it committed nothing."""
        self._last += 1
