"""Serve a LLaDA, ask it a question with samplers of the request's choice, show what came back.

python -m recipes.quickstart [MODEL] [--question TEXT] [--sampler NAME ...]
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from openai import OpenAI

from recipes.server import serve
from recipes.train.questions import Question, check, parse

MODEL = Path(__file__).with_name("models") / "arithmetic"
QUESTION = "What is 4871 + 359?"
SAMPLERS = ("low_confidence", "threshold")
MAX_TOKENS = 96


class Report(NamedTuple):
    """What is shown of one request, and whether the answer is wrong."""

    text: str
    wrong: bool


def ask(
    client: OpenAI, model: str, question: str, sampler: str, arithmetic: Question | None
) -> Report:
    """One chat request with `sampler`; a report of the answer and of what it took.

    arithmetic: what the question asks, where the answer is to be checked.
    """
    begun = time.perf_counter()
    response = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=MAX_TOKENS,
        temperature=0,
        extra_body={"vllm_xargs": {"sampler": sampler}},
    )
    seconds = time.perf_counter() - begun
    usage: Any = response.usage  # `forward_passes` is ours: the client's type lacks it.
    tokens = usage.completion_tokens
    answer = response.choices[0].message.content or ""
    checked, wrong = judge(arithmetic, answer)
    rows = {
        "question": question,
        "answer": answer,
        "checked": checked,
        "sampler": sampler,
        "forward passes": usage.forward_passes,
        "tokens": f"{tokens}, {tokens / seconds:.1f} per second",
    }
    shown = {name: value for name, value in rows.items() if value is not None}
    text = "\n".join(f"{name:>14}  {_aligned(str(value))}" for name, value in shown.items())
    return Report(text, wrong)


def judge(arithmetic: Question | None, answer: str) -> tuple[str | None, bool]:
    """What a check of the answer says, None without one, and whether the answer is wrong."""
    if arithmetic is None:
        return None, False
    verdict = check(arithmetic, answer)
    if not verdict.answer_right:
        return f"wrong, the answer is {arithmetic.answer}", True
    return "right" if verdict.reasoning_right else "right, but not every line", False


def _aligned(text: str) -> str:
    return text.strip().replace("\n", "\n" + " " * 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=MODEL, help="folder of a LLaDA")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--sampler", nargs="+", default=SAMPLERS, help="one request for each")
    args = parser.parse_args()
    if not (args.model / "config.json").is_file():
        parser.error(f"{args.model} is no model: it has no config.json; name a LLaDA's folder")
    # An orderly end for every way of being stopped: leaving `serve` stops the server.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))

    name = args.model.resolve().name
    options = ("--served-model-name", name)
    wrong = False
    print("vllm serve", args.model, *options, flush=True)
    try:
        with serve(args.model, *options) as server:
            print(f"serving {name} at {server.base_url}", flush=True)
            client = OpenAI(base_url=server.base_url, api_key="none")
            # Only the embedded model was trained on these questions.
            arithmetic = parse(args.question) if args.model == MODEL else None
            for sampler in args.sampler:
                report = ask(client, name, args.question, sampler, arithmetic)
                print("\n" + report.text, flush=True)
                wrong = wrong or report.wrong
    except RuntimeError as error:
        sys.exit(f"quickstart: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print("\nserver stopped")
    if wrong:
        sys.exit("quickstart: an answer is wrong")


if __name__ == "__main__":
    main()
