"""ListOps: nested MAX, MIN, MED (upper median) and SUM (mod 10) of two to four digits or lists.

The answer is the trace of the values of all lists in post-order, then EOS and rainbow pads up to
twenty cells. Difficulty is the depth of the tree. The oracle order goes by layers: lists of plain
digits first, then lists whose arguments are known, in post-order inside a layer; the padding
comes last.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from recipes.masking_study.tasks.base import Example, Symbols, ranks, reject_until

OPERATORS: dict[str, Callable[[Sequence[int]], int]] = {
    "MAX": max,
    "MIN": min,
    "MED": lambda values: sorted(values)[len(values) // 2],
    "SUM": lambda values: sum(values) % 10,
}
END, PAD, CLOSE = "<end>", "<pad>", "]"
RAINBOW = tuple(f"<pad{i}>" for i in range(7))
"""Seven pad symbols in turn after ``<end>``; how many is our choice."""
ANSWER_CELLS = 20
EXPANSION, DECAY = 0.6, 0.5


class Node(NamedTuple):
    """A list: an operator and its arguments, digits or lists."""

    operator: str
    arguments: "tuple[int | Node, ...]"


class ListOps:
    """Trees of depth at most ``depth`` in 16 symbols a level and 16 more, padded on the right.

    An argument of a list at depth d is a list itself with probability 0.6 * 0.5^(d - 1), the root's
    depth being 1 (our reading of "expansion .6, decay .5").
    """

    symbols: Symbols = (*"0123456789", *(f"[{o}" for o in OPERATORS), CLOSE, END, PAD, *RAINBOW)

    def __init__(self, depth: int) -> None:
        self.depth, self.prompt_cells = depth, 16 * (depth + 1)

    def draw(self, rng: random.Random) -> Example:
        """A random tree whose prompt and trace fit."""
        while True:
            example = self.example(self.tree(rng, 1))
            if example is not None:
                return example

    def draw_stratum(self, rng: random.Random, difficulty: int) -> Example:
        """A tree of at least this depth, by rejection."""
        if difficulty > self.depth:
            raise ValueError(f"depth {difficulty} is above the task's {self.depth}; ask for less")
        return reject_until(self, rng, difficulty)

    def tree(self, rng: random.Random, depth: int) -> Node:
        """A random tree whose root is at ``depth``."""
        chance = EXPANSION * DECAY ** (depth - 1) if depth < self.depth else 0.0
        arguments = tuple(
            self.tree(rng, depth + 1) if rng.random() < chance else rng.randrange(10)
            for _ in range(rng.randint(2, 4))
        )
        return Node(rng.choice(list(OPERATORS)), arguments)

    def example(self, root: Node) -> Example | None:
        """The puzzle of a tree, or None where it does not fit."""
        prompt, layers = written(root), [height(node) for node in post_order(root)]
        trace = [str(value(node)) for node in post_order(root)]
        if len(prompt) > self.prompt_cells or len(trace) >= ANSWER_CELLS:
            return None
        fill = ANSWER_CELLS - len(trace) - 1
        answer = (*trace, END, *(RAINBOW[i % len(RAINBOW)] for i in range(fill)))
        order = sorted(range(len(trace)), key=lambda i: layers[i])
        padding = (PAD,) * (self.prompt_cells - len(prompt))
        return Example((*prompt, *padding), answer, ranks(order, ANSWER_CELLS), height(root))

    def right(self, example: Example, answer: Symbols) -> bool:
        """The whole trace, up to ``<end>``, is right."""
        end = example.answer.index(END) + 1
        return answer[:end] == example.answer[:end]


def lists_of(node: Node) -> list[Node]:
    """The arguments that are lists."""
    return [argument for argument in node.arguments if isinstance(argument, Node)]


def value(node: Node) -> int:
    """The digit that a list stands for."""
    return OPERATORS[node.operator]([a if isinstance(a, int) else value(a) for a in node.arguments])


def height(node: Node) -> int:
    """1 for a list of digits, one more than its highest list otherwise."""
    return 1 + max((height(child) for child in lists_of(node)), default=0)


def post_order(node: Node) -> list[Node]:
    """All lists, arguments before the list that holds them."""
    return [found for child in lists_of(node) for found in post_order(child)] + [node]


def written(node: Node) -> Symbols:
    """The symbols of a list."""
    inner = [(str(a),) if isinstance(a, int) else written(a) for a in node.arguments]
    return (f"[{node.operator}", *(symbol for part in inner for symbol in part), CLOSE)
