"""Requests that run chains: one that draws candidates and lets each be accepted or rejected.

Such a request is registered with the scheduler and never in a pass. Every candidate is a request
of its own, with the ordinary sampler `proposal`, that starts at the blocks decided so far and ends
at the end of what its chain decides. So candidates run side by side where there is room and one
after another where there is none; they share their batches with other requests, are preempted and
guided as those are. When all of a chain have ended, the chain is run on their weights, its result
is appended to the answer, and the next chain starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import torch
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.outputs import LogprobsLists

from vllm_mdlm.admission import PLAN_KEY
from vllm_mdlm.compat.requests import make_candidate
from vllm_mdlm.kernels.noise import derived_seeds, row_keys, uniform, wrap_int64
from vllm_mdlm.params import ChainPlan, RequestPlan
from vllm_mdlm.results import ChainReport, pack
from vllm_mdlm.samplers.mh import run_chain

if TYPE_CHECKING:
    from vllm.v1.request import Request

# Lane of the noise that accepts candidates; token ids are lanes too, and so is what chooses
# positions.
ACCEPTANCE_LANE = 1 << 41


class Candidate:
    """What a candidate has brought so far."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.traces: list[np.ndarray] = []
        self.logprobs: list[LogprobsLists] = []

    def take(self, output: EngineCoreOutput, weights: Sequence[float]) -> None:
        """Note the tokens of one output, and what came with them."""
        self.tokens += output.new_token_ids
        self.weights += weights
        if output.routed_experts is not None:
            self.traces.append(output.routed_experts)
        if output.new_logprobs is not None:
            self.logprobs.append(output.new_logprobs)

    @property
    def log_weight(self) -> float:
        """Nats; the same in whatever pieces the tokens came."""
        return math.fsum(self.weights)

    @property
    def trace(self) -> np.ndarray | None:
        """[tokens, 3], the pass counted from the start of the candidate."""
        return np.concatenate(self.traces) if self.traces else None

    def top_logprobs(self, count: int) -> LogprobsLists | None:
        """Of the first `count` tokens."""
        if not self.logprobs:
            return None
        columns = zip(*(one[:3] for one in self.logprobs), strict=True)
        ids, values, ranks = (np.concatenate(column)[:count] for column in columns)
        return LogprobsLists(ids, values, ranks)


class Link(NamedTuple):
    """The result of one chain."""

    request: Request  # the one that ran it
    result: Candidate
    report: ChainReport
    first: EngineCoreOutput | None  # of the request's first candidate, if it was the first chain
    passes: int  # of the results before, for the trace

    def output(self, tokens: list[int]) -> EngineCoreOutput:
        """What the client gets: the tokens of the result that are part of the answer."""
        request, trace = self.request, self.result.trace
        if trace is not None:
            trace = trace[: len(tokens)] + np.array([self.passes, 0, 0])
        return EngineCoreOutput(
            request_id=request.request_id,
            new_token_ids=tokens,
            new_logprobs=self.result.top_logprobs(len(tokens)),
            finish_reason=request.get_finished_reason(),
            stop_reason=request.stop_reason,
            events=None if self.first is None else self.first.events,
            prefill_stats=None if self.first is None else self.first.prefill_stats,
            spec_decode_metrics=request.spec_decode_metrics,
            trace_headers=request.trace_headers,
            routed_experts=pack(self.report, trace, len(tokens)),
        )


class _Running:
    """A request and its chain."""

    def __init__(self, request: Request, plan: RequestPlan) -> None:
        assert plan.chain is not None
        self.request = request
        self.plan = plan
        self.chain: ChainPlan = plan.chain
        self.seed = wrap_int64(request.sampling_params.seed)  # type: ignore[union-attr, arg-type]
        self.seeds = derived_seeds(self.seed, range(self.chain.candidates))
        self.first: EngineCoreOutput | None = None
        self.passes = 0
        self.begin()

    def begin(self) -> None:
        """A chain at the first position that is not decided."""
        self.start = self.request.num_output_tokens
        self.end = min(self.start + self.chain.length, self.plan.gen_length)
        self.candidates: list[Candidate] = []
        self.unfinished: dict[str, Candidate] = {}

    def result(self) -> tuple[Candidate, ChainReport]:
        """Run the chain, all candidates being complete."""
        log_weights = [candidate.log_weight for candidate in self.candidates]
        end = run_chain(log_weights, self._uniforms(len(log_weights) - 1))
        report = ChainReport(len(log_weights) - 1, end.acceptances, log_weights[end.result])
        return self.candidates[end.result], report

    def _uniforms(self, count: int) -> list[float]:
        steps = torch.arange(1, count + 1)
        keys = row_keys(
            torch.full_like(steps, self.seed), torch.full_like(steps, self.start), steps
        )
        numbers: list[float] = uniform(keys, torch.tensor([ACCEPTANCE_LANE]))[:, 0].tolist()
        return numbers


class Chains:
    """Every request that runs chains.

    Args:
        most: candidates of one request that are queued at the same time; more could not run.
        queue: gives a candidate to the scheduler, with its plan and the canvas decided so far.
    """

    def __init__(self, most: int, queue: Callable[[Request, RequestPlan, list[int]], None]) -> None:
        self._most = most
        self._queue = queue
        self._running: dict[str, _Running] = {}
        self._runs: dict[str, _Running] = {}  # candidate -> whose it is

    def open(self, request: Request, plan: RequestPlan) -> None:
        """Start the first chain of a request."""
        running = self._running[request.request_id] = _Running(request, plan)
        self._fill(running)

    def close(self, request_id: str) -> list[str]:
        """Forget a request that ends, or a candidate.

        Returns:
            Candidates that are left without their request.
        """
        running = self._running.pop(request_id, None)
        if running is None:
            return []
        names = list(running.unfinished)
        for name in names:
            del self._runs[name]
        return names

    def is_candidate(self, request_id: str) -> bool:
        return request_id in self._runs

    def counted_by(self, request_id: str) -> str:
        """The request that a pass of this one counts for."""
        running = self._runs.get(request_id)
        return request_id if running is None else running.request.request_id

    def end_of(self, request_id: str) -> int | None:
        """Canvas position after the last that a candidate decides; None for other requests."""
        running = self._runs.get(request_id)
        return None if running is None else running.end

    def take(self, output: EngineCoreOutput, weights: Sequence[float]) -> Link | None:
        """Note what a candidate brought; the result of its chain if it was the last one."""
        name = output.request_id
        running = self._runs[name]
        running.unfinished[name].take(output, weights)
        if running.first is None and running.start == 0:
            running.first = output
        if output.finish_reason is None:
            return None
        del self._runs[name], running.unfinished[name]
        self._fill(running)
        if running.unfinished:
            return None
        result, report = running.result()
        first = running.first if running.start == 0 else None
        link = Link(running.request, result, report, first, running.passes)
        trace = result.trace
        if trace is not None:
            running.passes += int(trace[:, 0].max()) + 1
        return link

    def advance(self, request_id: str) -> None:
        """Start the next chain, the result of the last one being part of the answer."""
        running = self._running[request_id]
        running.begin()
        self._fill(running)

    def _fill(self, running: _Running) -> None:
        """Queue candidates of the chain as long as there are any and they may run."""
        request, chain = running.request, running.chain
        plan = msgspec.structs.replace(running.plan, chain=None, power=chain.alpha)
        decided = list(request.output_token_ids)
        while len(running.unfinished) < self._most and len(running.candidates) < chain.candidates:
            index = len(running.candidates)
            candidate = make_candidate(
                request,
                f"{request.request_id}#candidate-{running.start}-{index}",
                {PLAN_KEY: plan.to_wire()},
                running.seeds[index],
                1 / chain.alpha,
            )
            running.candidates.append(Candidate())
            running.unfinished[candidate.request_id] = running.candidates[-1]
            self._runs[candidate.request_id] = running
            self._queue(candidate, plan, decided)
