"""Answers and grades, one JSON line each, that survive a kill at any byte."""

from __future__ import annotations

import fcntl
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
    """Whether the answer is right, and by what that was found; ``note`` says what was wrong with
    one that is not.
    """

    right: bool
    by: str
    note: str = ""


T = TypeVar("T", bound=Record)


def read(path: Path, kind: type[T]) -> dict[Key, T]:
    """The records of a JSONL file by key; none where there is no file.

    A last line without its newline is what a kill, or a writer at work, leaves of a record: it is
    left out. Every other line must decode.

    Raises:
        ValueError: a line in the file is no record; with its number.
    """
    return _decode(path, _whole_lines(path), kind)


class Log(Generic[T]):
    """A JSONL file of records of one type that are read on opening, then appended to; by one
    process at a time.

    Raises:
        ValueError: as `read`.
        RuntimeError: another process writes to the file.
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._file = path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            whole = _whole_lines(path)
            self.records = _decode(path, whole, kind)
        except BlockingIOError:
            self._file.close()
            raise RuntimeError(f"another process writes to {path}; wait for it to end") from None
        except ValueError:
            self._file.close()
            raise
        self._file.truncate(len(whole))
        self._encoder = msgspec.json.Encoder()

    def append(self, record: T) -> None:
        """Write a record through to the operating system."""
        self.records[record.key] = record
        self._file.write(self._encoder.encode(record) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def _decode(path: Path, lines: bytes, kind: type[T]) -> dict[Key, T]:
    records: dict[Key, T] = {}
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            record = msgspec.json.decode(line, type=kind)
        except msgspec.DecodeError as error:
            raise ValueError(
                f"{path}, line {number}, is no {kind.__name__}: {error}; remove the line to have "
                "it made again"
            ) from None
        records.setdefault(record.key, record)
    return records
