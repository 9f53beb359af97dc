"""How the routes reach vLLM: its rendering of prompts, its sampling parameters, its engine."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import Request
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import GenerationError, VLLMValidationError
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.utils import random_uuid

from vllm_mdlm.compat import serves_our_model
from vllm_mdlm.compat.refusals import named_as_written
from vllm_mdlm.errors import ParameterError
from vllm_mdlm.results import num_passes, scores
from vllm_mdlm.routes.answering import Refusal
from vllm_mdlm.routes.body import Body, brief
from vllm_mdlm.routes.canvas import Layout, Markers
from vllm_mdlm.templates import parse_template

if TYPE_CHECKING:
    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient
    from vllm.inputs import EngineInput
    from vllm.lora.request import LoRARequest
    from vllm.outputs import RequestOutput
    from vllm.tokenizers import TokenizerLike

Result = TypeVar("Result")

MAX_IN_FLIGHT = 32
"""Requests that one call has in the engine at a time (our choice): a call of thousands then
leaves room in the batch for those of others."""


class Prepared(NamedTuple):
    """A rendered prompt and what every engine request made of it shares."""

    prompt: EngineInput
    prompt_tokens: int
    params: SamplingParams
    model: str
    request_id: str
    lora_request: LoRARequest | None
    priority: int
    stream: bool


class Door:
    """Made once for a server.

    Args:
        engine: vLLM's client of its engine.
        state: the application's, with vLLM's serving objects.
    """

    def __init__(self, engine: EngineClient, state: State) -> None:
        self.engine = engine
        self.models = state.openai_serving_models
        self._completions = state.openai_serving_completion
        self._chat = state.openai_serving_chat
        config = engine.vllm_config
        self.limit = max(1, min(MAX_IN_FLIGHT, config.scheduler_config.max_num_seqs // 2))

    @classmethod
    def of(cls, raw_request: Request) -> Door:
        """The server's door.

        Raises:
            NotImplementedError: the server's model is none of ours; vLLM answers 501.
        """
        door = raw_request.app.state.mdlm
        assert isinstance(door, cls)
        if not serves_our_model(door.engine.model_config):
            raise NotImplementedError("this route serves masked diffusion models only")
        return door

    @property
    def tokenizer(self) -> TokenizerLike:
        """The server's tokenizer.

        Raises:
            ParameterError: the server was started without.
        """
        tokenizer = self.engine.renderer.tokenizer
        if tokenizer is None:
            raise ParameterError("model", None, "this route needs a server with a tokenizer")
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Tokens of a piece of text, no special tokens added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def check_tokens(self, field: str, tokens: Sequence[int]) -> None:
        """Refuse tokens that no template can hold.

        Raises:
            ParameterError: names `field`.
        """
        hf_config = self.engine.model_config.hf_config
        for token in tokens:
            if not 0 <= token < hf_config.token_vocab_size or token == hf_config.mask_token_id:
                raise ParameterError(
                    field,
                    token,
                    f"must be token ids from 0 to {hf_config.token_vocab_size - 1} other than the "
                    f"mask token, {hf_config.mask_token_id}",
                )

    def layout(self, items: Sequence[Any]) -> Layout:
        """Read a template, each of whose free spans has a name.

        Raises:
            ParameterError: it is none, or longer than the context.
        """
        config = self.engine.model_config
        hf_config = config.hf_config
        for index, item in enumerate(items):
            # Before a canvas of that length is made.
            mask = item.get("mask") if isinstance(item, dict) else None
            if isinstance(mask, int) and mask > config.max_model_len:
                raise ParameterError(
                    f"template[{index}].mask",
                    mask,
                    f"exceeds the context (--max-model-len), {config.max_model_len} tokens",
                )
        template = parse_template(
            items,
            self.encode,
            mask_token_id=hf_config.mask_token_id,
            vocab_size=hf_config.token_vocab_size,
        )
        ends = {hf_config.eos_token_id, hf_config.eot_token_id} - {None}
        return Layout(template, Markers(hf_config.mask_token_id, frozenset(ends)), self.decode)

    async def score(
        self, prepared: Prepared, items: list[Any], number: int
    ) -> tuple[list[float], int]:
        """Log-probabilities of the targets of a template, nats, and the passes that they took.

        Raises:
            VLLMValidationError: admission refuses it.
            GenerationError: the engine failed.
        """
        params = prepared.params.clone()
        params.extra_args = {**(params.extra_args or {}), "template": items}
        (output,) = (await self.finish(prepared, params, number)).outputs
        found = scores(output)
        assert found is not None
        return found, num_passes(output)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens, special ones left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    async def prepare(self, body: Body, route: str) -> Prepared:
        """Render the prompt and make the sampling parameters, by vLLM's own rules.

        Raises:
            ParameterError, VLLMValidationError, RequestValidationError, Refusal: the request
                cannot be honoured.
        """
        with _said_of_prompt(body.standard):
            request = _vllm_request(body.standard)
            serving = self._chat if _is_chat(request) else self._completions
            with named_as_written(request):
                if _is_chat(request):
                    rendered = await serving.render_chat_request(request)
                else:
                    rendered = await serving.render_completion_request(request)
        if isinstance(rendered, ErrorResponse):
            raise Refusal(rendered)
        with named_as_written(request):
            params = request.to_sampling_params(1, serving.default_sampling_params)
        inputs = rendered[1] if isinstance(rendered, tuple) else rendered
        if len(inputs) != 1:
            raise ParameterError("prompt", f"{len(inputs)} prompts", "send one prompt a request")
        params.extra_args = _arguments(params.extra_args or {}, body.arguments)
        lora_request = self.models.lora_requests.get(request.model)
        return Prepared(
            prompt=inputs[0],
            prompt_tokens=len(inputs[0]["prompt_token_ids"]),
            params=params,
            model=self.models.model_name(lora_request),
            request_id=f"{route}-{request.request_id or random_uuid()}",
            lora_request=lora_request,
            priority=request.priority,
            stream=bool(request.stream),
        )

    def start(
        self, prepared: Prepared, params: SamplingParams, number: int = 0
    ) -> AsyncGenerator[RequestOutput, None]:
        """Check a request and return its outputs; the engine gets it when they are first asked for,
        and forgets it when their reader is cancelled.

        Raises:
            VLLMValidationError: admission refuses it.
        """
        return self.engine.generate(
            prepared.prompt,
            params,
            f"{prepared.request_id}-{number}",
            lora_request=prepared.lora_request,
            priority=prepared.priority,
        )

    async def finish(
        self, prepared: Prepared, params: SamplingParams, number: int = 0
    ) -> RequestOutput:
        """The last output of a request.

        Raises:
            VLLMValidationError: admission refuses it.
            GenerationError: the engine failed.
        """
        params.output_kind = RequestOutputKind.FINAL_ONLY
        return await last_of(self.start(prepared, params, number))

    async def together(
        self, jobs: Iterable[Callable[[], Coroutine[Any, Any, Result]]]
    ) -> list[Result]:
        """Results of many jobs, a bounded number of them at a time; the first failure ends all."""
        gate = asyncio.Semaphore(self.limit)

        async def one(job: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
            async with gate:
                return await job()

        tasks = [asyncio.create_task(one(job)) for job in jobs]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()


async def last_of(outputs: AsyncIterator[RequestOutput]) -> RequestOutput:
    """The last output of a request.

    Raises:
        GenerationError: the engine failed.
    """
    last: RequestOutput | None = None
    async for output in outputs:
        last = output
    return checked(last)


def checked(output: RequestOutput | None) -> RequestOutput:
    """An output that the engine did not fail to make.

    Raises:
        GenerationError: it did.
    """
    if output is None or any(one.finish_reason == "error" for one in output.outputs):
        raise GenerationError
    return output


def _vllm_request(standard: dict[str, Any]) -> CompletionRequest | ChatCompletionRequest:
    if "prompt" in standard and "messages" in standard:
        raise ParameterError(
            "messages", brief(standard["messages"]), "send either prompt or messages, not both"
        )
    if "prompt" not in standard and "messages" not in standard:
        raise ParameterError("prompt", None, "send either prompt or messages")
    messages = standard.get("messages", [{}])
    if not isinstance(messages, list) or not messages:
        raise ParameterError("messages", brief(messages), "must be a list of messages")
    kind = CompletionRequest if "prompt" in standard else ChatCompletionRequest
    own = {"max_tokens": 1} if kind is CompletionRequest else {}  # The template says how many.
    unread = standard.keys() - kind.model_fields.keys()
    if unread:
        name = min(unread)
        raise ParameterError(name, brief(standard[name]), "has a meaning with messages only")
    try:
        return kind.model_validate(standard | own)
    except ValidationError as error:
        errors: Sequence[Any] = error.errors()
        places = [dict(one, loc=("body", *one["loc"])) for one in errors]
        raise RequestValidationError(places) from error


def _is_chat(request: CompletionRequest | ChatCompletionRequest) -> bool:
    return isinstance(request, ChatCompletionRequest)


@contextmanager
def _said_of_prompt(standard: Mapping[str, Any]) -> Iterator[None]:
    """What vLLM refuses without a name while it renders a prompt is said of the prompt."""
    field = "messages" if "messages" in standard else "prompt"
    try:
        yield
    except VLLMValidationError as error:
        error.parameter = error.parameter or field
        raise
    except TypeError as error:
        raise ParameterError(field, brief(standard.get(field)), str(error)) from error


def _arguments(wrapped: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Parameters, sent as fields or in `vllm_xargs`."""
    for name in wrapped.keys() & plain.keys():
        raise ParameterError(
            name, brief(plain[name]), "sent as a field and in vllm_xargs; send it once"
        )
    return wrapped | plain
