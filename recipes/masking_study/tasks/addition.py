"""Multi-digit addition ``a+b=c``, most significant digit first.

Difficulty is the carry chain: the longest run of neighbouring columns whose two digits sum to 9,
where a carry passes or not according to what is below. The oracle order is the least significant
digit first.
"""

import random

from recipes.masking_study.tasks.base import Example, Symbols


class Addition:
    """Operands of ``digits`` digits with leading zeros, a result of one digit more."""

    symbols: Symbols = (*"0123456789", "+", "=")

    def __init__(self, digits: int) -> None:
        self.digits = digits

    def draw(self, rng: random.Random) -> Example:
        """Two uniform operands."""
        limit = 10**self.digits
        return self.example(rng.randrange(limit), rng.randrange(limit))

    def draw_stratum(self, rng: random.Random, difficulty: int) -> Example:
        """Uniform operands with a planted run of ``difficulty`` columns of digit sum 9."""
        if difficulty > self.digits:
            raise ValueError(
                f"a carry chain of {difficulty} does not fit in {self.digits} digits; ask for less"
            )
        a, b = ([rng.randrange(10) for _ in range(self.digits)] for _ in range(2))
        start = rng.randrange(self.digits - difficulty + 1)
        for column in range(start, start + difficulty):
            b[column] = 9 - a[column]
        return self.example(*(int("".join(map(str, number))) for number in (a, b)))

    def example(self, a: int, b: int) -> Example:
        """The puzzle of two numbers."""
        prompt = f"{a:0{self.digits}d}+{b:0{self.digits}d}="
        answer = f"{a + b:0{self.digits + 1}d}"
        order = tuple(range(self.digits, -1, -1))
        return Example(tuple(prompt), tuple(answer), order, carry_chain(a, b, self.digits))

    def right(self, example: Example, answer: Symbols) -> bool:
        """Exact match."""
        return answer == example.answer


def carry_chain(a: int, b: int, digits: int) -> int:
    """The longest run of neighbouring columns with digit sum 9."""
    longest = run = 0
    for place in range(digits):
        column = a // 10**place % 10 + b // 10**place % 10
        run = run + 1 if column == 9 else 0
        longest = max(longest, run)
    return longest
