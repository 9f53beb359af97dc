"""What a pass must know of templates, by slot: blocks, the answer, the tokens to be scored."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vllm_mdlm.denoise.slots import some
from vllm_mdlm.denoise.transfer import to_device
from vllm_mdlm.params import RequestPlan
from vllm_mdlm.templates import TemplatePlan

START, LENGTH = 0, 1


class TemplateFlags(NamedTuple):
    """What the host must know to plan a pass without asking the device."""

    templated: np.ndarray  # [S] bool
    answer_length: np.ndarray  # [S] int64, positions of the answer that is traced; 0: none
    scored: np.ndarray  # [S] bool, the tokens are given
    emitted: np.ndarray  # [S] int64, most tokens that become final in a pass; 0: a block


class TemplateTable:
    """Allocated when the first request with a template comes, for the largest one seen.

    Args:
        num_slots: requests that the model runner can hold.
        device: where a pass computes.
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self.device = device
        self.host = TemplateFlags(
            np.zeros(num_slots, dtype=np.bool_),
            np.zeros(num_slots, dtype=np.int64),
            np.zeros(num_slots, dtype=np.bool_),
            np.zeros(num_slots, dtype=np.int64),
        )

        def column(dtype: torch.dtype = torch.int64) -> torch.Tensor:
            return torch.zeros(num_slots, dtype=dtype, device=device)

        self.answer_start = column()  # position in prompt plus canvas
        self.answer_end = column()
        self.answer_block = column()  # first block of the answer
        self.early_exit = column(torch.float64)  # nats; 0: never
        self.behind = column(torch.float64)  # nats, of the answer behind the active block; moves
        self.block_index = column()  # of the active block; moves
        self._blocks = torch.zeros(num_slots, 0, 2, dtype=torch.int64, device=device)
        self._targets = torch.zeros(num_slots, 0, dtype=torch.int64, device=device)

    def set(self, slot: int, plan: RequestPlan | None, prompt_len: int, num_final: int) -> None:
        """Give a slot to a request; None for one without a canvas.

        Args:
            slot: index of the slot.
            plan: what the request asks for.
            prompt_len: tokens before the canvas.
            num_final: canvas tokens that the scheduler already has.
        """
        template = None if plan is None else plan.template
        self.host.templated[slot] = template is not None
        self.host.answer_length[slot] = 0
        self.host.scored[slot] = template is not None and bool(template.targets)
        self.host.emitted[slot] = 0
        if plan is None or template is None:
            return
        self.host.emitted[slot] = plan.gen_length
        start, end = template.answer or (0, 0)
        self.host.answer_length[slot] = end - start
        self.answer_start[slot] = prompt_len + start
        self.answer_end[slot] = prompt_len + end
        self.answer_block[slot] = template.answer_block
        self.early_exit[slot] = template.early_exit
        self.behind[slot] = 0
        self.block_index[slot] = plan.blocks.index_at(num_final)
        self._set_blocks(slot, template, prompt_len, plan.gen_length)
        if template.targets:
            self._set_targets(slot, template)

    def _set_blocks(
        self, slot: int, template: TemplatePlan, prompt_len: int, gen_length: int
    ) -> None:
        rows = [[prompt_len + start, end - start] for start, end in template.blocks]
        rows.append([prompt_len + gen_length, 0])
        grow = len(rows) - self._blocks.shape[1]
        if grow > 0:
            self._blocks = torch.nn.functional.pad(self._blocks, (0, 0, 0, grow))
        self._blocks[slot, : len(rows)] = torch.tensor(rows, device=self.device)

    def _set_targets(self, slot: int, template: TemplatePlan) -> None:
        start, end = template.blocks[0]
        known = iter(template.targets)
        mask = template.tokens[start]  # a block starts with a free position
        targets = [next(known) if token == mask else 0 for token in template.tokens[:end]]
        grow = len(targets) - self._targets.shape[1]
        if grow > 0:
            self._targets = torch.nn.functional.pad(self._targets, (0, grow))
        self._targets[slot, : len(targets)] = torch.tensor(targets, device=self.device)

    def targets(self, slots: torch.Tensor, canvas_positions: torch.Tensor) -> torch.Tensor:
        """Given tokens at canvas positions of scored slots, [M] int64."""
        return self._targets[slots, canvas_positions]

    def next_blocks(
        self,
        slots: torch.Tensor,
        slots_np: np.ndarray,
        done: torch.Tensor,
        exits: torch.Tensor | None,
        start: torch.Tensor,
        length: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the block after the active one lies.

        Args:
            slots: [R] int64; `slots_np` the same on the host.
            done: [R] bool, the active block is finished or left.
            exits: [R] bool, left for the answer's first block; None: nowhere.
            start: [R] int64, the position after the active block.
            length: [R] int64, of the block there, where all are equal.

        Returns:
            `start` and `length`, with those of templates in place.
        """
        if not some(self.host.templated[slots_np]):
            return start, length
        templated = to_device(self.host.templated[slots_np], self.device)
        index = self.block_index[slots] + done.long()
        if exits is not None:
            index = torch.where(exits, self.answer_block[slots], index)
        index = torch.where(templated, index, 0)
        self.block_index[slots] = index
        found = self._blocks[slots, index]
        return (
            torch.where(templated, found[:, START], start),
            torch.where(templated, found[:, LENGTH], length),
        )
