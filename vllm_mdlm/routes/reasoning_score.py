"""`POST /v1/reasoning_score`: how probable a known answer is, given a part of the reasoning.

Source: No Compute Left Behind, arXiv 2510.19990, the score of intermediate reasoning.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from starlette.requests import Request

from vllm_mdlm.errors import ParameterError
from vllm_mdlm.routes.answering import post, read_body
from vllm_mdlm.routes.body import PASS_PARAMETERS, PROMPT_FIELDS, brief, decode, split
from vllm_mdlm.routes.canvas import check_name, name_spans
from vllm_mdlm.routes.door import Door
from vllm_mdlm.templates import FreeSpan

router = APIRouter()

MAX_REASONINGS = 1024
"""Partial reasonings of one call (our choice)."""


class ScoreFields(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of the route itself."""

    template: Annotated[list[Any], msgspec.Meta(min_length=1)]
    answer: str
    target: Annotated[str, msgspec.Meta(min_length=1)]
    reasoning: str = "reasoning"
    reasonings: (
        Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_REASONINGS)] | None
    ) = None


@post(router, "/v1/reasoning_score")
async def create_reasoning_score(
    raw_request: Request, body: Annotated[dict[str, Any], Depends(read_body)]
) -> Any:
    door = Door.of(raw_request)
    own_names = ScoreFields.__struct_fields__
    parts = split(body, own_names, PROMPT_FIELDS, PASS_PARAMETERS)
    fields = decode(parts.own, ScoreFields)
    target = door.encode(fields.target)
    door.check_tokens("target", target)
    templates = partial_templates(door, fields, target)
    prepared = await door.prepare(parts, "reasoning_score")
    jobs = [
        partial(door.score, prepared, template, number) for number, template in enumerate(templates)
    ]
    found = await door.together(jobs)
    scores = [
        {
            "index": index,
            "logprob": math.fsum(logprobs),
            "token_logprobs": logprobs,
            "token_ids": target,
            "forward_passes": passes,
        }
        for index, (logprobs, passes) in enumerate(found)
    ]
    prompt_tokens = prepared.prompt_tokens * len(scores)
    return JSONResponse(
        {
            "id": prepared.request_id,
            "object": "reasoning_score",
            "created": int(time.time()),
            "model": prepared.model,
            "scores": scores,
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": 0,
                "total_tokens": prompt_tokens,
                "forward_passes": sum(passes for _, passes in found),
            },
        }
    )


def partial_templates(door: Door, fields: ScoreFields, target: Sequence[int]) -> list[list[Any]]:
    """Templates to be scored, one for each partial reasoning.

    Raises:
        ParameterError: a name that no free span has, or a text that does not fit in its span.
    """
    items = name_spans(fields.template)
    template = door.layout(items).template
    check_name(template, "answer", fields.answer)
    for index, span in enumerate(template.spans):
        if span.target is not None:
            raise ParameterError(
                "template", f"target of free span {index}", "send the field `target` instead"
            )
    spans = {str(span.name): span for span in template.spans}
    _check_fit("target", fields.target, target, spans[fields.answer])
    if fields.reasonings is None:
        return [fill(items, {}, fields.answer, target)]
    check_name(template, "reasoning", fields.reasoning)
    if fields.reasoning == fields.answer:
        raise ParameterError("reasoning", fields.reasoning, "must not be the answer's span")
    filled = []
    for index, text in enumerate(fields.reasonings):
        tokens = door.encode(text)
        door.check_tokens(f"reasonings[{index}]", tokens)
        _check_fit(f"reasonings[{index}]", text, tokens, spans[fields.reasoning])
        known = {fields.reasoning: tokens}
        filled.append(fill(items, known, fields.answer, target))
    return filled


def _check_fit(field: str, text: str, tokens: Sequence[int], span: FreeSpan) -> None:
    room = span.end - span.start
    if len(tokens) > room:
        raise ParameterError(
            field,
            brief(text),
            f"takes {len(tokens)} tokens, the span {span.name!r} has {room}; make the span longer",
        )


def fill(
    items: Sequence[Any], known: dict[str, list[int]], answer: str, target: Sequence[int]
) -> list[Any]:
    """Write known tokens at the start of their spans and ask for the score of the target.

    Args:
        items: the template, every free span named.
        known: tokens by span name, no longer than the span.
        answer: name of the span that the target stands at the start of.
        target: its tokens, no more than the span has.

    Returns:
        The template; what is neither known nor scored stays masked.
    """
    filled: list[Any] = []
    for item in items:
        if not isinstance(item, dict):
            filled.append(item)
            continue
        tokens = known.get(item["name"], [])
        scored = target if item["name"] == answer else []
        rest = item["mask"] - len(tokens) - len(scored)
        filled += [list(tokens)] if tokens else []
        filled += [{"mask": len(scored), "target": list(scored)}] if scored else []
        filled += [{"mask": rest}] if rest else []
    return filled
