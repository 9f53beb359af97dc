"""Grades of answers: every different answer to a question is looked at once."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from recipes.pass_at_k import sandbox
from recipes.pass_at_k.maths_worker import backend
from recipes.pass_at_k.sandbox import (
    START_SECONDS,
    Limits,
    Outcome,
    isolation,
    kill,
    run_program,
    start,
)
from recipes.pass_at_k.settings import Grading
from recipes.pass_at_k.store import Answer, Grade, Key, Log
from recipes.pass_at_k.tasks import Item
from recipes.train.questions import check

NOTES = {
    "arithmetic": "Arithmetic graded by its own checker.",
    "math-verify": "Mathematics graded by math-verify.",
    "sympy": "Mathematics graded by this recipe's reading with sympy.",
    **sandbox.NOTES,
}
"""What a report says of the means that its grades name."""

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("maths_worker.py")


class MathsJudge:
    """A process that compares answers to maths problems; started anew when one hangs or kills it.

    ``name`` is ``math-verify`` or ``sympy``, by default what is installed.
    """

    def __init__(self, limits: Limits, name: str = "") -> None:
        self.limits = limits
        self.name = name or backend()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def judge(self, gold: str, text: str) -> Outcome:
        """Compare an answer with the right one, LaTeX without dollar signs."""
        seconds = self.limits.seconds
        if self._process is None:
            self._process = self._start()
            seconds += START_SECONDS
        process = self._process
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode({"gold": gold, "text": text}) + b"\n")
            process.stdin.flush()
            line = self._line(time.monotonic() + seconds)
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            self.close()
            return Outcome(False, f"not compared in {self.limits.seconds:g} s and its memory")
        verdict: dict[str, Any] = msgspec.json.decode(line)
        return Outcome(verdict["right"], verdict["note"])

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            kill(self._process)
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()

    def _start(self) -> subprocess.Popen[bytes]:
        self._folder = tempfile.TemporaryDirectory(prefix="pass-at-k-")
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        env = {"PYTHONPATH": os.pathsep.join(paths), "PASS_AT_K_MATHS": self.name}
        return start(WORKER, self.limits, self._folder.name, env)

    def _line(self, deadline: float) -> bytes:
        """The next line, or what there was of it at the deadline or the process's end."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe, line = self._process.stdout.fileno(), b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                break
            piece = os.read(pipe, 65536)
            if not piece:
                break
            line += piece
        return line


class Grader:
    """Grades by the grader that an item names; safe to use from many threads."""

    def __init__(self, settings: Grading) -> None:
        self.limits = Limits(settings.seconds, settings.memory_mib)
        self._of_thread = threading.local()
        self._judges: list[MathsJudge] = []

    def grade(self, item: Item, text: str) -> Outcome:
        """Whether a completion answers an item."""
        if item.grader == "arithmetic":
            return Outcome(check(item.gold, text).answer_right, "")
        if item.grader == "code":
            return run_program(item.gold(text), self.limits)
        return self._judge().judge(item.gold, text)

    def means(self, item: Item) -> str:
        """By what an item is graded: a key of `NOTES`."""
        if item.grader == "maths":
            return backend()
        return isolation() if item.grader == "code" else item.grader

    def close(self) -> None:
        for judge in self._judges:
            judge.close()

    def _judge(self) -> MathsJudge:
        if not hasattr(self._of_thread, "judge"):
            self._of_thread.judge = MathsJudge(self.limits)
            self._judges.append(self._of_thread.judge)
        found: MathsJudge = self._of_thread.judge
        return found


@contextmanager
def grader(settings: Grading) -> Iterator[Grader]:
    """A grader whose processes end with the block."""
    found = Grader(settings)
    try:
        yield found
    finally:
        found.close()


def grade_all(
    answers: Iterable[Answer],
    items: Mapping[str, Sequence[Item]],
    settings: Grading,
    log: Log[Grade],
) -> None:
    """Grade what ``log`` lacks; equal answers to a question share one verdict.

    Answers to questions that ``items`` does not hold are left out.
    """
    known = {(task, item.id): item for task, group in items.items() for item in group}
    groups: dict[tuple[str, str, str], list[Key]] = {}
    for answer in answers:
        if answer.key not in log.records and (answer.task, answer.question) in known:
            groups.setdefault((answer.task, answer.question, answer.text), []).append(answer.key)
    with grader(settings) as found, ThreadPoolExecutor(settings.workers) as pool:

        def verdict(group: tuple[str, str, str]) -> Outcome:
            task, question, text = group
            return found.grade(known[task, question], text)

        verdicts = pool.map(verdict, groups)
        for keys, outcome in tqdm(
            zip(groups.values(), verdicts, strict=True), total=len(groups), unit="grade"
        ):
            for task, question, setting, sample in keys:
                log.append(
                    Grade(
                        task=task,
                        question=question,
                        setting=setting,
                        sample=sample,
                        right=outcome.passed,
                        by=found.means(known[task, question]),
                        note=outcome.note,
                    )
                )
