"""Weights of candidates: what every commit adds to the log-weight, kept until its token is final.

From the worker to the scheduler a weight travels behind log-probabilities and trace, as the bits
of a float64 in two int32 columns of the token ids, present whenever a candidate is in the batch.
"""

from __future__ import annotations

import numpy as np
import torch
from vllm.v1.outputs import LogprobsLists, LogprobsTensors

from vllm_mdlm.denoise.trace import append_columns, take_columns
from vllm_mdlm.kernels import log_power_sum

NUM_COLUMNS = 2


class WeightStore:
    """By slot and canvas position; allocated when the first candidate comes.

    Args:
        num_slots: requests that the model runner can hold.
        device: where a pass computes.
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self.wanted = np.zeros(num_slots, dtype=np.bool_)  # host
        self._power = torch.zeros(num_slots, dtype=torch.float64, device=device)
        self._values = torch.zeros(num_slots, 0, dtype=torch.float64, device=device)

    def set(self, slot: int, power: float, gen_length: int) -> None:
        """Note the power of the slot's candidate; 0 for a request that is none."""
        self.wanted[slot] = power > 0
        grow = gen_length - self._values.shape[1]
        if power > 0:
            self._power[slot] = power
            if grow > 0:
                self._values = torch.nn.functional.pad(self._values, (0, grow))

    def record(
        self, choice_logits: torch.Tensor, slots: torch.Tensor, canvas_positions: torch.Tensor
    ) -> None:
        """Keep log z of committed tokens, z = sum_v p(v)^power.

        Args:
            choice_logits: [M, V], what the tokens were drawn from, untempered.
            slots: [M] int64.
            canvas_positions: [M] int64.
        """
        values = log_power_sum(choice_logits, self._power[slots])
        self._values[slots, canvas_positions] = values

    def append(
        self, logprobs: LogprobsTensors | None, slots: torch.Tensor, first: torch.Tensor, width: int
    ) -> LogprobsTensors:
        """Put the weights of tokens `first` to `first + width` behind the other columns.

        Args:
            logprobs: of the same tokens, a trace included, or None when there is nothing.
            slots: [R] int64.
            first: [R] int64, canvas position of the first emitted token.
            width: positions taken for each; more than are emitted is padding.
        """
        offsets = torch.arange(width, device=slots.device)
        positions = (first.unsqueeze(1) + offsets).clamp(max=self._values.shape[1] - 1)
        values = self._values[slots.unsqueeze(1), positions].reshape(-1, 1)
        bits = values.contiguous().view(torch.int32)
        return append_columns(logprobs, bits, torch.zeros_like(bits, dtype=torch.float32), width)


def split(logprobs: LogprobsLists) -> tuple[LogprobsLists | None, np.ndarray]:
    """Take the weights from behind the other columns.

    Returns:
        The other columns, None where there are none, and the weights, [rows] float64.
    """
    rest, columns = take_columns(logprobs, NUM_COLUMNS)
    bits = np.ascontiguousarray(columns.logprob_token_ids, dtype=np.int32)
    return rest, bits.view(np.float64)[:, 0]
