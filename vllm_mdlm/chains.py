"""What a request that runs chains may ask for, and what its plan says of them.

A candidate's weight is exact only if its positions are a function of the canvas, and if its tokens
are drawn from the very distribution of which the weight takes the sum. What breaks either is
refused here, at admission.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vllm_mdlm.errors import ParameterError
from vllm_mdlm.params import ChainPlan, CommonParams
from vllm_mdlm.samplers.base import ChainParams, Sampler
from vllm_mdlm.samplers.mh import MhParams
from vllm_mdlm.samplers.mh_lookahead import MhLookaheadParams
from vllm_mdlm.samplers.registry import chain_samplers, samplers

if TYPE_CHECKING:
    from vllm.sampling_params import SamplingParams

NEUTRAL = {"temperature": (1.0,), "top_p": (1.0,), "top_k": (0, -1), "min_p": (0.0,)}
"""Standard parameters that would change the law of a candidate, and what leaves it alone."""


def check_chain(
    common: CommonParams, own: ChainParams, params: SamplingParams, asked: Mapping[str, Any]
) -> Sampler:
    """Refuse what a chain cannot honour.

    Args:
        common: decoded parameters.
        own: those of the sampler that runs the chains.
        params: the caller's sampling parameters.
        asked: our parameters as the caller wrote them, without the server's defaults.

    Returns:
        The sampler that decodes candidates.

    Raises:
        ParameterError: names the parameter.
    """
    name = common.sampler
    if common.template is not None:
        raise ParameterError(
            "sampler", name, "fills whole canvases, not templates; choose another sampler"
        )
    for field, neutral in NEUTRAL.items():
        value = getattr(params, field)
        if value not in neutral:
            raise ParameterError(
                field,
                value,
                f"the sampler {name!r} draws from p^alpha, whole; set alpha instead, and leave "
                f"{field} out or send {neutral[0]}",
            )
    if asked.get("commit_order") == "sample_first":
        raise ParameterError(
            "commit_order",
            "sample_first",
            f"the sampler {name!r} is exact only where positions do not depend on sampled tokens; "
            "leave it out or send position_first",
        )
    if common.suppress_eos == "confidence":
        raise ParameterError(
            "suppress_eos",
            common.suppress_eos,
            f"ranks by the sampled token, which the sampler {name!r} must not; "
            "send suppress_eos=logits",
        )
    if any(len(word) > 1 for word in params.bad_words_token_ids or ()):
        raise ParameterError(
            "bad_words",
            params.bad_words,
            f"words of several tokens depend on what was sampled, and the sampler {name!r} "
            "cannot weigh them; ask for words of one token, or use logit_bias",
        )
    if isinstance(own, MhParams):
        return _proposal(own.proposal)
    _refuse_of_passes(common, params)
    return samplers()["left_to_right"]


def _refuse_of_passes(common: CommonParams, params: SamplingParams) -> None:
    """What a chain over single tokens cannot honour: none of its passes decodes a block."""
    asked = {
        "kv_cache": (common.kv_cache, "exact"),
        "trace": (common.trace, 0),
        "logprobs": (params.logprobs, None),
    }
    for field, (value, neutral) in asked.items():
        if value != neutral:
            raise ParameterError(
                field,
                value,
                f"not supported by the sampler {common.sampler!r}, which accepts tokens one by "
                f"one; leave it out",
            )


def _proposal(name: str) -> Sampler:
    sampler = samplers().get(name)
    if sampler is None or not sampler.reads_canvas_only:
        known = ", ".join(key for key, one in samplers().items() if one.reads_canvas_only)
        reason = "runs chains itself" if name in chain_samplers() else "uses noise or memory"
        problem = f"it {reason}; " if sampler or name in chain_samplers() else ""
        raise ParameterError(
            "proposal",
            name,
            f"{problem}choose a sampler whose positions follow from the canvas: {known}",
        )
    return sampler


def plan_chain(sampler: str, own: ChainParams, gen_length: int, block_length: int) -> ChainPlan:
    """The chains of a request.

    Args:
        sampler: the one that runs them.
        own: its parameters.
        gen_length, block_length: of the canvas.
    """
    if isinstance(own, MhLookaheadParams):
        return ChainPlan(sampler=sampler, alpha=own.alpha, candidates=own.candidates, length=1)
    assert isinstance(own, MhParams)
    return ChainPlan(
        sampler=sampler,
        alpha=own.alpha,
        candidates=own.mh_steps + 1,
        length=block_length if own.mh_scope == "block" else gen_length,
    )
