"""Contenders in turn: every repetition goes round all of them, so that noise hits all alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import psutil

from recipes.bench.contest.contenders import KINDS, OURS, OURS_INT8, Setting
from recipes.bench.contest.messages import Cell, Failure, Lap, Order, Ready, Report

STOP_SECONDS = 30.0


class Runner(Protocol):
    """What the driver asks of a contender."""

    name: str

    def runs(self, cell: Cell) -> bool: ...

    def run(self, order: Order) -> Lap | Failure: ...

    def cpu_seconds(self) -> float:
        """Processor time that the contender has used so far."""


class Round(NamedTuple):
    """One contender's lap in one repetition of a cell; `idle` is the processor time that the
    others used meanwhile, in seconds."""

    cell: Cell
    repetition: int
    name: str
    lap: Lap | Failure
    cpu_seconds: float
    idle: float


def rounds(
    runners: Sequence[Runner], order: Order, repeat: int, warmup: int = 1
) -> Iterator[Round]:
    """Run a cell `warmup` + `repeat` times on every contender that can; the first are dropped.

    A contender that fails is left out of what follows; its failure is one round.
    """
    able = [runner for runner in runners if runner.runs(order.cell)]
    for repetition in range(-warmup, repeat):
        for runner in list(able):
            before = {each.name: each.cpu_seconds() for each in runners}
            lap = runner.run(order)
            spent = {each.name: each.cpu_seconds() - before[each.name] for each in runners}
            own = spent.pop(runner.name)
            if isinstance(lap, Failure):
                able.remove(runner)
            elif repetition < 0:
                continue
            yield Round(order.cell, repetition, runner.name, lap, own, sum(spent.values()))


class Child:
    """A contender in its own process, with the same cores and threads as the others.

    Args:
        name: of `KINDS`.
        setting: what it is given.
        cores: the processor's cores that it may use, one thread each; None: any, with
            `setting.threads`.
        log: file for what it prints.
    """

    def __init__(self, name: str, setting: Setting, cores: Sequence[int] | None, log: Path) -> None:
        self.name = name
        self.log = log
        command = [sys.executable, "-m", "recipes.bench.contest.child", name]
        command.append(msgspec.json.encode(setting).decode())
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | environment(name, setting.threads, cores),
                preexec_fn=partial(os.sched_setaffinity, 0, cores) if cores else None,
                start_new_session=True,
            )

    def wait_until_loaded(self) -> Ready:
        """What it runs on, once its model is loaded.

        Raises:
            RuntimeError: it ended before.
        """
        report = self._receive()
        assert isinstance(report, Ready)
        return report

    def _receive(self) -> Report:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            tail = self.log.read_text(errors="replace").splitlines()[-20:]
            raise RuntimeError(
                f"{self.name} ended; the last lines of {self.log}:\n" + "\n".join(tail)
            )
        report: Report = msgspec.json.decode(line, type=Report)
        return report

    def runs(self, cell: Cell) -> bool:
        return KINDS[self.name].runs(cell)

    def run(self, order: Order) -> Lap | Failure:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()
        report = self._receive()
        assert not isinstance(report, Ready)
        return report

    def cpu_seconds(self) -> float:
        """User and system time of the process and all below it."""
        top = psutil.Process(self._process.pid)
        total = 0.0
        for process in [top, *top.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def close(self) -> None:
        """End the process: it stops when its input does."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()


def environment(name: str, threads: int, cores: Sequence[int] | None) -> dict[str, str]:
    """Variables of a contender's process. vLLM takes its threads from its list of cores."""
    variables = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    if name not in (OURS, OURS_INT8):
        return variables
    bound = ",".join(map(str, cores)) if cores else "nobind"
    return variables | {"VLLM_CPU_OMP_THREADS_BIND": bound, "VLLM_NO_USAGE_STATS": "1"}
