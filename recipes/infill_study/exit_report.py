"""Table and picture of early exit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from recipes.intervals import wilson
from recipes.sampler_study.report import picture

PAPER = {
    ("entropy", None): (256, 79.4),
    ("entropy", 0.1): (193, 78.6),
    ("med", None): (94, 79.9),
    ("med", 0.1): (77, 79.3),
}
"""Passes and accuracy (%) of LLaDA-8B on GSM8K with 256 positions, arXiv 2510.19990, known to us
from secondary sources only."""

FEW = 8
"""Fewer answers have no quartiles worth drawing (our choice)."""

LEAST = 1e-5
"""Entropies below it (nats) are drawn there: the axis is logarithmic."""

SHARES = np.linspace(0, 1, 101)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One filled template."""

    reasoning: str
    answer: str
    right: bool
    reasoning_right: bool
    passes: int
    reasoning_passes: int  # those that committed reasoning, or passed it by
    exited: bool
    entropy: list[float]  # of the answer, nats, one number a pass, before it commits


class Result(NamedTuple):
    """One setting's outcome; passes in the mean.

    lost, gained: questions whose answer is wrong and was right, or is right and was wrong, without
    exit. seconds: wall-clock time of all questions.
    """

    sampler: str
    label: str
    early_exit: float | None
    questions: int
    right: int
    reasoning: int
    passes: float
    exited: int
    lost: int
    gained: int
    seconds: float

    @classmethod
    def of(
        cls,
        sampler: str,
        label: str,
        early_exit: float | None,
        answers: Sequence[Answer],
        without: Sequence[Answer],
        seconds: float,
    ) -> Result:
        """Count answers; ``without`` are those of the same sampler without exit."""
        pairs = [(a.right, b.right) for a, b in zip(answers, without, strict=True)]
        return cls(
            sampler,
            label,
            early_exit,
            len(answers),
            sum(a.right for a in answers),
            sum(a.reasoning_right for a in answers),
            sum(a.passes for a in answers) / len(answers),
            sum(a.exited for a in answers),
            pairs.count((False, True)),
            pairs.count((True, False)),
            seconds,
        )


HEAD = (
    "sampler",
    "early exit (nats)",
    "accuracy (95 % interval)",
    "every line right",
    "passes",
    "saved",
    "speed-up",
    "exited",
    "lost",
    "gained",
    "paper's accuracy",
    "paper's speed-up",
)
READING = (
    "`saved`: the share of passes that the same sampler takes without exit. `speed-up`: against "
    "the first row. `lost`, `gained`: questions answered wrong, or right, because of the exit. The "
    "paper's numbers are those of LLaDA-8B on GSM8K (arXiv 2510.19990), from secondary sources: "
    "another model, other questions, 256 positions."
)


def table(results: Sequence[Result]) -> str:
    """Markdown, one row a setting; the first is what speed-ups count from."""
    whole = {r.sampler: r for r in results if r.early_exit is None}
    rows = [_row(HEAD), _row(["---"] * len(HEAD))]
    rows += [_row(_cells(one, whole[one.sampler], results[0])) for one in results]
    return "\n".join([*rows, "", READING])


def _cells(one: Result, whole: Result, first: Result) -> list[str]:
    low, high = wilson(one.right, one.questions)
    # What an exit leaves has no lines to count.
    no_exit = one.early_exit is None
    return [
        f"`{one.sampler}`",
        "no" if no_exit else f"{one.early_exit:g}",
        f"{one.right / one.questions:.3f} ({low:.3f} to {high:.3f})",
        f"{one.reasoning / one.questions:.3f}" if no_exit else "",
        f"{one.passes:.1f}",
        f"{1 - one.passes / whole.passes:.1%}",
        f"{first.passes / one.passes:.2f}",
        f"{one.exited / one.questions:.1%}",
        str(one.lost),
        str(one.gained),
        *_paper(one),
    ]


def _paper(one: Result) -> tuple[str, str]:
    if (one.sampler, one.early_exit) not in PAPER:
        return "", ""
    passes, accuracy = PAPER[one.sampler, one.early_exit]
    return f"{accuracy / 100:.3f}", f"{PAPER['entropy', None][0] / passes:.1f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def by_share(answer: Answer) -> NDArray[np.float64]:
    """The answer's entropy (nats) when a share of the passes over its reasoning is done, by
    `SHARES`; at the share 1 that of the pass which starts the answer."""
    passes = np.floor(SHARES * answer.reasoning_passes + 1e-9).astype(int)
    return np.asarray(answer.entropy)[passes]


def entropies(whole: Mapping[str, Sequence[Answer]], bounds: Sequence[float], path: Path) -> None:
    """Entropy against the share of passes done, a panel a sampler, right and wrong answers apart.

    Args:
        whole: by sampler, answers of a setting without exit.
        bounds: of early exit, drawn as lines.
        path: of the picture.
    """
    with picture(path, len(whole)) as panels:
        for panel, (sampler, answers) in zip(panels, whole.items(), strict=True):
            for right, color in ((True, "tab:blue"), (False, "tab:red")):
                _band(panel, [a for a in answers if a.right == right], right, color)
            for bound in bounds:
                panel.axhline(bound, color="grey", linewidth=0.6, linestyle=":")
            panel.set_yscale("log")
            panel.set(
                title=f"{sampler}, no exit (dotted: the bounds swept)",
                xlabel="share of the passes over the reasoning that are done",
                ylabel="entropy of the answer (nats)",
            )


def _band(panel: Any, answers: Sequence[Answer], right: bool, color: str) -> None:
    """Median and quartiles of some answers; without quartiles where they are few."""
    name = f"{'right' if right else 'wrong'} (n = {len(answers)}"
    if not answers:
        panel.plot([], [], color=color, label=f"{name})")
        return
    values = np.maximum([by_share(answer) for answer in answers], LEAST)
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75), axis=0)
    few = len(answers) < FEW
    label = f"{name}: too few for quartiles, median)" if few else f"{name}), median, quartiles"
    panel.plot(SHARES, median, color=color, label=label, linestyle="--" if few else "-")
    if not few:
        panel.fill_between(SHARES, low, high, color=color, alpha=0.2)
