"""Refusals of the HTTP layer: before the response starts, and naming the parameter.

vLLM refuses most bad requests itself, but some of its errors name no parameter, some come after a
streamed response has started, and it ignores fields that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams

from vllm_mdlm.compat.registration import serves_our_model
from vllm_mdlm.compat.wrapping import wrap
from vllm_mdlm.params import parameter_names

_STANDARD_NAMES = frozenset(SamplingParams.__struct_fields__) | {"prompt", "tool_choice"}


def install() -> None:
    """Install all of them; safe to call more than once."""
    from vllm.entrypoints.openai.chat_completion import batch_serving as batch
    from vllm.entrypoints.openai.chat_completion import serving as chat
    from vllm.entrypoints.openai.completion import serving as completion
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.input_processor import InputProcessor

    wrap(AsyncLLM, "generate", _check_before_response)
    wrap(OpenAIServingResponses, "_generate_with_builtin_tools", _check_before_events)
    wrap(InputProcessor, "_validate_model_inputs", _name_prompt)
    wrap(completion.OpenAIServingCompletion, "create_completion", _check_request)
    wrap(chat.OpenAIServingChat, "create_chat_completion", _check_request)
    wrap(batch.OpenAIServingChatBatch, "create_batch_chat_completion", _check_fields)
    wrap(OpenAIServingResponses, "create_responses", _check_fields)
    wrap(completion.OpenAIServingCompletion, "_extract_prompt_text", _echo_nothing)
    wrap(completion, "get_max_tokens", _refuse_clipping)
    wrap(chat, "get_max_tokens", _refuse_clipping)
    wrap(batch, "get_max_tokens", _refuse_clipping)


def _check_before_response(original: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse a bad request when it is made, not when its (perhaps streamed) output is read."""

    def generate(
        self: Any, prompt: Any, sampling_params: Any, request_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        if serves_our_model(self.model_config):
            _check(self, request_id, prompt, sampling_params, kwargs.get("lora_request"))
        return original(self, prompt, sampling_params, request_id, *args, **kwargs)

    return generate


def _check_before_events(original: Callable[..., Any]) -> Callable[..., Any]:
    """The same for /v1/responses, whose stream starts before it asks the engine."""

    def _generate_with_builtin_tools(
        self: Any, request_id: str, engine_input: Any, sampling_params: Any, **kwargs: Any
    ) -> Any:
        if serves_our_model(self.model_config):
            lora_request = kwargs.get("lora_request")
            _check(self.engine_client, request_id, engine_input, sampling_params, lora_request)
        return original(self, request_id, engine_input, sampling_params, **kwargs)

    return _generate_with_builtin_tools


def _check(engine: Any, request_id: str, prompt: Any, params: Any, lora_request: Any) -> None:
    """Do what admission will do, and forget the result."""
    tokenized = isinstance(prompt, dict) and "prompt_token_ids" in prompt
    if tokenized and isinstance(params, SamplingParams):
        engine.input_processor.process_inputs(
            request_id, prompt, params, ("generate",), lora_request=lora_request
        )


def _name_prompt(original: Callable[..., Any]) -> Callable[..., Any]:
    """What is wrong with a prompt's tokens is said of the parameter `prompt`."""

    def _validate_model_inputs(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            original(self, *args, **kwargs)
        except VLLMValidationError as error:
            if error.parameter is None and serves_our_model(self.model_config):
                error.parameter = "prompt"
            raise

    return _validate_model_inputs


def _echo_nothing(original: Callable[..., Any]) -> Callable[..., Any]:
    """A prompt of tokens without text has no text for vLLM, whose `echo` then fails."""

    def _extract_prompt_text(self: Any, prompt: Any) -> str | None:
        text: str | None = original(self, prompt)
        return text or "" if serves_our_model(self.model_config) else text

    return _extract_prompt_text


class CanvasDefaults(dict[str, Any]):
    """Default sampling parameters of a server of ours: all that tells `get_max_tokens` whose
    request it is."""


def _refuse_clipping(original: Callable[..., int]) -> Callable[..., int]:
    """vLLM lowers a `max_tokens` that does not fit behind the prompt; the length of a canvas is
    not a limit but shapes the whole answer, so it is refused instead."""

    def get_max_tokens(
        max_model_len: int,
        max_tokens: int | None,
        input_length: int,
        default_sampling_params: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> int:
        given = original(
            max_model_len, max_tokens, input_length, default_sampling_params, *args, **kwargs
        )
        if max_tokens is None or not isinstance(default_sampling_params, CanvasDefaults):
            return given
        room = max_model_len - input_length
        if max_tokens > room:
            raise VLLMValidationError(
                f"max_tokens: got {max_tokens}; prompt ({input_length} tokens) plus max_tokens "
                f"exceed the context (--max-model-len), {max_model_len} tokens; ask for at most "
                f"{room}",
                parameter="max_tokens",
                value=max_tokens,
            )
        return given

    return get_max_tokens


def _check_request(original: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse fields in the wrong place, and name the parameter in vLLM's own refusals."""

    async def create(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if not serves_our_model(self.model_config):
            return await original(self, request, *args, **kwargs)
        _refuse_misplaced(request)
        is_default = await _is_default(request, args[0] if args else kwargs.get("raw_request"))
        follows = _follow_gen_length(request, self.model_config.max_model_len, is_default)
        with named_as_written(request, follows=follows):
            response = await original(self, request, *args, **kwargs)
        if isinstance(response, ErrorResponse) and response.error.param is None:
            response.error.param = _named_in(response.error.message)
        return response

    return create


def _check_fields(original: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse fields that /v1/responses and /v1/chat/completions/batch would ignore."""

    async def create(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if serves_our_model(self.model_config):
            _refuse_misplaced(request)
        return await original(self, request, *args, **kwargs)

    return create


@contextmanager
def named_as_written(request: Any, *, follows: bool = False) -> Iterator[None]:
    """Make refusals raised inside name the field of the request that caused them.

    Args:
        request: vLLM's chat or completion request.
        follows: its `max_tokens` was taken from `gen_length`.

    Raises:
        VLLMValidationError: in the place of a ValueError.
    """
    try:
        yield
    except VLLMValidationError as error:
        error.parameter = _as_written(request, error.parameter or _named_in(str(error)))
        if follows and error.parameter == "max_tokens":
            error.parameter = "gen_length"
        raise
    except ValueError as error:
        parameter = _as_written(request, _named_in(str(error)))
        raise VLLMValidationError(str(error), parameter=parameter) from error


async def _is_default(request: Any, raw_request: Any) -> bool:
    """Whether `max_tokens` is what vLLM has filled in: OpenAI's default of completions, 16.

    It is filled in before the request is read, so only the body tells it from one that was sent.
    """
    default = type(request).model_fields["max_tokens"].default
    matters = "gen_length" in (request.vllm_xargs or {})  # else the body is not read again
    if not matters or raw_request is None or default is None or request.max_tokens != default:
        return False
    return (await raw_request.json()).get("max_tokens") is None


def _follow_gen_length(request: Any, max_model_len: int, is_default: bool) -> bool:
    """Without `max_tokens`, the answer may be as long as the canvas that the caller asks for.

    A default that vLLM has filled in is no `max_tokens` of the caller's.
    """
    gen_length = (request.vllm_xargs or {}).get("gen_length")
    names = ("max_tokens", "max_completion_tokens")
    asked = any(getattr(request, name, None) is not None for name in names) and not is_default
    if asked or not isinstance(gen_length, int) or not 0 < gen_length <= max_model_len:
        return False
    request.max_tokens = gen_length
    return True


def _refuse_misplaced(request: Any) -> None:
    unread = parameter_names() | {"vllm_xargs"}
    takes_ours = "vllm_xargs" in type(request).model_fields
    place = "beside the standard parameters" if takes_ours else "in this route of vLLM"
    remedy = "send it in vllm_xargs" if takes_ours else "send one chat a request"
    for name, value in (request.model_extra or {}).items():
        if name in unread:
            raise VLLMValidationError(
                f"{name}: got {value!r} {place}, where it has no effect; {remedy}",
                parameter=name,
                value=value,
            )
    if getattr(request, "use_beam_search", False):
        raise VLLMValidationError(
            "beam search is not supported by masked diffusion models; leave it out",
            parameter="use_beam_search",
        )


def _named_in(message: str) -> str | None:
    """The first standard parameter that an error message names."""
    words = re.findall(r"\w+", message)
    return next((word for word in words if word in _STANDARD_NAMES), None)


def _as_written(request: Any, parameter: str | None) -> str | None:
    """The field of the request from which vLLM derived a sampling parameter."""

    def written(field: str) -> bool:
        return getattr(request, field, None) not in (None, False, "none", "auto")

    if parameter == "extra_args":
        return _too_large(request.vllm_xargs or {}) or parameter
    sources = {
        "structured_outputs": ("structured_outputs", "response_format", "tool_choice"),
        "prompt_logprobs": ("prompt_logprobs", "echo"),
        "logprobs": ("top_logprobs", "logprobs"),
        "input_text": ("prompt", "messages"),
        "input_tokens": ("prompt", "messages"),
        "max_tokens": ("max_completion_tokens",),
    }
    fields = sources.get(parameter or "", ())
    return next((field for field in fields if written(field)), parameter)


def _too_large(arguments: dict[str, Any]) -> str | None:
    """The first parameter that holds an integer which no message to the engine can carry."""

    def fits(value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        return all(not isinstance(item, int) or -(2**63) <= item < 2**64 for item in values)

    return next((name for name, value in arguments.items() if not fits(value)), None)
