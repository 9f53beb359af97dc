"""Throughput, time to first text and the tail of many concurrent streams, by `vllm bench serve`.

    python -m recipes.bench.streams --model recipes/models/arithmetic --concurrency 1 8 64

Serves the model, sends random prompts with so many requests in flight, and prints one line for
each concurrency: output tokens per second beside those of one stream, time to first text (a whole
block becomes final from its left end on, so it is the time of a part of the first block) and time
of an answer in milliseconds at the 50th, 95th and 99th percentile, passes per second and tokens
per pass of the engine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from recipes.server import Server, serve, vllm_command

PERCENTILES = (50, 95, 99)
REQUESTS_PER_STREAM = 3
"""Requests that every stream sends one after another, at least (our choice)."""


class Load(NamedTuple):
    """What is sent: tokens of a prompt, of an answer, and the request parameters."""

    prompt: int
    answer: int
    xargs: dict[str, Any]


def bench(server: Server, tokenizer: Path, load: Load, concurrency: int) -> dict[str, Any]:
    """Run `vllm bench serve` against the server; returns the report that it saves.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    count = max(16, REQUESTS_PER_STREAM * concurrency)
    body = {"vllm_xargs": load.xargs}
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        command = [
            *(vllm_command(), "bench", "serve", "--backend", "openai"),
            *("--base-url", server.base_url.removesuffix("/v1"), "--model", "model"),
            *("--tokenizer", str(tokenizer), "--seed", "0", "--temperature", "0", "--ignore-eos"),
            *("--random-input-len", str(load.prompt), "--random-output-len", str(load.answer)),
            *("--num-prompts", str(count), "--num-warmups", "2"),
            *("--max-concurrency", str(concurrency), "--extra-body", json.dumps(body)),
            *("--percentile-metrics", "ttft,e2el"),
            *("--metric-percentiles", ",".join(map(str, PERCENTILES))),
            *("--save-result", "--result-dir", folder, "--result-filename", "report.json"),
        ]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(f"vllm bench serve failed:\n{done.stdout}\n{done.stderr}")
        report: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text())
    if report["completed"] != count:
        raise RuntimeError(f"{count - report['completed']} of {count} requests failed")
    return report


def row(concurrency: int, report: dict[str, Any], alone: float, answer: int) -> str:
    """One line of the Markdown table; `alone` is the throughput of the first line, `answer` the
    tokens of a canvas.

    The report's own count of passes leaves out one a canvas, for models that commit in a pass of
    its own. Every pass counts its whole canvas, which gives the number of all.
    """
    rate = report["output_throughput"]
    first, whole = (
        " / ".join(f"{report[f'p{p}_{metric}_ms']:.0f}" for p in PERCENTILES)
        for metric in ("ttft", "e2el")
    )
    passes = report["diffusion_canvas_positions"] / answer
    per_pass = report["diffusion_committed_tokens"] / passes
    return (
        f"| {concurrency} | {report['completed']} | {rate:.0f} | {rate / alone:.2f} | {first} | "
        f"{whole} | {passes / report['duration']:.0f} | {per_pass:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("recipes/models/arithmetic"))
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--prompt", type=int, default=32, help="tokens")
    parser.add_argument("--answer", type=int, default=96, help="tokens, all canvas")
    parser.add_argument(
        "--xargs",
        type=json.loads,
        default={"sampler": "low_confidence", "block_length": 32},
        help="request parameters, as a JSON object",
    )
    args = parser.parse_args()
    load = Load(args.prompt, args.answer, {"gen_length": args.answer, **args.xargs})
    print(json.dumps({"prompt": load.prompt, "answer": load.answer, **load.xargs}))
    print(
        "| streams | requests | tokens/s | ratio | first text, ms | answer, ms | passes/s | ",
        end="",
    )
    print("tokens per pass |\n" + "| --- " * 8 + "|")
    alone = 0.0
    with serve(args.model, "--served-model-name", "model") as server:
        for concurrency in args.concurrency:
            report = bench(server, args.model, load, concurrency)
            alone = alone or report["output_throughput"]
            print(row(concurrency, report, alone, load.answer), flush=True)


if __name__ == "__main__":
    main()
