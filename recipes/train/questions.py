"""Arithmetic questions in plain words, their worked answers, and a line-by-line checker.

Every question is a sum or a difference of two numbers of at most four digits, or a chain of two
such steps on numbers of at most three digits; no result is negative. The worked answer has one
line a column, from the ones upwards, and every line is a true equation by itself:

    4871 + 359      1+9+0=10      digit + digit + carry in = two digits, the carry out and the sum
                    7+5+1=13
                    8+3+1=12
                    4+0+1=05
                    The answer is 5230

    951 - 79        11-9-0=2      digit (10 added where needed) - digit - borrow in = digit
                    15-7-1=7      the leading 1 or 0 is the borrow out
                    09-0-1=8
                    The answer is 872

The lines of a second step follow those of the first and take their digits from its sums. Of two
steps the first always has three columns, and the second as many, or after an addition one more for
its last carry, needed or not. So a digit and where it comes from are always the same number of
lines apart. 120 + 34 - 56 has 0+4+0=04, 2+3+0=05, 1+0+0=01, and then 14-6-0=8, 15-5-1=9, 01-0-1=0,
00-0-0=0.

Held-out and training questions are disjoint by construction: a hash of the unordered pair of
operands of a step puts the pair on one side or the other, and a question belongs to a side only
if the pairs of all its steps do.
"""

import random
import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Literal, NamedTuple

Operator = Literal["+", "-"]
Side = Literal["train", "held_out"]

HELD_OUT_ONE_IN = 16
"""One unordered operand pair in this many is held out (our choice)."""

TWO_STEP_COLUMNS = 3
"""The most digits of a number in a question of two steps."""

ANSWER_PREFIX = "The answer is "

TWO_NUMBERS: dict[Operator, tuple[str, ...]] = {
    "+": (
        "What is {a} + {b}?",
        "What is {a} plus {b}?",
        "What is {a}+{b}?",
        "what is {a} + {b}",
        "{a} + {b} = ?",
        "{a}+{b}",
        "Compute {a} + {b}.",
        "Please calculate {a} plus {b}.",
        "How much is {a} + {b}?",
        "Add {a} and {b}.",
        "Add {b} to {a}.",
        "What is the sum of {a} and {b}?",
        "I have {a} apples and get {b} more. How many apples do I have?",
    ),
    "-": (
        "What is {a} - {b}?",
        "What is {a} minus {b}?",
        "What is {a}-{b}?",
        "what is {a} - {b}",
        "{a} - {b} = ?",
        "{a}-{b}",
        "Compute {a} - {b}.",
        "Please calculate {a} minus {b}.",
        "How much is {a} - {b}?",
        "Subtract {b} from {a}.",
        "Take {b} away from {a}.",
        "What is the difference between {a} and {b}?",
        "I have {a} apples and give away {b}. How many apples do I have?",
    ),
}
THREE_NUMBERS = (
    "What is {a} {p} {b} {q} {c}?",
    "What is {a}{p}{b}{q}{c}?",
    "what is {a} {p} {b} {q} {c}",
    "{a} {p} {b} {q} {c} = ?",
    "{a}{p}{b}{q}{c}",
    "Compute {a} {p} {b} {q} {c}.",
    "Please calculate {a} {p_word} {b} {q_word} {c}.",
    "How much is {a} {p} {b} {q} {c}?",
    "What is {a} {p_word} {b} {q_word} {c}?",
)
WORDS: dict[Operator, str] = {"+": "plus", "-": "minus"}


class Step(NamedTuple):
    """One operation on two numbers, ``a >= b`` where it is a subtraction."""

    a: int
    operator: Operator
    b: int

    @property
    def result(self) -> int:
        return self.a + self.b if self.operator == "+" else self.a - self.b

    def __str__(self) -> str:
        return f"{self.a}{self.operator}{self.b}"


class Question(NamedTuple):
    """A question in words and the steps that answer it; ``steps[1].a == steps[0].result``."""

    text: str
    steps: tuple[Step, ...]

    @property
    def kind(self) -> str:
        names = {"+": "addition", "-": "subtraction"}
        return names[self.steps[0].operator] if len(self.steps) == 1 else "two steps"

    @property
    def answer(self) -> int:
        return self.steps[-1].result

    @property
    def reasoning(self) -> list[str]:
        """The lines of the worked answer, without the line that states it."""
        lines = list[str]()
        for step, width in zip(self.steps, self._widths(), strict=True):
            lines += step_lines(step, width)
        return lines

    @property
    def computed(self) -> list[list[bool]]:
        """For every character of every reasoning line, whether it follows from other lines or from
        arithmetic; the others are marks and digits of the question."""
        cells = list[list[bool]]()
        for i, (step, width) in enumerate(zip(self.steps, self._widths(), strict=True)):
            pattern = "c+y+c=cc" if step.operator == "+" else "cc-y-c=c"
            own = "x+y+c=cc" if step.operator == "+" else "cx-y-c=c"
            cells += [[mark == "c" for mark in (pattern if i else own)]] * width
        return cells

    def _widths(self) -> list[int]:
        """The columns of every step."""
        if len(self.steps) == 1:
            return [columns(self.steps[0])]
        return [TWO_STEP_COLUMNS, TWO_STEP_COLUMNS + (self.steps[0].operator == "+")]

    @property
    def completion(self) -> str:
        """The whole text an assistant should give: the reasoning, then ``The answer is N``."""
        return "\n".join([*self.reasoning, f"{ANSWER_PREFIX}{self.answer}"])


class Verdict(NamedTuple):
    """What the checker found in one completion.

    ``lines_right[i]`` says whether line i is a true equation and the one that the calculation needs
    there; ``expected_lines`` is how many lines the calculation has.
    """

    answer: int | None
    answer_right: bool
    lines_right: tuple[bool, ...]
    expected_lines: int

    @property
    def reasoning_right(self) -> bool:
        """Every line right, none missing, none too many."""
        return len(self.lines_right) == self.expected_lines and all(self.lines_right)


def parse(text: str) -> Question | None:
    """The question that a text asks with signs or their words, None where it asks none.

    Of the phrases of this module those are understood that write every operator between its
    numbers; any result, also a negative one, is taken as asked.
    """
    signs: dict[str, Operator] = {"+": "+", "plus": "+", "-": "-", "minus": "-"}
    parts = re.findall(r"\d+|[+-]|plus|minus", text)
    shape = ["number" if part.isdigit() else "sign" for part in parts]
    if shape not in (["number", "sign"] * count + ["number"] for count in (1, 2)):
        return None
    steps = list[Step]()
    value = int(parts[0])
    for sign, number in zip(parts[1::2], parts[2::2], strict=True):
        steps.append(Step(value, signs[sign], int(number)))
        value = steps[-1].result
    return Question(text, tuple(steps))


def columns(step: Step) -> int:
    """The digits of the longer operand."""
    return max(len(str(step.a)), len(str(step.b)))


def step_lines(step: Step, width: int) -> list[str]:
    """The lines of ``width`` columns of one step, ones first."""
    carry, lines = 0, []
    for place in range(width):
        x, y = step.a // 10**place % 10, step.b // 10**place % 10
        if step.operator == "+":
            lines.append(f"{x}+{y}+{carry}={x + y + carry:02d}")
            carry = (x + y + carry) // 10
        else:
            borrow = int(x < y + carry)
            lines.append(f"{borrow}{x}-{y}-{carry}={10 * borrow + x - y - carry}")
            carry = borrow
    return lines


def is_true_equation(line: str) -> bool:
    """Whether a line is an equation of sums and differences of numbers, and a true one."""
    if not re.fullmatch(r"\d+([+-]\d+)+=\d+", line):
        return False
    left, right = line.split("=")
    return sum(int(term) for term in re.findall(r"[+-]?\d+", left)) == int(right)


def check(question: Question, text: str) -> Verdict:
    """Compare a completion with the calculation, line by line."""
    head, found, tail = text.partition(ANSWER_PREFIX)
    number = re.fullmatch(r"\s*(\d+)\.?\s*", tail)
    answer = int(number[1]) if found and number else None
    lines = head.split("\n")[:-1] if found else head.split("\n")
    gold = question.reasoning
    right = tuple(
        i < len(gold) and line == gold[i] and is_true_equation(line) for i, line in enumerate(lines)
    )
    return Verdict(answer, answer == question.answer, right, len(gold))


def side_of(step: Step) -> Side:
    """The side that the operands of a step belong to, whatever their order and the operator."""
    pair = f"{min(step.a, step.b)},{max(step.a, step.b)}".encode()
    bucket = int.from_bytes(blake2b(pair, digest_size=8).digest(), "big") % HELD_OUT_ONE_IN
    return "held_out" if bucket == 0 else "train"


def training(rng: random.Random) -> Question:
    """A question of which every step is on the training side, three in five of two steps."""
    return draw(rng, "train", weights=(1, 1, 3))


def held_out(count: int, seed: int = 2026) -> Iterator[Question]:
    """``count`` different questions of which every step is on the held-out side."""
    rng, seen = random.Random(seed), set[tuple[Step, ...]]()
    while len(seen) < count:
        question = draw(rng, "held_out")
        if question.steps not in seen:
            seen.add(question.steps)
            yield question


def draw(rng: random.Random, side: Side, weights: tuple[int, int, int] = (3, 3, 4)) -> Question:
    """A question of one side; the weights are those of addition, subtraction and two steps."""
    kind = rng.choices((_addition, _subtraction, _two_steps), weights=weights)[0]
    while True:
        steps = kind(rng)
        if steps is not None and all(side_of(step) == side for step in steps):
            return Question(_phrase(rng, steps), steps)


def _number(rng: random.Random, most_digits: int) -> int:
    """A number whose digit count is drawn first, long ones more often."""
    sizes = range(1, most_digits + 1)
    digits = rng.choices(sizes, weights=sizes)[0]
    return rng.randrange(0 if digits == 1 else 10 ** (digits - 1), 10**digits)


Steps = tuple[Step, ...]


def _addition(rng: random.Random) -> Steps:
    return (Step(_number(rng, 4), "+", _number(rng, 4)),)


def _subtraction(rng: random.Random) -> Steps:
    a, b = _number(rng, 4), _number(rng, 4)
    return (Step(max(a, b), "-", min(a, b)),)


def _two_steps(rng: random.Random) -> Steps | None:
    a, b, c = (_number(rng, TWO_STEP_COLUMNS) for _ in range(3))
    p, q = rng.choice("+-"), rng.choice("+-")
    first = Step(a, p, b)  # type: ignore[arg-type]
    second = Step(first.result, q, c)  # type: ignore[arg-type]
    return (first, second) if first.result >= 0 and second.result >= 0 else None


def _phrase(rng: random.Random, steps: Steps) -> str:
    first = steps[0]
    if len(steps) == 1:
        return rng.choice(TWO_NUMBERS[first.operator]).format(a=first.a, b=first.b)
    p, q = first.operator, steps[1].operator
    return rng.choice(THREE_NUMBERS).format(
        a=first.a, b=first.b, c=steps[1].b, p=p, q=q, p_word=WORDS[p], q_word=WORDS[q]
    )
