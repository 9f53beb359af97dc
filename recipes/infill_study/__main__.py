"""Run one of the studies: python -m recipes.infill_study exit --out DIR

`exit` is early exit, `scores` how well the answer's log-probability tells right reasoning from
reasoning with one wrong line, `decisions` what it costs to decide many things in one canvas. What a
stopped run has finished is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recipes.infill_study.decisions import DecisionStudy
from recipes.infill_study.exits import ExitStudy
from recipes.infill_study.scores import ScoreStudy
from recipes.sampler_study.engine import start
from recipes.train.questions import held_out

STUDIES: dict[str, type[ExitStudy] | type[ScoreStudy] | type[DecisionStudy]] = {
    "exit": ExitStudy,
    "scores": ScoreStudy,
    "decisions": DecisionStudy,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--model", default="recipes/models/arithmetic")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    questions = list(held_out(arguments.questions))
    study = STUDIES[arguments.study](arguments.out, questions)
    if not study.is_done:
        study.run(start(arguments.model, arguments.batch))
    print(study.report())


if __name__ == "__main__":
    main()
