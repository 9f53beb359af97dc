"""Perfect mazes by depth-first search; every corridor cell is labelled on or off the path.

The grid has walls between cells: ``size`` x ``size`` cells are drawn on (2 size + 1) squared
symbols. The answer has one label for every corridor cell in reading order, 2 size^2 - 1 of them.
Difficulty is the longest corridor: the most cells in a line of cells without a junction (our
reading). The oracle order is dead-end filling: dead ends are off the path, and so is what becomes
a dead end without them.
"""

import random
from collections import deque

from recipes.masking_study.tasks.base import Example, Symbols, reject_until

Cell = tuple[int, int]
WALL, OPEN, START, GOAL, ON, OFF = "#", ".", "S", "G", "1", "0"


class Maze:
    """Mazes of ``size`` x ``size`` cells, start and goal two different cells."""

    symbols: Symbols = (WALL, OPEN, START, GOAL, ON, OFF)

    def __init__(self, size: int) -> None:
        self.size = size

    def draw(self, rng: random.Random) -> Example:
        """A maze with start and goal drawn uniformly among the cells."""
        corridor = carve(self.size, rng)
        cells = [(2 * r + 1, 2 * c + 1) for r in range(self.size) for c in range(self.size)]
        start, goal = rng.sample(cells, 2)
        return self.example(corridor, start, goal)

    def draw_stratum(self, rng: random.Random, difficulty: int) -> Example:
        """By rejection."""
        return reject_until(self, rng, difficulty)

    def example(self, corridor: set[Cell], start: Cell, goal: Cell) -> Example:
        """The puzzle of a maze."""
        width = 2 * self.size + 1
        marks = {start: START, goal: GOAL}
        prompt = tuple(
            marks.get((r, c), OPEN if (r, c) in corridor else WALL)
            for r in range(width)
            for c in range(width)
        )
        rounds = dead_end_rounds(corridor, start, goal)
        last = max(rounds.values(), default=-1) + 1
        cells = sorted(corridor)
        answer = tuple(OFF if cell in rounds else ON for cell in cells)
        order = tuple(rounds.get(cell, last) for cell in cells)
        return Example(prompt, answer, order, longest_corridor(corridor))

    def right(self, example: Example, answer: Symbols) -> bool:
        """Exact match: the path of a perfect maze is unique."""
        return answer == example.answer


def carve(size: int, rng: random.Random) -> set[Cell]:
    """The corridor cells of a perfect maze: a spanning tree by depth-first search."""
    here = (2 * rng.randrange(size) + 1, 2 * rng.randrange(size) + 1)
    corridor, stack = {here}, [here]
    while stack:
        r, c = stack[-1]
        beyond = [
            (r + dr, c + dc)
            for dr, dc in ((0, 2), (2, 0), (0, -2), (-2, 0))
            if 0 < r + dr <= 2 * size
            and 0 < c + dc <= 2 * size
            and (r + dr, c + dc) not in corridor
        ]
        if not beyond:
            stack.pop()
            continue
        chosen = rng.choice(beyond)
        corridor |= {chosen, ((r + chosen[0]) // 2, (c + chosen[1]) // 2)}
        stack.append(chosen)
    return corridor


def neighbours(cell: Cell, corridor: set[Cell]) -> list[Cell]:
    """The corridor cells beside a cell."""
    r, c = cell
    return [n for n in ((r, c + 1), (r + 1, c), (r, c - 1), (r - 1, c)) if n in corridor]


def dead_end_rounds(corridor: set[Cell], start: Cell, goal: Cell) -> dict[Cell, int]:
    """The round of dead-end filling that removes each cell; cells of the path are absent."""
    degree = {cell: len(neighbours(cell, corridor)) for cell in corridor}
    rounds: dict[Cell, int] = {}
    queue = deque((c, 0) for c in sorted(corridor) if degree[c] == 1 and c not in (start, goal))
    while queue:
        cell, number = queue.popleft()
        rounds[cell] = number
        for other in neighbours(cell, corridor):
            degree[other] -= 1
            if degree[other] == 1 and other not in (start, goal) and other not in rounds:
                queue.append((other, number + 1))
    return rounds


def longest_corridor(corridor: set[Cell]) -> int:
    """The most cells in a connected run of cells that have at most two neighbours."""
    plain = {cell for cell in corridor if len(neighbours(cell, corridor)) <= 2}
    longest = 0
    while plain:
        stack, count = [plain.pop()], 0
        while stack:
            count += 1
            found = neighbours(stack.pop(), plain)
            plain -= set(found)
            stack += found
        longest = max(longest, count)
    return longest
