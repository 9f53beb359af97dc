"""Right, wrong and equivalent answers; programs that misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipes.pass_at_k import sandbox
from recipes.pass_at_k.grade import MathsJudge, grader
from recipes.pass_at_k.maths_worker import backend, by_sympy, final_answer
from recipes.pass_at_k.sandbox import PREFIXES, Limits, isolation, run_program
from recipes.pass_at_k.settings import Grading, Task
from recipes.pass_at_k.tasks import extract_code, load

SAMPLES = Path("recipes/pass_at_k/samples")
LIMITS = Limits(seconds=5, memory_mib=1024)
SHORT = Limits(seconds=0.6, memory_mib=512)

EQUAL = [
    (r"\frac{3}{8}", r"so it is $\boxed{\dfrac{3}{8}}$."),
    (r"\frac{3}{8}", r"\boxed{0.375}"),
    (r"\frac{3}{8}", r"\boxed{3/8}"),
    ("33", r"\boxed{033}"),
    ("1500", r"\boxed{1,500}"),
    (r"2\sqrt{10}", r"first \boxed{7}, then \boxed{\sqrt{40}}"),
    ("x^2+2x-15", r"\boxed{(x-3)(x+5)}"),
    (r"\left(4,\frac{\pi}{2}\right)", r"\boxed{(4, \pi/2)}"),
    (r"\text{east}", r"\boxed{\text{east}}"),
    ("42", "The answer is 42."),
    ("42", "It could be 7, but it is 42"),
]
DIFFERENT = [
    (r"\frac{3}{8}", r"\boxed{\frac{8}{3}}"),
    ("33", r"\boxed{333}"),
    (r"2\sqrt{10}", r"\boxed{2\sqrt{11}}"),
    (r"\left(4,\frac{\pi}{2}\right)", r"\boxed{(\pi/2, 4)}"),
    (r"\text{east}", r"\boxed{\text{west}}"),
    ("42", "The answer is 41."),
    ("42", ""),
    ("42", "no number at all"),
    ("42", r"42, no: \boxed{\frac{1}{"),
]


@pytest.fixture(scope="module", params=["sympy", "math-verify"])
def judge(request: pytest.FixtureRequest) -> Iterator[MathsJudge]:
    if request.param == "math-verify" and backend() != "math-verify":
        pytest.skip("math-verify is not installed")
    found = MathsJudge(LIMITS, request.param)
    yield found
    found.close()


@pytest.mark.parametrize(("gold", "text"), EQUAL)
def test_equivalent_forms_are_right(judge: MathsJudge, gold: str, text: str) -> None:
    assert judge.judge(gold, text).passed


@pytest.mark.parametrize(("gold", "text"), DIFFERENT)
def test_other_values_are_wrong(judge: MathsJudge, gold: str, text: str) -> None:
    assert not judge.judge(gold, text).passed


def test_an_endless_comparison_costs_its_limit_and_no_other_answer() -> None:
    judge = MathsJudge(Limits(seconds=1, memory_mib=1024), "sympy")
    try:
        assert judge.judge("5", r"\boxed{5}").passed
        found = judge.judge("5", r"\boxed{9^{9^{9^9}}}")
        assert not found.passed
        assert judge.judge("5", r"\boxed{5}").passed
    finally:
        judge.close()


@pytest.mark.skipif(isolation() != "namespaces", reason="no namespaces here")
def test_what_a_model_writes_is_evaluated_where_it_does_no_harm(tmp_path: Path) -> None:
    """sympy's parser calls eval: outside the sandbox this answer makes a folder."""
    target = tmp_path / "made"
    judge = MathsJudge(LIMITS, "sympy")
    made = f"__import__('os').mkdir('{target}')"
    assert not judge.judge("5", f'\\boxed{{eval("{made}")}}').passed
    assert not target.exists()
    with contextlib.suppress(TypeError):
        by_sympy("5", f'\\boxed{{eval("{made}")}}')
    assert target.exists()
    judge.close()


def test_the_last_box_counts_and_braces_may_nest() -> None:
    assert final_answer(r"\boxed{1} or \boxed{\frac{1}{\sqrt{2}}} it is") == r"\frac{1}{\sqrt{2}}"


@pytest.mark.parametrize("name", ["humaneval", "mbpp"])
def test_the_samples_own_solutions_pass_and_an_empty_answer_fails(name: str) -> None:
    items = load(Task(name=name, max_tokens=1), SAMPLES)
    rows = map(json.loads, (SAMPLES / f"{name}.jsonl").read_text().splitlines())
    with grader(Grading()) as found:
        for item, row in zip(items, rows, strict=True):
            solution = row.get("code") or row["prompt"] + row["canonical_solution"]
            assert found.grade(item, f"Here:\n```python\n{solution}\n```\nDone.").passed
            assert not found.grade(item, "").passed


def test_a_body_alone_continues_the_prompt() -> None:
    (item, *_) = load(Task(name="humaneval", max_tokens=1), SAMPLES)
    with grader(Grading()) as found:
        assert found.grade(item, "    return sum(x in 'aeiou' for x in word)\n").passed
        assert not found.grade(item, "    return 1\n").passed


def test_code_is_the_first_fenced_block_even_if_it_is_not_closed() -> None:
    assert extract_code("a\n```python\nx = 1\n```\nb\n```\ny\n```") == "x = 1\n"
    assert extract_code("```\nx = 1\n") == "x = 1\n"
    assert extract_code("x = 1") == "x = 1"


NETWORK = """
import socket
socket.create_connection(("127.0.0.1", {port}), timeout=2).close()
"""
PROGRAMS = {
    "wrong": ("assert 1 == 2", "AssertionError"),
    "exit": ("import sys; sys.exit(0)", "SystemExit"),
    "hard exit": ("import os; os._exit(0)", "ended by itself with status 0"),
    "syntax": ("def f(:", "SyntaxError"),
    "crash": ("import ctypes; ctypes.string_at(0)", "ended by itself"),
    "memory": ("x = bytearray(2**40)", "MemoryError"),
    "slow memory": ("x = []\nwhile True: x.append(bytearray(2**20))", "MemoryError"),
    "recursion": ("def f(): return f()\nf()", "RecursionError"),
    "input": ("input()", "EOFError"),
    "exception in a class": ("class E(BaseException): pass\nraise E", "E"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_fails_says_why(name: str) -> None:
    program, note = PROGRAMS[name]
    found = run_program(program, Limits(seconds=20, memory_mib=96))
    assert not found.passed
    assert note in found.note


def test_a_program_that_ends_well_passes_whatever_it_prints() -> None:
    assert run_program("print('x' * 10**7)\nimport os\nos.write(2, b'y' * 10**6)", LIMITS).passed


def test_the_verdict_cannot_be_printed() -> None:
    program = """print('{"token": "", "error": null}', flush=True)\nassert False"""
    assert not run_program(program, LIMITS).passed


@pytest.mark.parametrize(
    "program", ["while True: pass", "import time; time.sleep(99)", "print('x')\nwhile 1: print()"]
)
def test_an_endless_program_ends_at_its_limit(program: str) -> None:
    begun = time.monotonic()
    found = run_program(program, SHORT)
    assert not found.passed
    assert "no end after 0.6 s" in found.note
    assert time.monotonic() - begun < 5


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("name", PREFIXES)
def test_there_is_no_network(name: str, listener: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even this machine's own ports, whichever way it is closed."""
    names = list(PREFIXES)
    if names.index(name) < names.index(isolation()):
        pytest.skip(f"no {name} here")
    socket.create_connection(("127.0.0.1", listener), timeout=2).close()
    monkeypatch.setattr(sandbox, "isolation", lambda: name)
    assert run_program("x = 1", LIMITS).passed
    found = run_program(NETWORK.format(port=listener), LIMITS)
    assert not found.passed
    assert "Error" in found.note


@pytest.mark.skipif(isolation() != "namespaces", reason="no namespaces here")
def test_files_and_children_do_not_outlive_a_program(tmp_path: Path) -> None:
    target = tmp_path / "made"
    assert "Read-only" in run_program(f"open({str(target)!r}, 'w')", LIMITS).note
    assert run_program("open('own', 'w').write('x')", LIMITS).passed
    mark = f"sleep-{os.getpid()}"
    child = f"""
import subprocess
subprocess.Popen(["sh", "-c", "sleep 60; : {mark}"], start_new_session=True)
"""
    assert run_program(child, LIMITS).passed
    lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
    assert not any(mark.encode() in line for line in lines)
