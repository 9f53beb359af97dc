"""Unsupervised classifier-free guidance (Nie et al. 2025, arXiv 2502.09992, section 2.4).

A guided request has a companion: a request of its own with the prompt masked and the same canvas.
Both take every pass together; the companion's logits guide, and it decides nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vllm_mdlm.companion import companion_id

NO_SLOT = -1


class Companions:
    """Slots of companions by the slot of their request.

    Args:
        num_slots: requests that the model runner can hold.
    """

    def __init__(self, num_slots: int) -> None:
        self.slot_of = np.full(num_slots, NO_SLOT, dtype=np.int64)  # host
        self._slots: dict[str, int] = {}
        self._new: list[tuple[int, int]] = []

    def add(self, request_id: str, slot: int) -> None:
        """Note the slot of a guided request, or of a companion; pairs are found by their ids."""
        self.slot_of[slot] = NO_SLOT
        self._slots[request_id] = slot
        for guided in (request_id, request_id.removesuffix(companion_id(""))):
            own = self._slots.get(guided)
            companion = self._slots.get(companion_id(guided))
            if own is not None and companion is not None:
                self.slot_of[own] = companion
                self._new.append((own, companion))

    def remove(self, request_id: str) -> None:
        """Forget a request that leaves the batch; one that has no companion is no error."""
        slot = self._slots.pop(request_id, None)
        if slot is not None:
            self.slot_of[self.slot_of == slot] = NO_SLOT
            self.slot_of[slot] = NO_SLOT

    def take_new_pairs(self) -> list[tuple[int, int]]:
        """Pairs (slot, companion's slot) found since the last call."""
        pairs, self._new = self._new, []
        return pairs


class Guidance(NamedTuple):
    """The guided part of one pass; G logits rows of N."""

    rows: torch.Tensor  # [G] int64, rows that are guided
    own_slots: torch.Tensor  # [G] int64, slot of the guided request
    slots: torch.Tensor  # [G] int64, slot of the companion
    query_indices: torch.Tensor  # [G] int64, the companion's rows in the model's output


def guide(logits: torch.Tensor, guidance: Guidance, scale: torch.Tensor) -> torch.Tensor:
    """`uncond + (1 + scale) (cond - uncond)` in the rows that are guided, in place.

    Args:
        logits: [N + G, V]; the companion's rows are the last.
        guidance: of the pass.
        scale: [G] floating point, 0 or more.

    Returns:
        [N, V] in the dtype of `logits`.
    """
    num_rows = logits.shape[0] - len(guidance.rows)
    conditional = logits[guidance.rows].float()
    unconditional = logits[num_rows:].float()
    weight = (1 + scale.float()).unsqueeze(1)
    guided = unconditional + weight * (conditional - unconditional)
    # Rounded to the model's dtype, so that no row depends on whether another is guided.
    logits[guidance.rows] = guided.to(logits.dtype)
    return logits[:num_rows]
