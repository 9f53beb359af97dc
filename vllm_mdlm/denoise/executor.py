"""The denoising step that stands where vLLM's sampler stands: propose, select, commit, emit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from vllm.v1.worker.gpu.sample.output import SamplerOutput

from vllm_mdlm.denoise.answers import Answers, observe
from vllm_mdlm.denoise.guidance import Companions, guide
from vllm_mdlm.denoise.passes import PassView, dense
from vllm_mdlm.denoise.proposal import Proposal, Proposer
from vllm_mdlm.denoise.records import Records
from vllm_mdlm.denoise.slots import FLOAT, FLOAT_FIELDS, INT, MOVING, SlotTable, some
from vllm_mdlm.denoise.template_table import TemplateTable
from vllm_mdlm.denoise.transfer import to_device
from vllm_mdlm.kernels.noise import row_keys, uniform
from vllm_mdlm.params import RequestPlan
from vllm_mdlm.samplers.base import BlockView, Sampler
from vllm_mdlm.samplers.registry import samplers
from vllm_mdlm.schedule import block_quota
from vllm_mdlm.spans import KV_MODES
from vllm_mdlm.spec import SpecialTokens

if TYPE_CHECKING:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.worker.gpu.input_batch import InputBatch
    from vllm.v1.worker.gpu.states import RequestState

EXACT = KV_MODES.index("exact")

# Lane of the noise that chooses positions; token ids are the lanes that choose tokens.
POSITION_LANE = 1 << 40


class DenoisingExecutor:
    """Called by the model runner with the logits of a pass.

    The canvas is the tail of the runner's own token buffer: a commit writes there, and the next
    pass reads it as input without a copy.

    Args:
        slots: state of every slot.
        tokens: special token ids.
        vocab_size: columns of the logits.
    """

    # The runner looks here for penalty counters; there are none.
    penalties_state = SimpleNamespace(output_bin_counts=None)

    def __init__(self, slots: SlotTable, tokens: SpecialTokens, vocab_size: int) -> None:
        num_slots = slots.ints.shape[0]
        self.slots = slots
        self.tokens = tokens
        self.templates = TemplateTable(num_slots, slots.device)
        self.propose = Proposer(slots, self.templates, tokens, vocab_size)
        self.records = Records(self.propose)
        self.companions = Companions(num_slots)
        self.view: PassView | None = None
        self._samplers = list(samplers().values())
        self._resets: list[tuple[int, int, int]] = []
        self._req_states: RequestState | None = None

    def bind(self, req_states: RequestState) -> None:
        """Take the runner's request state, whose token buffer holds every canvas."""
        self._req_states = req_states

    @property
    def req_states(self) -> RequestState:
        assert self._req_states is not None
        return self._req_states

    def add_canvas(
        self, slot: int, plan: RequestPlan, prompt_len: int, num_final: int, params: SamplingParams
    ) -> None:
        """Give a slot to a request whose first `num_final` canvas tokens are known."""
        self.slots.stage(slot, plan, prompt_len, num_final, params)
        self.templates.set(slot, plan, prompt_len, num_final)
        compares = "divergence" in samplers()[plan.sampler].needs
        self.propose.set(slot, params, compares=compares)
        self.records.set(slot, plan, params)
        block_start, _ = plan.blocks.bounds(plan.blocks.index_at(num_final))
        if block_start < num_final and not plan.draws:
            # The unfinished block is decided again, from masks, to the same tokens.
            self._resets.append((slot, prompt_len + block_start, prompt_len + num_final))

    def vacate(self, slot: int, canvas_end: int = 0) -> None:
        """Leave a slot without an active block; `canvas_end` as for `SlotTable.vacate`."""
        self.slots.vacate(slot, canvas_end)
        self.templates.set(slot, None, 0, 0)
        self.propose.set(slot, None, compares=False)
        self.records.vacate(slot)

    def add_request(self, req_index: int, sampling_params: SamplingParams) -> None:
        """The model runner's hook; `add_canvas` has done the work."""

    def apply_staged_writes(self) -> None:
        """The model runner's hook; `flush` has done the work."""

    def flush(self) -> None:
        """Write staged state to the device, after the runner has written its tokens."""
        self.slots.flush()
        for slot, start, end in self._resets:
            self.req_states.all_token_ids.gpu[slot, start:end] = self.tokens.mask
        self._resets.clear()
        for slot, companion in self.companions.take_new_pairs():
            # Prompt lengths are equal, so the canvases lie at the same positions.
            start, end = self.slots.ints[slot, [INT["prompt_len"], INT["canvas_end"]]].tolist()
            canvas = self.req_states.all_token_ids.gpu[slot, start:end]
            self.req_states.all_token_ids.gpu[companion, start:end] = canvas

    def __call__(self, logits: torch.Tensor, input_batch: InputBatch) -> SamplerOutput:
        view, self.view = self.view, None
        if view is None:
            return _nothing(input_batch.num_reqs, logits.device)
        if view.guidance is not None:
            scale = self.slots.floats[view.guidance.own_slots, FLOAT["cfg_scale"]]
            logits = guide(logits, view.guidance, scale)
        logits, answer_logits = logits[: len(view.rows)], logits[len(view.rows) :]
        present = sorted(set(self.slots.host.sampler[view.slots_np].tolist()))
        needs = self.records.needs(view.slots_np).union(
            *(self._samplers[index].needs for index in present)
        )
        all_token_ids = self.req_states.all_token_ids.gpu
        proposal = self.propose(logits, view, all_token_ids, needs)
        commit = self._select(view, proposal, present, needs)
        bad_words = self.propose.bad_words
        if some(bad_words.has_words[view.slots_np]):
            commit = bad_words.separate(commit, dense(proposal.token, view), view, all_token_ids)
        answers = None
        if view.answer is not None:
            assert proposal.entropy is not None
            self.propose.remove_eos(answer_logits, view.slots_np, view.ints[view.answer.request])
            entropy = dense(proposal.entropy, view)
            answers = observe(self.templates, view, entropy, answer_logits)
            commit = commit & ~answers.exits.unsqueeze(1)
        committed = self._commit(view, commit, proposal)
        output = self._emit(view, commit, answers)
        # Last, for the host may wait here: all else is queued.
        self.records.keep(view, committed, proposal, logits)
        width = output.sampled_token_ids.shape[1]
        output.logprobs_tensors = self.records.columns(view, width, answers)
        return output

    def _select(
        self, view: PassView, proposal: Proposal, present: list[int], needs: frozenset[str]
    ) -> torch.Tensor:
        """Ask every sampler of the batch for its requests; [R, B] bool."""
        block = self._block_view(view, proposal, needs)
        if len(present) == 1:
            rows = torch.arange(len(view.slots), device=view.slots.device)
            return self._ask(self._samplers[present[0]], block, view, rows)
        commit = torch.zeros_like(view.masked)
        batch_samplers = self.slots.host.sampler[view.slots_np]
        for index in present:
            rows = to_device(np.flatnonzero(batch_samplers == index), commit.device)
            part = BlockView._make(None if field is None else field[rows] for field in block)
            commit[rows] = self._ask(self._samplers[index], part, view, rows)
        return commit

    def _ask(
        self, sampler: Sampler, block: BlockView, view: PassView, rows: torch.Tensor
    ) -> torch.Tensor:
        """One sampler's answer for its rows of the batch."""
        own = self.slots.floats[view.slots[rows], len(FLOAT_FIELDS) :]
        params = {name: own[:, i] for i, name in enumerate(sampler.params.__struct_fields__)}
        memory = self.propose.memory
        state = memory.read_state(view, rows) if sampler.has_state else None
        selection = sampler.select(block, params, state)
        if selection.state is not None:
            memory.write_state(view, rows, selection.state)
        return selection.commit

    def _block_view(self, view: PassView, proposal: Proposal, needs: frozenset[str]) -> BlockView:
        ints = view.ints
        draw = None
        if "draw" in needs:
            canvas = view.positions - ints[:, INT["prompt_len"], None]
            keys = row_keys(ints[:, INT["seed"], None], canvas, ints[:, INT["block_pass"], None])
            lane = torch.full((1,), POSITION_LANE, device=keys.device)
            draw = uniform(keys.flatten(), lane).view(view.masked.shape)
        return BlockView(
            masked=view.masked,
            confidence=dense(proposal.confidence, view),
            quota=block_quota(
                ints[:, INT["block_size"]],
                ints[:, INT["block_steps"]].clamp(min=1),
                ints[:, INT["block_pass"]],
            ),
            entropy=None if proposal.entropy is None else dense(proposal.entropy, view),
            margin=None if proposal.margin is None else dense(proposal.margin, view),
            draw=draw,
            divergence=(None if proposal.divergence is None else dense(proposal.divergence, view)),
        )

    def _commit(self, view: PassView, commit: torch.Tensor, proposal: Proposal) -> torch.Tensor:
        """Write the chosen tokens into the canvas.

        Returns:
            [N] bool, the rows that were committed; a score leaves some of them masked.
        """
        all_tokens = self.req_states.all_token_ids.gpu
        chosen = commit.flatten()[view.rows]
        slots, positions = view.slots[view.request], view.row_positions
        tokens = torch.where(chosen, proposal.token, self.tokens.mask).to(all_tokens.dtype)
        all_tokens[slots, positions] = tokens
        if view.guidance is not None:
            rows = view.guidance.rows
            if view.answer is not None:
                # Guided too, and still undecided.
                undecided = torch.full_like(view.answer.positions, self.tokens.mask)
                positions = torch.cat([positions, view.answer.positions])
                tokens = torch.cat([tokens, undecided.to(tokens.dtype)])
            all_tokens[view.guidance.slots, positions[rows]] = tokens[rows]
        return tokens[: len(chosen)] != self.tokens.mask

    def _emit(self, view: PassView, commit: torch.Tensor, answers: Answers | None) -> SamplerOutput:
        """Send the tokens that became final and move every request on."""
        ints = view.ints
        width = view.masked.shape[1]
        open_positions = view.undecided & ~commit
        offsets = torch.arange(width, device=commit.device)
        first_open = torch.where(open_positions, offsets, width).amin(dim=1)
        done = first_open == width
        exits = None
        if answers is not None:
            exits = answers.exits
            done = done | exits
        next_start, next_size = self._next_blocks(view, done, exits)
        prompt_len = ints[:, INT["prompt_len"]]
        # Fixed text up to the next block is final with the block, and so is what is left out.
        prefix_end = torch.where(done, next_start, ints[:, INT["block_start"]] + first_open)
        before = ints[:, INT["num_final"]]
        after = torch.maximum(before, prefix_end - prompt_len)
        after = torch.where(ints[:, INT["block_length"]] > 0, after, before)
        self._move_on(view, done, next_start, next_size, after)
        width = max(width, int(self.templates.host.emitted[view.slots_np].max()))
        offsets = torch.arange(width, device=commit.device)
        first = prompt_len + before
        all_tokens = self.req_states.all_token_ids.gpu
        positions = (first.unsqueeze(1) + offsets).clamp(max=all_tokens.shape[1] - 1)
        # The runner appends what is sampled at total_len: the same token to the same place.
        self.req_states.total_len.gpu[view.slots] = first.int()
        num_sampled = (after - before).int()
        return SamplerOutput(
            sampled_token_ids=all_tokens[view.slots.unsqueeze(1), positions].long(),
            logprobs_tensors=None,
            num_nans=None,
            num_sampled=num_sampled,
            # By this the runner moves a span's start, which the model state sets after it.
            num_rejected=num_sampled,
        )

    def _next_blocks(
        self,
        view: PassView,
        done: torch.Tensor,
        exits: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Start and size of the block after the active one, [R] int64 each."""
        ints = view.ints
        start = ints[:, INT["block_start"]] + ints[:, INT["block_size"]]
        size = torch.minimum(ints[:, INT["canvas_end"]] - start, ints[:, INT["block_length"]])
        return self.templates.next_blocks(view.slots, view.slots_np, done, exits, start, size)

    def _move_on(
        self,
        view: PassView,
        done: torch.Tensor,
        next_start: torch.Tensor,
        next_size: torch.Tensor,
        num_final: torch.Tensor,
    ) -> None:
        """Advance the pass counters; a finished block hands over to the next."""
        ints = view.ints
        taken = 1 if view.active is None else view.active.long()
        moving = torch.stack(
            [
                torch.where(done, next_start, ints[:, INT["block_start"]]),
                torch.where(done, next_size, ints[:, INT["block_size"]]),
                torch.where(done, 0, ints[:, INT["block_pass"]] + taken),
                num_final,
            ],
            dim=1,
        )
        self.slots.ints[view.slots, MOVING] = moving
        if view.companion_slots is not None:
            # A companion's spans are its request's; without a block length it has no rows.
            guided, companion = view.companion_slots
            for name in ("block_start", "block_pass"):
                self.slots.ints[companion, INT[name]] = self.slots.ints[
                    view.slots[guided], INT[name]
                ]
            self.slots.ints[companion, INT["kv_cache"]] = ints[guided, INT["kv_cache"]]

    def next_starts(self, slots: torch.Tensor) -> torch.Tensor:
        """First position of every request's next span, [R] int64."""
        ints = self.slots.ints[slots.long()]
        refresh = (ints[:, INT["block_pass"]] == 0) | (ints[:, INT["kv_cache"]] == EXACT)
        return torch.where(refresh, 0, ints[:, INT["block_start"]])


def _nothing(num_reqs: int, device: torch.device) -> SamplerOutput:
    """Output of vLLM's profiling run, which has logits but no requests."""
    zeros: Any = torch.zeros(num_reqs, dtype=torch.int32, device=device)
    return SamplerOutput(
        sampled_token_ids=torch.zeros(num_reqs, 1, dtype=torch.int64, device=device),
        logprobs_tensors=None,
        num_nans=None,
        num_sampled=zeros,
        num_rejected=zeros,
    )
