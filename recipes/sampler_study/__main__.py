"""Run the study: python -m recipes.sampler_study --model recipes/models/arithmetic --out DIR

Every setting answers the same held-out questions at temperature 0, in batches, through vLLM. A run
that was stopped goes on with the settings that have no result yet.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.sampler_study.report import Result, plot, read, table, write
from recipes.sampler_study.sweep import GEN_LENGTH, Setting, sweep
from recipes.train.questions import Question, check, held_out
from vllm_mdlm.results import num_passes

if TYPE_CHECKING:
    from vllm import LLM


def run(llm: LLM, setting: Setting, questions: list[Question]) -> Result:
    """Answer all questions with one setting."""
    from vllm import SamplingParams

    params = SamplingParams(
        temperature=0.0, seed=0, max_tokens=GEN_LENGTH, extra_args=setting.arguments()
    )
    chats: list[Any] = [[{"role": "user", "content": question.text}] for question in questions]
    outputs = [output.outputs[0] for output in llm.chat(chats, params)]
    verdicts = [check(q, o.text) for q, o in zip(questions, outputs, strict=True)]
    return Result(
        setting.sampler,
        setting.label,
        len(questions),
        sum(verdict.answer_right for verdict in verdicts),
        sum(verdict.reasoning_right for verdict in verdicts),
        sum(map(num_passes, outputs)) / len(outputs),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="recipes/models/arithmetic")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results_file = arguments.out / "results.jsonl"
    results = read(results_file) if results_file.exists() else []
    done = {(result.sampler, result.label) for result in results}
    missing = [setting for setting in sweep() if (setting.sampler, setting.label) not in done]
    if missing:
        from vllm import LLM

        llm = LLM(arguments.model, max_num_seqs=arguments.batch, max_num_batched_tokens=16384)
        questions = list(held_out(arguments.questions))
        for setting in missing:
            results.append(run(llm, setting, questions))
            write(results_file, results)
            print(f"{setting.sampler} {setting.label}: {results[-1]}", flush=True)
    order = {(setting.sampler, setting.label): index for index, setting in enumerate(sweep())}
    results.sort(key=lambda result: order[result.sampler, result.label])
    (arguments.out / "table.md").write_text(table(results) + "\n")
    plot(results, arguments.out / "accuracy.png")
    print(table(results))


if __name__ == "__main__":
    main()
