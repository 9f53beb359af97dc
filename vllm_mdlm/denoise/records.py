"""What is kept of committed tokens until they are final: log-probabilities, trace and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vllm_mdlm.denoise.answers import Answers
from vllm_mdlm.denoise.logprobs import LogprobStore
from vllm_mdlm.denoise.passes import PassView, rows_of
from vllm_mdlm.denoise.peeks import Peeks
from vllm_mdlm.denoise.proposal import Proposal, Proposer
from vllm_mdlm.denoise.slots import FLOAT, INT, some
from vllm_mdlm.denoise.trace import TraceStore
from vllm_mdlm.denoise.weights import WeightStore
from vllm_mdlm.params import RequestPlan

if TYPE_CHECKING:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.outputs import LogprobsTensors


class Records:
    """By slot: who wants what, and what was kept for them.

    Log-probabilities, weights and peeks read whole logits rows, of committed tokens alone. How many
    those are, only the device knows: the host waits for it.

    Args:
        propose: what tokens are chosen by.
    """

    def __init__(self, propose: Proposer) -> None:
        num_slots, device = propose.table.ints.shape[0], propose.table.device
        self.propose = propose
        self.logprobs = LogprobStore(num_slots, device)
        self.trace = TraceStore(num_slots, device)
        self.weights = WeightStore(num_slots, device)
        self.peeks = Peeks(num_slots)

    def set(self, slot: int, plan: RequestPlan, params: SamplingParams) -> None:
        """Note what a slot's request wants."""
        self.logprobs.set(slot, params.logprobs, plan.gen_length)
        traced = bool(plan.trace) or plan.template is not None
        self.trace.set(slot, traced, plan.gen_length)
        if plan.template is not None:
            # Nothing is recorded of what is never committed.
            self.logprobs.clear(slot, plan.template.tokens)
            self.trace.clear(slot)
        self.weights.set(slot, plan.power, plan.gen_length)
        self.peeks.set(slot, plan.draws)

    def vacate(self, slot: int) -> None:
        """Leave a slot without a request."""
        self.logprobs.set(slot, None, 0)
        self.trace.set(slot, False, 0)
        self.weights.set(slot, 0.0, 0)
        self.peeks.set(slot, 0)

    def needs(self, slots_np: np.ndarray) -> frozenset[str]:
        """Statistics that must be computed for a batch, as `Sampler.needs`."""
        return frozenset({"entropy"} if some(self.trace.wanted[slots_np]) else ())

    def keep(
        self, view: PassView, committed: torch.Tensor, proposal: Proposal, logits: torch.Tensor
    ) -> None:
        """Keep what a pass committed.

        Args:
            view: the pass.
            committed: [N] bool.
            proposal: of the pass.
            logits: [N, V].
        """
        if some(wanted := self.trace.wanted[view.slots_np]):
            self._trace(view, self._rows(view, wanted), committed, proposal)
        if some(wanted := self.logprobs.wanted[view.slots_np] >= 0):
            rows = self._committed(view, wanted, committed)
            slots, canvas = view.slots[view.request[rows]], view.canvas_positions(rows)
            self.logprobs.record(logits[rows], proposal.token[rows], slots, canvas)
        if some(wanted := self.weights.wanted[view.slots_np]):
            rows = self._committed(view, wanted, committed)
            slots, canvas = view.slots[view.request[rows]], view.canvas_positions(rows)
            choice = self.propose.ruled(logits[rows], view.slots_np, slots, canvas)
            self.weights.record(choice, slots, canvas)
        if (most := self.peeks.most(view.slots_np)) > 0:
            rows = self._rows(view, self.peeks.draws[view.slots_np] > 0)
            self._peek(view, rows, committed[rows], logits[rows], most)

    def columns(
        self, view: PassView, width: int, answers: Answers | None
    ) -> LogprobsTensors | None:
        """What was kept of the tokens that may be emitted, up to `width` of every request."""
        first = view.ints[:, INT["num_final"]]
        found = None
        if some(self.logprobs.wanted[view.slots_np] >= 0):
            found = self.logprobs.emit(view.slots, first, width)
        if some(self.trace.wanted[view.slots_np]):
            entropy = None if answers is None else answers.entropy
            found = self.trace.append(found, view.slots, first, width, entropy)
        if some(self.weights.wanted[view.slots_np]):
            found = self.weights.append(found, view.slots, first, width)
        if self.peeks.most(view.slots_np) > 0:
            found = self.peeks.append(found, len(view.slots), width)
        return found

    def _rows(self, view: PassView, wanted: np.ndarray) -> torch.Tensor:
        return rows_of(wanted, view.request_np, view.rows.device)

    def _committed(
        self, view: PassView, wanted: np.ndarray, committed: torch.Tensor
    ) -> torch.Tensor:
        rows = self._rows(view, wanted)
        return rows[committed[rows].nonzero().squeeze(1)]

    def _trace(
        self, view: PassView, rows: torch.Tensor, committed: torch.Tensor, proposal: Proposal
    ) -> None:
        assert proposal.entropy is not None
        request = view.request[rows]
        block_pass = view.ints[request, INT["block_pass"]].float()
        values = torch.stack([block_pass, proposal.logprob[rows], proposal.entropy[rows]], dim=1)
        canvas = view.canvas_positions(rows)
        self.trace.record(values, committed[rows], view.slots[request], canvas)

    def _peek(
        self,
        view: PassView,
        rows: torch.Tensor,
        committed: torch.Tensor,
        logits: torch.Tensor,
        most: int,
    ) -> None:
        """Score the canvas of every peek of the batch, and draw at its first mask."""
        request, canvas = view.request[rows], view.canvas_positions(rows)
        slots = view.slots[request]
        choice = self.propose.ruled(logits, view.slots_np, slots, canvas)
        temperature = self.propose.table.floats[slots, FLOAT["temperature"]]
        self.peeks.score(choice, temperature, request, len(view.slots), most)
        first = committed.nonzero().squeeze(1)
        self.peeks.draw(
            choice[first],
            temperature[first],
            view.ints[request[first], INT["seed"]],
            canvas[first],
            request[first],
            self.propose.tokens.mask,
        )
