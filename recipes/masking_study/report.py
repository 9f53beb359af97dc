"""Tables and plots of a study from the counts that its runs wrote."""

import json
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.lines import Line2D

from recipes.intervals import wilson
from recipes.masking_study.run import Result, results_path
from recipes.masking_study.settings import WATCHED_ORDERS
from recipes.train.trainer import LOG

Key = tuple[str, str, int | None]


def read_results(out: Path, decoder: str) -> list[Result]:
    """The counts of all runs under a folder, decoded by one decoder."""
    paths = sorted(results_path(folder, decoder) for folder in out.iterdir())
    lines = [line for path in paths if path.exists() for line in path.read_text().splitlines()]
    records = map(json.loads, lines)
    return [Result(**{k: r[k] for k in Result._fields}) for r in records]


def pooled(results: list[Result]) -> dict[Key, tuple[int, int]]:
    """(right, count) by scheme, order and difficulty, summed over seeds."""
    sums = defaultdict[Key, list[int]](lambda: [0, 0])
    for r in results:
        sums[r.scheme, r.order, r.difficulty][0] += r.right
        sums[r.scheme, r.order, r.difficulty][1] += r.puzzles
    return {key: (right, count) for key, (right, count) in sums.items()}


def table(results: list[Result]) -> str:
    """A Markdown table: one line a scheme and order, one column a stratum."""
    sums = pooled(results)
    columns = sorted({k[2] for k in sums}, key=lambda d: -1 if d is None else d)
    lines = sorted({k[:2] for k in sums})
    head = ["natural" if d is None else f"≥ {d}" for d in columns]
    text = [f"| scheme | order | {' | '.join(head)} |", "| --- " * (2 + len(columns)) + "|"]
    for scheme, order in lines:
        cells = []
        for difficulty in columns:
            right, count = sums[scheme, order, difficulty]
            low, high = wilson(right, count)
            cells.append(f"{right / count:.3f} ({low:.3f}–{high:.3f})")  # noqa: RUF001
        text.append(f"| {scheme} | {order} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def plot(results: list[Result], path: Path) -> None:
    """Accuracy against difficulty, one panel an order, one line a scheme, 95 % intervals."""
    sums = pooled(results)
    orders = sorted({k[1] for k in sums})
    figure, axes = pyplot.subplots(
        1, len(orders), figsize=(4 * len(orders), 3.5), sharey=True, squeeze=False
    )
    for axis, order in zip(axes[0], orders, strict=True):
        for scheme in sorted({k[0] for k in sums}):
            points = sorted(
                (d, *v)
                for (s, o, d), v in sums.items()
                if (s, o) == (scheme, order) and d is not None
            )
            share = [right / count for _, right, count in points]
            bounds = [wilson(right, count) for _, right, count in points]
            below = [s - low for s, (low, _) in zip(share, bounds, strict=True)]
            above = [high - s for s, (_, high) in zip(share, bounds, strict=True)]
            x = [d for d, _, _ in points]
            axis.errorbar(x, share, yerr=(below, above), marker="o", capsize=2, label=scheme)
        axis.set(title=order, xlabel="difficulty at least", ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("exact match")
    axes[0][-1].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def curves(out: Path, path: Path) -> None:
    """Exact match on the watched puzzles against the step, one panel an order, one line a run.

    Nothing is written where no run watched any.
    """
    runs = {log.parent.name: probes(log) for log in sorted(out.glob(f"*/{LOG}"))}
    runs = {name: lines for name, lines in runs.items() if lines}
    if not runs:
        return
    schemes = sorted({name.rpartition("-")[0] for name in runs})
    figure, axes = pyplot.subplots(
        1, len(WATCHED_ORDERS), figsize=(5 * len(WATCHED_ORDERS), 3.5), sharey=True
    )
    for axis, order in zip(axes, WATCHED_ORDERS, strict=True):
        for name, lines in runs.items():
            number = schemes.index(name.rpartition("-")[0])
            steps = [line["step"] for line in lines]
            axis.plot(steps, [line[order] for line in lines], color=f"C{number}", alpha=0.8)
        axis.set(title=order, xlabel="step", ylim=(-0.03, 1.03))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("exact match, last stratum")
    axes[-1].legend([Line2D([], [], color=f"C{i}") for i in range(len(schemes))], schemes)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def probes(log: Path) -> list[dict[str, float]]:
    """The lines of a log that hold watched puzzles."""
    lines = map(json.loads, log.read_text().splitlines())
    return [line for line in lines if WATCHED_ORDERS[0] in line]
