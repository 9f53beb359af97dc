"""Shims in the process that parses requests and writes responses.

Installed only when the engine that is being configured serves one of our architectures.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
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
from vllm_mdlm.results import num_passes, trace

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.outputs import RequestOutput


def install() -> None:
    """Install all of them; safe to call more than once."""
    from vllm.entrypoints.llm import LLM
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
    from vllm.entrypoints.scale_out.render.serving import ServingRender
    from vllm.entrypoints.scale_out.token_in_token_out.serving import ServingTokens

    wrap(SamplingParams, "_validate_diffusion", _lift_request_rules)
    wrap(SamplingParams, "_validate_structured_outputs", _leave_to_admission)
    for serving in (
        OpenAIServingChat,
        OpenAIServingCompletion,
        OpenAIServingResponses,
        ServingRender,
        ServingTokens,
    ):
        wrap(serving, "__init__", _default_max_tokens)
    wrap(InputProcessor, "process_inputs", _plan_at_admission)
    refusals.install()
    wrap(LLM, "beam_search", _refuse_beam_search)
    wrap(OpenAIServingChat, "chat_completion_full_generator", _count_in_chat)
    wrap(OpenAIServingChat, "chat_completion_stream_generator", _count_in_chat_stream)
    wrap(OpenAIServingCompletion, "request_output_to_completion_response", _count_in_completion)
    wrap(OpenAIServingCompletion, "completion_stream_generator", _count_in_completion_stream)
    register_read_strategy()


def register_read_strategy() -> None:
    """vLLM's table of how a model answers typed decisions, `/v1/systemone`."""
    from vllm.entrypoints.generate.structured_decisions.strategies import READ_STRATEGIES

    from vllm_mdlm import ARCHITECTURES
    from vllm_mdlm.decisions import JointReadStrategy

    for name in ARCHITECTURES:
        READ_STRATEGIES[name] = JointReadStrategy


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


def _plan(
    vllm_config: VllmConfig, params: SamplingParams, prompt_len: int, tokenizer: Any | None
) -> RequestPlan:
    encode = None if tokenizer is None else partial(tokenizer.encode, add_special_tokens=False)
    try:
        return plan_request(params, prompt_len, server_rules(vllm_config), encode)
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
        prompt_len = len(request.prompt_token_ids)
        plan = _plan(self.vllm_config, sampling, prompt_len, self.tokenizer)
        sampling.max_tokens = min(sampling.max_tokens, plan.gen_length)
        if plan.template is not None:
            sampling.max_tokens = plan.gen_length
            if plan.template.targets:
                sampling.temperature = 0.0  # nothing is drawn
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


class _Watcher:
    """What the sequences of a response carry beside their text: forward passes and traces."""

    def __init__(self) -> None:
        self.passes = 0
        self.traces: dict[int, dict[str, list[Any]]] = {}

    def add(self, result: RequestOutput, first_choice: int = 0) -> None:
        for output in result.outputs:
            self.passes += num_passes(output)
            found = trace(output)
            if found is not None:
                self.traces[first_choice + output.index] = found
            output.routed_experts = None  # vLLM would send the array as it is

    async def watch(
        self, results: AsyncIterator[Any], *, finals_only: bool, num_sequences: int
    ) -> AsyncIterator[Any]:
        """Pass results through, noting those that end a sequence.

        Args:
            results: outputs, or pairs of the prompt's index and its output.
            finals_only: only the last result counts; it holds all sequences.
            num_sequences: answers to one prompt.
        """
        last = None
        async for item in results:
            prompt, last = item if isinstance(item, tuple) else (0, item)
            if not finals_only:
                self.add(last, prompt * num_sequences)
            elif last.finished:
                self.add(last)
            yield item

    def annotate(self, response: Any) -> None:
        """Add what was noted to a response that is not streamed."""
        response.usage.forward_passes = self.passes
        for choice in response.choices:
            if choice.index in self.traces:
                choice.trace = self.traces[choice.index]


def _count_in_chat(original: Callable[..., Any]) -> Callable[..., Any]:
    async def chat_completion_full_generator(
        self: Any, request: Any, result_generator: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not serves_our_model(self.model_config):
            return await original(self, request, result_generator, *args, **kwargs)
        watcher = _Watcher()
        watched = watcher.watch(result_generator, finals_only=True, num_sequences=request.n or 1)
        response = await original(self, request, watched, *args, **kwargs)
        if getattr(response, "usage", None) is not None:
            watcher.annotate(response)
        return response

    return chat_completion_full_generator


def _count_in_chat_stream(original: Callable[..., Any]) -> Callable[..., Any]:
    def chat_completion_stream_generator(
        self: Any, request: Any, result_generator: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if not serves_our_model(self.model_config):
            return original(self, request, result_generator, *args, **kwargs)
        watcher = _Watcher()
        watched = watcher.watch(result_generator, finals_only=False, num_sequences=request.n or 1)
        return _with_passes(original(self, request, watched, *args, **kwargs), watcher)

    return chat_completion_stream_generator


def _count_in_completion(original: Callable[..., Any]) -> Callable[..., Any]:
    def request_output_to_completion_response(
        self: Any, final_res_batch: list[RequestOutput], request: Any, *args: Any, **kwargs: Any
    ) -> Any:
        watcher = _Watcher()
        if serves_our_model(self.model_config):
            for prompt, result in enumerate(final_res_batch):
                watcher.add(result, prompt * (request.n or 1))
        response = original(self, final_res_batch, request, *args, **kwargs)
        if serves_our_model(self.model_config):
            watcher.annotate(response)
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
        watcher = _Watcher()
        watched = watcher.watch(result_generator, finals_only=False, num_sequences=request.n or 1)
        events = original(self, request, engine_inputs, watched, *args, **kwargs)
        return _with_passes(events, watcher)

    return completion_stream_generator


async def _with_passes(events: AsyncIterator[str], watcher: _Watcher) -> AsyncIterator[str]:
    """Add the passes, and traces by choice, to the event that carries the final usage."""
    prefix = "data: "
    async for event in events:
        if '"choices":[]' in event and '"usage":{' in event:
            payload = json.loads(event.removeprefix(prefix))
            payload["usage"]["forward_passes"] = watcher.passes
            if watcher.traces:
                payload["traces"] = watcher.traces
            event = f"{prefix}{json.dumps(payload)}\n\n"
        yield event
