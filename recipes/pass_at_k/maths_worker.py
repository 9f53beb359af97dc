"""Compares answers to maths problems, one JSON line each, inside the sandbox.

By math-verify where it is installed, else by sympy. Both may evaluate what a model wrote, without
bound in time and, in sympy's parser, by Python's ``eval``; hence the sandbox.
"""

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable

from recipes.pass_at_k.jail import enter

BOX = "\\boxed{"
NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?"
UNITS = re.compile(r"\\(?:text|mathrm|mbox)\{\s*([^{}]*?)\s*\}")
SPACES = re.compile(
    r"\\[!,;: ]|\\left|\\right|\\displaystyle|\\quad|~|\$|\\%|%|\^\\circ|\^\{\\circ\}"
)
BRACED = r"\{((?:[^{}]|\{[^{}]*\})*)\}"
BRACKETS = "()[]"


def by_math_verify(gold: str, text: str) -> bool:
    """math-verify's reading of both, of the last box alone where there is one: it would take
    several boxes for a set.
    """
    from math_verify import parse, verify

    if BOX in text:
        text = f"{BOX}{final_answer(text) or ''}}}"
    return bool(verify(parse(f"${gold}$"), parse(text)))


def by_sympy(gold: str, text: str) -> bool:
    """Equal as text once normalised, or part by part as expressions."""
    found = final_answer(text)
    if found is None:
        return False
    left, right = normal(gold), normal(found)
    return left == right or same_parts(left, right)


def final_answer(text: str) -> str | None:
    """The last boxed expression, else what follows the last "answer is", else the last number."""
    _, found, tail = text.rpartition(BOX)
    if found:
        return balanced(tail)
    if stated := re.findall(r"answer is:?\s*(.+?)\.?\s*(?:\n|$)", text, re.I):
        return str(stated[-1])
    numbers = re.findall(NUMBER, text)
    return numbers[-1] if numbers else None


def balanced(text: str) -> str | None:
    """What precedes the brace that closes one opened before ``text``."""
    depth = 1
    for i, mark in enumerate(text):
        depth += (mark == "{") - (mark == "}")
        if depth == 0:
            return text[:i]
    return None


def normal(latex: str) -> str:
    """Spelling that makes no difference removed."""
    text = UNITS.sub(r" \1", SPACES.sub("", latex))
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"^[a-zA-Z]\s*=(?!=)", "", text.strip())
    text = re.sub(r"(?<![\d.])0+(?=\d)", "", text)
    return text.strip().rstrip(".").strip()


def same_parts(left: str, right: str) -> bool:
    """Equal brackets, and every part between their commas equal as an expression."""
    if {left[:1], right[:1], left[-1:], right[-1:]} & set(BRACKETS) and "," in left:
        if (left[:1], left[-1:]) != (right[:1], right[-1:]):
            return False
        left, right = left[1:-1], right[1:-1]
    parts = left.split(","), right.split(",")
    return len(parts[0]) == len(parts[1]) and all(map(same_value, *parts))


def same_value(left: str, right: str) -> bool:
    """Whether the difference of two expressions simplifies to 0."""
    import sympy
    from sympy.parsing.sympy_parser import (
        convert_xor,
        implicit_multiplication,
        parse_expr,
        standard_transformations,
    )

    rules = (*standard_transformations, convert_xor, implicit_multiplication)
    one, other = (parse_expr(plain(text), transformations=rules) for text in (left, right))
    return bool(sympy.simplify(one - other) == 0)


def plain(latex: str) -> str:
    """LaTeX of fractions, roots and products as an expression of sympy."""
    text, before = latex, ""
    while text != before:
        before = text
        text = re.sub(rf"\\frac\s*{BRACED}\s*{BRACED}", r"((\1)/(\2))", text)
        text = re.sub(rf"\\sqrt\s*\[([^\]]*)\]\s*{BRACED}", r"((\2)**(1/(\1)))", text)
        text = re.sub(rf"\\sqrt\s*{BRACED}", r"sqrt(\1)", text)
    text = re.sub(r"\\sqrt\s*(\d)", r"sqrt(\1)", text)
    text = re.sub(r"\\(?:cdot|times)", "*", text)
    text = text.replace("{", "(").replace("}", ")")
    return re.sub(r"\\([a-zA-Z]+)", r" \1 ", text)


def backend() -> str:
    """math-verify where it is installed, else sympy."""
    return "math-verify" if importlib.util.find_spec("math_verify") else "sympy"


def judge(compare: Callable[[str, str], bool], gold: str, text: str) -> dict[str, object]:
    """The verdict on one answer; one that cannot be read is wrong."""
    try:
        return {"right": compare(gold, text), "note": ""}
    except Exception as error:
        return {"right": False, "note": f"not read: {type(error).__name__}"}


def main() -> None:
    channel = enter(json.loads(sys.argv[1]))
    name = os.environ.get("PASS_AT_K_MATHS") or backend()
    compare = by_math_verify if name == "math-verify" else by_sympy
    for line in sys.stdin:
        case = json.loads(line)
        verdict = judge(compare, case["gold"], case["text"])
        os.write(channel, json.dumps(verdict).encode() + b"\n")


if __name__ == "__main__":
    main()
