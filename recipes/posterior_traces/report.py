"""What a run found: counts, scores, and how well they tell right traces from wrong ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import mannwhitneyu

from recipes.intervals import wilson
from recipes.pass_at_k.store import Key
from recipes.posterior_traces.arithmetic import is_right
from recipes.posterior_traces.questions import Item
from recipes.posterior_traces.records import Trace
from recipes.posterior_traces.settings import Settings

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

READING = (
    "A score is the mean of log p over the answer's tokens, nats, all masked in one pass; "
    "`without` is that of the question alone. `right`: every line of the calculation is right, "
    "none missing, none too many, of the traces that the program can check; with Wilson's 95 % "
    "interval, traces taken as independent. AUC: the chance that a right trace has a higher score "
    "than a wrong one, both drawn at random among the distinct ones."
)


class Outcome(NamedTuple):
    """Everything a run has: traces by question, and the scores of distinct ones by their keys."""

    items: Sequence[Item]
    asked: Sequence[Trace]
    distinct: Mapping[str, Sequence[Trace]]
    kept: Mapping[str, Sequence[Trace]]
    scores: Mapping[Key, float | None]
    without: Sequence[float]


def report(settings: Settings, found: Outcome) -> str:
    """Markdown."""
    stages = {
        "sampled": list(found.asked),
        "distinct": flat(found.distinct),
        "kept": flat(found.kept),
    }
    refused = sum(found.scores.get(trace.key) is None for trace in stages["distinct"])
    passes = np.mean([trace.forward_passes for trace in found.asked]) if found.asked else 0.0
    rule = settings.filter
    least = "any" if rule.least_score is None else f"at least {rule.least_score:g}"
    head = (
        f"{len(found.items)} questions, `{settings.model}`, {settings.sampling.label}, "
        f"{settings.samples} samples a question, {passes:.1f} passes a sample. Filter: score "
        f"{least}, best {rule.keep or 'all'} a question."
    )
    return "\n".join(
        [
            head,
            "",
            *stage_table(stages, {item.id: item for item in found.items}),
            "",
            *score_table(stages, found),
            "",
            f"Traces that the server refused to score: {refused}.",
            *contest_line(stages["distinct"], found),
            "",
            READING,
            "",
        ]
    )


def stage_table(stages: Mapping[str, Sequence[Trace]], items: Mapping[str, Item]) -> Iterable[str]:
    """How many traces there are, and how many are right, after every stage."""
    yield "| | traces | questions that have one | right |"
    yield "| --- " * 4 + "|"
    for name, traces in stages.items():
        with_one = len({trace.question for trace in traces})
        yield f"| {name} | {len(traces)} | {with_one} | {share_right(verdicts(traces, items))} |"


def verdicts(traces: Iterable[Trace], items: Mapping[str, Item]) -> list[bool]:
    """Of the traces that the program can check, whether each is right."""
    found = (is_right(items[trace.question], trace.text) for trace in traces)
    return [right for right in found if right is not None]


def share_right(found: Sequence[bool]) -> str:
    if not found:
        return ""
    low, high = wilson(sum(found), len(found))
    return f"{sum(found)} of {len(found)}: {np.mean(found):.3f} ({low:.3f} to {high:.3f})"


def score_table(stages: Mapping[str, Sequence[Trace]], found: Outcome) -> Iterable[str]:
    """Quantiles of the scores."""
    yield "| scores | " + " | ".join(f"{q:.0%}" for q in QUANTILES) + " |"
    yield "| --- " * (1 + len(QUANTILES)) + "|"
    rows = {"without": list(found.without)}
    for name in ("distinct", "kept"):
        known = (found.scores.get(trace.key) for trace in stages[name])
        rows[name] = [score for score in known if score is not None]
    for name, scores in rows.items():
        if scores:
            values = " | ".join(f"{value:.4f}" for value in np.quantile(scores, QUANTILES))
            yield f"| {name} | {values} |"


def contest_line(traces: Iterable[Trace], found: Outcome) -> Iterable[str]:
    """The AUC of the scores, where there are right and wrong traces."""
    items = {item.id: item for item in found.items}
    groups: dict[bool, list[float]] = {True: [], False: []}
    for trace in traces:
        right, score = is_right(items[trace.question], trace.text), found.scores.get(trace.key)
        if right is not None and score is not None:
            groups[right].append(score)
    if groups[True] and groups[False]:
        yield ""
        yield (
            f"AUC of the scores: {auc(groups[True], groups[False]):.3f} "
            f"({len(groups[True])} right, {len(groups[False])} wrong traces)."
        )


def auc(right: Sequence[float], wrong: Sequence[float]) -> float:
    """The Mann-Whitney statistic as a share; ties count half."""
    return float(mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong)))


def flat(traces: Mapping[str, Sequence[Trace]]) -> list[Trace]:
    return [trace for group in traces.values() for trace in group]
