"""Tables and plots of a study."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from recipes.pass_at_k.curves import Curve
from recipes.pass_at_k.estimator import CONFIDENCE, RESAMPLES, Estimate
from recipes.pass_at_k.settings import Study

CSV_FIELDS = (
    "task", "setting", "axis", "budget", "k", "passes", "value", "low", "high", "questions",
)  # fmt: skip
NOT_SAMPLED = "not sampled"
READING = (
    f"Brackets: {CONFIDENCE:.0%} intervals, percentile bootstrap over questions, {RESAMPLES} "
    "resamples. `different` counts the different answers to a question, whole texts, in the mean. "
    "Passes and tokens are means of one sample. A setting without randomness has one "
    "sample, and its pass@k is its pass@1."
)
READING_PASSES = (
    "Column heads are forward passes a question; k is how many samples they pay for in the mean. "
    f"`{NOT_SAMPLED}`: the study drew fewer than k."
)
READING_DIFFERENCES = (
    "One setting less another, on the same questions: the interval is that of the mean of the "
    "differences. At equal passes each has the k that it can pay for."
)
MARKERS = "osD^vP<X>*hd8"


def by_samples(study: Study, found: Sequence[Curve]) -> str:
    """Markdown: pass@k at equal samples, and what a sample costs."""
    heads = [*(f"pass@{k}" for k in study.ks), "different", "passes", "tokens", "accepted"]
    lines = _head(["task", "setting", "questions", "samples", *heads])
    for one in found:
        cells = [str(one.at_samples(k) or NOT_SAMPLED) for k in study.ks]
        accepted = "" if one.acceptance is None else f"{one.acceptance:.3f}"
        cost = [f"{one.different:.1f}", f"{one.passes:.1f}", f"{one.tokens:.1f}", accepted]
        lines.append(_row([*_names(one), *cells, *cost]))
    return "\n".join(lines)


def by_passes(study: Study, found: Sequence[Curve]) -> str:
    """Markdown: pass@k at equal forward passes a question, k the largest that they pay for."""
    lines = _head(
        ["task", "setting", "questions", "samples", *(f"{b} passes" for b in study.budgets)]
    )
    for one in found:
        lines.append(_row([*_names(one), *(_budget_cell(one, b) for b in study.budgets)]))
    return "\n".join(lines)


def _budget_cell(one: Curve, budget: int) -> str:
    k = one.affordable(budget)
    if k == 0:
        return "no answer"
    estimate = one.at_samples(k)
    return f"{estimate}, k {k}" if estimate else f"{NOT_SAMPLED}, k {k}"


def differences(study: Study, found: Sequence[Curve]) -> str:
    """Markdown: what one setting of a pair has more than the other, at equal samples and passes."""
    heads = [*(f"pass@{k}" for k in study.ks), *(f"{b} passes" for b in study.budgets)]
    lines = _head(["task", "setting", "less", *heads])
    curves = {(one.task, one.sampler.label): one for one in found}
    for task in dict.fromkeys(one.task for one in found):
        for first, second in study.compare:
            if (task, first) in curves and (task, second) in curves:
                one, other = curves[task, first], curves[task, second]
                ks = [(k, k) for k in study.ks]
                ks += [(one.affordable(b), other.affordable(b)) for b in study.budgets]
                cells = [_difference_cell(one.less(other, *pair)) for pair in ks]
                lines.append(_row([task, first, second, *cells]))
    return "\n".join(lines)


def _difference_cell(found: Estimate | None) -> str:
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})" if found else NOT_SAMPLED


def markdown(study: Study, found: Sequence[Curve], notes: Sequence[str]) -> str:
    """The whole report."""
    parts = [
        f"# pass@k of {study.model}",
        READING,
        "## At equal samples",
        by_samples(study, found),
        "## At equal forward passes",
        READING_PASSES,
        by_passes(study, found),
        *_differences_part(study, found),
        *notes,
    ]
    return "\n\n".join(parts) + "\n"


def _differences_part(study: Study, found: Sequence[Curve]) -> list[str]:
    if not study.compare:
        return []
    return ["## Differences", READING_DIFFERENCES, differences(study, found)]


def comma_separated(study: Study, found: Sequence[Curve]) -> str:
    """CSV, one line a point: ``axis`` is samples or passes, ``passes`` what k samples cost."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for one in found:
        points: list[tuple[str, int | str, int]] = [("samples", "", k) for k in study.ks]
        points += [("passes", b, one.affordable(b)) for b in study.budgets]
        for axis, budget, k in points:
            estimate = one.at_samples(k) if k else None
            if estimate:
                cost = round(k * one.passes, 2)
                where = [one.task, one.sampler.label, axis, budget, k, cost]
                writer.writerow([*where, *(round(x, 6) for x in estimate), len(one.n)])
    return text.getvalue()


def plot(
    study: Study, found: Sequence[Curve], path: Path, cost: Callable[[Curve, int], float], axis: str
) -> None:
    """pass@k against what k samples cost: one panel a task, one line a setting.

    The intervals are in the tables: bands of many settings would hide each other.
    """
    tasks = list(dict.fromkeys(one.task for one in found))
    figure, panels = pyplot.subplots(
        1, len(tasks), figsize=(6 * len(tasks) + 3, 4.5), squeeze=False
    )
    for panel, task in zip(panels[0], tasks, strict=True):
        for i, one in enumerate(one for one in found if one.task == task):
            points = [(cost(one, k), e.value) for k in study.ks if (e := one.at_samples(k))]
            style = "--" if one.sampler.is_deterministic else "-"
            # The strong ones of twenty colours first, then their pale fellows.
            color = pyplot.get_cmap("tab20")(i % 10 * 2 + i // 10 % 2)
            look = {"marker": MARKERS[i % len(MARKERS)], "markersize": 5, "color": color}
            panel.plot(*zip(*points, strict=True), style, label=one.sampler.label, **look)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set(title=task, xlabel=axis)
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("pass@k")
    panels[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def write(study: Study, found: Sequence[Curve], notes: Sequence[str], out: Path) -> None:
    """``report.md``, ``points.csv`` and the two plots."""
    (out / "report.md").write_text(markdown(study, found, notes))
    (out / "points.csv").write_text(comma_separated(study, found))
    plot(study, found, out / "by_samples.png", lambda _, k: k, "samples a question (k)")
    plot(study, found, out / "by_passes.png", lambda one, k: k * one.passes, "passes a question")


def _names(one: Curve) -> list[str]:
    samples = sorted({int(n) for n in one.n})
    drawn = str(samples[0]) if len(samples) == 1 else f"{samples[0]} to {samples[-1]}"
    return [one.task, one.sampler.label, str(len(one.n)), drawn]


def _head(names: Sequence[str]) -> list[str]:
    return [_row(names), _row(["---"] * len(names))]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
