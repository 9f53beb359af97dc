"""When confidence decoding commits the cells of a carry chain, and how sure it is of wrong ones.

    settings=recipes/masking_study/addition_small.toml
    python -m recipes.masking_study.commits $settings --out runs/addition

A cell of the longest chain (and the cell to its left, which takes the chain's carry) is decided by
the carry that comes from below. It is early where the cell to its right is still masked when it is
committed. Only for addition; plain-torch decoder, puzzles of the last stratum or, with
``--natural``, of the training distribution.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from recipes.intervals import wilson
from recipes.masking_study.run import run_folder
from recipes.masking_study.settings import Study, load_study
from recipes.masking_study.source import Vocabulary, held_out_examples, rows_of
from recipes.masking_study.tasks import Example, build_task
from recipes.train.decode import confidence, decode
from recipes.train.layout import read_model

TEST_SEED = 2026


class Cell(NamedTuple):
    """A cell of a chain. early: committed before the cell to its right; sure: the probability at
    the commit.
    """

    early: bool
    wrong: bool
    sure: float


class Decoded(NamedTuple):
    """A puzzle. cells: those of its chain. Of the first wrong commit, None where the answer is
    right: top, whether it is one of the chain's two most significant cells; known, whether the
    model had it right in the first pass, everything masked.
    """

    cells: tuple[Cell, ...]
    top: bool | None
    known: bool | None


def chain_cells(example: Example) -> list[int]:
    """Answer cells of the longest run of digit sums 9, most significant first, and before them the
    cell that takes the run's carry.
    """
    digits = (len(example.prompt) - 2) // 2
    a, b = example.prompt[:digits], example.prompt[digits + 1 : -1]
    best = run = start = 0
    for column in range(digits):
        run = run + 1 if int(a[column]) + int(b[column]) == 9 else 0
        if run > best:
            best, start = run, column - run + 1
    return list(range(start, start + best + 1))


def commits(study: Study, folder: Path, count: int, difficulty: int | None) -> list[Decoded]:
    """Decode ``count`` puzzles of a stratum by confidence."""
    task = build_task(study.data)
    vocabulary = Vocabulary(task)
    examples = held_out_examples(task, count, difficulty, TEST_SEED)
    gold, first = rows_of(examples, vocabulary), len(examples[0].prompt)
    rows = gold.clone()
    rows[:, first:] = vocabulary.mask_id
    seen: list[Tensor] = []
    proposed: list[Tensor] = []

    def score(logits: Tensor, positions: Tensor) -> Tensor:
        seen.append(confidence(logits, positions))
        proposed.append(logits.argmax(-1))
        return seen[-1]

    cells = gold.shape[1] - first
    out = decode(read_model(folder), rows, first, vocabulary.mask_id, cells, score=score)
    order = out.order[:, first:]
    sure = torch.stack(seen).gather(0, order[None])[0]
    wrong = (out.tokens != gold)[:, first:]
    known = proposed[0] == gold[:, first:]
    return [
        sort_cells(chain_cells(example), order[i], wrong[i], sure[i], known[i])
        for i, example in enumerate(examples)
    ]


def sort_cells(
    chain: list[int], order: Tensor, wrong: Tensor, sure: Tensor, known: Tensor
) -> Decoded:
    """The commits of one puzzle.

    chain: its cells, most significant first. order: int64 [cells], the pass of every commit.
    wrong: bool [cells]. sure: float [cells]. known: bool [cells], right in the first pass.
    """
    early = [c + 1 < len(order) and bool(order[c] < order[c + 1]) for c in chain]
    found = (Cell(e, bool(wrong[c]), float(sure[c])) for c, e in zip(chain, early, strict=True))
    missed = wrong.nonzero().flatten().tolist()
    if not missed:
        return Decoded(tuple(found), None, None)
    first = min(missed, key=lambda cell: int(order[cell]))
    return Decoded(tuple(found), first in chain[:2], bool(known[first]))


def share(flags: list[bool]) -> str:
    """The share of True with its interval, or a dash where there is nothing to count."""
    if not flags:
        return "–"  # noqa: RUF001
    low, high = wilson(sum(flags), len(flags))
    return f"{sum(flags) / len(flags):.3f} ({low:.3f}–{high:.3f})"  # noqa: RUF001


def table(found: dict[str, list[Decoded]]) -> str:
    """A Markdown table, one line a scheme."""
    head = (
        "scheme",
        "cells committed early",
        "of these wrong",
        "of the others wrong",
        "mean probability of wrong early commits",
        "first mistake on the top two cells",
        "first mistake right in the first pass",
    )
    text = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for scheme, puzzles in found.items():
        cells = [cell for puzzle in puzzles for cell in puzzle.cells]
        sure = [cell.sure for cell in cells if cell.early and cell.wrong]
        entries = (
            scheme,
            share([cell.early for cell in cells]),
            share([cell.wrong for cell in cells if cell.early]),
            share([cell.wrong for cell in cells if not cell.early]),
            f"{sum(sure) / len(sure):.3f}" if sure else "–",  # noqa: RUF001
            share([puzzle.top for puzzle in puzzles if puzzle.top is not None]),
            share([puzzle.known for puzzle in puzzles if puzzle.known is not None]),
        )
        text.append(f"| {' | '.join(entries)} |")
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--puzzles", type=int, default=500)
    parser.add_argument("--natural", action="store_true", help="not the last stratum")
    args = parser.parse_args()
    study = load_study(args.settings)
    if study.data.task != "addition":
        parser.error(f"{args.settings} is {study.data.task}; only addition has carry chains")
    difficulty = None if args.natural else study.test.strata[-1]
    found: dict[str, list[Decoded]] = {}
    for scheme in study.schemes:
        folders = [run_folder(args.out, scheme, seed) / "model" for seed in study.seeds]
        done = [folder for folder in folders if folder.exists()]
        found[scheme] = [
            puzzle for folder in done for puzzle in commits(study, folder, args.puzzles, difficulty)
        ]
    text = table({scheme: puzzles for scheme, puzzles in found.items() if puzzles})
    name = "commits-natural.md" if args.natural else "commits.md"
    (args.out / name).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
