"""Answers and grades, one JSON line each, that survive a kill at any byte."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

Key = tuple[str, str, str, int]
"""Task, question, setting, sample."""


class Record(Struct, frozen=True, kw_only=True):
    """What an answer and its grade are found by."""

    task: str
    question: str
    setting: str
    sample: int

    @property
    def key(self) -> Key:
        return self.task, self.question, self.setting, self.sample


class Answer(Record, frozen=True, kw_only=True):
    """One answer of the server and what it cost; proposals and acceptances are of ``mh``."""

    seed: int
    text: str
    finish_reason: str | None
    completion_tokens: int
    forward_passes: int
    proposals: int | None = None
    acceptances: int | None = None


class Grade(Record, frozen=True, kw_only=True):
    """Whether the answer is right; ``note`` says what was wrong with one that is not."""

    right: bool
    note: str = ""


T = TypeVar("T", bound=Record)


class Log(Generic[T]):
    """A JSONL file of records of one type, read whole on opening, then appended to.

    A last line without its newline is what a kill leaves of a record: it is cut off. Every other
    line must decode.

    Raises:
        ValueError: a line in the file is no record; with its number.
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        self.records: dict[Key, T] = {}
        self._encoder = msgspec.json.Encoder()
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                record = msgspec.json.decode(line, type=kind)
            except msgspec.DecodeError as error:
                raise ValueError(
                    f"{path}, line {number}, is no {kind.__name__}: {error}; remove the line to "
                    "have the answer made again"
                ) from None
            self.records.setdefault(record.key, record)
        self._file = path.open("ab")
        self._file.truncate(len(whole))

    def append(self, record: T) -> None:
        """Write a record through to the operating system."""
        self.records[record.key] = record
        self._file.write(self._encoder.encode(record) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
