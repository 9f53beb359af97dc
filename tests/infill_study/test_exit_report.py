"""Table and picture of early exit say what the answers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recipes.infill_study.exit_report import SHARES, Answer, Result, by_share, entropies, table
from recipes.infill_study.exits import ExitStudy
from recipes.train.questions import held_out


def answer(right: bool, passes: int = 10, exited: bool = False) -> Answer:
    return Answer(
        reasoning="",
        answer="",
        right=right,
        reasoning_right=right,
        passes=passes,
        reasoning_passes=passes - 6,
        exited=exited,
        entropy=[float(passes - i) for i in range(passes)],
    )


WHOLE = [answer(right, 40) for right in (True, True, True, False)]
EARLY = [answer(right, 30, True) for right in (True, False, False, True)]
RESULTS = [
    Result.of("entropy", "", None, WHOLE, WHOLE, 1.0),
    Result.of("entropy", "early_exit 0.1", 0.1, EARLY, WHOLE, 1.0),
    Result.of("entropy", "early_exit 2", 2.0, EARLY[:3] + WHOLE[:1], WHOLE, 1.0),
]


def test_results_count_what_the_exit_changed() -> None:
    early = RESULTS[1]
    assert (early.right, early.exited, early.lost, early.gained) == (2, 4, 2, 1)
    assert (RESULTS[0].lost, RESULTS[0].gained, RESULTS[0].exited) == (0, 0, 0)


def test_the_table_compares_with_no_exit_and_with_the_paper() -> None:
    rows = table(RESULTS).splitlines()
    assert rows[2].startswith("| `entropy` | no | 0.750 (0.301 to 0.954) | 0.750 | 40.0 | 0.0% |")
    assert rows[2].endswith("| 0.794 | 1.0 |")
    assert "|  | 30.0 | 25.0% | 1.33 | 100.0% | 2 | 1 | 0.786 | 1.3 |" in rows[3]
    assert "| 32.5 | 18.8% | 1.23 | 75.0% | 2 | 1 |  |  |" in rows[4]


def test_shares_count_passes_over_the_reasoning() -> None:
    values = by_share(answer(True, 10))  # four passes over the reasoning, then the answer's
    assert values[0] == 10
    assert values[np.searchsorted(SHARES, 0.25)] == 9
    assert values[np.searchsorted(SHARES, 0.74)] == 8
    assert values[-1] == 6


def test_the_picture_says_how_many_answers_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    named: list[str] = []
    draw = Axes.plot

    def plot(self: Axes, *arguments: object, **options: object) -> object:
        named.append(str(options["label"]))
        return draw(self, *arguments, **options)

    monkeypatch.setattr(Axes, "plot", plot)
    entropies({"entropy": [*WHOLE] * 4, "med": WHOLE[:3]}, (0.1,), tmp_path / "entropy.png")
    assert (tmp_path / "entropy.png").read_bytes().startswith(b"\x89PNG")
    assert named == [
        "right (n = 12), median, quartiles",
        "wrong (n = 4: too few for quartiles, median)",
        "right (n = 3: too few for quartiles, median)",
        "wrong (n = 0)",
    ]


def test_a_stopped_study_goes_on_with_the_same_questions_only(tmp_path: Path) -> None:
    study = ExitStudy(tmp_path, list(held_out(4)))
    study.folder.keep(RESULTS[0])
    again = ExitStudy(tmp_path, list(held_out(4)))
    assert again.folder.missing(again.sweep) == again.sweep[1:]
    with pytest.raises(SystemExit, match="4 questions, 5 are"):
        ExitStudy(tmp_path, list(held_out(5)))
