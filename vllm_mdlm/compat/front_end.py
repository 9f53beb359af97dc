"""Shims in the process that parses requests and writes responses.

Installed only when the engine that is being configured serves one of our architectures.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from vllm.config import ModelConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.input_processor import InputProcessor

from vllm_mdlm.admission import PLAN_KEY, plan_request, request_seed, server_rules
from vllm_mdlm.compat import refusals
from vllm_mdlm.compat.registration import serves_our_model
from vllm_mdlm.compat.wrapping import wrap
from vllm_mdlm.errors import ParameterError
from vllm_mdlm.params import RequestPlan

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.outputs import RequestOutput


def install() -> None:
    """Install all of them; safe to call more than once."""
    from vllm.entrypoints.llm import LLM
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    wrap(SamplingParams, "_validate_diffusion", _lift_request_rules)
    wrap(SamplingParams, "_validate_structured_outputs", _leave_to_admission)
    for serving in (OpenAIServingChat, OpenAIServingCompletion, OpenAIServingResponses):
        wrap(serving, "__init__", _default_max_tokens)
    wrap(InputProcessor, "process_inputs", _plan_at_admission)
    refusals.install()
    wrap(LLM, "beam_search", _refuse_beam_search)
    wrap(OpenAIServingChat, "chat_completion_full_generator", _count_in_chat)
    wrap(OpenAIServingChat, "chat_completion_stream_generator", _count_in_chat_stream)
    wrap(OpenAIServingCompletion, "request_output_to_completion_response", _count_in_completion)
    wrap(OpenAIServingCompletion, "completion_stream_generator", _count_in_completion_stream)


def _lift_request_rules(original: Callable[..., Any]) -> Callable[..., Any]:
    """vLLM refuses temperature, seed and more for diffusion models; ours honour them."""

    def _validate_diffusion(self: SamplingParams, model_config: ModelConfig) -> None:
        if not serves_our_model(model_config):
            original(self, model_config)

    return _validate_diffusion


def _leave_to_admission(original: Callable[..., Any]) -> Callable[..., Any]:
    """Structured outputs are refused by admission, which names the parameter."""

    def _validate_structured_outputs(
        self: SamplingParams, model_config: ModelConfig, *args: Any, **kwargs: Any
    ) -> None:
        if not serves_our_model(model_config):
            original(self, model_config, *args, **kwargs)

    return _validate_structured_outputs


def _default_max_tokens(original: Callable[..., Any]) -> Callable[..., Any]:
    """Without `max_tokens`, a canvas of the model's default length, not the rest of the context.

    Set after construction: what is in the defaults before may also become the server's cap.
    """

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if serves_our_model(self.model_config):
            self.default_sampling_params = refusals.CanvasDefaults(
                {"max_tokens": self.model_config.hf_config.canvas_length}
                | self.default_sampling_params
            )

    return __init__


def _plan(vllm_config: VllmConfig, params: SamplingParams, prompt_len: int) -> RequestPlan:
    try:
        return plan_request(params, prompt_len, server_rules(vllm_config))
    except ParameterError as error:
        raise VLLMValidationError(
            str(error), parameter=error.parameter, value=error.value
        ) from error


def _plan_at_admission(original: Callable[..., Any]) -> Callable[..., Any]:
    """Replace the caller's arguments by the plan that the engine executes."""

    def process_inputs(
        self: InputProcessor, request_id: str, prompt: Any, params: Any, *args: Any, **kwargs: Any
    ) -> Any:
        request = original(self, request_id, prompt, params, *args, **kwargs)
        if not serves_our_model(self.model_config):
            return request
        hf_config = self.model_config.hf_config
        if request.sampling_params is None or request.prompt_token_ids is None:
            raise VLLMValidationError(
                "masked diffusion models take text or token prompts and generate text",
                parameter="prompt",
            )
        if request.resumable:
            raise VLLMValidationError(
                "streaming input is not supported by masked diffusion models",
                parameter="resumable",
            )
        sampling = request.sampling_params
        if params.max_tokens is None:
            # vLLM has put the rest of the context here.
            sampling.max_tokens = min(sampling.max_tokens, hf_config.canvas_length)
        if hf_config.eot_token_id is not None:
            # An answer ends at the end of turn as well as at the end of text.
            sampling.update_from_generation_config(
                {"eos_token_id": hf_config.eot_token_id}, sampling.eos_token_id
            )
        plan = _plan(self.vllm_config, sampling, len(request.prompt_token_ids))
        sampling.max_tokens = min(sampling.max_tokens, plan.gen_length)
        sampling.seed = request_seed(sampling)
        sampling.extra_args = {PLAN_KEY: plan.to_wire()}
        return request

    return process_inputs


def _refuse_beam_search(original: Callable[..., Any]) -> Callable[..., Any]:
    """A canvas is not extended token by token, so there is no beam.

    The HTTP layer refuses it in `refusals`.
    """

    def beam_search(self: Any, *args: Any, **kwargs: Any) -> Any:
        if serves_our_model(self.model_config):
            raise VLLMValidationError(
                "beam search is not supported by masked diffusion models; call generate"
            )
        return original(self, *args, **kwargs)

    return beam_search


class _PassCounter:
    """Forward passes of the sequences that a response carries."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, result: RequestOutput) -> None:
        self.total += sum(num_passes(output) for output in result.outputs)

    async def watch(self, results: AsyncIterator[Any], *, finals_only: bool) -> AsyncIterator[Any]:
        """Pass results through, counting those that end a sequence."""
        last = None
        async for item in results:
            last = item[1] if isinstance(item, tuple) else item
            if not finals_only:
                self.add(last)
            yield item
        if finals_only and last is not None:
            self.add(last)


def num_passes(output: Any) -> int:
    """Forward passes (NFE) of one finished `CompletionOutput`; 0 while it is unfinished."""
    metrics = output.spec_decode_metrics
    return 0 if metrics is None else sum(metrics.histogram)


def _count_in_chat(original: Callable[..., Any]) -> Callable[..., Any]:
    async def chat_completion_full_generator(
        self: Any, request: Any, result_generator: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not serves_our_model(self.model_config):
            return await original(self, request, result_generator, *args, **kwargs)
        counter = _PassCounter()
        watched = counter.watch(result_generator, finals_only=True)
        response = await original(self, request, watched, *args, **kwargs)
        if getattr(response, "usage", None) is not None:
            response.usage.forward_passes = counter.total
        return response

    return chat_completion_full_generator


def _count_in_chat_stream(original: Callable[..., Any]) -> Callable[..., Any]:
    def chat_completion_stream_generator(
        self: Any, request: Any, result_generator: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not serves_our_model(self.model_config):
            return original(self, request, result_generator, *args, **kwargs)
        counter = _PassCounter()
        watched = counter.watch(result_generator, finals_only=False)
        return _with_passes(original(self, request, watched, *args, **kwargs), counter)

    return chat_completion_stream_generator


def _count_in_completion(original: Callable[..., Any]) -> Callable[..., Any]:
    def request_output_to_completion_response(
        self: Any, final_res_batch: list[RequestOutput], *args: Any, **kwargs: Any
    ) -> Any:
        response = original(self, final_res_batch, *args, **kwargs)
        if serves_our_model(self.model_config):
            counter = _PassCounter()
            for result in final_res_batch:
                counter.add(result)
            response.usage.forward_passes = counter.total
        return response

    return request_output_to_completion_response


def _count_in_completion_stream(original: Callable[..., Any]) -> Callable[..., Any]:
    def completion_stream_generator(
        self: Any,
        request: Any,
        engine_inputs: Any,
        result_generator: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if not serves_our_model(self.model_config):
            return original(self, request, engine_inputs, result_generator, *args, **kwargs)
        counter = _PassCounter()
        watched = counter.watch(result_generator, finals_only=False)
        events = original(self, request, engine_inputs, watched, *args, **kwargs)
        return _with_passes(events, counter)

    return completion_stream_generator


async def _with_passes(events: AsyncIterator[str], counter: _PassCounter) -> AsyncIterator[str]:
    """Add the passes to the event that carries the final usage."""
    prefix = "data: "
    async for event in events:
        if '"choices":[]' in event and '"usage":{' in event:
            payload = json.loads(event.removeprefix(prefix))
            payload["usage"]["forward_passes"] = counter.total
            event = f"{prefix}{json.dumps(payload)}\n\n"
        yield event
