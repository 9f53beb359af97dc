"""Scores of reasoning: the answer's log-probability given right and corrupted lines."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from recipes.infill_study.layout import (
    ANSWER,
    ANSWER_TOKENS,
    REASONING,
    Pieces,
    encoder,
    items,
    pieces,
)
from recipes.infill_study.score_report import Scored, picture_of, tables
from recipes.sampler_study.engine import chat
from recipes.train.questions import TWO_STEP_COLUMNS, Question
from vllm_mdlm.results import scores

if TYPE_CHECKING:
    from vllm import LLM


class Variant(NamedTuple):
    """A reasoning to be scored: its first ``visible`` lines, one of them wrong (None: none)."""

    visible: int
    corrupted: int | None


def corrupted(question: Question, line: int) -> str:
    """A line of the reasoning with another last digit; which one is fixed by question and line.

    That digit is the column's result. The lines behind stay as they were, so no other is false.
    """
    text = question.reasoning[line]
    others = [digit for digit in "0123456789" if digit != text[-1]]
    return text[:-1] + random.Random(f"{question.text}/{line}").choice(others)


def variants(lines: int) -> list[Variant]:
    """From no line to all, each right and with every one of its lines corrupted in turn."""
    return [
        Variant(visible, line) for visible in range(lines + 1) for line in (None, *range(visible))
    ]


def reasoning(question: Question, variant: Variant, encode: Any) -> list[int]:
    """Token ids of the visible lines."""
    lines = list(question.reasoning)
    if variant.corrupted is not None:
        lines[variant.corrupted] = corrupted(question, variant.corrupted)
    return [token for line in lines[: variant.visible] for token in encode(f"{line}\n")]


def target(found: Pieces, eos: int) -> list[int]:
    """The answer and EOS up to the end of its span."""
    return found.answer + [eos] * (ANSWER_TOKENS - len(found.answer))


class ScoreStudy:
    """Scores of all questions in one file, tables and picture."""

    def __init__(self, out: Path, questions: list[Question]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.questions = out, questions
        self.file = out / f"scores_{len(questions)}.json"

    @property
    def is_done(self) -> bool:
        return self.file.exists()

    def run(self, llm: LLM) -> None:
        """Score every variant of every question, a pass each."""
        found = self._scores(llm)
        unfinished = self.file.with_suffix(".part")
        unfinished.write_bytes(msgspec.json.encode(found))
        unfinished.replace(self.file)

    def report(self) -> str:
        """Write tables and picture; returns the tables."""
        found = msgspec.json.decode(self.file.read_bytes(), type=list[Scored])
        text = tables(found)
        (self.out / "scores.md").write_text(text + "\n")
        picture_of(found, self.out / "scores.png")
        return text

    def _scores(self, llm: LLM) -> list[Scored]:
        from vllm import SamplingParams

        # The route's way of scoring part of a template; its module needs vLLM's server.
        from vllm_mdlm.routes.reasoning_score import fill

        tokenizer: Any = llm.get_tokenizer()
        encode, eos = encoder(tokenizer), int(tokenizer.eos_token_id)
        jobs = list[tuple[int, Variant]]()
        params = list[Any]()
        for index, question in enumerate(self.questions):
            cut = pieces(question, encode)
            whole = items(len(cut.lines), cut.delimiter)
            for variant in variants(len(cut.lines)):
                known = {REASONING: reasoning(question, variant, encode)}
                template = fill(whole, known, ANSWER, target(cut, eos))
                params.append(SamplingParams(temperature=0.0, extra_args={"template": template}))
                jobs.append((index, variant))
        outputs = llm.chat([chat(self.questions[index]) for index, _ in jobs], params)
        return [
            self._scored(job, output.outputs[0]) for job, output in zip(jobs, outputs, strict=True)
        ]

    def _scored(self, job: tuple[int, Variant], output: Any) -> Scored:
        index, variant = job
        question, whole = self.questions[index], scores(output)
        assert whole is not None
        return Scored(
            question=index,
            lines=len(question.reasoning),
            earlier=earlier_lines(question),
            visible=variant.visible,
            corrupted=variant.corrupted,
            logprob=sum(whole[: len(str(question.answer))]),
            logprob_with_end=sum(whole),
        )


def earlier_lines(question: Question) -> int:
    """Lines of a step before the last, whose digits are not the answer's."""
    return TWO_STEP_COLUMNS if len(question.steps) > 1 else 0
