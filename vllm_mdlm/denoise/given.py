"""Templates without a free span: the answer is known, and no pass is taken."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from vllm.v1.engine import (
    EngineCoreEventType,
    EngineCoreOutput,
    EngineCoreOutputs,
    FinishReason,
)
from vllm.v1.outputs import LogprobsLists
from vllm.v1.request import Request

from vllm_mdlm.denoise.infill_log import InfillLog, fixed_rows
from vllm_mdlm.params import RequestPlan


class GivenCanvases:
    """Requests that the scheduler answers with the next step's outputs, without a slot."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[Request, RequestPlan, InfillLog]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: Request, plan: RequestPlan, mask_token_id: int) -> None:
        """Take a request whose canvas is open."""
        request.record_event(EngineCoreEventType.QUEUED)
        self._waiting[request.request_id] = (request, plan, InfillLog(plan, mask_token_id))

    def drop(self, request_ids: Iterable[str]) -> None:
        """Forget requests that are aborted; other names are no error."""
        for request_id in request_ids:
            self._waiting.pop(request_id, None)

    def announce(self, finished: dict[int, set[str]] | None) -> None:
        """Note them among the requests that finish in this step, by client, where that is kept."""
        if finished is not None:
            for request, _, _ in self._waiting.values():
                finished[request.client_index].add(request.request_id)

    def send(self, outputs: dict[int, EngineCoreOutputs]) -> None:
        """Put the answers into a step's outputs, by client."""
        for request, plan, log in self._waiting.values():
            client = outputs.setdefault(request.client_index, EngineCoreOutputs())
            client.outputs.append(_answer(request, plan, log))
        self._waiting.clear()


def _answer(request: Request, plan: RequestPlan, log: InfillLog) -> EngineCoreOutput:
    assert plan.template is not None
    request.record_event(EngineCoreEventType.SCHEDULED)  # times are differences of events
    tokens = plan.template.tokens
    rows = log.take(fixed_rows(tokens), tokens, block=0, answer_entropy=0.0)
    return EngineCoreOutput(
        request_id=request.request_id,
        new_token_ids=tokens,
        new_logprobs=_logprobs(request, tokens),
        finish_reason=FinishReason.LENGTH,
        events=request.take_events(),
        spec_decode_metrics=request.spec_decode_metrics,
        trace_headers=request.trace_headers,
        routed_experts=np.concatenate([rows, log.end()]),
    )


def _logprobs(request: Request, tokens: list[int]) -> LogprobsLists | None:
    """As those of fixed text between free spans: the token itself, 0 nats."""
    params = request.sampling_params
    if params is None or params.num_logprobs is None:
        return None
    width = 1 + max(params.num_logprobs, 0)
    ids = np.repeat(np.asarray(tokens, dtype=np.int32)[:, None], width, axis=1)
    return LogprobsLists(ids, np.zeros(ids.shape, np.float32), np.ones(len(tokens), np.int32), None)
