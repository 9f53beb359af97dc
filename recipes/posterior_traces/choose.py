"""Which traces are kept: one of those that say the same, then the best by score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from recipes.pass_at_k.store import Key
from recipes.posterior_traces.records import Trace
from recipes.posterior_traces.settings import Filter


def normalised(text: str) -> str:
    """The text by which traces are compared: white space is one blank."""
    return " ".join(text.split())


def distinct(traces: Iterable[Trace]) -> dict[str, list[Trace]]:
    """By question, the first trace of every normalised text in the order of the samples.

    Traces without text are left out: they reason nothing.
    """
    seen = set[tuple[str, str]]()
    found = defaultdict[str, list[Trace]](list)
    for trace in sorted(traces, key=lambda one: one.sample):
        text = normalised(trace.text)
        if text and (trace.question, text) not in seen:
            seen.add((trace.question, text))
            found[trace.question].append(trace)
    return dict(found)


def best(traces: Sequence[Trace], scores: Mapping[Key, float | None], rule: Filter) -> list[Trace]:
    """The traces of a question that the filter keeps, best first; equal scores by sample.

    A trace without a score is not kept.
    """
    known = {trace.key: score for trace in traces if (score := scores.get(trace.key)) is not None}
    least = float("-inf") if rule.least_score is None else rule.least_score
    good = [trace for trace in traces if trace.key in known and known[trace.key] >= least]
    return sorted(good, key=lambda one: (-known[one.key], one.sample))[: rule.keep]
