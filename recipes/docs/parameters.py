"""Print docs/parameters.md from the parameter structs.

python -m recipes.docs.parameters > docs/parameters.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import inspect

from vllm_mdlm.admission import DEFAULTS_KEY, NOT_HONOURED
from vllm_mdlm.params import CommonParams
from vllm_mdlm.samplers.registry import BUILT_IN, chain_samplers, samplers

HONOURED = {
    "max_tokens": "Most tokens of an answer. It shapes the canvas where `gen_length` is unset. One "
    "that does not fit in the context is refused, not clipped. Unset: in chat and completions the "
    "request's `gen_length`; without that 256 in chat, or the `canvas_length` of config.json; 16 "
    "in completions and offline, vLLM's default.",
    "min_tokens": "EOS and stop tokens are forbidden at positions below it. At most `gen_length`.",
    "temperature": "0 is greedy. Above 0 a token is drawn from softmax(logits / temperature). With "
    "`mh` it must be unset or 1: `alpha` takes its place.",
    "top_p": "Cuts the distribution that a token is drawn from. No effect at temperature 0. "
    "Refused with `mh`.",
    "top_k": "As `top_p`.",
    "min_p": "As `top_p`.",
    "seed": "Signed 64-bit integer. Unset: a fresh one for every request.",
    "n": "Answers of one prompt. Answer i has the seed plus i. vLLM refuses more than one at "
    "temperature 0.",
    "stop": "Strings that end an answer.",
    "stop_token_ids": "Tokens that end an answer. They are not part of it.",
    "ignore_eos": "EOS does not end an answer.",
    "include_stop_str_in_output": "Keeps the stop string, or the token that ended the answer.",
    "logit_bias": "Added to the logits that a token is chosen from.",
    "allowed_token_ids": "Every other token is forbidden. A list that leaves none is refused.",
    "bad_words": "No answer holds one, in whatever order its positions are committed.",
    "logprobs": "Of the pass that committed the token. In chat with `top_logprobs`. "
    "-1, all of the vocabulary, is refused.",
    "skip_special_tokens": "Text of an answer only.",
    "spaces_between_special_tokens": "Text of an answer only.",
    "stream_interval": "Tokens that a streamed event collects.",
}
"""Fields of vLLM's `SamplingParams` that a caller may set and that take effect."""

TOP = f"""\
<!-- Written by `python -m recipes.docs.parameters`; a test compares. Change the structs. -->
# Parameters

Over HTTP the parameters of the first two tables travel in `vllm_xargs`, offline in
`SamplingParams.extra_args`. Beside the standard fields they are refused, because vLLM would ignore
them there (in `/v1/messages` vLLM drops them unread). Flags are 0 or 1. An unknown name, a wrong
type or a value out of bounds is a 400 that names the parameter.

Server-wide defaults are given at start:

    --additional-config '{{"{DEFAULTS_KEY}": {{"block_length": 8}}}}'

A request overrides them. A request that names another sampler than the server's default one does
not get the defaults that belong to that sampler alone.

## Of every request
"""


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(header)
    yield row(*names)
    yield row(*("---" for _ in names))
    for cells in rows:
        yield row(*cells)


def type_text(kind: inspect.Type) -> str:
    """A field's type and its bounds, in words."""
    match kind:
        case inspect.Metadata():
            return type_text(kind.type)
        case inspect.UnionType():
            known = (member for member in kind.types if not isinstance(member, inspect.NoneType))
            return " or ".join(type_text(member) for member in known)
        case inspect.LiteralType():
            return "one of " + ", ".join(f"`{value}`" for value in kind.values)
        case inspect.IntType() | inspect.FloatType():
            name = "integer" if isinstance(kind, inspect.IntType) else "number"
            bounds = [f"≥ {kind.ge}"] if kind.ge is not None else []
            bounds += [f"> {kind.gt}"] if kind.gt is not None else []
            bounds += [f"≤ {kind.le}"] if kind.le is not None else []
            return ", ".join([name, *bounds])
        case inspect.StrType():
            return "string"
        case inspect.ListType():
            return "list"
    raise TypeError(f"no words for a parameter of type {kind}")


def description(field: inspect.Field) -> str:
    """What a field's `msgspec.Meta` says of it.

    Raises:
        ValueError: nothing.
    """
    schema = field.type.extra_json_schema if isinstance(field.type, inspect.Metadata) else None
    if not schema or "description" not in schema:
        raise ValueError(f"the parameter {field.name} has no description in its msgspec.Meta")
    return str(schema["description"])


def fields(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info.fields


def cells_of(field: inspect.Field) -> tuple[str, str, str, str]:
    default = "unset" if field.default is None else f"`{field.default}`"
    return f"`{field.name}`", type_text(field.type), default, description(field)


def page() -> Iterator[str]:
    """The lines of the page."""
    header = ("name", "type", "default", "meaning")
    yield TOP
    yield from table(header, map(cells_of, fields(CommonParams)))
    yield "\n## Of single samplers\n"
    yield "The rules and their sources are in [samplers.md](samplers.md).\n"
    own = [
        (f"`{name}`", *cells_of(field))
        for name in BUILT_IN
        for field in fields(samplers()[name].params)
    ]
    own += [
        (f"`{name}`", *cells_of(field))
        for name, sampler in chain_samplers().items()
        for field in fields(sampler.params)
    ]
    yield from table(("sampler", *header), own)
    without = [f"`{name}`" for name in BUILT_IN if not fields(samplers()[name].params)]
    yield f"\n{', '.join(without)} have no parameters of their own."
    yield "\n## Standard fields that take effect\n"
    yield from table(("name", "here"), ((f"`{name}`", text) for name, text in HONOURED.items()))
    yield (
        "\n`stream`, `stream_options`, `echo`, `response_format: text` and the other fields of "
        "the HTTP\nlayer are vLLM's own."
    )
    yield "\n## Standard fields that are refused\n"
    yield "A value that asks for something is a 400. The value that asks for nothing is accepted.\n"
    refused = ((f"`{name}`", f"`{neutral}`") for name, neutral in NOT_HONOURED.items())
    yield from table(("name", "asks for nothing"), refused)
    yield (
        "\n`response_format`, `tool_choice` (`required` or a function) and `echo` with `logprobs` "
        "are refused\nbecause vLLM turns them into `structured_outputs` or `prompt_logprobs`. "
        "`use_beam_search`,\n`suffix`, `prompt_embeds` and streaming input are refused too."
    )


def main() -> None:
    print("\n".join(page()))


if __name__ == "__main__":
    main()
