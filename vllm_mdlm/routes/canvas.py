"""A template's canvas as a response shows it: text and tokens by the name of the free span."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from vllm_mdlm.errors import ParameterError
from vllm_mdlm.templates import Template

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer shows for bytes that do not make a character yet."""


def name_spans(items: Sequence[Any]) -> list[Any]:
    """A caller's template with a name for every free span: `span_0` for the first of them, and so
    on by their order, where the caller gives none."""
    named: list[Any] = []
    number = 0
    for item in items:
        if isinstance(item, dict):
            item = {**item, "name": item.get("name") or f"span_{number}"}
            number += 1
        named.append(item)
    return named


class Markers(NamedTuple):
    """Tokens that are no text."""

    mask: int
    ends: frozenset[int]  # EOS and EoT


class Layout(NamedTuple):
    """Where the pieces of a template lie in the canvas."""

    template: Template
    markers: Markers
    decode: Decode

    def pieces(self) -> Iterator[tuple[str | None, int, int]]:
        """Name (None: fixed text), start and end of consecutive pieces that cover the canvas."""
        last = 0
        for span in self.template.spans:
            if span.start > last:
                yield None, last, span.start
            yield span.name, span.start, span.end
            last = span.end
        if last < len(self.template.tokens):
            yield None, last, len(self.template.tokens)

    def text_tokens(self, tokens: Sequence[int]) -> list[int]:
        """The tokens of a free span that are text: those before the first EOS or EoT that are
        decided."""
        text = []
        for token in tokens:
            if token in self.markers.ends:
                break
            if token != self.markers.mask:
                text.append(token)
        return text

    def text(self, canvas: Sequence[int]) -> str:
        """The whole template as text; what is undecided is left out."""
        tokens: list[int] = []
        for name, start, end in self.pieces():
            piece = canvas[start:end]
            tokens += piece if name is None else self.text_tokens(piece)
        return self.decode(tokens)

    def spans(
        self, canvas: Sequence[int], logprobs: Sequence[float | None]
    ) -> dict[str, dict[str, Any]]:
        """What a response tells of every free span.

        Args:
            canvas: tokens by position, the mask token where nothing was decided.
            logprobs: nats, of the committed tokens; None elsewhere.
        """
        return {
            name: {
                "text": self.decode(self.text_tokens(canvas[start:end])),
                "token_ids": list(canvas[start:end]),
                "mean_logprob": _mean(logprobs[start:end]),
                "complete": self.markers.mask not in canvas[start:end],
            }
            for name, start, end in self.pieces()
            if name is not None
        }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


class SpanStream:
    """Cuts a canvas that becomes final from the left into pieces of its free spans."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._canvas: list[int] = []
        self._sent: dict[str, str] = {}

    def feed(self, tokens: Sequence[int]) -> Iterator[tuple[str, str, list[int]]]:
        """Name, new text and new tokens of every free span that grew."""
        done = len(self._canvas)
        self._canvas += tokens
        for name, start, end in self.layout.pieces():
            new = self._canvas[max(start, done) : end]
            if name is None or not new:
                continue
            whole = self.layout.decode(self.layout.text_tokens(self._canvas[start:end]))
            sent = self._sent.get(name, "")
            if whole.endswith(REPLACEMENT) and len(self._canvas) < end:
                whole = sent
            self._sent[name] = whole
            yield name, whole[len(sent) :], new


def check_name(template: Template, field: str, name: str, also: Collection[str] = ()) -> None:
    """Refuse a name that no free span has.

    Raises:
        ParameterError: names `field`.
    """
    names = [span.name for span in template.spans]
    if name not in names:
        known = ", ".join(str(one) for one in names) or "none"
        raise ParameterError(field, name, f"must name a free span of the template; it has: {known}")
