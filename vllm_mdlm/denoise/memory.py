"""What a sampler remembers from one pass of a block to the next."""

from __future__ import annotations

import numpy as np
import torch

from vllm_mdlm.denoise.passes import PassView, rows_of
from vllm_mdlm.denoise.slots import INT
from vllm_mdlm.denoise.transfer import to_device
from vllm_mdlm.kernels import row_divergence


class BlockMemory:
    """By slot: the sampler's own state, and the logits of the pass before for those who compare.

    Both belong to a block: its first pass finds them empty. Logits are kept only for slots whose
    sampler asks for divergence, in the model's dtype, block length times vocabulary each.

    Args:
        num_slots: requests that the model runner can hold.
        device: where a pass computes.
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self.compares = np.zeros(num_slots, dtype=np.bool_)  # host mirror
        self._row_of = np.full(num_slots, -1, dtype=np.int64)
        self._free: list[int] = []
        self._logits: torch.Tensor | None = None  # [capacity, B, V]
        self._state = torch.zeros(num_slots, 0, device=device)

    def set(self, slot: int, compares: bool) -> None:
        """Note whether the slot's sampler compares passes."""
        self.compares[slot] = compares
        if not compares and self._row_of[slot] >= 0:
            self._free.append(int(self._row_of[slot]))
            self._row_of[slot] = -1

    def divergence(self, logits: torch.Tensor, view: PassView) -> torch.Tensor:
        """Compare with the pass before, and remember this one.

        Args:
            logits: [N, V] of this pass.
            view: the pass.

        Returns:
            [N] float32, nats; +inf in a block's first pass and for requests that do not compare.
        """
        width = view.positions.shape[1]
        device = logits.device
        memory_row = self._rows_for(view.slots_np, width, logits)
        rows = rows_of(memory_row >= 0, view.request_np, device)
        request = view.request[rows]
        where = (to_device(memory_row, device)[request], view.rows[rows] % width)
        assert self._logits is not None
        seen = view.ints[:, INT["block_pass"]][request] > 0
        distance = row_divergence(logits[rows], self._logits[where])
        self._logits[where] = logits[rows]
        result = torch.full(view.rows.shape, float("inf"), device=device)
        return result.index_copy_(0, rows, distance.masked_fill_(~seen, float("inf")))

    def read_state(self, view: PassView, rows: torch.Tensor) -> torch.Tensor:
        """State of some requests' blocks, [len(rows), B] float32; zeros in a first pass."""
        width = view.positions.shape[1]
        if self._state.shape[1] < width:
            grow = width - self._state.shape[1]
            self._state = torch.nn.functional.pad(self._state, (0, grow))
        state = self._state[view.slots[rows], :width]
        return state * (view.ints[rows, INT["block_pass"]] > 0).unsqueeze(1)

    def write_state(self, view: PassView, rows: torch.Tensor, state: torch.Tensor) -> None:
        """Keep what a sampler returned for the next pass."""
        self._state[view.slots[rows], : state.shape[1]] = state

    def _rows_for(self, slots_np: np.ndarray, width: int, logits: torch.Tensor) -> np.ndarray:
        """Rows of the logits memory of the slots in the batch; -1 for those that keep none."""
        for slot in slots_np[self.compares[slots_np] & (self._row_of[slots_np] < 0)]:
            if not self._free:
                self._grow_rows(width, logits)
            self._row_of[slot] = self._free.pop()
        if self._logits is not None and self._logits.shape[1] < width:
            self._grow_width(width)
        rows: np.ndarray = self._row_of[slots_np]
        return rows

    def _grow_rows(self, width: int, logits: torch.Tensor) -> None:
        old = self._logits
        capacity = 0 if old is None else old.shape[0]
        width = width if old is None else max(width, old.shape[1])
        grown = logits.new_zeros(max(1, 2 * capacity), width, logits.shape[1])
        if old is not None:
            grown[:capacity, : old.shape[1]] = old
        self._free.extend(range(capacity, grown.shape[0]))
        self._logits = grown

    def _grow_width(self, width: int) -> None:
        assert self._logits is not None
        grown = self._logits.new_zeros(self._logits.shape[0], width, self._logits.shape[2])
        grown[:, : self._logits.shape[1]] = self._logits
        self._logits = grown
