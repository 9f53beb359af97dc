"""Our engine and its peers in turn, on the same weights, prompts, samplers, cores and threads.

    python -m recipes.bench.peers --llada LLADA --fast-dllm FAST_DLLM \\
        --model 134m --prompt 64 --canvas 128 --batch 1 8 --passes-per-block 16 --repeat 3

README.md beside this file says where the peers' checkouts come from and what is adapted.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import platform
import random
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import psutil
import torch

from recipes.bench.contest.contenders import KINDS, OURS, OURS_INT8, Setting
from recipes.bench.contest.driver import Child, Round, rounds
from recipes.bench.contest.floor import floor_seconds
from recipes.bench.contest.messages import Cell, Failure, Order
from recipes.bench.contest.models import SIZES, random_model
from recipes.bench.contest.report import Result, disturbed, line, results, table
from recipes.quantize.__main__ import quantize
from recipes.train.settings import ModelSettings

BUSY = 0.2  # Cores that others may use before a table says so.
OUTPUT = Path("runs/bench")
FIRST_PROMPT_TOKEN = 300  # Above the tokenizer's entries: no special token is among them.


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--llada", type=Path, help="checkout of ML-GSAI/LLaDA")
    parser.add_argument("--fast-dllm", type=Path, help="checkout of NVlabs/Fast-dLLM")
    parser.add_argument(
        "--network",
        type=Path,
        help="folder with modeling_llada.py for LLaDA's generate.py; unset: Fast-dLLM's copy",
    )
    parser.add_argument(
        "--engines",
        choices=KINDS,
        nargs="+",
        help="the first is what the others are compared with; unset: ours and all that are given",
    )
    parser.add_argument("--model", choices=SIZES, nargs="+", default=["134m"])
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument(
        "--mode",
        choices=["exact", "prefix", "dual"],
        nargs="+",
        default=["exact", "prefix", "dual"],
    )
    parser.add_argument(
        "--sampler",
        choices=["low_confidence", "threshold"],
        nargs="+",
        default=["low_confidence", "threshold"],
    )
    parser.add_argument("--prompt", type=int, nargs="+", default=[64, 512], help="tokens")
    parser.add_argument("--canvas", type=int, nargs="+", default=[128, 256], help="tokens")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--block", type=int, default=32, help="tokens")
    parser.add_argument("--passes-per-block", type=int, default=16, help="of low_confidence")
    parser.add_argument("--threshold", type=float, default=0.9)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="repetitions that do not count")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--unpinned",
        action="store_true",
        help="no contender is bound to cores: to try things on a busy machine, not to measure",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and prompts")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="folder for all that is written"
    )
    options = parser.parse_args()
    wrong = [canvas for canvas in options.canvas if canvas % options.block]
    if options.engines is None:
        given = {"LLaDA": options.llada, "Fast-dLLM": options.fast_dllm}
        options.engines = [OURS, *(name for name, path in given.items() if path)]
    if wrong:
        parser.error(f"--canvas {wrong[0]} is no multiple of --block {options.block}")
    if options.passes_per_block < 2:
        parser.error("--passes-per-block must be at least 2: Fast-dLLM's caches take two passes")
    options.network = network_of(options)
    if "LLaDA" in options.engines and not (options.llada and options.network):
        parser.error("LLaDA needs --llada, and --network or --fast-dllm")
    if "Fast-dLLM" in options.engines and not options.fast_dllm:
        parser.error("Fast-dLLM needs --fast-dllm")
    return options


def network_of(options: argparse.Namespace) -> Path | None:
    """Folder with the network's code: the one that was named, else Fast-dLLM's copy."""
    if options.network is not None or options.fast_dllm is None:
        network: Path | None = options.network
        return network
    return next(options.fast_dllm.glob("**/llada/model"), None)


def settings(options: argparse.Namespace, model: Path) -> dict[str, Setting]:
    """The contenders that were asked for, and what they get; int8 weights are written once."""
    models = dict.fromkeys(options.engines, model)
    if OURS_INT8 in models:
        models[OURS_INT8] = model.with_name(f"{model.name}-int8")
        if not models[OURS_INT8].exists():
            quantize(model, models[OURS_INT8])
    code = {"LLaDA": options.llada, "Fast-dLLM": options.fast_dllm}
    network = options.network and str(options.network.resolve())
    return {
        name: Setting(
            str(models[name]),
            options.dtype,
            options.threads,
            str(code[name].resolve()) if name in code else None,
            network,
        )
        for name in options.engines
    }


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    axes = (options.mode, options.sampler, options.prompt, options.canvas, options.batch)
    for mode, sampler, prompt, canvas, batch in itertools.product(*axes):
        yield Cell(
            mode=mode,
            sampler=sampler,
            prompt=prompt,
            canvas=canvas,
            batch=batch,
            block=options.block,
            passes_per_block=options.passes_per_block,
            threshold=options.threshold,
        )


def prompts(cell: Cell, vocabulary: int, seed: int) -> list[list[int]]:
    """The same for every contender, mode and sampler."""
    draw = random.Random(f"{seed} {cell.prompt} {cell.batch}")
    return [
        [draw.randrange(FIRST_PROMPT_TOKEN, vocabulary) for _ in range(cell.prompt)]
        for _ in range(cell.batch)
    ]


def free_cores(threads: int) -> tuple[list[int], float]:
    """The cores that other processes use least, and how many cores they use in all."""
    busy = psutil.cpu_percent(interval=1.0, percpu=True)
    ranked = sorted(os.sched_getaffinity(0), key=lambda core: (busy[core], core))
    return sorted(ranked[:threads]), sum(busy) / 100


def machine(options: argparse.Namespace, cores: list[int] | None, busy: float) -> dict[str, Any]:
    """Where and with what; `busy` as `free_cores` gives it."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": found[1] if found else platform.processor(),
        "cores": cores,
        "threads": options.threads,
        "busy_cores": round(busy, 2),
        "checkouts": {
            "LLaDA": options.llada and version(options.llada),
            "Fast-dLLM": options.fast_dllm and version(options.fast_dllm),
        },
    }


def summary(about: dict[str, Any]) -> str:
    busy = about["busy_cores"]
    others = f"; busy machine: other processes used {busy} cores" if busy > BUSY else ""
    return f"{about['processor']}, {about['threads']} threads, {about['date']}{others}"


def version(checkout: Path) -> dict[str, str]:
    """The commit where it is a git checkout, and a digest of the file that is run."""
    file = next(
        path for path in sorted(checkout.glob("**/generate.py")) if "dream" not in path.parts
    )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    commit = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "--show-toplevel", "HEAD"],
        capture_output=True,
        text=True,
    ).stdout.split()
    own = len(commit) == 2 and Path(commit[0]) == checkout.resolve()
    return {"generate.py": digest} | ({"commit": commit[1]} if own else {})


def contest(options: argparse.Namespace, size: str, about: dict[str, Any]) -> Iterator[list[Round]]:
    """Load every contender once and run cell after cell; the rounds of each.

    What the contenders run on is added to `about`, which says on which cores.
    """
    model = random_model(options.output / "models", size, options.seed).resolve()
    with ExitStack() as stack:
        children = []
        for name, setting in settings(options, model).items():
            child = Child(name, setting, about["cores"], options.output / f"{name}.log")
            stack.callback(child.close)
            children.append(child)
        for child in children:
            about[child.name] = msgspec.to_builtins(child.wait_until_loaded())
        for cell in cells(options):
            order = Order(cell, prompts(cell, SIZES[size].vocab_size, options.seed))
            yield list(rounds(children, order, options.repeat, options.warmup))


def with_floor(row: Result, settings: ModelSettings, dtype: torch.dtype) -> Result:
    """The result with its share of the floor; the plain products run here, now."""
    floor = floor_seconds(settings, row.cell, row.passes, dtype)
    return msgspec.structs.replace(row, floor_share=floor / row.seconds)


def show(found: list[Round], rows: list[Result]) -> None:
    """Print a cell's rows, and what failed."""
    for row in rows:
        print(line(row), flush=True)
    for note in disturbed(rows):
        print(note, flush=True)
    for one in failures(found):
        print(f"{one['name']} failed, {found[0].cell.label}: {one['failed']}", flush=True)


def failures(found: list[Round]) -> list[dict[str, Any]]:
    return [
        {"name": one.name, "cell": msgspec.to_builtins(one.cell), "failed": one.lap.error}
        for one in found
        if isinstance(one.lap, Failure)
    ]


def main() -> None:
    options = parse()
    options.output.mkdir(parents=True, exist_ok=True)
    reference = options.engines[0]
    cores, busy = free_cores(options.threads)
    about = machine(options, None if options.unpinned else cores, busy)
    print(about, flush=True)
    torch.set_num_threads(options.threads)
    dtype: torch.dtype = getattr(torch, options.dtype)
    for size in options.model:
        rows: list[Result] = []
        written: list[dict[str, Any]] = []
        path = options.output / f"{size}-{options.dtype}"
        for found in contest(options, size, about):
            new = [with_floor(row, SIZES[size], dtype) for row in results(found, reference)]
            show(found, new)
            rows += new
            written += [*map(msgspec.to_builtins, new), *failures(found)]
            encoded = msgspec.json.encode({"machine": about, "model": size, "results": written})
            path.with_suffix(".json").write_bytes(msgspec.json.format(encoded) + b"\n")
            caption = f"{size}, {options.dtype}; {summary(about)}\n\n"
            notes = "".join(f"\n{note}\n" for note in disturbed(rows))
            path.with_suffix(".md").write_text(caption + table(rows, reference) + notes)
        print(f"\n{path}.json, {path}.md")


if __name__ == "__main__":
    main()
