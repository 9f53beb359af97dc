"""Accuracy of a model on held-out questions as a client sees it: `vllm serve` and the chat API.

python -m recipes.train.served recipes/models/arithmetic --questions 2000 --sampler low_confidence
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from openai import AsyncOpenAI
from tqdm.asyncio import tqdm

from recipes.server import serve
from recipes.train.evaluate import by_kind
from recipes.train.questions import Question, check, held_out

CONCURRENT = 128
"""Requests in flight: as many as vLLM batches by default on a CPU."""


class Answer(NamedTuple):
    """One answer: its text, its tokens before EOS, its forward passes."""

    text: str
    tokens: int
    passes: int


async def ask_all(
    base_url: str, model: str, questions: Sequence[Question], arguments: dict[str, Any]
) -> list[Answer]:
    """Every question as one chat request at temperature 0, `CONCURRENT` at a time."""
    gate = asyncio.Semaphore(CONCURRENT)

    async with AsyncOpenAI(base_url=base_url, api_key="none", timeout=3600) as client:

        async def ask(question: Question) -> Answer:
            async with gate:
                response = await client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": question.text}],
                    max_tokens=int(arguments["gen_length"]),
                    temperature=0,
                    extra_body={"vllm_xargs": arguments},
                )
            usage: Any = response.usage  # `forward_passes` is ours: the client's type lacks it.
            text = response.choices[0].message.content or ""
            return Answer(text, usage.completion_tokens, usage.forward_passes)

        return list(await tqdm.gather(*map(ask, questions), desc="questions"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--sampler", default="low_confidence")
    parser.add_argument("--gen-length", type=int, default=96)
    parser.add_argument("--block-length", type=int, default=32)
    parser.add_argument(
        "--xargs", type=json.loads, default={}, help="more request parameters, as a JSON object"
    )
    args = parser.parse_args()
    arguments = {
        "sampler": args.sampler,
        "gen_length": args.gen_length,
        "block_length": args.block_length,
        **args.xargs,
    }
    questions = list(held_out(args.questions, args.seed))
    with serve(args.model, "--served-model-name", "model") as server:
        begun = time.perf_counter()
        answers = asyncio.run(ask_all(server.base_url, "model", questions, arguments))
        seconds = time.perf_counter() - begun
    verdicts = [check(q, a.text) for q, a in zip(questions, answers, strict=True)]
    print(json.dumps(arguments))
    print(by_kind(questions, verdicts))
    passes = sum(a.passes for a in answers) / len(answers)
    tokens = sum(a.tokens for a in answers)
    print(f"{passes:.1f} passes an answer; {tokens} tokens in {seconds:.0f} s")


if __name__ == "__main__":
    main()
