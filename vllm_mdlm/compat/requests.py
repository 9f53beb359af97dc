"""The canvas inside vLLM's scheduler request: its tokens follow the prompt's."""

from __future__ import annotations

from copy import copy
from typing import Any

from vllm.v1.core.sched.utils import check_stop
from vllm.v1.metrics.stats import RequestSpecDecodeMetrics
from vllm.v1.request import Request

from vllm_mdlm.companion import COMPANION_KEY, companion_id


class CanvasRequest(Request):
    """A request whose pass need not reach the last of its tokens."""

    span_end: int

    @property
    def num_tokens_with_spec(self) -> int:
        """Where the scheduler's next span ends; upstream: all tokens and the drafts."""
        return self.span_end


def open_canvas(request: Request, token_ids: list[int], most_final: int) -> None:
    """Lay a canvas behind the prompt; `most_final` of its tokens may become final in a pass.

    From here on `request.num_tokens` is prompt plus canvas, so every pass is scheduled and given
    cache as the computation of that many tokens.
    """
    request._all_token_ids.extend(token_ids)
    request.__class__ = CanvasRequest
    set_span(request, 0, request.num_tokens)
    # vLLM's own per-request channel for passes and tokens; it travels to the response.
    request.spec_decode_metrics = RequestSpecDecodeMetrics.new(most_final)


def set_span(request: Request, start: int, end: int) -> None:
    """Say what the request's next pass computes."""
    assert isinstance(request, CanvasRequest)
    request.num_computed_tokens = start
    request.span_end = end
    # To the scheduler a span that ends before the canvas does looks like a piece of a prompt.
    request.is_prefill_chunk = False


def make_companion(request: Request, mask_token_id: int) -> Request:
    """The request that computes a guided request's unconditional pass: its prompt is masked."""
    assert request.sampling_params is not None
    params = request.sampling_params.clone()
    params.extra_args = {COMPANION_KEY: request.request_id}
    params.logprobs = None
    return Request(
        request_id=companion_id(request.request_id),
        prompt_token_ids=[mask_token_id] * request.num_prompt_tokens,
        sampling_params=params,
        pooling_params=None,
        client_index=request.client_index,
        arrival_time=request.arrival_time,
        lora_request=request.lora_request,
        priority=request.priority,
    )


def make_candidate(
    request: Request, name: str, extra_args: dict[str, Any], seed: int, temperature: float
) -> Request:
    """A request that decodes a candidate of another one's chain.

    Args:
        request: the one that runs the chain.
        name: request id of the candidate.
        extra_args: the candidate's.
        seed, temperature: of its noise.
    """
    assert request.sampling_params is not None
    # Nothing inside is changed, and a request may draw thousands of candidates.
    params = copy(request.sampling_params)
    params.extra_args = extra_args
    params.seed = seed
    params.temperature = temperature
    return Request(
        request_id=name,
        prompt_token_ids=request.prompt_token_ids,
        sampling_params=params,
        pooling_params=None,
        client_index=request.client_index,
        arrival_time=request.arrival_time,
        lora_request=request.lora_request,
        priority=request.priority,
    )


def write_output(request: Request, token_id: int) -> None:
    """Append an output token; it takes the place of its canvas position."""
    request._all_token_ids[request.num_prompt_tokens + request.num_output_tokens] = token_id
    request._output_token_ids.append(token_id)


def must_stop(request: Request, max_model_len: int) -> bool:
    """Whether the last output token ends the request; sets status and stop reason.

    A canvas may fill the context to its last position, where an autoregressive request would
    have to stop because `num_tokens` reached the limit.
    """
    return check_stop(request, max_model_len + 1)


def drop_stop_token(request: Request) -> None:
    """Take back the EOS or stop token that ended the request: it is not part of the answer."""
    request._output_token_ids.pop()
