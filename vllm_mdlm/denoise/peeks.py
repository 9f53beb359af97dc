"""Peeks: requests of one pass, which score a canvas and draw tokens at its first mask.

What a peek found travels behind the other columns, in the ids of its first row: the bits of the
score, a float64, then the tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

from vllm_mdlm.denoise.trace import append_columns, take_columns
from vllm_mdlm.kernels import log_power_sum, row_stats
from vllm_mdlm.kernels.noise import derived_keys, row_keys

SCORE_COLUMNS = 2


class Peek(NamedTuple):
    """What one pass saw."""

    score: float  # sum over masked positions of log sum_v p(v)^power, nats
    tokens: list[int]  # independent draws at the first mask


class Peeks:
    """By slot: how many tokens a peek draws.

    Args:
        num_slots: requests that the model runner can hold.
    """

    def __init__(self, num_slots: int) -> None:
        self.draws = np.zeros(num_slots, dtype=np.int64)  # host; 0: not a peek
        self._scores = torch.empty(0)
        self._tokens = torch.empty(0)

    def set(self, slot: int, draws: int) -> None:
        self.draws[slot] = draws

    def most(self, slots_np: np.ndarray) -> int:
        """Most tokens that a peek of the batch draws; 0 without one."""
        return int(self.draws[slots_np].max())

    def score(
        self,
        choice_logits: torch.Tensor,
        temperature: torch.Tensor,
        request: torch.Tensor,
        num_requests: int,
        most: int,
    ) -> None:
        """Sum log sum_v p(v)^(1 / temperature) over the rows of every peek.

        Args:
            choice_logits: [M, V], all rows of the peeks.
            temperature: [M] float64.
            request: [M] int64, batch row.
            num_requests: R.
            most: of the batch.
        """
        values = log_power_sum(choice_logits, temperature.reciprocal())
        self._scores = values.new_zeros(num_requests).index_add_(0, request, values)
        self._tokens = torch.zeros(num_requests, most, dtype=torch.int32, device=values.device)

    def draw(
        self,
        choice_logits: torch.Tensor,
        temperature: torch.Tensor,
        seeds: torch.Tensor,
        canvas_positions: torch.Tensor,
        request: torch.Tensor,
        mask_token: int,
    ) -> None:
        """Draw tokens at the first masks, with the noise of derived seeds.

        Args:
            choice_logits: [P, V].
            temperature: [P] float64.
            seeds, canvas_positions, request: [P] int64.
            mask_token: an id that is never drawn.
        """
        count = self._tokens.shape[1]

        def each(column: torch.Tensor) -> torch.Tensor:
            return column.repeat_interleave(count, dim=0)

        index = torch.arange(count, device=seeds.device).repeat(len(seeds))
        keys = row_keys(derived_keys(each(seeds), index), each(canvas_positions), index * 0)
        drawn = row_stats(
            each(choice_logits),
            mask_token=mask_token,
            temperature=each(temperature),
            noise_keys=keys,
        )
        self._tokens[request] = drawn.token.view(-1, count).int()

    def append(
        self, logprobs: LogprobsTensors | None, num_requests: int, width: int
    ) -> LogprobsTensors:
        """Put what the peeks of the pass saw behind the other columns.

        Args:
            logprobs: of the same rows, or None when there is nothing.
            num_requests: R.
            width: rows of every request.
        """
        bits = self._scores.unsqueeze(1).view(torch.int32)
        seen = torch.cat([bits, self._tokens], dim=1)
        ids = seen.new_zeros(num_requests, width, seen.shape[1])
        ids[:, 0] = seen
        ids = ids.view(num_requests * width, -1)
        return append_columns(logprobs, ids, torch.zeros_like(ids, dtype=torch.float32), width)


def split(
    logprobs: LogprobsLists, draws: dict[int, int]
) -> tuple[LogprobsLists | None, dict[int, Peek]]:
    """Take what peeks saw from behind the other columns.

    Args:
        draws: tokens drawn, by row of the log-probabilities, for all peeks of the pass.

    Returns:
        The other columns, None where there are none, and peeks by the same rows.
    """
    rest, columns = take_columns(logprobs, SCORE_COLUMNS + max(draws.values()))
    ids = np.ascontiguousarray(columns.logprob_token_ids, dtype=np.int32)
    scores = np.ascontiguousarray(ids[:, :SCORE_COLUMNS]).view(np.float64)[:, 0]
    found = {
        row: Peek(float(scores[row]), ids[row, SCORE_COLUMNS : SCORE_COLUMNS + count].tolist())
        for row, count in draws.items()
    }
    return rest, found
