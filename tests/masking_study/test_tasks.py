"""The puzzle generators: answers, oracle orders and strata against their definitions."""

import random

import pytest

from recipes.masking_study.tasks import Example, Task, build_task
from recipes.masking_study.tasks import sudoku_solver as solver
from recipes.masking_study.tasks.addition import Addition, carry_chain
from recipes.masking_study.tasks.base import ranks
from recipes.masking_study.tasks.countdown import Countdown
from recipes.masking_study.tasks.countdown import solutions as countdown_solutions
from recipes.masking_study.tasks.listops import END, ListOps, Node, height, value, written
from recipes.masking_study.tasks.maze import (
    ON,
    Maze,
    carve,
    longest_corridor,
    neighbours,
)
from recipes.masking_study.tasks.sudoku import BLANK, Base, Sudoku
from recipes.train.settings import TaskData

TASKS = {
    "addition": Addition(8),
    "maze": Maze(4),
    "listops": ListOps(4),
    "countdown": Countdown(),
    "sudoku": Sudoku(2, 6),
}
STRATUM = {"addition": 5, "maze": 20, "listops": 3, "countdown": 1, "sudoku": 0}


@pytest.mark.parametrize("name", TASKS)
def test_the_gold_answer_is_right_and_shapes_are_fixed(name: str) -> None:
    task, rng = TASKS[name], random.Random(0)
    drawn = [task.draw(rng) for _ in range(40)]
    assert len({(len(e.prompt), len(e.answer), len(e.order)) for e in drawn}) == 1
    for example in drawn:
        assert task.right(example, example.answer)
        assert set(example.prompt) | set(example.answer) <= set(task.symbols)
        assert len(example.order) == len(example.answer)
    assert drawn == [task.draw(rng) for rng in [random.Random(0)] for _ in range(40)]


@pytest.mark.parametrize("name", TASKS)
def test_a_stratum_is_at_least_as_difficult_as_asked(name: str) -> None:
    rng = random.Random(1)
    for _ in range(10):
        assert TASKS[name].draw_stratum(rng, STRATUM[name]).difficulty >= STRATUM[name]


@pytest.mark.parametrize(
    ("name", "cell"), [("addition", 3), ("maze", 2), ("listops", 0), ("countdown", 0)]
)
def test_a_spoilt_answer_is_wrong(name: str, cell: int) -> None:
    task = TASKS[name]
    example = task.draw(random.Random(2))
    symbol = next(s for s in task.symbols if s != example.answer[cell])
    answer = (*example.answer[:cell], symbol, *example.answer[cell + 1 :])
    assert not task.right(example, answer)


def test_addition_by_hand() -> None:
    example = Addition(4).example(4871, 359)
    assert "".join(example.prompt) == "4871+0359="
    assert "".join(example.answer) == "05230"
    assert example.order == (4, 3, 2, 1, 0)
    assert carry_chain(1234, 8765, 4) == 4
    assert carry_chain(1034, 8765, 4) == 2
    assert carry_chain(0, 0, 4) == 0


def test_a_chain_longer_than_the_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit in 8 digits"):
        Addition(8).draw_stratum(random.Random(0), 9)


def test_a_maze_is_a_tree_and_its_path_leads_from_start_to_goal() -> None:
    rng = random.Random(3)
    for _ in range(20):
        corridor = carve(5, rng)
        edges = sum(len(neighbours(c, corridor)) for c in corridor) // 2
        assert (len(corridor), edges) == (49, 48)
        cells = sorted(c for c in corridor if c[0] % 2 and c[1] % 2)
        start, goal = rng.sample(cells, 2)
        example = Maze(5).example(corridor, start, goal)
        on = {c for c, s in zip(sorted(corridor), example.answer, strict=True) if s == ON}
        ends = {c for c in on if len(neighbours(c, on)) == 1}
        assert ends == {start, goal}
        assert all(len(neighbours(c, on)) <= 2 for c in on)


def test_dead_end_filling_never_needs_a_later_cell() -> None:
    """A cell is off because at most one neighbour remains when its turn comes."""
    rng = random.Random(4)
    maze = Maze(5)
    corridor = carve(5, rng)
    example = maze.example(corridor, (1, 1), (9, 9))
    rank = dict(zip(sorted(corridor), example.order, strict=True))
    for cell, symbol in zip(sorted(corridor), example.answer, strict=True):
        if symbol != ON:
            remaining = [n for n in neighbours(cell, corridor) if rank[n] >= rank[cell]]
            assert len(remaining) <= 1


def test_the_longest_corridor_of_a_line_and_of_a_cross() -> None:
    line = {(1, c) for c in range(7)}
    assert longest_corridor(line) == 7
    assert longest_corridor(line | {(0, 3), (2, 3)}) == 3


def test_listops_by_hand() -> None:
    inner = Node("SUM", (7, 8))
    root = Node("MED", (inner, 3, Node("MAX", (1, Node("MIN", (4, 2)))), 9))
    assert value(inner) == 5
    assert value(root) == 5
    assert height(root) == 3
    assert "".join(written(inner)) == "[SUM78]"
    example = ListOps(5).example(root)
    assert example is not None
    assert example.answer[:5] == ("5", "2", "2", "5", END)
    assert example.order[:5] == (0, 1, 2, 3, 4)
    deep = ListOps(5).example(Node("MAX", (Node("MAX", (1, inner)), inner)))
    assert deep is not None
    assert [deep.order[i] for i in range(4)] == [0, 2, 1, 3]


def test_countdown_accepts_another_solution_and_refuses_misuse() -> None:
    task = Countdown()
    example = task.example((2, 3, 4, 5), 14, ((2, "+", 3, 5), (5, "+", 4, 9), (9, "+", 5, 14)), 9)

    def right(text: str) -> bool:
        return task.right(example, tuple(text.ljust(40, "_")))

    assert right("5+4=9,9+3=12,12+2=14")
    assert right("3*5=15,15-2=13,4+13=17") is False
    assert not right("5+4=9,9+5=14")
    assert not right("5+5=10,10+4=14,14*1=14")
    assert not right("2+3=6,6+4=10,10+4=14")


def test_countdown_with_three_numbers_has_two_equations() -> None:
    task = Countdown(3)
    example = task.example((2, 3, 4), 14, ((4, "+", 3, 7), (7, "*", 2, 14)), 9)
    assert example.answer == tuple("4+3=7,7*2=14".ljust(20, "_"))
    assert task.right(example, tuple("3+4=7,2*7=14".ljust(20, "_")))
    assert not task.right(example, tuple("7*2=14".ljust(20, "_")))
    with pytest.raises(ValueError, match="3 or 4 numbers, got 5"):
        Countdown(5)


def test_countdown_solutions_combine_all_numbers() -> None:
    found = set(countdown_solutions((2, 3)))
    assert found == {((3, "+", 2, 5),), ((3, "-", 2, 1),), ((3, "*", 2, 6),)}
    assert all(len(s) == 3 for s in countdown_solutions((1, 2, 3, 4)))


def test_sudoku_puzzles_have_one_solution_under_every_symmetry() -> None:
    task, rng = TASKS["sudoku"], random.Random(5)
    for _ in range(10):
        example = task.draw(rng)
        grid = [0 if s == BLANK else int(s) for s in example.prompt]
        found = list(solver.solutions(grid, 2))
        assert [[int(s) for s in example.answer]] == found


def test_the_solver_order_needs_only_what_came_before() -> None:
    """Cells filled by a naked single have one candidate left once earlier rounds are in."""
    sudoku = Sudoku(2, 8, seed=3)
    checked = 0
    for base in sudoku.bases:
        for number in range(1, max(base.solved.round) + 1):
            pairs = zip(base.solution, base.solved.round, strict=True)
            grid = [v if r < number else 0 for v, r in pairs]
            options = solver.candidates(grid, 2)
            for cell, round_ in enumerate(base.solved.round):
                if round_ == number and base.solved.level[cell] == 1:
                    assert options[cell] == {base.solution[cell]}
                    checked += 1
    assert checked > 30


def test_a_sudoku_that_techniques_cannot_solve_is_guessed() -> None:
    solution = next(solver.solutions([0] * 16, 2))
    solved = solver.solve([0] * 16, solution, 2)
    assert solved.level[0] == solver.GUESS
    assert max(solved.round) >= 4
    assert not solver.is_unique([0] * 16, 2)


def test_a_stratum_that_no_base_has_is_refused() -> None:
    easy = Sudoku(2, 1)
    easy.bases = [Base(*easy.bases[0][:4], difficulty=0)]
    with pytest.raises(ValueError, match="dig more"):
        easy.draw_stratum(random.Random(0), 95)


def test_ranks_put_unnamed_cells_last() -> None:
    assert ranks([2, 0], 4) == (1, 2, 0, 3)


@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_built_by_name(name: str) -> None:
    size = {"addition": 8, "maze": 4, "listops": 4, "countdown": 4, "sudoku": 2}[name]
    data = TaskData(task=name, size=size, examples=1, batch=1)
    task: Task = build_task(data)
    example: Example = task.draw(random.Random(0))
    assert type(task) is type(TASKS[name])
    assert task.right(example, example.answer)
