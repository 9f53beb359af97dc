"""What the scheduler keeps and sends of a request with a template."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vllm_mdlm.denoise.trace import NO_PASS, PassClock
from vllm_mdlm.params import RequestPlan
from vllm_mdlm.results import (
    COMMITTED,
    END,
    FIXED,
    NUM_INFILL_COLUMNS,
    PASS,
    UNDECIDED,
)


class InfillLog:
    """Of one request, from its first pass to its last.

    Args:
        plan: of the request, with a template.
        mask_token_id: id that marks an undecided canvas position.
    """

    def __init__(self, plan: RequestPlan, mask_token_id: int) -> None:
        assert plan.template is not None
        self._traced = bool(plan.trace)
        self._scored = bool(plan.template.targets)
        self._has_answer = plan.template.answer is not None
        self._mask_token_id = mask_token_id
        self._clock = PassClock(plan.blocks.starts())
        self._entropies: list[float] = []
        self._block = 0
        self._block_pass = 0  # passes before those of the block

    def take(
        self, trace: np.ndarray, tokens: Sequence[int], block: int, answer_entropy: float | None
    ) -> np.ndarray:
        """Note a pass.

        Args:
            trace: [n, 3] float32 as the worker sends it, of the tokens that became final.
            tokens: those tokens.
            block: index of the active block after the pass.
            answer_entropy: nats; None for a pass that decides nothing, which is not counted.

        Returns:
            [n, NUM_INFILL_COLUMNS] float32, to be sent with the tokens.
        """
        if self._has_answer and answer_entropy is not None:
            self._entropies.append(answer_entropy)
        if block != self._block:
            self._block, self._block_pass = block, len(self._entropies)
        counted = self._clock.count(trace)
        ids = np.asarray(tokens, dtype=np.float32)
        undecided = ids == self._mask_token_id
        if undecided.any() and not self._scored:
            self._clock.leave_block()
        kinds = np.where(counted[:, 0] == NO_PASS, FIXED, COMMITTED)
        kinds = np.where(undecided, UNDECIDED, kinds).astype(np.float32)
        return np.column_stack([counted, ids, kinds])

    def restart_block(self) -> None:
        """After a preemption: the passes of the unfinished block are taken again."""
        del self._entropies[self._block_pass :]

    def end(self) -> np.ndarray:
        """What is sent after the last token, [rows, NUM_INFILL_COLUMNS] float32."""
        rows = np.zeros((len(self._entropies) + 1, NUM_INFILL_COLUMNS), dtype=np.float32)
        rows[:-1, 0] = self._entropies
        rows[:-1, -1] = PASS
        rows[-1] = [self._traced, self._scored, 0, 0, END]
        return rows


def fixed_rows(tokens: Sequence[int]) -> np.ndarray:
    """The trace of text that no pass has committed, [n, 3] float32."""
    rows = np.zeros((len(tokens), 3), dtype=np.float32)
    rows[:, 0] = NO_PASS
    return rows
