"""When confidence decoding commits the cells of a carry chain, and how sure it is of the wrong ones.

    python -m recipes.masking_study.commits recipes/masking_study/addition_small.toml --out runs/addition

A cell of the longest chain (and the cell to its left, which takes the chain's carry) is decided by
the carry that comes from below. It is early where the cell to its right is still masked when it is
committed. Only for addition; plain-torch decoder, puzzles of the last stratum.
"""

import argparse
from collections import defaultdict
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


class Commits(NamedTuple):
    """Cells of chains by what became of them.

    early, late: (wrong, count) of cells committed before and after the cell to their right. top:
    the first wrong commits that fell on the chain's two most significant cells, and all first wrong
    commits. sure: the probabilities at which wrong early cells were committed, summed.
    """

    early: tuple[int, int] = (0, 0)
    late: tuple[int, int] = (0, 0)
    top: tuple[int, int] = (0, 0)
    sure: float = 0.0

    def plus(self, other: "Commits") -> "Commits":
        """The sum over two sets of puzzles."""
        pairs = zip(self[:3], other[:3], strict=True)
        sums = [(a + c, b + d) for (a, b), (c, d) in pairs]
        return Commits(*sums, sure=self.sure + other.sure)


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


def commits(study: Study, folder: Path, count: int) -> Commits:
    """Decode ``count`` puzzles of the last stratum by confidence and sort the chains' cells."""
    task = build_task(study.data)
    vocabulary = Vocabulary(task)
    examples = held_out_examples(task, count, study.test.strata[-1], TEST_SEED)
    gold, first = rows_of(examples, vocabulary), len(examples[0].prompt)
    rows = gold.clone()
    rows[:, first:] = vocabulary.mask_id
    seen: list[Tensor] = []

    def score(logits: Tensor, positions: Tensor) -> Tensor:
        seen.append(confidence(logits, positions))
        return seen[-1]

    cells = gold.shape[1] - first
    out = decode(read_model(folder), rows, first, vocabulary.mask_id, cells, score=score)
    order = out.order[:, first:]
    sure = torch.stack(seen).gather(0, order[None])[0]
    wrong = (out.tokens != gold)[:, first:]
    found = Commits()
    for number, example in enumerate(examples):
        chain = chain_cells(example)
        found = found.plus(sort_cells(chain, order[number], wrong[number], sure[number]))
    return found


def sort_cells(chain: list[int], order: Tensor, wrong: Tensor, sure: Tensor) -> Commits:
    """The commits of one puzzle. chain: its cells; order: int64 [cells], the pass of every commit;
    wrong: bool [cells]; sure: float [cells], the probability at the commit.
    """
    counts = defaultdict[bool, list[int]](lambda: [0, 0])
    total = 0.0
    for cell in chain:
        early = cell + 1 < len(order) and bool(order[cell] < order[cell + 1])
        counts[early][0] += bool(wrong[cell])
        counts[early][1] += 1
        total += float(sure[cell]) if early and wrong[cell] else 0.0
    missed = [cell for cell in range(len(order)) if wrong[cell]]
    top = min(missed, key=lambda cell: int(order[cell])) in chain[:2] if missed else False
    return Commits(tuple(counts[True]), tuple(counts[False]), (int(top), int(bool(missed))), total)  # type: ignore[arg-type]


def share(part: tuple[int, int]) -> str:
    """A share with its interval, or a dash where there is nothing to count."""
    if not part[1]:
        return "–"  # noqa: RUF001
    low, high = wilson(*part)
    return f"{part[0] / part[1]:.3f} ({low:.3f}–{high:.3f})"  # noqa: RUF001


def table(found: dict[str, Commits]) -> str:
    """A Markdown table, one line a scheme."""
    text = [
        "| scheme | cells committed early | of these wrong | of the others wrong"
        " | mean probability of wrong early commits | first mistake on the top two cells |",
        "| --- " * 6 + "|",
    ]
    for scheme, c in found.items():
        early, late = c.early, c.late
        mean = f"{c.sure / early[0]:.3f}" if early[0] else "–"  # noqa: RUF001
        part = share((early[1], early[1] + late[1]))
        text.append(
            f"| {scheme} | {part} | {share(early)} | {share(late)} | {mean} | {share(c.top)} |"
        )
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--puzzles", type=int, default=500)
    args = parser.parse_args()
    study = load_study(args.settings)
    if study.data.task != "addition":
        parser.error(f"{args.settings} is {study.data.task}; only addition has carry chains")
    found: dict[str, Commits] = {}
    for scheme in study.schemes:
        folders = [run_folder(args.out, scheme, seed) / "model" for seed in study.seeds]
        runs = [commits(study, folder, args.puzzles) for folder in folders if folder.exists()]
        if runs:
            found[scheme] = runs[0]
            for other in runs[1:]:
                found[scheme] = found[scheme].plus(other)
    (args.out / "commits.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
