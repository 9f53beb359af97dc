"""Request parameters: decoded once, at admission, into a frozen plan.

Names, types and defaults are the public contract (docs/parameters.md is generated from these
structs). Everything that a caller can get wrong on its own is refused here with a
`ParameterError`; what depends on the prompt and the server is checked by `plan_request`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from vllm_mdlm.errors import ParameterError
from vllm_mdlm.samplers.base import (
    ChainParams,
    ChainSampler,
    Sampler,
    SamplerParams,
    param_values,
)
from vllm_mdlm.samplers.registry import chain_samplers, samplers
from vllm_mdlm.spans import Blocks
from vllm_mdlm.templates import Decoding, Template, TemplatePlan, plan_template

DEFAULT_BLOCK_LENGTH = 32

LARGEST_INT = 2**53
"""Parameters travel as float64 columns; integers above this would change."""

Flag = Annotated[int, Meta(ge=0, le=1)]
PositiveInt = Annotated[int, Meta(ge=1)]
PositiveFloat = Annotated[float, Meta(gt=0)]


class CommonParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of every request, whatever its sampler."""

    sampler: Annotated[str, Meta(description="The unmasking rule.")] = "low_confidence"
    gen_length: Annotated[
        PositiveInt | None,
        Meta(description="Canvas positions; unset: `max_tokens` rounded up to whole blocks."),
    ] = None
    block_length: Annotated[
        PositiveInt | None,
        Meta(
            description="Semi-autoregressive block; divides `gen_length`. "
            "Unset: 32, or `gen_length` if smaller."
        ),
    ] = None
    steps: Annotated[
        PositiveInt | None,
        Meta(
            description="Passes of the fixed-quota samplers over the whole canvas; a multiple of "
            "the number of blocks. Unset: `gen_length`."
        ),
    ] = None
    kv_cache: Annotated[
        Literal["exact", "prefix", "dual"],
        Meta(
            description="Which positions the passes after a block's first recompute: all; those "
            "from the block on; the block. The last two are approximate and faster."
        ),
    ] = "exact"
    commit_order: Annotated[
        Literal["sample_first", "position_first"],
        Meta(
            description="Sample a token everywhere and rank the samples, or choose positions from "
            "the distribution and sample there."
        ),
    ] = "sample_first"
    cfg_scale: Annotated[
        float,
        Meta(
            ge=0,
            le=1000,  # far above what is of use, far below what overflows float32
            description="Unsupervised guidance, `uncond + (1 + cfg_scale) (cond - uncond)`, the "
            "prompt masked in the unconditional pass; 0: none. Doubles the passes.",
        ),
    ] = 0.0
    trace: Annotated[
        Flag,
        Meta(
            description="1: return for every token the pass that committed it (from 0), its "
            "confidence and its entropy then."
        ),
    ] = 0
    suppress_eos: Annotated[
        Literal["no", "logits", "confidence"],
        Meta(description="LLaDA's `logits_eos_inf` and `confidence_eos_eot_inf`."),
    ] = "no"
    template: Annotated[
        list[Any] | None,
        Meta(
            description="The canvas: strings and lists of token ids, which are fixed, and free "
            'spans, `{"mask": n}`, optionally with `name`, `block_length` (unset: the '
            "request's, or `n` if smaller) and `target` (token ids to be scored; where a span has "
            "some, those without stay masked). In place of `gen_length`; the output is the whole "
            "canvas. Offline, and in the routes that have a field for it.",
        ),
    ] = None
    answer: Annotated[
        str | None,
        Meta(description="Name of the free span whose entropy is returned for every pass."),
    ] = None
    early_exit: Annotated[
        PositiveFloat | None,
        Meta(
            description="Nats: once the entropy of `answer`, summed over its positions, is below "
            "it, the free spans before it are left undecided. `answer` is the last free span."
        ),
    ] = None


PER_REQUEST = ("template", "answer", "early_exit")
"""Parameters that have no server-wide default."""

WITH_TARGETS = frozenset({"template", "answer", "kv_cache", "cfg_scale", "trace"})
"""Parameters that mean something when a template's targets are scored."""


class ChainPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request asks of its chains."""

    sampler: str  # the one that runs them
    alpha: float  # power of the target
    candidates: int  # of every chain, the first included
    length: int  # canvas positions that a chain decides


class RequestPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine executes: every choice made, every default filled in."""

    sampler: str
    sampler_params: dict[str, float]
    gen_length: int
    block_length: int  # of the longest block
    block_steps: int  # passes granted to a block
    kv_cache: Literal["exact", "prefix", "dual"]
    commit_order: Literal["sample_first", "position_first"]
    suppress_eos: Literal["no", "logits", "confidence"]
    cfg_scale: float
    trace: int
    template: TemplatePlan | None = None
    chain: ChainPlan | None = None  # the request runs chains; `sampler` decodes their candidates
    draws: int = 0  # above 0: of one pass only, which draws so many tokens at the first mask
    power: float = 0.0  # above 0: a candidate; the power of which its weight is a sum

    @property
    def blocks(self) -> Blocks:
        """Where the blocks lie in the canvas."""
        listed = None if self.template is None else self.template.blocks
        return Blocks(self.gen_length, self.block_length, listed)

    def to_wire(self) -> dict[str, Any]:
        """Plain builtins, to travel in `SamplingParams.extra_args`."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> RequestPlan:
        return msgspec.convert(wire, cls)


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Fields of a struct, read once: that takes ten times as long as the rest of admission."""
    return msgspec.structs.fields(kind)


def parameter_names() -> frozenset[str]:
    """Names of every parameter, of requests and of samplers."""
    structs: list[type[msgspec.Struct]] = [CommonParams]
    structs += [sampler.params for sampler in samplers().values()]
    structs += [sampler.params for sampler in chain_samplers().values()]
    return frozenset(field.name for kind in structs for field in _fields(kind))


def decode(arguments: Mapping[str, Any]) -> tuple[CommonParams, SamplerParams | ChainParams]:
    """Decode a request's arguments.

    Args:
        arguments: names and values as the caller wrote them, server-wide defaults merged in.

    Raises:
        ParameterError: unknown name, wrong type or value.
    """
    common_names = {field.name for field in _fields(CommonParams)}
    common = _convert(
        {name: value for name, value in arguments.items() if name in common_names}, CommonParams
    )
    known_samplers: dict[str, Sampler | ChainSampler] = {**samplers(), **chain_samplers()}
    sampler = known_samplers.get(common.sampler)
    if sampler is None:
        names = ", ".join(known_samplers)
        raise ParameterError("sampler", common.sampler, f"choose one of {names}")
    own = {name: value for name, value in arguments.items() if name not in common_names}
    own_names = {field.name for field in _fields(sampler.params)}
    for name, value in own.items():
        if name not in own_names:
            known = ", ".join(sorted(common_names | own_names))
            raise ParameterError(
                name, value, f"not a parameter of the sampler {common.sampler!r}; known: {known}"
            )
    return common, _convert(own, sampler.params)


def decode_defaults(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Check server-wide defaults and return them.

    Raises:
        ParameterError: as `decode`; or a parameter that has no server-wide default.
    """
    for name in PER_REQUEST:
        if name in arguments:
            raise ParameterError(name, arguments[name], "is a request's own; leave it out here")
    decode(arguments)
    return dict(arguments)


def merge(defaults: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A request's arguments over the server's defaults.

    Defaults that belong to the default sampler alone are dropped when the request names another
    sampler, so a server-wide `threshold` does not make `sampler=random` an error. A default block
    is shortened to a smaller canvas, as the built-in one is. The canvas's default shape is not that
    of a template, and scores have no sampler.
    """
    merged = dict(defaults)
    template = arguments.get("template")
    if template is not None:
        merged = {k: v for k, v in merged.items() if k not in ("gen_length", "steps")}
        if has_targets(template):
            merged = {k: v for k, v in merged.items() if k in WITH_TARGETS}
    chosen = arguments.get("sampler", defaults.get("sampler"))
    if chosen != defaults.get("sampler", CommonParams().sampler):
        common_names = {field.name for field in _fields(CommonParams)}
        merged = {name: value for name, value in merged.items() if name in common_names}
    block_length, gen_length = merged.get("block_length"), arguments.get("gen_length")
    if isinstance(block_length, int) and isinstance(gen_length, int) and gen_length > 0:
        merged["block_length"] = min(block_length, gen_length)
    return merged | dict(arguments)


def has_targets(template: object) -> bool:
    """Whether a template as the caller wrote it names a target."""
    items = template if isinstance(template, list) else []
    return any(isinstance(item, dict) and item.get("target") is not None for item in items)


def _convert(values: Mapping[str, Any], target: type[msgspec.Struct]) -> Any:
    """Decode field by field, so that the error can name the one that is wrong."""
    for field in _fields(target):
        if field.name not in values:
            continue
        value = values[field.name]
        if isinstance(value, float) and not math.isfinite(value):
            raise ParameterError(field.name, value, "must be a finite number")
        if isinstance(value, int) and abs(value) > LARGEST_INT:
            raise ParameterError(field.name, value, f"must be at most {LARGEST_INT}")
        try:
            msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            raise ParameterError(field.name, value, str(error)) from None
    return msgspec.convert(dict(values), target)


def canvas_shape(common: CommonParams, max_tokens: int, room: int) -> tuple[int, int, int]:
    """Lengths of the canvas, a block, and the passes of a block.

    Args:
        common: decoded parameters.
        max_tokens: output tokens that the caller asked for.
        room: positions that the context leaves after the prompt.

    Returns:
        `gen_length`, `block_length`, `block_steps`. When `gen_length` follows from `max_tokens`
        and whole blocks do not fit in the context, the last block is short.

    Raises:
        ParameterError: lengths that do not divide.
    """
    if common.gen_length is None:
        block_length = common.block_length or DEFAULT_BLOCK_LENGTH
        whole_blocks = -(-max_tokens // block_length) * block_length
        gen_length = max(max_tokens, min(whole_blocks, room))
        block_length = min(block_length, gen_length)
    else:
        gen_length = common.gen_length
        block_length = common.block_length or min(DEFAULT_BLOCK_LENGTH, gen_length)
        if gen_length % block_length:
            raise ParameterError(
                "block_length",
                block_length,
                f"must divide gen_length, which is {gen_length}",
            )
    num_blocks = -(-gen_length // block_length)
    steps = num_blocks * block_length if common.steps is None else common.steps
    if steps % num_blocks:
        raise ParameterError(
            "steps",
            steps,
            f"must be a multiple of the number of blocks, which is {num_blocks} "
            f"(gen_length {gen_length} / block_length {block_length})",
        )
    # More passes than positions would commit nothing.
    return gen_length, block_length, min(steps // num_blocks, block_length)


class TemplateShape(NamedTuple):
    """The lengths of a template's canvas, and its plan."""

    gen_length: int
    block_length: int  # of the longest block; 1 without any
    block_steps: int
    plan: TemplatePlan


def template_shape(
    common: CommonParams, template: Template, mask_token_id: int, arguments: Mapping[str, Any]
) -> TemplateShape:
    """The canvas of a template.

    Args:
        common: decoded parameters.
        template: the parsed template.
        mask_token_id: what stands at free positions.
        arguments: what the request itself sends.

    Raises:
        ParameterError: a parameter that cannot be honoured with this template.
    """
    if common.gen_length is not None:
        raise ParameterError(
            "gen_length", common.gen_length, "follows from the template; leave it out"
        )
    if template.scores:
        for name, value in arguments.items():
            if name not in WITH_TARGETS:
                raise ParameterError(
                    name, value, "has no effect on the scores of targets; leave it out"
                )
    default = common.block_length or DEFAULT_BLOCK_LENGTH
    decoding = Decoding(common.answer, common.early_exit, default)
    plan = plan_template(template, decoding, mask_token_id)
    longest = max((end - start for start, end in plan.blocks), default=1)
    steps = longest
    if template.scores:
        steps = 1
    elif common.steps is not None:
        num_blocks = max(1, len(plan.blocks))
        if common.steps % num_blocks:
            raise ParameterError(
                "steps",
                common.steps,
                f"must be a multiple of the number of blocks, which is {num_blocks} in this "
                "template",
            )
        steps = min(common.steps // num_blocks, longest)
    return TemplateShape(len(plan.tokens), longest, steps, plan)


def sampler_columns(params: SamplerParams) -> dict[str, float]:
    """A sampler's own parameters as numbers, by name; unset is +inf."""
    return dict(zip(params.__struct_fields__, param_values(params), strict=True))
