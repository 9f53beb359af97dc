"""Admission: from what a caller asked to a plan that the engine can execute, or a refusal.

Runs in the front end, before a request costs the engine anything.
"""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from vllm_mdlm.chains import check_chain, plan_chain
from vllm_mdlm.errors import ParameterError
from vllm_mdlm.params import (
    CommonParams,
    RequestPlan,
    TemplateShape,
    canvas_shape,
    decode,
    merge,
    sampler_columns,
    template_shape,
)
from vllm_mdlm.samplers.base import ChainParams
from vllm_mdlm.templates import Encode, parse_template

if TYPE_CHECKING:
    from vllm.config import ParallelConfig, VllmConfig
    from vllm.sampling_params import SamplingParams

PLAN_KEY = "mdlm_plan"
"""Key of the plan in `SamplingParams.extra_args` on its way to the engine."""

NUM_FINAL_KEY = "mdlm_num_final"
"""Key of the canvas tokens already sent, where a request with a template was preempted."""

DEFAULTS_KEY = "mdlm"
"""Key of the server-wide defaults in `--additional-config`."""


def server_defaults(vllm_config: VllmConfig) -> dict[str, Any]:
    """Server-wide parameter defaults, from `--additional-config '{"mdlm": {...}}'`.

    Raises:
        ParameterError: they are not an object.
    """
    additional = vllm_config.additional_config
    defaults = additional.get(DEFAULTS_KEY, {}) if isinstance(additional, dict) else {}
    if not isinstance(defaults, dict):
        raise ParameterError(
            DEFAULTS_KEY, defaults, "must be an object of parameter names and values"
        )
    return dict(defaults)


class ServerRules(NamedTuple):
    """What a server's configuration says about every request."""

    defaults: dict[str, Any]  # of the request parameters
    limit: int  # largest prompt plus canvas, tokens
    limit_name: str  # what sets it
    guided_limit: int  # the same for a guided request, which is computed twice; 0: impossible
    default_max_tokens: int
    vocab_size: int
    mask_token_id: int
    eos_token_id: int | None


def server_rules(vllm_config: VllmConfig) -> ServerRules:
    """Read the rules from the engine's configuration."""
    context = vllm_config.model_config.max_model_len
    budget, budget_name = _budget(vllm_config)
    hf_config = vllm_config.model_config.hf_config
    return ServerRules(
        defaults=server_defaults(vllm_config),
        limit=min(budget, context),
        limit_name=(
            f"what one pass may hold ({budget_name})"
            if budget < context
            else "the context (--max-model-len)"
        ),
        guided_limit=_guided_limit(vllm_config),
        default_max_tokens=hf_config.canvas_length,
        vocab_size=hf_config.token_vocab_size,
        mask_token_id=hf_config.mask_token_id,
        eos_token_id=hf_config.eos_token_id,
    )


def _budget(vllm_config: VllmConfig) -> tuple[int, str]:
    """Tokens that one pass may hold, and the option that says so."""
    scheduler = vllm_config.scheduler_config
    budgets = [(scheduler.max_num_batched_tokens, "--max-num-batched-tokens")]
    if scheduler.max_num_scheduled_tokens is not None:
        budgets.append((scheduler.max_num_scheduled_tokens, "--max-num-scheduled-tokens"))
    return min(budgets)


def _guided_limit(vllm_config: VllmConfig) -> int:
    scheduler = vllm_config.scheduler_config
    if min(scheduler.max_num_seqs, scheduler.max_num_active_seqs or scheduler.max_num_seqs) < 2:
        return 0
    limits = [vllm_config.model_config.max_model_len, _budget(vllm_config)[0] // 2]
    cache = vllm_config.cache_config
    if cache.num_gpu_blocks:
        # One block is vLLM's own and some may have to stay free; each of the pair has whole blocks.
        blocks = cache.num_gpu_blocks // _num_engines(vllm_config.parallel_config)
        kept = 1 + int(scheduler.watermark * blocks)
        limits.append(max(blocks - kept, 0) // 2 * cache.block_size)
    return min(limits)


def _num_engines(parallel: ParallelConfig) -> int:
    """Engines of which a front end adds up the cache blocks."""
    if parallel.data_parallel_rank_local is not None:
        return 1  # offline, every rank has a front end of its own
    if parallel.local_engines_only:
        return parallel.data_parallel_size_local
    return parallel.data_parallel_size


def plan_request(
    params: SamplingParams, prompt_len: int, rules: ServerRules, encode: Encode | None = None
) -> RequestPlan:
    """Check a request and make every choice that it leaves open.

    Args:
        params: the caller's sampling parameters; not modified.
        prompt_len: prompt tokens.
        rules: the server's.
        encode: the server's tokenizer, for the text of a template; None without one.

    Raises:
        ParameterError: something cannot be honoured; the message names it.
    """
    refuse_unsupported(params)
    check_numbers(params)
    check_stop(params)
    asked = params.extra_args or {}
    common, own = decode(merge(rules.defaults, asked))
    template = _template_of(params, common, rules, encode)
    sampler, commit_order, chains = common.sampler, common.commit_order, None
    if isinstance(own, ChainParams):
        proposal = check_chain(common, own, params, asked)
        sampler, commit_order, chains, own = proposal.name, "position_first", own, proposal.params()
    check_tokens(params, rules, without_eos=common.suppress_eos == "logits")
    limit, limit_name = rules.limit, rules.limit_name
    if common.cfg_scale > 0:
        if rules.guided_limit == 0:
            raise ParameterError(
                "cfg_scale",
                common.cfg_scale,
                "a guided request takes two places in the batch and this server has one "
                "(--max-num-seqs, --max-num-active-seqs); send cfg_scale=0",
            )
        if rules.guided_limit < limit:
            limit, limit_name = rules.guided_limit, "half of what one pass and the cache may hold"
    room = limit - prompt_len
    max_tokens = rules.default_max_tokens if params.max_tokens is None else params.max_tokens
    if template is None:
        gen_length, block_length, block_steps = canvas_shape(common, max_tokens, room)
    else:
        gen_length, block_length, block_steps, _ = template
    if gen_length > room:
        name = "gen_length" if common.gen_length is not None else "max_tokens"
        name = name if template is None else "template"
        raise ParameterError(
            name,
            gen_length,
            f"prompt ({prompt_len} tokens) plus canvas ({gen_length}) exceed {limit_name}, "
            f"{limit} tokens; ask for at most {max(room, 0)}",
        )
    if params.min_tokens > gen_length:
        raise ParameterError(
            "min_tokens",
            params.min_tokens,
            f"exceeds the canvas, gen_length {gen_length}; ask for at most that many",
        )
    return RequestPlan(
        sampler=sampler,
        sampler_params=sampler_columns(own),
        gen_length=gen_length,
        block_length=block_length,
        block_steps=block_steps,
        kv_cache=common.kv_cache,
        commit_order=commit_order,
        suppress_eos=common.suppress_eos,
        cfg_scale=common.cfg_scale,
        trace=common.trace,
        template=None if template is None else template.plan,
        chain=(
            None if chains is None else plan_chain(common.sampler, chains, gen_length, block_length)
        ),
    )


def _template_of(
    params: SamplingParams, common: CommonParams, rules: ServerRules, encode: Encode | None
) -> TemplateShape | None:
    """The canvas that a request describes, or None where it describes none."""
    if common.template is None:
        for name in ("answer", "early_exit"):
            if getattr(common, name) is not None:
                raise ParameterError(name, getattr(common, name), "needs a template")
        return None
    if params.stop:
        raise ParameterError(
            "stop", params.stop, "would cut a template, which is returned whole; leave it out"
        )
    template = parse_template(
        common.template,
        encode,
        mask_token_id=rules.mask_token_id,
        vocab_size=rules.vocab_size,
        most_positions=rules.limit,
    )
    if template.scores:
        for name in ("logit_bias", "allowed_token_ids", "bad_words"):
            if getattr(params, name):
                raise ParameterError(
                    name,
                    getattr(params, name),
                    "has no effect on the scores of targets; leave it out",
                )
    return template_shape(common, template, rules.mask_token_id, params.extra_args or {})


def request_seed(params: SamplingParams) -> int:
    """The request's seed, or a fresh one when it names none."""
    return secrets.randbits(62) if params.seed is None else params.seed


NOT_HONOURED = {
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
    for name, neutral in NOT_HONOURED.items():
        value = getattr(params, name, neutral)
        if value is not None and value != neutral:
            raise ParameterError(
                name, value, "not supported by masked diffusion models here; leave it out"
            )


def check_numbers(params: SamplingParams) -> None:
    """Refuse numbers that are none, or that no 64-bit integer holds.

    Raises:
        ParameterError: names the first one.
    """
    for name in ("temperature", "top_p", "min_p"):
        if not math.isfinite(getattr(params, name)):
            raise ParameterError(name, getattr(params, name), "must be a finite number")
    for token, bias in (params.logit_bias or {}).items():
        if not math.isfinite(bias):
            raise ParameterError("logit_bias", {token: bias}, "must be finite numbers")
    if params.logprobs == -1:
        raise ParameterError("logprobs", -1, "all of the vocabulary is too much; send a number")
    if params.seed is not None and not -(2**63) <= params.seed < 2**63:
        raise ParameterError("seed", params.seed, "must be a signed 64-bit integer")


def check_stop(params: SamplingParams) -> None:
    """Refuse stop strings that no message to the engine can carry: lone surrogates.

    Raises:
        ParameterError: names `stop`.
    """
    for text in [params.stop] if isinstance(params.stop, str) else params.stop or ():
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ParameterError("stop", [text], "must be valid Unicode")  # a list is escaped


def check_tokens(params: SamplingParams, rules: ServerRules, *, without_eos: bool) -> None:
    """Refuse token ids outside the vocabulary, and rules that leave no token to choose.

    Args:
        params: the caller's sampling parameters.
        rules: the server's.
        without_eos: EOS can never be chosen.

    Raises:
        ParameterError: names the parameter.
    """
    lists = {
        "logit_bias": params.logit_bias or (),
        "allowed_token_ids": params.allowed_token_ids or (),
        "stop_token_ids": params.stop_token_ids or (),
    }
    for name, ids in lists.items():
        for token in ids:
            if not 0 <= int(token) < rules.vocab_size:
                raise ParameterError(
                    name, token, f"must be token ids from 0 to {rules.vocab_size - 1}"
                )
    if params.allowed_token_ids is None:
        return
    forbidden = {rules.mask_token_id}
    forbidden.update(word[0] for word in params.bad_words_token_ids or () if len(word) == 1)
    if without_eos and rules.eos_token_id is not None:
        forbidden.add(rules.eos_token_id)
    if params.min_tokens:
        forbidden.update(params.all_stop_token_ids)
    if not set(params.allowed_token_ids) - forbidden:
        raise ParameterError(
            "allowed_token_ids",
            params.allowed_token_ids,
            "leaves no token to choose: forbidden are the mask token, bad_words, EOS with "
            "suppress_eos=logits and stop tokens with min_tokens; allow one other token",
        )
