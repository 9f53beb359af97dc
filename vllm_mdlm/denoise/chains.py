"""Requests that run chains: one that draws candidates and lets each be accepted or rejected.

Such a request is registered with the scheduler and never in a pass. Every candidate is a request
of its own, with the ordinary sampler `proposal`, that starts at what is decided so far and ends
at the end of what its chain decides. So candidates run side by side where there is room and one
after another where there is none; they share their batches with other requests, are preempted and
guided as those are. When all of a chain have ended, the chain is run on their weights, its result
is appended to the answer, and the next chain starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from vllm.v1.engine import EngineCoreOutput

from vllm_mdlm.admission import PLAN_KEY
from vllm_mdlm.compat.requests import make_candidate
from vllm_mdlm.denoise.peeks import Peek
from vllm_mdlm.denoise.runs import Candidate, LookaheadRun, Run
from vllm_mdlm.params import RequestPlan
from vllm_mdlm.results import ChainReport, pack

if TYPE_CHECKING:
    from vllm.v1.request import Request


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


class Chains:
    """Every request that runs chains.

    Args:
        most: candidates of one request that are queued at the same time; more could not run.
        queue: gives a candidate to the scheduler, with its plan and the canvas decided so far.
    """

    def __init__(self, most: int, queue: Callable[[Request, RequestPlan, list[int]], None]) -> None:
        self._most = most
        self._queue = queue
        self._running: dict[str, Run] = {}
        self._runs: dict[str, Run] = {}  # candidate -> whose it is

    def open(self, request: Request, plan: RequestPlan) -> None:
        """Start the first chain of a request."""
        assert plan.chain is not None
        kind = LookaheadRun if plan.chain.sampler == "mh_lookahead" else Run
        running = self._running[request.request_id] = kind(request, plan)
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

    def draws_of(self, request_id: str) -> int:
        """Tokens that a peek draws; 0 for other requests."""
        running = self._runs.get(request_id)
        return running.chain.candidates if isinstance(running, LookaheadRun) else 0

    def take(
        self, output: EngineCoreOutput, weights: Sequence[float], peek: Peek | None
    ) -> Link | None:
        """Note what a candidate brought; the result of its chain if it was the last one."""
        name = output.request_id
        running = self._runs[name]
        running.unfinished[name].take(output, weights, peek)
        running.first = running.first or output
        if output.finish_reason is None:
            return None
        del self._runs[name], running.unfinished[name]
        return self._proceed(running)

    def advance(self, request_id: str) -> Link | None:
        """Start the next chain, the result of the last one being part of the answer.

        Returns:
            Its result, if it needs no candidate.
        """
        running = self._running[request_id]
        running.begin()
        return self._proceed(running)

    def _proceed(self, running: Run) -> Link | None:
        self._fill(running)
        if running.unfinished:
            return None
        found = running.result()
        if found is None:
            self._fill(running)
            return None
        result, report = found
        first = running.first if running.start == 0 else None
        link = Link(running.request, result, report, first, running.passes)
        trace = result.trace
        if trace is not None:
            running.passes += int(trace[:, 0].max()) + 1
        return link

    def _fill(self, running: Run) -> None:
        """Queue candidates of the chain as long as there are any and they may run."""
        while len(running.unfinished) < self._most:
            start = running.next_candidate()
            if start is None:
                return
            candidate = make_candidate(
                running.request,
                start.name,
                {PLAN_KEY: start.plan.to_wire()},
                start.seed,
                1 / running.chain.alpha,
            )
            running.unfinished[start.name] = start.candidate
            self._runs[start.name] = running
            self._queue(candidate, start.plan, start.known)
