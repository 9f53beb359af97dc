"""Countdown with four numbers: three equations that use each number once and end in the target.

The answer is ``a+b=c,d*e=f,g-h=target`` padded to forty symbols; with three numbers, our smaller
scale, it is two equations padded to twenty. Every result is a positive whole
number. Difficulty is 1 where a puzzle has at most three solutions, else 0; one in ten of those
stays in training. Solutions are counted as unordered pairs combined in turn (our reading). The
oracle order is equation by equation, from the left.
"""

import random
import re
from collections.abc import Iterator
from itertools import combinations
from operator import add, floordiv, mul, sub

from recipes.masking_study.tasks.base import Example, Symbols, reject_until

ANSWER_CELLS = {3: 20, 4: 40}
"""The answer's length by how many numbers there are."""
PAD = "_"
LARGEST_NUMBER, LARGEST_TARGET, LARGEST_RESULT = 25, 99, 9999
"""The range of the numbers, of the target and of a result on the way (our choice)."""
OPERATIONS = {"+": add, "-": sub, "*": mul, "/": floordiv}

Equation = tuple[int, str, int, int]


class Countdown:
    """Four numbers of 1 to 25, or three, and a target of 10 to 99 that can be reached."""

    symbols: Symbols = (*"0123456789", "+", "-", "*", "/", "=", ",", ":", PAD)

    def __init__(self, numbers: int = 4, kept_share: float = 0.1) -> None:
        if numbers not in ANSWER_CELLS:
            raise ValueError(
                f"Countdown has 3 or 4 numbers, got {numbers}; set size to one of these"
            )
        self.numbers, self.kept_share = numbers, kept_share

    def draw(self, rng: random.Random) -> Example:
        """A puzzle of training: one with few solutions is kept with probability ``kept_share``."""
        while True:
            example = self._any(rng)
            if example.difficulty == 0 or rng.random() < self.kept_share:
                return example

    def draw_stratum(self, rng: random.Random, difficulty: int) -> Example:
        """Of difficulty 1, puzzles with one to three solutions; of difficulty 0, any."""
        if difficulty not in (0, 1):
            raise ValueError(f"Countdown has the difficulties 0 and 1, got {difficulty}")
        return reject_until(self, rng, difficulty)

    def _any(self, rng: random.Random) -> Example:
        numbers = tuple(sorted(rng.randint(1, LARGEST_NUMBER) for _ in range(self.numbers)))
        found: dict[int, list[tuple[Equation, ...]]] = {}
        for solution in solutions(numbers):
            target = solution[-1][3]
            if 10 <= target <= LARGEST_TARGET:
                found.setdefault(target, []).append(solution)
        if not found:
            return self._any(rng)
        target = rng.choice(sorted(found))
        return self.example(numbers, target, rng.choice(found[target]), len(found[target]))

    def example(
        self, numbers: tuple[int, ...], target: int, solution: tuple[Equation, ...], count: int
    ) -> Example:
        """The puzzle with one solution as its gold answer."""
        prompt = ",".join(f"{n:02d}" for n in numbers) + f":{target:02d}="
        text = ",".join(f"{a}{o}{b}={c}" for a, o, b, c in solution)
        answer = tuple(text.ljust(ANSWER_CELLS[self.numbers], PAD))
        return Example(tuple(prompt), answer, tuple(range(len(answer))), int(count <= 3))

    def right(self, example: Example, answer: Symbols) -> bool:
        """Any true equations that use the numbers once each and end in the target."""
        head, _, goal = "".join(example.prompt[:-1]).partition(":")
        left = sorted(int(n) for n in head.split(","))
        equations = "".join(answer).rstrip(PAD).split(",")
        if len(equations) != len(left) - 1:
            return False
        for equation in equations:
            match = re.fullmatch(r"(\d+)([-+*/])(\d+)=(\d+)", equation)
            if match is None:
                return False
            a, b, c = int(match[1]), int(match[3]), int(match[4])
            if apply(a, match[2], b) != c or a not in left:
                return False
            left.remove(a)
            if b not in left:
                return False
            left[left.index(b)] = c
        return left == [int(goal)]


def apply(a: int, operator: str, b: int) -> int | None:
    """The result where it is a positive whole number in range, else None."""
    if operator == "/" and (b == 0 or a % b):
        return None
    result = int(OPERATIONS[operator](a, b))
    return result if 0 < result <= LARGEST_RESULT else None


def solutions(numbers: tuple[int, ...]) -> Iterator[tuple[Equation, ...]]:
    """Every way to combine all numbers into one, larger operand first."""
    if len(numbers) == 1:
        yield ()
        return
    seen = set[tuple[int, int]]()
    for i, j in combinations(range(len(numbers)), 2):
        a, b = max(numbers[i], numbers[j]), min(numbers[i], numbers[j])
        if (a, b) in seen:
            continue
        seen.add((a, b))
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        for operator in OPERATIONS:
            result = apply(a, operator, b)
            if result is not None:
                for tail in solutions((*rest, result)):
                    yield ((a, operator, b, result), *tail)
