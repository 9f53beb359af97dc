"""How a route takes a request and refuses one: as vLLM's own routes do."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.utils.api_utils import (
    load_aware_call,
    validate_json_request,
    with_cancellation,
)
from vllm.exceptions import VLLMValidationError

from vllm_mdlm.errors import ParameterError
from vllm_mdlm.routes.body import read_json

Handler = Callable[..., Awaitable[Any]]


class Refusal(Exception):
    """vLLM's own answer to a request that it refuses."""

    def __init__(self, response: ErrorResponse) -> None:
        self.response = response
        super().__init__(response.error.message)


def post(router: APIRouter, path: str) -> Callable[[Handler], Handler]:
    """Add a route that behaves as vLLM's own do: it takes JSON, counts as load, ends when its
    client leaves, and answers a caller's mistake by an error that names the field."""

    def add(handler: Handler) -> Handler:
        route: Handler = with_cancellation(load_aware_call(_refusing(handler)))
        router.post(path, dependencies=[Depends(validate_json_request)])(route)
        return handler

    return add


def _refusing(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def answer(*args: Any, **kwargs: Any) -> Any:
        try:
            return await handler(*args, **kwargs)
        except ParameterError as error:
            raise VLLMValidationError(str(error), parameter=error.parameter) from error
        except Refusal as refusal:
            response = refusal.response
            return JSONResponse(response.model_dump(), status_code=response.error.code)

    return answer


read_body = _refusing(read_json)
"""A route's dependency: the body as an object."""
