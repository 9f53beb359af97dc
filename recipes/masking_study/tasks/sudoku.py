"""Sudoku with a puzzle source of its own: the paper's data set is not used.

A few puzzles with one solution are dug out of random full grids; every drawn puzzle is one of
them under a random symmetry (digits renamed, rows and columns permuted inside and among bands,
transposed), which keeps its difficulty. Difficulty is the percentage of blanks that are filled
after a guess was needed (level 4 of the solver). The oracle order is the solver's, easiest
technique first.
"""

import random
from functools import cached_property
from typing import NamedTuple

from recipes.masking_study.tasks import sudoku_solver as solver
from recipes.masking_study.tasks.base import Example, Symbols

BLANK = "."
TIER_FACTOR = 0.01
"""Puzzles whose hardest technique has level i + 1 are drawn with weight 0.01^i."""


class Base(NamedTuple):
    """A puzzle before symmetries. tier: 0 to 3, the level of its hardest technique less one."""

    puzzle: tuple[int, ...]
    solution: tuple[int, ...]
    solved: solver.Solved
    tier: int
    difficulty: int


class Sudoku:
    """Grids of boxes of ``box`` x ``box`` cells, from ``bases`` dug puzzles."""

    def __init__(self, box: int, bases: int, seed: int = 0) -> None:
        self.box, self.size = box, box * box
        self.symbols: Symbols = (BLANK, *(str(d) for d in range(1, self.size + 1)))
        self.count, self.seed = bases, seed

    @cached_property
    def bases(self) -> list[Base]:
        """The dug puzzles: most of a minute for sixty of 9 x 9, so dug when first asked for."""
        rng = random.Random(self.seed)
        return [dig(self.box, rng) for _ in range(self.count)]

    def draw(self, rng: random.Random) -> Example:
        """A puzzle, the harder tiers rarer."""
        weights = [TIER_FACTOR**base.tier for base in self.bases]
        return self.example(rng.choices(self.bases, weights=weights)[0], rng)

    def draw_stratum(self, rng: random.Random, difficulty: int) -> Example:
        """A puzzle of which at least ``difficulty`` percent of the blanks come after a guess."""
        hard = [base for base in self.bases if base.difficulty >= difficulty]
        if not hard:
            raise ValueError(
                f"none of {len(self.bases)} base puzzles has difficulty {difficulty}; dig more"
            )
        return self.example(rng.choice(hard), rng)

    def example(self, base: Base, rng: random.Random) -> Example:
        """A base puzzle under a random symmetry."""
        cells, names = self._symmetry(rng)
        prompt = tuple(str(names[base.puzzle[i]]) if base.puzzle[i] else BLANK for i in cells)
        answer = tuple(str(names[base.solution[i]]) for i in cells)
        return Example(prompt, answer, tuple(base.solved.round[i] for i in cells), base.difficulty)

    def _symmetry(self, rng: random.Random) -> tuple[list[int], list[int]]:
        """The source cell of every cell, and the new name of every digit."""
        lines = [self._line_order(rng) for _ in range(2)]
        cells = [r * self.size + c for r in lines[0] for c in lines[1]]
        if rng.random() < 0.5:
            cells = [cells[c * self.size + r] for r in range(self.size) for c in range(self.size)]
        digits = list(range(1, self.size + 1))
        rng.shuffle(digits)
        return cells, [0, *digits]

    def _line_order(self, rng: random.Random) -> list[int]:
        bands = [list(range(b * self.box, (b + 1) * self.box)) for b in range(self.box)]
        for band in bands:
            rng.shuffle(band)
        rng.shuffle(bands)
        return [line for band in bands for line in band]

    def right(self, example: Example, answer: Symbols) -> bool:
        """Exact match: the solution is unique."""
        return answer == example.answer


def dig(box: int, rng: random.Random) -> Base:
    """Remove clues from a random full grid in random order while one solution is left.

    A random share of the cells is tried, so that easy puzzles occur too (our choice).
    """
    count = box**4
    solution = next(solver.solutions([0] * count, box, rng))
    puzzle, order = list(solution), list(range(count))
    rng.shuffle(order)
    for cell in order[: rng.randint(count // 2, count)]:
        kept, puzzle[cell] = puzzle[cell], 0
        if not solver.is_unique(puzzle, box):
            puzzle[cell] = kept
    solved = solver.solve(puzzle, solution, box)
    levels = [level for level in solved.level if level]
    guessed = 100 * sum(level == solver.GUESS for level in levels) // max(1, len(levels))
    return Base(tuple(puzzle), tuple(solution), solved, max(levels, default=1) - 1, guessed)
