"""Fine-tune a model on posterior, human and no traces, and answer held-out questions with each.

    python -m recipes.posterior_traces.compare QUESTIONS.jsonl runs/traces --out runs/comparison

QUESTIONS are those of recipes/posterior_traces/shift.py, runs/traces is the folder of their traces.
Start the same command again to go on after a kill.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import torch
from msgspec import Meta, Struct
from transformers import PreTrainedTokenizerFast

from recipes.pass_at_k.estimator import mean_with_interval
from recipes.posterior_traces import shift
from recipes.posterior_traces.__main__ import chat
from recipes.posterior_traces.questions import Item, read_questions
from recipes.posterior_traces.settings import Template
from recipes.train.__main__ import source_of, tokenizer_of
from recipes.train.data import Chat
from recipes.train.evaluate import answers
from recipes.train.layout import read_model, write_model
from recipes.train.model import LLaDA
from recipes.train.questions import Question, check, held_out
from recipes.train.settings import (
    ChatData,
    OptimSettings,
    Positive,
    RandomMasking,
    RowLengths,
    RunSettings,
    Settings,
)
from recipes.train.trainer import Trainer

SETTINGS = Path(__file__).with_name("comparison.toml")
BASE = "no fine-tuning"
ARMS = (
    "posterior, filtered",
    "human, of the same questions",
    "posterior, unfiltered",
    "human",
    "answers only",
)


class Decoding(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the held-out questions are answered: greedily, ``per_pass`` positions a pass."""

    questions: Positive
    known_questions: Positive
    gen_length: Positive
    known_gen_length: Positive
    block_length: Positive
    per_pass: Positive


class Comparison(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One fine-tuning for every kind of trace and every seed, from the same model."""

    model: str
    seeds: tuple[Annotated[int, Meta(ge=0)], ...]
    rows: RowLengths
    masking: RandomMasking
    optim: OptimSettings
    run: RunSettings = RunSettings()
    test: Decoding

    def settings(self, file: Path, seed: int) -> Settings:
        """The training settings of one run."""
        data = ChatData(file=str(file), **msgspec.structs.asdict(self.rows))
        run = msgspec.structs.replace(self.run, seed=seed, start_from=self.model)
        sizes = read_model(Path(self.model)).settings
        return Settings(model=sizes, data=data, masking=self.masking, optim=self.optim, run=run)


class Result(Struct, frozen=True, kw_only=True):
    """What one model answers: for every held-out question whether the answer is right, and whether
    every line is; and of the questions that the base model knows, whether the answer is.
    """

    arm: str
    seed: int | None
    traces: int
    answer: list[bool]
    reasoning: list[bool]
    known: list[bool]


def write_arms(items: Sequence[Item], traces: Path, out: Path) -> dict[str, Path]:
    """The training file of every arm.

    Unfiltered are the first sample of every question, which no score chose. Human traces are of
    every question, and once of those alone that have a filtered trace; bare answers of every one.

    Raises:
        ValueError: a question has no human trace.
    """
    template = msgspec.json.decode((traces / "settings.json").read_bytes())["template"]
    template = msgspec.convert(template, Template)
    if missing := [item.question for item in items if not item.reasoning]:
        raise ValueError(f"{missing[0]!r} has no `reasoning`: the human arm needs one a question")
    kept = (traces / "kept.jsonl").read_bytes()
    has_kept = first_of_each(kept)
    human = {
        i.question: line_of(i.question, template.reply(i.reasoning or "", i.answer)) for i in items
    }
    content = (
        kept,
        b"".join(line for question, line in human.items() if question in has_kept),
        b"".join(first_of_each((traces / "distinct.jsonl").read_bytes()).values()),
        b"".join(human.values()),
        b"".join(line_of(i.question, template.reply("", i.answer)) for i in items),
    )
    out.mkdir(parents=True, exist_ok=True)
    files = {arm: out / f"{arm}.jsonl" for arm in ARMS}
    for arm, lines in zip(ARMS, content, strict=True):
        files[arm].write_bytes(lines)
    return files


def line_of(question: str, reply: str) -> bytes:
    return msgspec.json.encode(chat(question, reply)) + b"\n"


def first_of_each(lines: bytes) -> dict[str, bytes]:
    """The first conversation of every question; those of one question stand together, in the order
    of the samples.
    """
    first: dict[str, bytes] = {}
    for line in lines.splitlines(keepends=True):
        first.setdefault(msgspec.json.decode(line, type=Chat).messages[0].content, line)
    return first


def train(settings: Settings, folder: Path) -> None:
    """One fine-tuning; the averaged weights are in ``folder / "model"``."""
    tokenizer = tokenizer_of(settings)
    source = source_of(settings, tokenizer)
    trainer = Trainer(settings, source, int(tokenizer.mask_token_id), folder)

    def probe(model: LLaDA) -> Mapping[str, float]:
        write_model(folder / "model", settings.model, model.state_dict(), tokenizer)
        return {}

    trainer.train(probe)


def evaluate(study: Comparison, model: Path, arm: str, seed: int | None, traces: int) -> Result:
    """Answer the held-out questions."""
    test = study.test
    new = list(shift.questions(test.questions, "held_out", seed=0))
    known = list(held_out(test.known_questions))
    network, tokenizer = read_model(model), PreTrainedTokenizerFast.from_pretrained(model)

    def replies(questions: list[Question], gen_length: int) -> list[str]:
        return answers(network, tokenizer, questions, gen_length, test.block_length, test.per_pass)

    found = [check(q, t) for q, t in zip(new, replies(new, test.gen_length), strict=True)]
    old = zip(known, replies(known, test.known_gen_length), strict=True)
    return Result(
        arm=arm,
        seed=seed,
        traces=traces,
        answer=[verdict.answer_right for verdict in found],
        reasoning=[verdict.reasoning_right for verdict in found],
        known=[check(question, text).answer_right for question, text in old],
    )


HEAD = ("traces", "lines of data", "answer right", "by seed", "every line right", "known questions")


def table(results: Sequence[Result]) -> str:
    """Markdown, a row an arm: means over questions and seeds."""
    lines = [f"| {' | '.join(HEAD)} |", "| --- " * len(HEAD) + "|"]
    for arm in (*ARMS, BASE):
        if runs := [result for result in results if result.arm == arm]:
            by_seed = ", ".join(f"{np.mean(run.answer):.3f}" for run in runs)
            cells = (
                arm,
                runs[0].traces,
                over_questions([run.answer for run in runs]),
                by_seed,
                over_questions([run.reasoning for run in runs]),
                over_questions([run.known for run in runs]),
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
    reading = (
        f"{len(results[0].answer)} held-out questions of the new signs, {len(results[0].known)} "
        "held-out ones that the base model was trained for. Brackets: 95 % intervals, percentile "
        "bootstrap over questions, each with all its seeds."
    )
    return "\n".join([*lines, "", reading])


def over_questions(runs: Sequence[Sequence[bool]]) -> str:
    """The mean, and its interval over questions."""
    return str(mean_with_interval(np.mean(np.array(runs, dtype=float), axis=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("questions", type=Path)
    parser.add_argument("traces", type=Path, help="folder of their traces")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="TOML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    study = msgspec.toml.decode(args.settings.read_bytes(), type=Comparison)
    files = write_arms(read_questions(args.questions), args.traces, args.out / "data")
    path = args.out / "results.jsonl"
    done = path.read_bytes().splitlines() if path.exists() else []
    results = [msgspec.json.decode(line, type=Result) for line in done]

    def keep(result: Result) -> None:
        results.append(result)
        unfinished = path.with_suffix(".part")
        unfinished.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in results))
        unfinished.replace(path)
        print(f"{result.arm}, seed {result.seed}: {np.mean(result.answer):.3f}", flush=True)

    finished = {(result.arm, result.seed) for result in results}
    if (BASE, None) not in finished:
        keep(evaluate(study, Path(study.model), BASE, None, 0))
    for seed in study.seeds:
        for arm, file in files.items():
            if (arm, seed) not in finished:
                folder = args.out / f"{arm}, {seed}"
                train(study.settings(file, seed), folder)
                lines = file.read_bytes().count(b"\n")
                keep(evaluate(study, folder / "model", arm, seed, lines))
    text = table(results)
    (args.out / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
