"""`POST /v1/infill`: fill the free spans of a template.

Source of the idea: reasoning as infilling, No Compute Left Behind, arXiv 2510.19990.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import Request
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.entrypoints.serve.utils.sse_keep_alive import with_sse_keep_alive

from vllm_mdlm.params import parameter_names
from vllm_mdlm.results import infill, num_passes, trace
from vllm_mdlm.routes.answering import post, read_body
from vllm_mdlm.routes.body import FILLING_FIELDS, PROMPT_FIELDS, decode, split
from vllm_mdlm.routes.canvas import Layout, SpanStream, name_spans
from vllm_mdlm.routes.door import Door, Prepared, checked, last_of

router = APIRouter()


class InfillFields(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of the route itself; the others are parameters and standard fields."""

    template: Annotated[list[Any], msgspec.Meta(min_length=1)]


@post(router, "/v1/infill")
async def create_infill(
    raw_request: Request, body: Annotated[dict[str, Any], Depends(read_body)]
) -> Any:
    door = Door.of(raw_request)
    standard = PROMPT_FIELDS | FILLING_FIELDS
    parts = split(body, InfillFields.__struct_fields__, standard, parameter_names())
    items = name_spans(decode(parts.own, InfillFields).template)
    layout = door.layout(items)
    prepared = await door.prepare(parts, "infill")
    params = prepared.params
    params.extra_args = {**(params.extra_args or {}), "template": items}
    writer = Writer(prepared, layout)
    results = door.start(prepared, params)
    if prepared.stream:
        interval = getattr(raw_request.app.state.args, "sse_keep_alive_interval", 0)
        events = with_sse_keep_alive(writer.events(results), float(interval))
        return StreamingResponse(events, media_type="text/event-stream")
    for output in (await last_of(results)).outputs:
        writer.add(output)
    return JSONResponse(writer.response())


class Writer:
    """Writes one call's response, whole or in events."""

    def __init__(self, prepared: Prepared, layout: Layout) -> None:
        self.prepared = prepared
        self.layout = layout
        self.choices: dict[int, dict[str, Any]] = {}
        self.filled = 0
        self._head = {
            "id": prepared.request_id,
            "object": "infill",
            "created": int(time.time()),
            "model": prepared.model,
        }

    def add(self, output: Any) -> None:
        """Take a finished `CompletionOutput`."""
        found = infill(output)
        assert found is not None
        canvas = found.token_ids
        spans = self.layout.spans(canvas, found.logprobs)
        mask = self.layout.markers.mask
        self.filled += sum(token != mask for span in spans.values() for token in span["token_ids"])
        self.choices[output.index] = {
            "index": output.index,
            "text": self.layout.text(canvas),
            "spans": spans,
            "answer_entropy": found.answer_entropy,
            "exited_early": found.exited_early,
            "forward_passes": num_passes(output),
        }
        traced = trace(output)
        if traced is not None:
            self.choices[output.index]["trace"] = traced

    def response(self) -> dict[str, Any]:
        """The response of a call all of whose choices are finished."""
        choices = [self.choices[index] for index in sorted(self.choices)]
        prompt = self.prepared.prompt_tokens
        return {
            **self._head,
            "choices": choices,
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": self.filled,
                "total_tokens": prompt + self.filled,
                "forward_passes": sum(choice["forward_passes"] for choice in choices),
            },
        }

    async def events(self, results: AsyncIterator[Any]) -> AsyncGenerator[str, None]:
        """Server-sent events: pieces of spans, the whole response, the end."""
        streams: dict[int, SpanStream] = {}
        try:
            async for result in results:
                for output in checked(result).outputs:
                    stream = streams.setdefault(output.index, SpanStream(self.layout))
                    for name, text, tokens in stream.feed(output.token_ids):
                        piece = {
                            "index": output.index,
                            "span": name,
                            "text": text,
                            "token_ids": tokens,
                        }
                        yield _event({**self._head, "object": "infill.chunk", "choices": [piece]})
                    if output.finish_reason is not None:
                        self.add(output)
            yield _event(self.response())
        except Exception as error:
            # The status is sent: what is left is to say it in the stream, as vLLM does.
            answer: ErrorResponse = create_error_response(error)
            yield _event(answer.model_dump())
        yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
