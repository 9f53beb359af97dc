"""What a task of the study is: puzzles as symbol strings, with a decoding order that never
guesses.
"""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

Symbols = tuple[str, ...]


class Example(NamedTuple):
    """One puzzle.

    prompt, answer: symbols of the task. order: for every answer cell, its rank in the oracle order,
    from 0; cells of one rank can be decided at the same time. difficulty: the number that strata
    are made of, its meaning is the task's.
    """

    prompt: Symbols
    answer: Symbols
    order: tuple[int, ...]
    difficulty: int


class Task(Protocol):
    """A family of puzzles with prompts of one length and answers of one length."""

    symbols: Symbols

    def draw(self, rng: random.Random) -> Example:
        """A puzzle of the training distribution."""
        ...

    def draw_stratum(self, rng: random.Random, difficulty: int) -> Example:
        """A puzzle of at least this difficulty; ValueError where the task has none."""
        ...

    def right(self, example: Example, answer: Symbols) -> bool:
        """Whether an answer solves the puzzle."""
        ...


def ranks(order: Sequence[int], length: int) -> tuple[int, ...]:
    """The rank of every cell from the cells in their order; cells not named come last, in place."""
    named = set(order)
    whole = [*order, *(cell for cell in range(length) if cell not in named)]
    found: Mapping[int, int] = {cell: rank for rank, cell in enumerate(whole)}
    return tuple(found[cell] for cell in range(length))


def reject_until(
    task: Task, rng: random.Random, difficulty: int, attempts: int = 100_000
) -> Example:
    """Draw until a puzzle is difficult enough; ValueError after ``attempts``."""
    for _ in range(attempts):
        example = task.draw(rng)
        if example.difficulty >= difficulty:
            return example
    raise ValueError(
        f"no puzzle of difficulty {difficulty} or more in {attempts} draws; ask for less"
    )
