"""From the JSON body of a request to fields of known names and types."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.requests import Request

from vllm_mdlm.errors import ParameterError

Fields = TypeVar("Fields", bound=msgspec.Struct)

PROMPT_FIELDS = frozenset(
    {
        "model",
        "prompt",
        "messages",
        "add_special_tokens",
        "chat_template",
        "chat_template_kwargs",
        "add_generation_prompt",
        "continue_final_message",
        "documents",
        "cache_salt",
        "priority",
        "request_id",
        "user",
    }
)
"""Standard fields that say whose request it is and what its prompt is."""

FILLING_FIELDS = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "n",
        "logit_bias",
        "allowed_token_ids",
        "bad_words",
        "stream",
        "stream_options",
        "vllm_xargs",
    }
)
"""Standard fields that say how a template is filled."""


PASS_PARAMETERS = frozenset({"cfg_scale", "kv_cache"})
"""Parameters that change a forward pass, and not only which tokens it commits."""


class Body(NamedTuple):
    """A request's body, by who reads it."""

    own: dict[str, Any]  # fields of the route
    arguments: dict[str, Any]  # parameters of a request to one of our models
    standard: dict[str, Any]  # fields of vLLM's chat and completion requests


async def read_json(raw_request: Request) -> dict[str, Any]:
    """The body as an object; fields that are null are left out.

    Raises:
        ParameterError: it is no JSON object.
    """
    try:
        body = json.loads(await raw_request.body())
    except (ValueError, RecursionError) as error:
        raise ParameterError("body", type(error).__name__, f"must be JSON: {error}") from None
    if not isinstance(body, dict):
        raise ParameterError("body", type(body).__name__, "must be a JSON object")
    for name, value in body.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError:  # JSON can escape half a surrogate pair.
            raise ParameterError(
                name.encode("ascii", "replace").decode(), brief(value), "must be valid Unicode"
            ) from None
    return {name: value for name, value in body.items() if value is not None}


def split(
    body: Mapping[str, Any],
    own: Collection[str],
    standard: Collection[str],
    parameters: Collection[str],
) -> Body:
    """Sort the fields of a body by who reads them.

    Args:
        body: names and values.
        own: names of the route's own fields.
        standard: names of the standard fields that mean something to the route.
        parameters: names of the parameters that do.

    Raises:
        ParameterError: a name that nobody reads.
    """
    readers = (set(own), set(parameters) - set(own), set(standard))
    known = set().union(*readers)
    for name, value in body.items():
        if name not in known:
            wanted = f"not a field of this route; known: {', '.join(sorted(known))}"
            raise ParameterError(name, brief(value), wanted)
    parts = [{name: body[name] for name in body if name in names} for names in readers]
    return Body(*parts)


def decode(values: Mapping[str, Any], kind: type[Fields]) -> Fields:
    """The route's own fields, each of its declared type.

    Raises:
        ParameterError: names the field that is missing or wrong.
    """
    for field in msgspec.structs.fields(kind):
        if field.name not in values:
            if field.required:
                raise ParameterError(field.name, None, "this field is required")
            continue
        value = values[field.name]
        if isinstance(value, float) and not math.isfinite(value):
            raise ParameterError(field.name, value, "must be a finite number")
        try:
            msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            raise ParameterError(field.name, brief(value), str(error)) from None
    return msgspec.convert(dict(values), kind)


def brief(value: object, limit: int = 80) -> object:
    """A value as an error shows it: whole where it is short."""
    text = repr(value)
    return value if len(text) <= limit else f"{text[:limit]}..."
