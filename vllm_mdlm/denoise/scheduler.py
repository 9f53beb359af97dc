"""Span scheduling: every pass of a request covers a span of prompt plus canvas.

To vLLM a span is `num_computed_tokens` (its start) and the scheduled tokens (its length). The
canvas lies behind the prompt in the request's own tokens, so a pass looks like a prefill that
is computed again and again: continuous batching, the token budget, cache allocation and
preemption are vLLM's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.request import Request, RequestStatus
from vllm.v1.spec_decode.metrics import SpecDecodingStats

from vllm_mdlm.admission import NUM_FINAL_KEY, PLAN_KEY
from vllm_mdlm.compat.kv_slots import keep_slots
from vllm_mdlm.compat.requests import (
    drop_stop_token,
    make_companion,
    must_stop,
    open_canvas,
    set_span,
    write_output,
)
from vllm_mdlm.compat.step_queue import sleep_until_notified
from vllm_mdlm.denoise.chain_columns import take_peeks, take_weights
from vllm_mdlm.denoise.chains import Chains, Link
from vllm_mdlm.denoise.ends import end_after_text
from vllm_mdlm.denoise.given import GivenCanvases
from vllm_mdlm.denoise.infill_log import InfillLog
from vllm_mdlm.denoise.pairs import hurry_companions
from vllm_mdlm.denoise.peeks import Peek
from vllm_mdlm.denoise.trace import NUM_COLUMNS, PassClock, split
from vllm_mdlm.params import RequestPlan
from vllm_mdlm.spans import Canvas

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import SchedulerOutput
    from vllm.v1.metrics.stats import SchedulerStats
    from vllm.v1.outputs import ModelRunnerOutput


class SpanScheduler(Scheduler):
    """vLLM's scheduler for requests that denoise a canvas."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sleep_until_notified()
        keep_slots(self.kv_cache_manager)
        self._mask_token_id = int(self.vllm_config.model_config.hf_config.mask_token_id)
        self._pass_stats: SpecDecodingStats | None = None
        self._trimmed: set[str] = set()
        self._canvases: dict[str, Canvas] = {}
        self._refreshed: dict[str, int] = {}  # block of the last pass over prompt and canvas
        self._clocks: dict[str, PassClock] = {}  # of traced requests
        self._infills: dict[str, InfillLog] = {}  # of requests with a template
        self._given = GivenCanvases()
        self._guided_by: dict[str, str] = {}  # request id -> its companion's
        self._companion_of: dict[str, str] = {}  # and back
        self._chains = Chains(self.max_num_running_reqs, self._queue)

    def add_request(self, request: Request) -> None:
        """Queue a new request; if it runs chains, its candidates and never the request itself."""
        params = request.sampling_params
        assert params is not None
        assert params.extra_args is not None
        plan = RequestPlan.from_wire(params.extra_args[PLAN_KEY])
        if plan.chain is None:
            self._queue(request, plan)
            return
        open_canvas(request, *self._empty_canvas(plan))
        self.requests[request.request_id] = request
        self._chains.open(request, plan)

    def _queue(self, request: Request, plan: RequestPlan, decided: Sequence[int] = ()) -> None:
        """Give a request its canvas, then queue it, and its companion if it is guided.

        Args:
            decided: the first tokens of the canvas.
        """
        tokens, most_final = self._empty_canvas(plan)
        open_canvas(request, tokens, most_final)
        if len(plan.blocks) == 0:
            self._given.add(request, plan, self._mask_token_id)
            return
        for token_id in decided:
            write_output(request, token_id)
        self._canvases[request.request_id] = Canvas(
            request.num_prompt_tokens, request.num_tokens, plan.blocks, plan.kv_cache
        )
        self._refreshed[request.request_id] = plan.blocks.index_at(len(decided))
        super().add_request(request)
        if plan.template is not None:
            self._infills[request.request_id] = InfillLog(plan, self._mask_token_id)
        elif plan.trace:
            self._clocks[request.request_id] = PassClock(plan.blocks.starts())
        if plan.cfg_scale > 0:
            companion = make_companion(request, self._mask_token_id)
            open_canvas(companion, tokens, most_final)
            self._guided_by[request.request_id] = companion.request_id
            self._companion_of[companion.request_id] = request.request_id
            super().add_request(companion)

    def _empty_canvas(self, plan: RequestPlan) -> tuple[list[int], int]:
        """Tokens of a canvas before its first pass, and how many a pass may send at most."""
        if plan.template is not None:
            return plan.template.tokens, plan.gen_length
        return [self._mask_token_id] * plan.gen_length, plan.block_length

    def get_num_unfinished_requests(self) -> int:
        return super().get_num_unfinished_requests() + len(self._given)

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super()._preempt_request(request, *args, **kwargs)
        log = self._infills.get(request.request_id)
        if log is not None:
            log.restart_block()
            assert request.sampling_params is not None
            sent = {NUM_FINAL_KEY: request.num_output_tokens}
            # Answers of one request may share the object.
            request.sampling_params.extra_args = (request.sampling_params.extra_args or {}) | sent

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        queues = self.waiting, self.kv_holding_waiting
        hurry_companions(self._companion_of, self.requests, *queues)
        self._postpone()
        return super().schedule(throttle_prefills)

    def _postpone(self) -> None:
        """Hold back running requests whose whole span does not fit in this step, and guided ones
        that are not together with their companion.

        The base class would give the last one a part of its span. First come, first served: a
        request that fits behind one that does not may go ahead, and the first always fits.
        """
        budget = self.max_num_scheduled_tokens
        for request in self.running:
            if request.request_id in self._companion_of:
                continue  # goes with its request
            together = [request]
            if request.request_id in self._guided_by:
                together.append(self.requests[self._guided_by[request.request_id]])
            span = sum(one.num_tokens_with_spec - one.num_computed_tokens for one in together)
            if span <= budget and together[-1].status == RequestStatus.RUNNING:
                budget -= span
            else:
                for one in together:
                    self._skip_step(one)
        for companion_id, request_id in self._companion_of.items():
            if self.requests[request_id].status != RequestStatus.RUNNING:
                self._skip_step(self.requests[companion_id])

    def _skip_step(self, request: Request) -> None:
        # schedule() advances current_step before it compares.
        request.next_decode_eligible_step = self.current_step + 2

    def finish_requests(
        self, request_ids: str | Iterable[str] | None, finished_status: RequestStatus
    ) -> list[Request]:
        """Finish requests; companions and candidates end with theirs and are not finished by
        name."""
        if request_ids is None:
            request_ids = list(self.requests)
        elif isinstance(request_ids, str):
            request_ids = (request_ids,)
        own = [
            name
            for name in request_ids
            if name not in self._companion_of and not self._chains.is_candidate(name)
        ]
        self._given.drop(own)
        return super().finish_requests(own, finished_status)

    def _free_request(self, request: Request, delay_free_blocks: bool = False) -> Any:
        freed = super()._free_request(request, delay_free_blocks)
        self._clocks.pop(request.request_id, None)
        self._infills.pop(request.request_id, None)
        self._canvases.pop(request.request_id, None)
        self._refreshed.pop(request.request_id, None)
        companion_id = self._guided_by.pop(request.request_id, None)
        if companion_id is not None:
            del self._companion_of[companion_id]
            super().finish_requests(companion_id, RequestStatus.FINISHED_ABORTED)
        candidates = self._chains.close(request.request_id)
        if candidates:
            super().finish_requests(candidates, RequestStatus.FINISHED_ABORTED)
        return freed

    def _update_after_schedule(self, scheduler_output: SchedulerOutput) -> None:
        super()._update_after_schedule(scheduler_output)
        for req_id in scheduler_output.num_scheduled_tokens:
            request = self.requests[req_id]
            set_span(request, 0, request.num_tokens)

    def _set_next_spans(self, scheduler_output: SchedulerOutput) -> None:
        """After a pass: what the next one computes, as the model state sets it on the device."""
        for req_id in scheduler_output.num_scheduled_tokens:
            own = self._companion_of.get(req_id, req_id)
            if own != req_id:
                continue  # set with its request's
            request = self.requests.get(req_id)
            if request is None or request.status != RequestStatus.RUNNING:
                continue
            canvas = self._canvases[req_id]
            block = canvas.block_of(request.num_output_tokens)
            waits = self._waits_for_companion(req_id, scheduler_output)
            refresh = block != self._refreshed[req_id] or waits
            self._refreshed[req_id] = block
            span = canvas.span(block, refresh=refresh)
            set_span(request, *span)
            if req_id in self._guided_by:
                set_span(self.requests[self._guided_by[req_id]], *span)

    def _waits_for_companion(self, req_id: str, scheduler_output: SchedulerOutput) -> bool:
        """Whether a pass was in vain because the companion had none."""
        companion_id = self._guided_by.get(req_id)
        scheduled = scheduler_output.num_scheduled_tokens
        return companion_id is not None and companion_id not in scheduled

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        self._count_passes(scheduler_output, model_runner_output)
        scheduled = scheduler_output.num_scheduled_tokens
        seen = take_peeks(self._chains, scheduled, model_runner_output)
        log_weights = take_weights(self._chains, scheduled, model_runner_output)
        traces = self._take_traces(scheduler_output, model_runner_output)
        infills = dict(self._infills)
        self._given.announce(self.finished_req_ids_dict)
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        self._set_next_spans(scheduler_output)
        for client_outputs in outputs.values():
            self._attach_passes(client_outputs.outputs)
            for output in client_outputs.outputs:
                if output.request_id in traces and output.new_token_ids:
                    trace = traces[output.request_id]
                    output.routed_experts = trace[: len(output.new_token_ids)]
                    if output.request_id in infills and output.finish_reason is not None:
                        end = infills[output.request_id].end()
                        output.routed_experts = np.concatenate([output.routed_experts, end])
            if log_weights:
                self._run_chains(client_outputs, log_weights, seen)
            if self._trimmed:
                client_outputs.outputs = end_after_text(client_outputs.outputs, self._trimmed)
        self._trimmed.clear()
        self._given.send(outputs)
        return outputs

    def _run_chains(
        self,
        outputs: EngineCoreOutputs,
        log_weights: dict[str, list[float]],
        found: dict[str, Peek],
    ) -> None:
        """Replace the outputs of candidates by those of the requests whose chains they end."""
        kept = []
        for output in outputs.outputs:
            name = output.request_id
            if not self._chains.is_candidate(name):
                kept.append(output)
                continue
            link = self._chains.take(output, log_weights[name], found.get(name))
            while link is not None:
                following, sent = self._continue(link)
                kept.append(sent)
                link = following
        outputs.outputs = kept

    def _continue(self, link: Link) -> tuple[Link | None, EngineCoreOutput]:
        """Append the result of a chain to the answer, and start the next one.

        Returns:
            The result of the next one if it has one at once, and what to send.
        """
        request = link.request
        tokens, stopped = self._update_request_with_output(request, link.result.tokens)
        output = link.output(tokens)
        if stopped:
            self._free_request(request)
            return None, output
        return self._chains.advance(request.request_id), output

    def _take_traces(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[str, np.ndarray]:
        """The traces of the tokens that became final in this step, by request."""
        traced = [
            name
            for name in scheduler_output.num_scheduled_tokens
            if name in self._clocks or name in self._infills
        ]
        if not traced:
            return {}
        assert model_runner_output.logprobs is not None
        starts = model_runner_output.logprobs.cu_num_generated_tokens
        assert starts is not None
        model_runner_output.logprobs, rows = split(model_runner_output.logprobs)
        traces = {}
        for name in traced:
            row = model_runner_output.req_id_to_index[name]
            tokens = model_runner_output.sampled_token_ids[row]
            new = rows[starts[row] : starts[row] + len(tokens), :NUM_COLUMNS]
            if name in self._clocks:
                traces[name] = self._clocks[name].count(new)
            else:
                num_final = self.requests[name].num_output_tokens + len(tokens)
                block = self._canvases[name].block_of(num_final)
                waits = self._waits_for_companion(name, scheduler_output)
                # A pass in vain decides nothing, but may send the fixed text before a block.
                entropy = None if waits else float(rows[starts[row], NUM_COLUMNS])
                traces[name] = self._infills[name].take(new, tokens, block, entropy)
        return traces

    def _attach_passes(self, outputs: list[EngineCoreOutput]) -> None:
        """Send the passes so far with every output: a stop string ends a request in the front
        end, which then needs them, and the base class sends them only when it ends one itself."""
        for output in outputs:
            request = self.requests.get(output.request_id)
            if request is not None and output.spec_decode_metrics is None:
                output.spec_decode_metrics = request.spec_decode_metrics

    def _count_passes(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> None:
        for req_id in scheduler_output.num_scheduled_tokens:
            # The pass of a companion is a pass of its request, and so is a candidate's.
            request = self.requests.get(self._companion_of.get(req_id, req_id))
            if request is None or request.is_finished():
                continue
            counting = self.requests[self._chains.counted_by(request.request_id)]
            metrics = counting.spec_decode_metrics
            assert metrics is not None
            row = model_runner_output.req_id_to_index[req_id]
            num_final = len(model_runner_output.sampled_token_ids[row])
            canvas = request.num_tokens - request.num_prompt_tokens
            metrics.observe(num_draft_tokens=canvas, num_accepted=num_final)
            if self.log_stats:
                stats = self._pass_stats = self._pass_stats or SpecDecodingStats(num_spec_tokens=0)
                stats.num_drafts += 1
                stats.num_draft_tokens += canvas
                stats.num_accepted_tokens += num_final

    def _update_request_with_output(
        self, request: Request, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        """Take the tokens that became final, up to the one that ends the request."""
        params = request.sampling_params
        assert params is not None
        if request.request_id in self._infills:
            return new_token_ids, self._fill_template(request, new_token_ids)
        end = self._chains.end_of(request.request_id)
        if end is not None:
            return new_token_ids, self._extend_candidate(request, new_token_ids, end)
        for index, token_id in enumerate(new_token_ids):
            write_output(request, token_id)
            if must_stop(request, self.max_model_len):
                if (
                    request.status == RequestStatus.FINISHED_STOPPED
                    and not params.include_stop_str_in_output
                ):
                    drop_stop_token(request)
                    self._trimmed.add(request.request_id)
                    return new_token_ids[:index], True
                return new_token_ids[: index + 1], True
        return new_token_ids, False

    @staticmethod
    def _fill_template(request: Request, new_token_ids: list[int]) -> bool:
        """Take tokens of a template, which only its last position ends; whether it is there."""
        for token_id in new_token_ids:
            write_output(request, token_id)
        full = request.num_prompt_tokens + request.num_output_tokens == request.num_tokens
        if full:
            request.status = RequestStatus.FINISHED_LENGTH_CAPPED
        return full

    @staticmethod
    def _extend_candidate(request: Request, new_token_ids: list[int], end: int) -> bool:
        """Take tokens of a candidate, which ends where its chain does: what comes behind EOS
        weighs too."""
        for token_id in new_token_ids:
            write_output(request, token_id)
        complete = request.num_output_tokens >= end
        if complete:
            request.status = RequestStatus.FINISHED_LENGTH_CAPPED
        return complete

    def make_stats(
        self, spec_decoding_stats: SpecDecodingStats | None = None, *args: Any, **kwargs: Any
    ) -> SchedulerStats | None:
        passes, self._pass_stats = self._pass_stats, None
        return super().make_stats(spec_decoding_stats or passes, *args, **kwargs)
