"""Questions with known answers: from a JSONL file, or GSM8K from the Hub.

A line of the file is ``{"question": ..., "answer": ...}``. Beside it may stand ``positions``, how
many the reasoning gets; and, never sent, ``calculation``, what is asked in signs, by which the
program checks traces of arithmetic, and ``reasoning``, a human trace to compare with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from recipes.train.questions import parse

NotEmpty = Annotated[str, Meta(min_length=1, pattern=r"\S")]

GSM8K = ("openai/gsm8k", "main", "train")
"""Name, configuration and split on the Hub."""


class Item(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A question and its known answer."""

    question: NotEmpty
    answer: NotEmpty
    positions: Annotated[int, Meta(ge=1)] | None = None
    calculation: str | None = None
    reasoning: str | None = None

    def __post_init__(self) -> None:
        if self.calculation is not None and parse(self.calculation) is None:
            raise ValueError(
                f"`calculation` is {self.calculation!r}; two or three numbers with + or - between "
                "them are wanted"
            )

    @property
    def id(self) -> str:
        """Names what is asked, wherever the line stands in its file."""
        asked = msgspec.json.encode((self.question, self.answer, self.positions))
        return blake2b(asked, digest_size=8).hexdigest()


class Gsm8kRow(Struct):
    """A row of GSM8K: ``answer`` is the human reasoning, then ``#### `` and the number."""

    question: str
    answer: str


def read_questions(path: Path) -> list[Item]:
    """The questions of a JSONL file, in its order.

    Raises:
        ValueError: a line is no question, or asks what another line asks, or there is none.
    """
    items: dict[str, tuple[int, Item]] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            item = msgspec.json.decode(line, type=Item)
        except msgspec.DecodeError as error:
            raise ValueError(
                f"{path}, line {number}: {error}; "
                'a line is {"question": "...", "answer": "..."}, both texts'
            ) from None
        first, _ = items.setdefault(item.id, (number, item))
        if first != number:
            raise ValueError(
                f"{path}, line {number} asks what line {first} asks; remove one of them"
            )
    if not items:
        raise ValueError(f"{path} has no line; a question a line is wanted")
    return [item for _, item in items.values()]


def gsm8k(rows: Iterable[Mapping[str, Any]] | None = None) -> list[Item]:
    """The training questions of GSM8K, from ``rows`` of its form or else from the Hub.

    Raises:
        RuntimeError: the package ``datasets`` is missing.
        ValueError: a row is of another form.
    """
    found = hub_rows() if rows is None else rows
    return [gsm8k_item(msgspec.convert(row, Gsm8kRow)) for row in found]


def hub_rows() -> Iterable[Mapping[str, Any]]:
    """Rows of GSM8K, by the package ``datasets``."""
    name, configuration, split = GSM8K
    try:
        from datasets import load_dataset
    except ImportError:
        raise RuntimeError(
            f"{name} is read with the package `datasets`, which is not installed; "
            "pip install 'vllm-mdlm[studies]', or name a file of questions"
        ) from None
    rows: Iterable[Mapping[str, Any]] = load_dataset(name, configuration, split=split)
    return rows


def gsm8k_item(row: Gsm8kRow) -> Item:
    """A row as a question; the calculator's marks ``<<...>>`` and thousands' commas are dropped."""
    reasoning, mark, answer = row.answer.rpartition("####")
    if not mark:
        raise ValueError(f"GSM8K's answer {row.answer!r} has no `####` before its number")
    return Item(
        question=row.question.strip(),
        answer=answer.strip().replace(",", ""),
        reasoning=re.sub(r"<<[^>]*>>", "", reasoning).strip(),
    )
