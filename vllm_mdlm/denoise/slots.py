"""Per-request state in slot-indexed arrays.

A request owns one slot of the model runner while it is in the batch. Every field of a slot is
written when a request takes it, so nothing of the slot's former owner is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from vllm_mdlm.kernels.noise import wrap_int64
from vllm_mdlm.params import RequestPlan
from vllm_mdlm.samplers.registry import sampler_ids, samplers
from vllm_mdlm.spans import KV_MODES

if TYPE_CHECKING:
    from vllm.sampling_params import SamplingParams

SUPPRESS_EOS = {"no": 0, "logits": 1, "confidence": 2}

INT_FIELDS = (
    "prompt_len",  # tokens before the canvas
    "canvas_end",  # prompt_len + gen_length
    "block_length",  # of equal blocks; of the longest, where a template's differ
    "block_steps",  # passes granted to a block
    "kv_cache",  # index into KV_MODES
    "suppress_eos",  # index into SUPPRESS_EOS
    "position_first",  # 1: rank positions by the distribution, not by the sampled token
    "seed",
    "block_start",  # position of the active block; moves
    "block_size",  # positions of the active block, all masked when it starts; moves
    "block_pass",  # passes taken in the active block; moves
    "num_final",  # canvas tokens already sent to the scheduler; moves
)
INT = {name: column for column, name in enumerate(INT_FIELDS)}
MOVING = slice(INT["block_start"], len(INT_FIELDS))
"""Columns that a pass changes."""

FLOAT_FIELDS = ("temperature", "top_p", "top_k", "min_p", "cfg_scale")
FLOAT = {name: column for column, name in enumerate(FLOAT_FIELDS)}
"""Columns of `SlotTable.floats`; the sampler's own parameters follow, in its struct's order."""

FILTERS = ("min_p", "top_k", "top_p")


def _num_param_columns() -> int:
    return max(len(sampler.params.__struct_fields__) for sampler in samplers().values())


def some(flags: np.ndarray) -> bool:
    """Whether any flag is set: numpy's `any` in a sixth of its time, for a pass asks often."""
    return bool(np.count_nonzero(flags))


class HostSlots(NamedTuple):
    """What the host must know to plan a pass without asking the device."""

    sampler: np.ndarray  # [S] int64, index of the sampler
    block_length: np.ndarray  # [S] int64
    suppress_eos: np.ndarray  # [S] int64, index into SUPPRESS_EOS
    draws: np.ndarray  # [S] bool, temperature above 0
    filters: np.ndarray  # [S, 3] bool, which of FILTERS cut the distribution that is drawn from
    guided: np.ndarray  # [S] bool, cfg_scale above 0
    cached: np.ndarray  # [S] bool, kv_cache other than exact; and companions, that follow theirs
    canvas_end: np.ndarray  # [S] int64, prompt plus canvas, tokens


class SlotTable:
    """State of every slot: `ints` and `floats` on the device, `host` beside them.

    Args:
        num_slots: requests that the model runner can hold.
        device: where a pass computes.
    """

    def __init__(self, num_slots: int, device: torch.device) -> None:
        self.device = device
        self.ints = torch.zeros(num_slots, len(INT_FIELDS), dtype=torch.int64, device=device)
        width = len(FLOAT_FIELDS) + _num_param_columns()
        self.floats = torch.zeros(num_slots, width, dtype=torch.float64, device=device)
        self.host = HostSlots(
            np.zeros(num_slots, dtype=np.int64),
            np.zeros(num_slots, dtype=np.int64),
            np.zeros(num_slots, dtype=np.int64),
            np.zeros(num_slots, dtype=np.bool_),
            np.zeros((num_slots, len(FILTERS)), dtype=np.bool_),
            np.zeros(num_slots, dtype=np.bool_),
            np.zeros(num_slots, dtype=np.bool_),
            np.zeros(num_slots, dtype=np.int64),
        )
        self._staged: list[tuple[int, list[int], list[float]]] = []

    def stage(
        self, slot: int, plan: RequestPlan, prompt_len: int, num_final: int, params: SamplingParams
    ) -> None:
        """Give a slot to a request; effective after `flush`.

        The state is a function of the plan and of how much of the answer is final, so a request
        that lost its slot starts again at its unfinished block and decides the same tokens.

        Args:
            slot: index of the slot.
            plan: what the request asked for.
            prompt_len: tokens before the canvas.
            num_final: canvas tokens that the scheduler already has.
            params: vLLM's sampling parameters.
        """
        assert params.seed is not None
        block_start, block_end = plan.blocks.bounds(plan.blocks.index_at(num_final))
        ints = {
            "prompt_len": prompt_len,
            "canvas_end": prompt_len + plan.gen_length,
            "block_length": plan.block_length,
            "block_steps": plan.block_steps,
            "kv_cache": KV_MODES.index(plan.kv_cache),
            "suppress_eos": SUPPRESS_EOS[plan.suppress_eos],
            "position_first": int(plan.commit_order == "position_first"),
            "seed": wrap_int64(params.seed),
            "block_start": prompt_len + block_start,
            "block_size": block_end - block_start,
            "block_pass": 0,
            "num_final": num_final,
        }
        floats = [params.temperature, params.top_p, params.top_k, params.min_p, plan.cfg_scale]
        own = list(plan.sampler_params.values())
        padding = [0.0] * (self.floats.shape[1] - len(floats) - len(own))
        draws = params.temperature > 0
        self.host.sampler[slot] = sampler_ids()[plan.sampler]
        self.host.block_length[slot] = plan.block_length
        self.host.suppress_eos[slot] = SUPPRESS_EOS[plan.suppress_eos]
        self.host.guided[slot] = plan.cfg_scale > 0
        self.host.cached[slot] = plan.kv_cache != "exact"
        self.host.canvas_end[slot] = prompt_len + plan.gen_length
        self.host.draws[slot] = draws
        cuts = (params.min_p > 0, params.top_k > 0, params.top_p < 1)
        self.host.filters[slot] = cuts if draws else False
        self._staged.append((slot, [ints[name] for name in INT_FIELDS], [*floats, *own, *padding]))

    def vacate(self, slot: int, canvas_end: int = 0) -> None:
        """Leave a slot without an active block: a pass over it reads and decides nothing.

        Args:
            slot: index of the slot.
            canvas_end: tokens that its passes attend to; 0: those of the pass.
        """
        self.host.sampler[slot] = 0
        self.host.block_length[slot] = 0
        self.host.suppress_eos[slot] = 0
        self.host.draws[slot] = self.host.filters[slot] = False
        self.host.guided[slot] = False
        self.host.cached[slot] = canvas_end > 0
        self.host.canvas_end[slot] = canvas_end
        ints = [0] * len(INT_FIELDS)
        ints[INT["canvas_end"]] = canvas_end
        self._staged.append((slot, ints, [0.0] * self.floats.shape[1]))

    def flush(self) -> None:
        """Write the staged slots to the device."""
        if not self._staged:
            return
        slots, ints, floats = zip(*self._staged, strict=True)
        index = torch.tensor(slots, device=self.device)
        self.ints[index] = torch.tensor(ints, device=self.device)
        self.floats[index] = torch.tensor(floats, dtype=torch.float64, device=self.device)
        self._staged.clear()
