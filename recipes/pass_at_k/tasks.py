"""Questions of every task, from the Hub, from files of the same schema, or drawn.

The wording of the prompts is ours.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from recipes.pass_at_k.harder import new_words
from recipes.pass_at_k.settings import Task
from recipes.train.questions import held_out


class MathRow(Struct):
    """A row of MATH-500; ``answer`` is LaTeX."""

    problem: str
    answer: str
    unique_id: str


class AimeRow(Struct):
    """A row of an AIME; the answer is an integer from 0 to 999, possibly with leading zeros."""

    problem: str
    answer: str | int
    id: str | int


class HumanEvalRow(Struct):
    """A row of HumanEval; ``test`` defines ``check(candidate)``."""

    task_id: str
    prompt: str
    test: str
    entry_point: str


class MbppRow(Struct):
    """A row of MBPP; ``test_list`` holds assertions."""

    task_id: int
    text: str
    test_list: list[str]
    test_setup_code: str = ""


class Item(NamedTuple):
    """One question. ``gold`` is what its grader compares with: an answer in LaTeX, a function from
    completion to program, or a ``Question``.
    """

    id: str
    prompt: str
    grader: Literal["maths", "code", "arithmetic"]
    gold: Any


class Source(NamedTuple):
    """Where a task's rows are: name, configuration and split on the Hub, and how to read one."""

    path: str
    config: str | None
    split: str
    read: Callable[[Mapping[str, Any]], Item]


def load(task: Task, folder: Path | None = None) -> list[Item]:
    """A task's questions: from ``folder/NAME.jsonl``, or from the Hub where no folder is given.

    Raises:
        RuntimeError: the package ``datasets`` is missing.
        msgspec.ValidationError: a row lacks a field.
    """
    if task.name == "arithmetic":
        return arithmetic(task)
    source = SOURCES[task.name]
    rows = local_rows(folder / f"{task.name}.jsonl") if folder else hub_rows(source)
    return [source.read(row) for row in islice(rows, task.questions)]


def arithmetic(task: Task) -> list[Item]:
    """The first questions of a kind: those in new words, or the held-out ones of the other studies,
    in their order.
    """
    if task.kind == "new words":
        questions = new_words()
    else:
        questions = (q for q in held_out(sys.maxsize) if task.kind in ("all", q.kind))
    return [
        Item("|".join(map(str, q.steps)), q.text, "arithmetic", q)
        for q in islice(questions, task.questions)
    ]


def local_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    """Rows of a JSONL file."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def hub_rows(source: Source) -> Iterable[Mapping[str, Any]]:
    """Rows of a data set on the Hub, by the package ``datasets``."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise RuntimeError(
            f"{source.path} is read with the package `datasets`, which is not installed; "
            "pip install 'vllm-mdlm[studies]', or name a folder of JSONL files by --samples"
        ) from None
    rows: Iterable[Mapping[str, Any]] = load_dataset(source.path, source.config, split=source.split)
    return rows


def read_math(row: Mapping[str, Any]) -> Item:
    """A problem of MATH-500."""
    found = msgspec.convert(row, MathRow)
    return Item(found.unique_id, maths_prompt(found.problem), "maths", found.answer)


def read_aime(row: Mapping[str, Any]) -> Item:
    """A problem of an AIME; leading zeros of the answer are dropped."""
    found = msgspec.convert(row, AimeRow)
    return Item(str(found.id), maths_prompt(found.problem), "maths", str(int(found.answer)))


def maths_prompt(problem: str) -> str:
    return f"{problem}\n\nReason step by step. Put the final answer in \\boxed{{}}."


def read_humaneval(row: Mapping[str, Any]) -> Item:
    """A function to complete."""
    found = msgspec.convert(row, HumanEvalRow)

    def program(completion: str) -> str:
        code = extract_code(completion)
        start = found.prompt
        if f"def {found.entry_point}(" in code:
            # A whole function stands on what precedes it in the prompt; a body continues it.
            start = start.rpartition(f"def {found.entry_point}(")[0]
        return f"{start}{code}\n\n{found.test}\n\ncheck({found.entry_point})\n"

    prompt = f"Complete this function. Answer with the whole function.\n\n{fenced(found.prompt)}"
    return Item(found.task_id, prompt, "code", program)


def read_mbpp(row: Mapping[str, Any]) -> Item:
    """A function to write; all its tests are in the prompt, because they fix its name."""
    found = msgspec.convert(row, MbppRow)
    tests = "\n".join(found.test_list)

    def program(completion: str) -> str:
        return f"{found.test_setup_code}\n{extract_code(completion)}\n\n{tests}\n"

    prompt = f"{found.text}\n\nWrite it in Python. It must pass these tests:\n\n{fenced(tests)}"
    return Item(str(found.task_id), prompt, "code", program)


def fenced(code: str) -> str:
    return f"```python\n{code.rstrip()}\n```"


def extract_code(completion: str) -> str:
    """The first fenced block of a completion, to its end if nothing closes it; without a fence
    the whole text.
    """
    found = re.search(r"```(?:python|py)?[ \t]*\n(.*?)(?:^```|\Z)", completion, re.S | re.M)
    return found[1] if found else completion


SOURCES: dict[str, Source] = {
    "math500": Source("HuggingFaceH4/MATH-500", None, "test", read_math),
    "aime24": Source("HuggingFaceH4/aime_2024", None, "train", read_aime),
    "aime25": Source("math-ai/aime25", None, "test", read_aime),
    "humaneval": Source("openai/openai_humaneval", None, "test", read_humaneval),
    "mbpp": Source("google-research-datasets/mbpp", "full", "test", read_mbpp),
}
