"""The five tasks of the study, by name."""

from collections.abc import Callable

from recipes.masking_study.tasks.addition import Addition
from recipes.masking_study.tasks.base import Example, Task
from recipes.masking_study.tasks.countdown import Countdown
from recipes.masking_study.tasks.listops import ListOps
from recipes.masking_study.tasks.maze import Maze
from recipes.masking_study.tasks.sudoku import Sudoku
from recipes.train.settings import TaskData

__all__ = ["Example", "Task", "build_task"]

SUDOKU_BASES = 60
"""Dug puzzles behind a Sudoku run (our choice)."""


def build_task(data: TaskData) -> Task:
    """The task of a run. ``size``: digits, maze cells a side, depth, numbers, or box side."""
    builders: dict[str, Callable[[], Task]] = {
        "addition": lambda: Addition(data.size),
        "maze": lambda: Maze(data.size),
        "listops": lambda: ListOps(data.size),
        "countdown": lambda: Countdown(data.size),
        "sudoku": lambda: Sudoku(data.size, SUDOKU_BASES),
    }
    return builders[data.task]()
