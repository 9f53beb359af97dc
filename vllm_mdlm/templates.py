"""Templates: a canvas of fixed text and free spans, in any number and order.

Fixed text is in the canvas from the start, visible to every pass and never changed; free spans are
denoised from left to right. Reasoning as infilling, early exit, posterior samples of reasoning and
scores of it follow from that (Horvitz et al. 2025, arXiv 2510.19990).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from vllm_mdlm.errors import ParameterError

PositiveInt = Annotated[int, Meta(ge=1)]

FREE = -1
"""Stands for the token of a free position."""

Encode = Callable[[str], list[int]]
"""From a text to its token ids, no special tokens added."""


class FreeItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An item of a template that is to be filled."""

    mask: PositiveInt  # positions
    name: str | None = None
    block_length: PositiveInt | None = None
    target: list[int] | None = None  # known tokens, to be scored


class FreeSpan(NamedTuple):
    """Canvas positions `start` to before `end` that are to be filled."""

    start: int
    end: int
    name: str | None
    block_length: int | None  # None: the request's
    target: tuple[int, ...] | None
    item: int = 0  # index in the caller's list


class Template(NamedTuple):
    """A canvas as a caller describes it."""

    tokens: tuple[int, ...]  # by canvas position; FREE where a token is to be found
    spans: tuple[FreeSpan, ...]  # from the left

    @property
    def scores(self) -> bool:
        """Whether known tokens are scored, where others are found."""
        return any(span.target is not None for span in self.spans)

    def span_named(self, name: str) -> int:
        """Index of a free span.

        Raises:
            ParameterError: there is none of that name.
        """
        for index, span in enumerate(self.spans):
            if span.name == name:
                return index
        known = ", ".join(repr(span.name) for span in self.spans if span.name is not None)
        wanted = "must be the name of a free span of the template"
        raise ParameterError(
            "answer", name, f"{wanted}; known: {known}" if known else f"{wanted}; none has a name"
        )


class TemplatePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine executes of a template. Positions count from the start of the canvas."""

    tokens: list[int]  # the canvas; the mask token where it is free
    blocks: list[tuple[int, int]]  # [start, end), from the left; only masks in them are decided
    answer: tuple[int, int] | None  # [start, end) whose entropy is traced
    answer_block: int  # first block of the answer; 0 without one
    early_exit: float  # nats; 0: never
    targets: list[int]  # of a score request, one a free position; the mask token: none, it stays


class Decoding(NamedTuple):
    """What a request says of its template beside the items."""

    answer: str | None
    early_exit: float | None  # nats
    block_length: int  # of free spans that name none; a smaller span is one block


def parse_template(
    items: Sequence[Any],
    encode: Encode | None,
    *,
    mask_token_id: int | None = None,
    vocab_size: int | None = None,
    most_positions: int | None = None,
) -> Template:
    """Read a caller's template.

    Args:
        items: strings, lists of token ids, and objects that `FreeItem` describes.
        encode: the tokenizer; None where the server has none.
        mask_token_id: a token that fixed text and targets must not hold; None: unchecked.
        vocab_size: token ids are below it; None: unchecked.
        most_positions: of the canvas; None: unchecked.

    Raises:
        ParameterError: names the item, `template[2].mask`.
    """
    tokens: list[int] = []
    spans: list[FreeSpan] = []
    for index, item in enumerate(items):
        name = f"template[{index}]"
        if isinstance(item, str | list):
            fixed = _fixed_tokens(name, item, encode)
            _check_ids(name, item, fixed, mask_token_id, vocab_size)
            tokens += fixed
            continue
        span = _free_span(name, item, len(tokens))._replace(item=index)
        if span.target is not None:
            _check_ids(f"{name}.target", item["target"], span.target, mask_token_id, vocab_size)
        if span.name is not None and any(other.name == span.name for other in spans):
            raise ParameterError(
                f"{name}.name", span.name, "names an earlier free span too; give each its own"
            )
        spans.append(span)
        if most_positions is not None and span.end > most_positions:
            raise ParameterError(
                "template",
                span.end,
                f"positions up to template[{index}] exceed the context, {most_positions} tokens",
            )
        tokens += [FREE] * (span.end - span.start)
    if not tokens:
        raise ParameterError(
            "template", list(items), "holds no position; give it fixed text or a free span"
        )
    return Template(tuple(tokens), tuple(spans))


def _fixed_tokens(name: str, item: str | list[Any], encode: Encode | None) -> list[int]:
    if isinstance(item, str):
        if encode is None:
            raise ParameterError(
                name, item, "this server has no tokenizer; send a list of token ids"
            )
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise ParameterError(name, item, f"must be Unicode text: {error.reason}") from None
        return list(encode(item))
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in item):
        raise ParameterError(name, item, "a list must hold token ids only")
    return item


def _check_ids(
    name: str,
    item: object,
    ids: Sequence[int],
    mask_token_id: int | None,
    vocab_size: int | None,
) -> None:
    for token in ids:
        if token < 0 or (vocab_size is not None and token >= vocab_size):
            limit = "" if vocab_size is None else f" to {vocab_size - 1}"
            raise ParameterError(name, token, f"must be token ids from 0{limit}")
        if token == mask_token_id:
            raise ParameterError(
                name,
                item,
                f"holds the mask token ({mask_token_id}), which marks free positions; write them "
                'as {"mask": n}',
            )


def _free_span(name: str, item: object, start: int) -> FreeSpan:
    if not isinstance(item, dict):
        raise ParameterError(
            name, item, 'must be a string, a list of token ids, or an object like {"mask": 32}'
        )
    fields = msgspec.structs.fields(FreeItem)
    known = {field.name: field.type for field in fields}
    for key, value in item.items():
        if key not in known:
            raise ParameterError(f"{name}.{key}", value, f"unknown; known: {', '.join(known)}")
        try:
            msgspec.convert(value, known[key])
        except msgspec.ValidationError as error:
            raise ParameterError(f"{name}.{key}", value, str(error)) from None
    if "mask" not in item:
        raise ParameterError(f"{name}.mask", None, "must say how many positions are free")
    free = msgspec.convert(item, FreeItem)
    if free.block_length is not None and free.block_length > free.mask:
        raise ParameterError(
            f"{name}.block_length",
            free.block_length,
            f"must be at most the positions of its free span, {free.mask}",
        )
    if free.target is not None and len(free.target) != free.mask:
        raise ParameterError(
            f"{name}.target",
            free.target,
            f"must hold a token for each of the {free.mask} positions, holds {len(free.target)}",
        )
    target = None if free.target is None else tuple(free.target)
    return FreeSpan(start, start + free.mask, free.name, free.block_length, target)


def plan_template(template: Template, decoding: Decoding, mask_token_id: int) -> TemplatePlan:
    """Cut a template into blocks.

    Raises:
        ParameterError: `answer`, `early_exit` or a target that cannot be honoured.
    """
    answer, early_exit = _check_answer(template, decoding)
    span = None if answer is None else template.spans[answer]
    tokens = [mask_token_id if token == FREE else token for token in template.tokens]
    if template.scores:
        blocks, targets = _score_block(template, decoding, mask_token_id)
        answer_block = 0
    else:
        per_span = [_blocks(one, decoding.block_length) for one in template.spans]
        blocks, targets = [block for cut in per_span for block in cut], []
        answer_block = sum(len(cut) for cut in per_span[: answer or 0])
    return TemplatePlan(
        tokens=tokens,
        blocks=blocks,
        answer=None if span is None else (span.start, span.end),
        answer_block=answer_block,
        early_exit=early_exit,
        targets=targets,
    )


def _check_answer(template: Template, decoding: Decoding) -> tuple[int | None, float]:
    """Index of the answer among the free spans, and the bound of its entropy."""
    answer = None if decoding.answer is None else template.span_named(decoding.answer)
    if decoding.early_exit is None:
        return answer, 0.0
    if answer is None:
        raise ParameterError(
            "early_exit", decoding.early_exit, "needs `answer`, the name of a free span"
        )
    if answer != len(template.spans) - 1:
        raise ParameterError(
            "answer",
            decoding.answer,
            "must be the last free span with early_exit: what lies before it is left out then",
        )
    return answer, decoding.early_exit


def _blocks(span: FreeSpan, default: int) -> list[tuple[int, int]]:
    length = span.block_length or default
    return [(start, min(start + length, span.end)) for start in range(span.start, span.end, length)]


def _score_block(
    template: Template, decoding: Decoding, mask_token_id: int
) -> tuple[list[tuple[int, int]], list[int]]:
    """One block over all free positions: a score takes one pass. Spans without a target stay
    masked."""
    if decoding.early_exit is not None:
        raise ParameterError(
            "early_exit",
            decoding.early_exit,
            "targets are scored in one pass; leave it out",
        )
    targets: list[int] = []
    for span in template.spans:
        targets += span.target or [mask_token_id] * (span.end - span.start)
    return [(template.spans[0].start, template.spans[-1].end)], targets
