"""Run a sweep: python -m recipes.sampler_study samplers --model recipes/models/arithmetic --out DIR

Every setting answers the same held-out questions at temperature 0, in batches, through vLLM. A run
that was stopped goes on with the settings that have no result yet.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.sampler_study.engine import chat, start
from recipes.sampler_study.kept import Folder
from recipes.sampler_study.report import Result, changed_tokens, plot, table
from recipes.sampler_study.sweep import GEN_LENGTH, SWEEPS, Setting, baseline
from recipes.train.questions import Question, check, held_out
from vllm_mdlm.results import num_passes

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput


def answer(llm: LLM, setting: Setting, questions: list[Question]) -> list[RequestOutput]:
    """The outputs of all questions with one setting."""
    from vllm import SamplingParams

    params = SamplingParams(
        temperature=0.0, seed=0, max_tokens=GEN_LENGTH, extra_args=setting.arguments()
    )
    return llm.chat([chat(question) for question in questions], params)


class Study:
    """One sweep in one folder: `results.jsonl`, and the token ids of every setting's answers."""

    def __init__(self, out: Path, sweep: list[Setting], questions: list[Question]) -> None:
        self.out, self.sweep, self.questions = out, sweep, questions
        self.folder = Folder(out, Result, len(questions))

    def missing(self) -> list[Setting]:
        return self.folder.missing(self.sweep)

    def run(self, llm: LLM, setting: Setting) -> Result:
        """Answer, check and keep one setting."""
        begun = time.perf_counter()
        outputs = [output.outputs[0] for output in answer(llm, setting, self.questions)]
        seconds = time.perf_counter() - begun
        verdicts = [check(q, o.text) for q, o in zip(self.questions, outputs, strict=True)]
        tokens = [list(output.token_ids) for output in outputs]
        self.folder.answers(setting).write_text(json.dumps(tokens))
        compared = json.loads(self.folder.answers(baseline(setting, self.sweep)).read_text())
        result = Result(
            setting.sampler,
            setting.label,
            len(outputs),
            sum(verdict.answer_right for verdict in verdicts),
            sum(verdict.reasoning_right for verdict in verdicts),
            sum(map(num_passes, outputs)) / len(outputs),
            changed_tokens(tokens, compared),
            seconds,
        )
        self.folder.keep(result)
        return result

    def report(self) -> str:
        """Write table and plot; returns the table."""
        results = self.folder.in_order(self.sweep)
        text = table(results)
        (self.out / "table.md").write_text(text + "\n")
        plot(results, self.out / "accuracy.png")
        return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweep", choices=SWEEPS)
    parser.add_argument("--model", default="recipes/models/arithmetic")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    questions = list(held_out(arguments.questions))
    study = Study(arguments.out, SWEEPS[arguments.sweep](), questions)
    missing = study.missing()
    if missing:
        llm = start(arguments.model, arguments.batch)
        for setting in missing:
            print(f"{setting.name}: {study.run(llm, setting)}", flush=True)
    print(study.report())


if __name__ == "__main__":
    main()
