"""The entry point `vllm.endpoint_plugins`: vLLM's door for routes of others."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from vllm_mdlm.routes import infill, loglikelihood, reasoning_score
from vllm_mdlm.routes.door import Door

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.datastructures import State
    from vllm.engine.protocol import EngineClient
    from vllm.tasks import SupportedTask


class Routes:
    """vLLM's `EndpointPlugin`."""

    name = "mdlm"
    required_tasks: tuple[SupportedTask, ...] | None = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes; vLLM's middleware and error handlers act on them as on its own."""
        for module in (infill, reasoning_score, loglikelihood):
            app.include_router(module.router)

    async def init_state(
        self, engine_client: EngineClient | None, state: State, args: Namespace
    ) -> None:
        """Give the routes the engine; called after vLLM's own serving objects are made."""
        assert engine_client is not None, "the task generate comes with an engine"
        state.mdlm = Door(engine_client, state)
