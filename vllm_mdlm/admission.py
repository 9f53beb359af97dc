"""Admission: from what a caller asked to a plan that the engine can execute, or a refusal.

Runs in the front end, before a request costs the engine anything.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from vllm_mdlm.errors import ParameterError
from vllm_mdlm.params import RequestPlan, canvas_shape, decode, merge, sampler_columns

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams

PLAN_KEY = "mdlm_plan"
"""Key of the plan in `SamplingParams.extra_args` on its way to the engine."""

DEFAULTS_KEY = "mdlm"
"""Key of the server-wide defaults in `--additional-config`."""


def server_defaults(vllm_config: VllmConfig) -> dict[str, Any]:
    """Server-wide parameter defaults, from `--additional-config '{"mdlm": {...}}'`."""
    additional = vllm_config.additional_config
    return dict(additional.get(DEFAULTS_KEY, {})) if isinstance(additional, dict) else {}


def pass_limit(vllm_config: VllmConfig) -> tuple[int, str]:
    """Largest prompt plus canvas, in tokens, and the name of what limits it."""
    context = vllm_config.model_config.max_model_len
    budget = vllm_config.scheduler_config.max_num_batched_tokens
    if budget < context:
        return budget, "what one pass may hold (--max-num-batched-tokens)"
    return context, "the context (--max-model-len)"


def plan_request(
    params: SamplingParams, prompt_len: int, defaults: dict[str, Any], limit: int, limit_name: str
) -> RequestPlan:
    """Check a request and make every choice that it leaves open.

    Args:
        params: the caller's sampling parameters, `max_tokens` set.
        prompt_len: prompt tokens.
        defaults: server-wide defaults.
        limit: largest prompt plus canvas, tokens.
        limit_name: what sets the limit, for the message.

    Raises:
        ParameterError: something cannot be honoured; the message names it.
    """
    refuse_unsupported(params)
    arguments = dict(params.extra_args or {})
    common, own = decode(merge(defaults, arguments))
    room = limit - prompt_len
    assert params.max_tokens is not None
    gen_length, block_length, block_steps = canvas_shape(common, params.max_tokens, room)
    if gen_length > room:
        name = "gen_length" if common.gen_length is not None else "max_tokens"
        raise ParameterError(
            name,
            gen_length,
            f"prompt ({prompt_len} tokens) plus canvas ({gen_length}) exceed {limit_name}, "
            f"{limit} tokens; ask for at most {max(room, 0)}",
        )
    return RequestPlan(
        sampler=common.sampler,
        sampler_params=sampler_columns(own),
        gen_length=gen_length,
        block_length=block_length,
        block_steps=block_steps,
        commit_order=common.commit_order,
        suppress_eos=common.suppress_eos,
        seed=random.getrandbits(62) if params.seed is None else params.seed,
    )


_NEUTRAL = {
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
    "prompt_logprobs": None,
    "prompt_logprob_token_ids": None,
    "logprob_token_ids": None,
    "structured_outputs": None,
    "thinking_token_budget": None,
    "repetition_detection": None,
    "trace_decode_token_ids": None,
}
"""Sampling parameters that are not honoured, with the value that asks for nothing."""


def refuse_unsupported(params: SamplingParams) -> None:
    """Refuse standard parameters that have no meaning here, or none yet.

    Raises:
        ParameterError: names the first one that asks for something.
    """
    for name, neutral in _NEUTRAL.items():
        value = getattr(params, name, neutral)
        if value != neutral and not (neutral is None and not value):
            raise ParameterError(
                name, value, "not supported by masked diffusion models here; leave it out"
            )
