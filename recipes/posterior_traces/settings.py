"""The settings of a run: one TOML file, checked when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from recipes.pass_at_k.settings import Sampler

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]
NotEmpty = Annotated[str, Meta(min_length=1)]
Score = Annotated[float, Meta(le=0)]

REASONING, ANSWER = "reasoning", "answer"
"""Names of the free spans."""


class Template(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The reply: free reasoning, ``delimiter``, the answer, ``closing``, ``end``.

    ``positions`` is the length of the reasoning where the question names none. ``closing`` belongs
    to the reply; ``end`` is fixed behind it and does not (EOS). ``answer_positions`` is the
    length of the masked answer when a trace is scored.
    """

    positions: Positive
    delimiter: NotEmpty
    answer_positions: Positive
    closing: str = ""
    end: str = ""

    def sampling(self, positions: int, answer: str) -> list[Any]:
        """The template whose reasoning is free and whose answer is fixed."""
        return [{"mask": positions, "name": REASONING}, *self._fixed(answer)]

    def scoring(self, positions: int) -> list[Any]:
        """The template whose reasoning and answer are both free."""
        answer = {"mask": self.answer_positions, "name": ANSWER}
        return [{"mask": positions, "name": REASONING}, *self._fixed(answer)]

    def reply(self, reasoning: str, answer: str) -> str:
        """The text that an assistant gives, the reasoning first."""
        stated = f"{self.delimiter}{answer}{self.closing}"
        return f"{reasoning.strip()}\n{stated}" if reasoning.strip() else stated

    def _fixed(self, answer: str | dict[str, Any]) -> list[Any]:
        # Pieces of their own: scores and samples then see the same tokens.
        return [piece for piece in (self.delimiter, answer, self.closing, self.end) if piece]


class Filter(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which distinct traces of a question are kept: the ``keep`` best of those whose score is at
    least ``least_score``; unset: all. A score is the mean of log p over the answer's tokens, nats.
    """

    least_score: Score | None = None
    keep: Positive | None = None


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that decides a run.

    ``serve`` are options of ``vllm serve`` where the run starts the server itself. ``data_set`` is
    read where no file of questions is named.
    """

    model: str
    seed: int
    samples: Positive
    concurrency: Positive
    template: Template
    sampling: Sampler
    filter: Filter = Filter()
    data_set: Literal["gsm8k"] | None = None
    serve: tuple[str, ...] = ()
    request_seconds: Seconds = 3600.0

    def __post_init__(self) -> None:
        if self.samples > 1 and self.sampling.is_deterministic:
            raise ValueError(
                f"`samples` is {self.samples}, and {self.sampling.label} gives the same trace "
                "every time; set a temperature above 0, or 1 sample"
            )

    @property
    def arguments(self) -> dict[str, str | int | float]:
        """Request parameters of the plugin, flat."""
        order = self.sampling.commit_order
        named = {"sampler": self.sampling.sampler} | ({"commit_order": order} if order else {})
        return {**named, **self.sampling.arguments}


def load_settings(path: Path) -> Settings:
    """Decode a TOML file; ``msgspec.ValidationError`` names the field that is wrong."""
    return msgspec.toml.decode(path.read_bytes(), type=Settings)
