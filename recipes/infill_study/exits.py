"""Early exit: one template a question, every bound with every sampler."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from recipes.infill_study.exit_report import Answer, Result, entropies, table
from recipes.infill_study.layout import ANSWER, LINE_TOKENS, encoder, items, pieces, reply
from recipes.sampler_study.engine import chat
from recipes.sampler_study.kept import Folder
from recipes.train.questions import Question
from vllm_mdlm.results import infill, num_passes, trace

if TYPE_CHECKING:
    from vllm import LLM

BOUNDS = (0.01, 0.1, 0.5, 1.0, 2.0)
"""Nats. The paper's table has 0.1; the others are our choice."""

BLOCK_LENGTH = 32
"""Of the reasoning, as in the paper's table; the answer is one block."""


class Setting(NamedTuple):
    """A sampler, its parameters and the bound of the answer's entropy (nats; None: no exit)."""

    sampler: str
    own: dict[str, float]
    early_exit: float | None = None

    @property
    def label(self) -> str:
        exits = {} if self.early_exit is None else {"early_exit": self.early_exit}
        parts = [f"{name} {value:g}" for name, value in (self.own | exits).items()]
        return ", ".join(parts)

    def arguments(self, template: list[Any]) -> dict[str, Any]:
        """Request parameters, as in `vllm_xargs`."""
        exits = {} if self.early_exit is None else {"early_exit": self.early_exit}
        return {
            "template": template,
            "answer": ANSWER,
            "sampler": self.sampler,
            "block_length": BLOCK_LENGTH,
            "trace": 1,
            **self.own,
            **exits,
        }


def sweep() -> list[Setting]:
    """The paper's two samplers, one token a pass and MED, first without exit."""
    samplers = (Setting("entropy", {}), Setting("med", {"entropy_threshold": 0.2}))
    return [one._replace(early_exit=bound) for one in samplers for bound in (None, *BOUNDS)]


class ExitStudy:
    """The sweep in one folder: results, answers with their entropies, table and picture."""

    def __init__(self, out: Path, questions: list[Question]) -> None:
        self.questions, self.sweep = questions, sweep()
        self.folder = Folder(out, Result, len(questions))

    @property
    def is_done(self) -> bool:
        return not self.folder.missing(self.sweep)

    def run(self, llm: LLM) -> None:
        """Answer with every setting that has no result."""
        for setting in self.folder.missing(self.sweep):
            begun = time.perf_counter()
            answers = self._answers(llm, setting)
            seconds = time.perf_counter() - begun
            self.folder.answers(setting).write_bytes(msgspec.json.encode(answers))
            without = self._kept(setting._replace(early_exit=None))
            result = Result.of(
                setting.sampler, setting.label, setting.early_exit, answers, without, seconds
            )
            self.folder.keep(result)
            print(f"{setting.sampler} {setting.label}: {result}", flush=True)

    def report(self) -> str:
        """Write table and picture; returns the table."""
        text = table(self.folder.in_order(self.sweep))
        (self.folder.out / "table.md").write_text(text + "\n")
        whole = {one.sampler: self._kept(one) for one in self.sweep if one.early_exit is None}
        entropies(whole, BOUNDS, self.folder.out / "entropy.png")
        return text

    def _kept(self, setting: Setting) -> list[Answer]:
        return msgspec.json.decode(self.folder.answers(setting).read_bytes(), type=list[Answer])

    def _answers(self, llm: LLM, setting: Setting) -> list[Answer]:
        from vllm import SamplingParams

        tokenizer: Any = llm.get_tokenizer()
        encode = encoder(tokenizer)
        templates = [items(len(q.reasoning), pieces(q, encode).delimiter) for q in self.questions]
        params = [
            SamplingParams(temperature=0.0, seed=0, extra_args=setting.arguments(template))
            for template in templates
        ]
        outputs = llm.chat([chat(question) for question in self.questions], params)
        return [
            answer_of(question, template, output.outputs[0], tokenizer)
            for question, template, output in zip(self.questions, templates, outputs, strict=True)
        ]


def answer_of(question: Question, template: list[Any], output: Any, tokenizer: Any) -> Answer:
    """What one finished `CompletionOutput` says."""
    filled, traced = infill(output), trace(output)
    assert filled is not None
    assert traced is not None
    found = reply(template, filled, tokenizer)
    reasoning = LINE_TOKENS * len(question.reasoning)
    return Answer(
        reasoning=found.reasoning,
        answer=found.answer,
        right=found.answer_right(question),
        reasoning_right=found.reasoning_right(question),
        passes=num_passes(output),
        reasoning_passes=max(traced["forward_pass"][:reasoning]) + 1,
        exited=filled.exited_early,
        entropy=filled.answer_entropy,
    )
