"""`POST /v1/loglikelihood`: LLaDA's Monte-Carlo bound on the log-likelihood of a continuation.

Source: LLaDA, arXiv 2502.09992, `get_log_likelihood` and `suffix_greedy_prediction` of its
published evaluation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from starlette.requests import Request
from vllm.exceptions import VLLMValidationError

from vllm_mdlm.errors import ParameterError
from vllm_mdlm.params import Flag
from vllm_mdlm.results import infill, num_passes
from vllm_mdlm.routes.answering import post, read_body
from vllm_mdlm.routes.body import PASS_PARAMETERS, brief, decode, split
from vllm_mdlm.routes.door import Door, Prepared
from vllm_mdlm.routes.estimators import draw_masks, estimate, sample_value

if TYPE_CHECKING:
    from vllm.tokenizers import TokenizerLike

router = APIRouter()

MAX_PAIRS = 1024
MAX_SAMPLES = 65536
"""Bounds of one call (our choice)."""

STANDARD = frozenset({"model", "priority", "request_id", "user"})


class LikelihoodFields(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of the route itself."""

    context: str | list[Any]
    continuation: str | list[Any]
    mc_samples: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLES)] = 128
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] = 0
    greedy: Flag = 0


class Pair(NamedTuple):
    """A context and its continuation, in tokens."""

    context: list[int]
    continuation: list[int]


class Ready(NamedTuple):
    """A pair whose samples are drawn: `masks` by sample, and the prompt as the engine takes it."""

    pair: Pair
    masks: list[tuple[int, ...]]
    prepared: Prepared


@post(router, "/v1/loglikelihood")
async def create_loglikelihood(
    raw_request: Request, body: Annotated[dict[str, Any], Depends(read_body)]
) -> Any:
    door = Door.of(raw_request)
    parts = split(body, LikelihoodFields.__struct_fields__, STANDARD, PASS_PARAMETERS)
    fields = decode(parts.own, LikelihoodFields)
    ready = []
    for pair in read_pairs(door, fields):
        standard = {"prompt": pair.context, "temperature": 0.0, **parts.standard}
        with _said_as_written():
            prepared = await door.prepare(parts._replace(standard=standard), "loglikelihood")
        masks = await asyncio.to_thread(
            draw_masks, len(pair.continuation), fields.mc_samples, fields.seed
        )
        ready.append(Ready(pair, masks, prepared))
    with _said_as_written():
        results = await measure(door, ready, greedy=bool(fields.greedy))
    prompt_tokens = sum(one.prepared.prompt_tokens for one in ready)
    return JSONResponse(
        {
            "id": ready[0].prepared.request_id,
            "object": "loglikelihood",
            "created": int(time.time()),
            "model": ready[0].prepared.model,
            "results": results,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": 0,
                "total_tokens": prompt_tokens,
                "forward_passes": sum(result["forward_passes"] for result in results),
            },
        }
    )


async def measure(door: Door, ready: Sequence[Ready], *, greedy: bool) -> list[dict[str, Any]]:
    """The result of every pair; the passes of all share the bounded number in flight."""
    # Of equal masks one is scored: short continuations have few.
    places = [(index, mask) for index, one in enumerate(ready) for mask in dict.fromkeys(one.masks)]
    jobs = [
        partial(_score, door, ready[index], mask, number)
        for number, (index, mask) in enumerate(places)
    ]
    found = dict(zip(places, await door.together(jobs), strict=True))
    answers: Sequence[tuple[bool | None, int]] = [(None, 0)] * len(ready)
    if greedy:
        answers = await door.together(
            [partial(_is_greedy, door, one, len(jobs) + i) for i, one in enumerate(ready)]
        )
    results = []
    for index, (one, (is_greedy, passes)) in enumerate(zip(ready, answers, strict=True)):
        scored = {mask: found[index, mask] for mask in one.masks}
        length = len(one.pair.continuation)
        values = [sample_value(length, scored[mask][0]) for mask in one.masks]
        bound = estimate(values, [len(mask) for mask in one.masks])
        results.append(
            {
                "index": index,
                "loglikelihood": bound.mean,
                "standard_error": bound.standard_error,
                "num_tokens": length,
                "mc_samples": len(values),
                "is_greedy": is_greedy,
                "forward_passes": passes + sum(taken for _, taken in scored.values()),
            }
        )
    return results


def masked_template(continuation: Sequence[int], mask: Sequence[int]) -> list[Any]:
    """The continuation as a template that asks for the tokens at the masked positions."""
    items: list[Any] = []
    hidden = set(mask)
    for is_hidden, group in groupby(range(len(continuation)), key=hidden.__contains__):
        tokens = [continuation[position] for position in group]
        items.append({"mask": len(tokens), "target": tokens} if is_hidden else tokens)
    return items


async def _score(
    door: Door, one: Ready, mask: tuple[int, ...], number: int
) -> tuple[list[float], int]:
    items = masked_template(one.pair.continuation, mask)
    return await door.score(one.prepared, items, number)


async def _is_greedy(door: Door, one: Ready, number: int) -> tuple[bool, int]:
    """Whether the model, one most probable token a pass, writes the continuation."""
    length = len(one.pair.continuation)
    params = one.prepared.params.clone()
    params.extra_args = {
        **(params.extra_args or {}),
        "sampler": "low_confidence",
        "template": [{"mask": length, "block_length": length}],
    }
    (output,) = (await door.finish(one.prepared, params, number)).outputs
    found = infill(output)
    assert found is not None
    return list(found.token_ids) == one.pair.continuation, num_passes(output)


def read_pairs(door: Door, fields: LikelihoodFields) -> list[Pair]:
    """Tokens of every context and continuation; one context goes with every continuation.

    Raises:
        ParameterError: a field holds something else, or nothing.
    """
    contexts = _texts("context", fields.context)
    continuations = _texts("continuation", fields.continuation)
    if len(contexts) == 1:
        contexts = contexts * len(continuations)
    if len(contexts) != len(continuations):
        raise ParameterError(
            "continuation",
            f"{len(continuations)} continuations",
            f"send as many as contexts, which are {len(contexts)}, or one context",
        )
    if len(continuations) * fields.mc_samples > MAX_SAMPLES:
        raise ParameterError(
            "mc_samples",
            fields.mc_samples,
            f"times {len(continuations)} continuations exceeds {MAX_SAMPLES} samples; send fewer "
            "a call",
        )
    pairs = []
    for context, continuation in zip(contexts, continuations, strict=True):
        pair = tokenize(door.tokenizer, context, continuation)
        for name, tokens in pair._asdict().items():
            if not tokens:
                raise ParameterError(name, brief(getattr(fields, name)), "holds no token")
            door.check_tokens(name, tokens)
        pairs.append(pair)
    return pairs


def tokenize(
    tokenizer: TokenizerLike, context: str | list[int], continuation: str | list[int]
) -> Pair:
    """Tokens of a pair, two texts as LLaDA's evaluation makes them: spaces that end the context
    move to the continuation, and the continuation is what the whole has beyond the context."""
    if isinstance(context, str) and isinstance(continuation, str):
        stripped = context.rstrip()
        continuation = context[len(stripped) :] + continuation
        head = list(tokenizer.encode(stripped))
        return Pair(head, list(tokenizer.encode(stripped + continuation))[len(head) :])
    if isinstance(context, str):
        context = list(tokenizer.encode(context))
    if isinstance(continuation, str):
        continuation = list(tokenizer.encode(continuation, add_special_tokens=False))
    return Pair(context, continuation)


def _texts(name: str, value: str | list[Any]) -> list[str | list[int]]:
    """A text, the tokens of one, or a list of either."""
    if isinstance(value, str) or all(isinstance(item, int) for item in value):
        value = [value]
    for item in value:
        if not isinstance(item, str) and not _is_tokens(item):
            raise ParameterError(
                name, brief(item), "must be text, a list of token ids, or a list of those"
            )
    if len(value) > MAX_PAIRS:
        raise ParameterError(name, f"{len(value)} texts", f"send at most {MAX_PAIRS} a call")
    return list(value)


def _is_tokens(item: object) -> bool:
    return isinstance(item, list) and all(type(token) is int for token in item)


@contextmanager
def _said_as_written() -> Iterator[None]:
    """The caller wrote no prompt and no template, but a context and a continuation."""
    try:
        yield
    except VLLMValidationError as error:
        got = error.parameter or ""
        written = {"prompt": "context", "template": "continuation"}.get(got.partition("[")[0])
        if written is None:
            raise
        message = str(error.args[0]).replace(got, written, 1)
        raise VLLMValidationError(message, parameter=written) from error
