"""Accuracy of a model on held-out questions with the plain-torch decoder.

python -m recipes.train.evaluate recipes/models/arithmetic --questions 500 --block-length 32
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from recipes.intervals import wilson
from recipes.train.decode import decode
from recipes.train.layout import read_model
from recipes.train.model import LLaDA
from recipes.train.questions import Question, Verdict, check, held_out
from recipes.train.tokenizer import chat_prompt

ROWS = 64
"""Questions decoded at once (our choice)."""


class Accuracy(NamedTuple):
    """Shares of questions, 0 to 1."""

    answer: float
    reasoning: float


def answers(
    model: LLaDA,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    gen_length: int,
    block_length: int,
    per_pass: int,
) -> list[str]:
    """The completion of every question, cut at EOS; ``gen_length`` canvas positions each."""
    by_length = defaultdict[int, list[tuple[int, list[int]]]](list)
    for i, question in enumerate(questions):
        ids = tokenizer.encode(chat_prompt(question.text), add_special_tokens=False)
        by_length[len(ids)].append((i, ids))
    mask, eos = int(tokenizer.mask_token_id), int(tokenizer.eos_token_id)
    texts = [""] * len(questions)
    for first, group in by_length.items():
        for start in range(0, len(group), ROWS):
            part = group[start : start + ROWS]
            rows = torch.tensor([ids + [mask] * gen_length for _, ids in part])
            device = next(model.parameters()).device
            out = decode(model, rows.to(device), first, mask, block_length, per_pass)
            for (i, _), row in zip(part, out.tokens[:, first:].tolist(), strict=True):
                end = row.index(eos) if eos in row else len(row)
                texts[i] = str(tokenizer.decode(row[:end]))
    return texts


def accuracy(verdicts: Sequence[Verdict]) -> Accuracy:
    """Share of right answers and of reasoning texts with every line right."""
    count = len(verdicts)
    return Accuracy(
        sum(v.answer_right for v in verdicts) / count,
        sum(v.reasoning_right for v in verdicts) / count,
    )


def by_kind(questions: Sequence[Question], verdicts: Sequence[Verdict]) -> str:
    """A Markdown table: both shares for every kind of question and for all, with Wilson's 95 %
    intervals for all."""
    groups = defaultdict[str, list[Verdict]](list)
    for question, verdict in zip(questions, verdicts, strict=True):
        groups[question.kind].append(verdict)
    lines = ["| kind | questions | exact match | every line right |", "| --- | --- | --- | --- |"]
    for kind, group in [*sorted(groups.items()), ("all", list(verdicts))]:
        found = accuracy(group)
        lines.append(f"| {kind} | {len(group)} | {found.answer:.3f} | {found.reasoning:.3f} |")
    return "\n".join([*lines, "", f"95 % intervals of all: {intervals(verdicts)}"])


def intervals(verdicts: Sequence[Verdict]) -> str:
    """Wilson's 95 % intervals of both shares, in words."""
    counts = {
        "exact match": sum(v.answer_right for v in verdicts),
        "every line right": sum(v.reasoning_right for v in verdicts),
    }
    found = {name: wilson(count, len(verdicts)) for name, count in counts.items()}
    return ", ".join(f"{name} {low:.3f} to {high:.3f}" for name, (low, high) in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--gen-length", type=int, default=96)
    parser.add_argument("--block-length", type=int, default=32)
    parser.add_argument("--per-pass", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--show-wrong", type=int, default=0)
    args = parser.parse_args()
    questions = list(held_out(args.questions, args.seed))
    model = read_model(args.model, getattr(torch, args.dtype))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.model)
    texts = answers(model, tokenizer, questions, args.gen_length, args.block_length, args.per_pass)
    verdicts = [check(q, t) for q, t in zip(questions, texts, strict=True)]
    print(by_kind(questions, verdicts))
    wrong = [
        (q, t)
        for q, t, v in zip(questions, texts, verdicts, strict=True)
        if not (v.answer_right and v.reasoning_right)
    ]
    for question, text in wrong[: args.show_wrong]:
        print("---", question.text, text, "wanted", question.completion, sep="\n")


if __name__ == "__main__":
    main()
