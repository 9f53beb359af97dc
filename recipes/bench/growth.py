"""How the cost of a pass grows with prompt, canvas and concurrency, beside what it must compute.

    python -m recipes.bench.growth --model 134m --out runs/growth

Around one base shape every dimension is varied alone, under `exact` and `dual`. Each line gives the
median time of an engine step in which all requests are in the batch, the operations that the mode
must do in it (the floor), and both as a share of the speed of plain matrix products of the same
number of tokens. Refresh passes of `dual` are left out: they cost what `exact` costs.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

from recipes.bench.contest.floor import pass_operations, product_speed
from recipes.bench.contest.models import SIZES, random_model
from recipes.train.settings import ModelSettings

BLOCK = 32
BLOCK_PASSES = 4
MODES = ("exact", "dual")


class Shape(NamedTuple):
    """Tokens of a prompt and a canvas, and requests in the batch."""

    prompt: int
    canvas: int
    requests: int


BASE = Shape(64, 128, 8)
AXES = {"prompt": (16, 64, 256, 512), "canvas": (32, 64, 128, 256), "requests": (1, 4, 8, 32)}


class Line(NamedTuple):
    """One measured point; seconds of a pass, of its floor, and operations."""

    axis: str
    mode: str
    shape: Shape
    seconds: float
    floor: float
    operations: float


def shapes() -> Iterator[tuple[str, Shape]]:
    """Every point with the dimension that it varies."""
    for axis, values in AXES.items():
        for value in values:
            yield axis, BASE._replace(**{axis: value})


def span_of(shape: Shape, mode: str) -> int:
    """Positions of a request that a pass computes."""
    return shape.prompt + shape.canvas if mode == "exact" else BLOCK


def operations(s: ModelSettings, shape: Shape, mode: str) -> float:
    """Floating-point operations of one pass; half of a block is read in the mean."""
    length = shape.prompt + shape.canvas
    return pass_operations(s, shape.requests, span_of(shape, mode), length, BLOCK / 2)


def pass_seconds(llm: Any, shape: Shape, mode: str) -> float:
    """Median of the engine steps that hold all requests and are no refresh."""
    from vllm import SamplingParams

    engine = llm.llm_engine
    steps = shape.canvas // BLOCK * BLOCK_PASSES
    own = {"gen_length": shape.canvas, "block_length": BLOCK, "steps": steps, "kv_cache": mode}
    params = SamplingParams(
        temperature=0, max_tokens=shape.canvas, detokenize=False, extra_args=own
    )
    for index in range(shape.requests):
        prompt = [300 + (index + offset) % 50 for offset in range(shape.prompt)]
        engine.add_request(f"{mode}-{shape}-{index}", {"prompt_token_ids": prompt}, params)
    times = []
    while engine.has_unfinished_requests():
        begun = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - begun)
    whole = times[:steps]
    kept = [t for index, t in enumerate(whole) if mode == "exact" or index % BLOCK_PASSES]
    return median(kept[1:])


def measure(size: str, folder: Path) -> list[Line]:
    """All points, in a random-weight model of one size."""
    from vllm import LLM

    settings = SIZES[size]
    most = max(shape.requests * (shape.prompt + shape.canvas) for _, shape in shapes())
    llm = LLM(
        str(random_model(folder, size)),
        max_num_seqs=max(AXES["requests"]),
        max_num_batched_tokens=most,
        kv_cache_memory_bytes=2 << 30,
    )
    lines = []
    known: dict[tuple[Shape, str], Line] = {}
    for axis, shape in shapes():
        for mode in MODES:
            if (shape, mode) not in known:
                seconds = pass_seconds(llm, shape, mode)
                count = operations(settings, shape, mode)
                floor = count / product_speed(settings, shape.requests * span_of(shape, mode))
                known[shape, mode] = Line(axis, mode, shape, seconds, floor, count)
            # The base shape lies on every axis.
            lines.append(known[shape, mode]._replace(axis=axis))
            print(markdown(lines[-1]), flush=True)
    return lines


HEAD = (
    "| varied | mode | prompt | canvas | requests | pass, ms | floor, ms | TFLOP/s | pass / floor |"
    "\n" + "| --- " * 9 + "|"
)


def markdown(line: Line) -> str:
    shape = line.shape
    return (
        f"| {line.axis} | {line.mode} | {shape.prompt} | {shape.canvas} | {shape.requests} | "
        f"{1e3 * line.seconds:.1f} | {1e3 * line.floor:.1f} | "
        f"{line.operations / line.seconds / 1e12:.2f} | {line.seconds / line.floor:.2f} |"
    )


def plot(lines: list[Line], path: Path) -> None:
    """Time of a pass and its floor, one panel a dimension."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(AXES), figsize=(4.2 * len(AXES), 3.8), sharey=True)
    for panel, axis in zip(axes, AXES, strict=True):
        for mode, colour in zip(MODES, ("tab:blue", "tab:orange"), strict=True):
            own = [line for line in lines if (line.axis, line.mode) == (axis, mode)]
            x = [getattr(line.shape, axis) for line in own]
            panel.plot(x, [1e3 * line.seconds for line in own], "o-", color=colour, label=mode)
            panel.plot(
                x, [1e3 * line.floor for line in own], "--", color=colour, label=f"{mode}, floor"
            )
        fixed = [f"{name} {value}" for name, value in BASE._asdict().items() if name != axis]
        unit = "" if axis == "requests" else ", tokens"
        label = f"{axis}{unit}\n({', '.join(fixed)})"
        panel.set(xlabel=label, xscale="log", yscale="log")
        panel.set_xticks(AXES[axis], [str(value) for value in AXES[axis]])
        panel.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        panel.grid(alpha=0.3)
    axes[0].set_ylabel("one pass, ms")
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=SIZES, default="134m")
    parser.add_argument("--folder", type=Path, default=Path("runs/models"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(HEAD)
    lines = measure(args.model, args.folder)
    text = "\n".join([HEAD, *map(markdown, lines)])
    (args.out / "growth.md").write_text(text + "\n")
    plot(lines, args.out / "growth.png")


if __name__ == "__main__":
    main()
