"""How much sooner the engine answers than LLaDA's own loop, at which accuracy.

    python -m recipes.bench.answers --llada LLADA --fast-dllm FAST_DLLM --questions 200

LLaDA's `generate.py` decides one token a pass; the engine runs the same sampler, and then samplers
and caches that need fewer passes or less of one. All answer the same held-out questions with the
embedded model, a batch at a time; README.md beside this file says where the checkouts come from.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import msgspec
from transformers import PreTrainedTokenizerFast

from recipes.bench.contest.contenders import OURS, Setting
from recipes.bench.contest.driver import Child, Runner
from recipes.bench.contest.messages import Answer, Cell, Failure, Mode, Order, Sampler
from recipes.bench.contest.report import agreement, spread
from recipes.bench.peers import free_cores, machine, network_of, summary
from recipes.intervals import wilson
from recipes.train.questions import Question, check, held_out
from recipes.train.tokenizer import chat_prompt

PEER = "LLaDA"
CANVAS = 96
BLOCK = 32

HEADER = (
    "| engine | sampler | cache | right (95 % interval) | passes | tokens/s, median (range) | "
    f"it / {PEER}, median (range; middle half) | same tokens |\n|" + " --- |" * 8
)


class Way(NamedTuple):
    """One contender with one sampler and cache mode."""

    engine: str
    sampler: Sampler
    mode: Mode = "exact"

    def cell(self, batch: Batch) -> Cell:
        """The workload of one batch: one token a pass where passes are scheduled."""
        return Cell(
            mode=self.mode,
            sampler=self.sampler,
            prompt=len(batch.prompts[0]),
            canvas=CANVAS,
            batch=len(batch.prompts),
            block=BLOCK,
            passes_per_block=BLOCK,
            threshold=0.95,
            entropy_threshold=0.2,
        )


CACHES: tuple[Mode, ...] = ("exact", "prefix", "dual")
FEW_PASSES: tuple[Sampler, ...] = ("med", "threshold")

WAYS = (
    Way(PEER, "low_confidence"),
    Way(OURS, "low_confidence"),
    *(Way(OURS, sampler, mode) for sampler in FEW_PASSES for mode in CACHES),
)
"""The first is what the others are compared with."""


class Batch(NamedTuple):
    """Questions with prompts of one length, in tokens."""

    questions: list[Question]
    prompts: list[list[int]]


class Turn(NamedTuple):
    """All batches once: wall seconds of all, and the answers of all questions."""

    seconds: float
    answers: list[Answer]

    @property
    def speed(self) -> float:
        """Tokens before EOS per second."""
        return sum(len(answer.tokens) for answer in self.answers) / self.seconds


def batches(tokenizer: Any, count: int, size: int) -> list[Batch]:
    """The first held-out questions that fill batches of one prompt length.

    Args:
        tokenizer: of the model.
        count: questions, a multiple of `size`.
        size: questions of a batch.
    """
    open_batches = defaultdict[int, Batch](lambda: Batch([], []))
    full: list[Batch] = []
    for question in held_out(100 * count):
        prompt = tokenizer.encode(chat_prompt(question.text), add_special_tokens=False)
        batch = open_batches[len(prompt)]
        batch.questions.append(question)
        batch.prompts.append(prompt)
        if len(batch.prompts) == size:
            full.append(open_batches.pop(len(prompt)))
        if len(full) == count // size:
            break
    return full


def run(runner: Runner, way: Way, given: Sequence[Batch]) -> Turn:
    """Answer all batches, one after another.

    Raises:
        RuntimeError: the contender failed.
    """
    seconds, answers = 0.0, list[Answer]()
    for batch in given:
        lap = runner.run(Order(way.cell(batch), batch.prompts))
        if isinstance(lap, Failure):
            raise RuntimeError(f"{way.engine} failed with {way.sampler}, {way.mode}: {lap.error}")
        seconds += lap.seconds
        answers += lap.answers
    return Turn(seconds, answers)


def contest(
    runners: dict[str, Runner], given: Sequence[Batch], repeat: int
) -> Iterator[dict[Way, Turn]]:
    """Every repetition goes round all ways, so that a noisy minute hits all alike. Before the
    first, each answers one batch that does not count."""
    for way in WAYS:
        run(runners[way.engine], way, given[:1])
    for _ in range(repeat):
        yield {way: run(runners[way.engine], way, given) for way in WAYS}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One way: `speeds` in tokens before EOS per second and `ratios` to the first way's, by
    repetition; `right` of `questions` answers, `passes` in the mean, `same_tokens` as the first
    way's, a share."""

    engine: str
    sampler: str
    mode: str
    questions: int
    right: int
    passes: float
    speeds: list[float]
    ratios: list[float]
    same_tokens: float


def results(
    turns: Sequence[dict[Way, Turn]], tokenizer: Any, given: Sequence[Batch]
) -> list[Result]:
    """What every way did; its answers are the same in all repetitions, as all choose greedily."""
    questions = [question for batch in given for question in batch.questions]
    found = []
    for way in WAYS:
        answers = turns[0][way].answers
        texts = [tokenizer.decode(answer.tokens) for answer in answers]
        verdicts = [check(q, text) for q, text in zip(questions, texts, strict=True)]
        result = Result(
            engine=way.engine,
            sampler=way.sampler,
            mode=way.mode,
            questions=len(questions),
            right=sum(verdict.answer_right for verdict in verdicts),
            passes=mean(answer.passes for answer in answers),
            speeds=[turn[way].speed for turn in turns],
            ratios=[turn[way].speed / turn[WAYS[0]].speed for turn in turns],
            same_tokens=agreement(turns[0][WAYS[0]].answers, answers)[0],
        )
        found.append(result)
    return found


def line(result: Result) -> str:
    """A row of the table."""
    low, high = wilson(result.right, result.questions)
    speed, ratio = spread(result.speeds), spread(result.ratios)
    middle = f"{ratio.quartiles[0]:.1f} to {ratio.quartiles[1]:.1f}"
    fields = [
        result.engine,
        result.sampler,
        result.mode,
        f"{result.right / result.questions:.3f} ({low:.3f} to {high:.3f})",
        f"{result.passes:.1f}",
        f"{speed.median:.0f} ({speed.low:.0f} to {speed.high:.0f})",
        f"{ratio.median:.1f} ({ratio.low:.1f} to {ratio.high:.1f}; {middle})",
        f"{100 * result.same_tokens:.1f} %",
    ]
    return "| " + " | ".join(fields) + " |"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--llada", type=Path, required=True, help="checkout of ML-GSAI/LLaDA")
    parser.add_argument("--fast-dllm", type=Path, help="checkout of NVlabs/Fast-dLLM")
    parser.add_argument(
        "--network", type=Path, help="folder with modeling_llada.py; unset: Fast-dLLM's copy"
    )
    parser.add_argument("--model", type=Path, default=Path("recipes/models/arithmetic"))
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--unpinned", action="store_true", help="as for recipes.bench.peers")
    parser.add_argument("--output", type=Path, default=Path("runs/answers"))
    options = parser.parse_args()
    options.network = network_of(options)
    if options.network is None:
        parser.error("the network's code is missing: give --network or --fast-dllm")
    if options.questions % options.batch:
        parser.error(f"--questions {options.questions} is no multiple of --batch {options.batch}")
    return options


def main() -> None:
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    cores, busy = free_cores(options.threads)
    about = machine(options, None if options.unpinned else cores, busy)
    print(about, flush=True)
    setting = Setting(
        str(options.model.resolve()),
        options.dtype,
        options.threads,
        str(options.llada.resolve()),
        str(options.network.resolve()),
    )
    tokenizer = PreTrainedTokenizerFast.from_pretrained(options.model)
    given = batches(tokenizer, options.questions, options.batch)
    turns = []
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for name in (PEER, OURS):
            child = Child(name, setting, about["cores"], options.output / f"{name}.log")
            stack.callback(child.close)
            about[name] = msgspec.to_builtins(child.wait_until_loaded())
            runners[name] = child
        for turn in contest(runners, given, options.repeat):
            turns.append(turn)
            speeds = ", ".join(f"{one.speed:.0f}" for one in turn.values())
            print(f"repetition {len(turns)}: {speeds} tokens/s", flush=True)
    found = results(turns, tokenizer, given)
    title = f"{options.model.name}, {options.dtype}, {options.questions} questions in batches of "
    title += f"{options.batch}; {summary(about)}"
    text = "\n".join([title, "", HEADER, *map(line, found)])
    print(text)
    (options.output / "answers.md").write_text(text + "\n")
    encoded = msgspec.json.encode({"machine": about, "results": found})
    (options.output / "answers.json").write_bytes(msgspec.json.format(encoded) + b"\n")


if __name__ == "__main__":
    main()
