"""Sudoku by exhaustive search and by named techniques, on grids of any box size.

A grid is a list of n^2 numbers in reading order, 0 for a blank, n = box^2. Techniques have
levels: 1 a cell with one candidate, 2 a candidate with one cell in a unit, 3 locked candidates
and naked pairs, 4 a guess (our scale).
"""

import random
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import NamedTuple

Grid = list[int]
Candidates = list[set[int]]
GUESS = 4


class Geometry(NamedTuple):
    """units: the rows, columns and boxes as cells. peers: for every cell, the cells it excludes."""

    units: tuple[tuple[int, ...], ...]
    peers: tuple[frozenset[int], ...]


@cache
def geometry(box: int) -> Geometry:
    """Rows, columns and boxes of a grid."""
    n = box * box
    rows = [tuple(r * n + c for c in range(n)) for r in range(n)]
    columns = [tuple(r * n + c for r in range(n)) for c in range(n)]
    boxes = [
        tuple((br * box + r) * n + bc * box + c for r in range(box) for c in range(box))
        for br in range(box)
        for bc in range(box)
    ]
    units = (*rows, *columns, *boxes)
    peers = tuple(
        frozenset(other for unit in units if cell in unit for other in unit) - {cell}
        for cell in range(n * n)
    )
    return Geometry(units, peers)


def candidates(grid: Grid, box: int) -> Candidates:
    """What each blank may hold by its row, column and box; empty for a filled cell."""
    peers = geometry(box).peers
    every = set(range(1, box * box + 1))
    return [set() if v else every - {grid[p] for p in peers[i]} for i, v in enumerate(grid)]


def solutions(grid: Grid, box: int, rng: random.Random | None = None) -> Iterator[Grid]:
    """Every solution, by search on the cell with the fewest candidates."""
    options = candidates(grid, box)
    blanks = [i for i, v in enumerate(grid) if not v]
    if not blanks:
        yield list(grid)
        return
    cell = min(blanks, key=lambda i: len(options[i]))
    values = sorted(options[cell])
    if rng is not None:
        rng.shuffle(values)
    for digit in values:
        grid[cell] = digit
        yield from solutions(grid, box, rng)
        grid[cell] = 0


def is_unique(grid: Grid, box: int) -> bool:
    """Whether a grid has exactly one solution."""
    found = solutions(list(grid), box)
    return next(found, None) is not None and next(found, None) is None


class Solved(NamedTuple):
    """For every cell the round that fills it and the hardest technique used up to then; a clue has
    0 and 0. Cells of one round need only what earlier rounds filled."""

    round: tuple[int, ...]
    level: tuple[int, ...]


def solve(puzzle: Grid, solution: Grid, box: int) -> Solved:
    """Fill a puzzle with the easiest technique that gives anything, one round after the other.

    A guess fills one cell with the fewest candidates, taking its digit from the solution.
    """
    grid, options = list(puzzle), candidates(puzzle, box)
    rounds, levels = [0] * len(grid), [0] * len(grid)
    number = hardest = 0
    while not all(grid):
        number += 1
        found, level = next_fills(grid, options, box)
        hardest = max(hardest, level)
        for cell in found:
            grid[cell], rounds[cell], levels[cell] = solution[cell], number, hardest
            options[cell] = set()
            for peer in geometry(box).peers[cell]:
                options[peer].discard(solution[cell])
    return Solved(tuple(rounds), tuple(levels))


def next_fills(grid: Grid, options: Candidates, box: int) -> tuple[set[int], int]:
    """The cells that the easiest sufficient technique decides, and its level.

    Eliminations of level 3 stay in ``options``.
    """
    for level in (1, 2, 3):
        if level == 3:
            while eliminate(options, box):
                if singles(options, box):
                    break
        found = singles(options, box) if level != 1 else naked_singles(options)
        if found:
            return found, level
    blanks = [i for i, v in enumerate(grid) if not v]
    return {min(blanks, key=lambda i: len(options[i]))}, GUESS


def naked_singles(options: Candidates) -> set[int]:
    """Cells with one candidate."""
    return {i for i, c in enumerate(options) if len(c) == 1}


def singles(options: Candidates, box: int) -> set[int]:
    """Cells with one candidate, or with a candidate that no other cell of a unit has."""
    found = naked_singles(options)
    for unit in geometry(box).units:
        for digit in range(1, box * box + 1):
            cells = [i for i in unit if digit in options[i]]
            if len(cells) == 1:
                found.add(cells[0])
    return found


def eliminate(options: Candidates, box: int) -> bool:
    """Remove candidates by locked candidates and naked pairs; whether any was removed."""
    before = sum(map(len, options))
    units, peers = geometry(box)
    for unit in units:
        for digit in range(1, box * box + 1):
            cells = [i for i in unit if digit in options[i]]
            if len(cells) > 1:
                for other in frozenset.intersection(*(peers[i] for i in cells)):
                    options[other].discard(digit)
        for i, j in combinations(unit, 2):
            if len(options[i]) == 2 and options[i] == options[j]:
                for other in set(unit) - {i, j}:
                    options[other] -= options[i]
    return sum(map(len, options)) < before
