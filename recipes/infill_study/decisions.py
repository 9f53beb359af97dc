"""Typed decisions: many in one canvas, one after another or in one pass, and questions together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from recipes.infill_study.decision_report import Outcome, table
from recipes.infill_study.layout import (
    ANSWER_TOKENS,
    LINE_TOKENS,
    Pieces,
    encoder,
    pieces,
)
from recipes.train.questions import Question
from vllm_mdlm.results import infill, num_passes

if TYPE_CHECKING:
    from vllm import LLM

MED = {"sampler": "med", "entropy_threshold": 0.2, "block_length": 32}
"""As in the study of early exit."""

MOST = 20
"""Log-probabilities of a position, the most that vLLM gives; the labels are eleven."""

TOGETHER = (1, 2, 4)
"""Questions of one canvas; the answers to 1 are those that the others are compared with."""


class Canvas(NamedTuple):
    """A template, and where its decisions lie."""

    items: list[Any]
    places: list[slice]  # canvas positions of every decision
    gold: list[list[int]]  # the right tokens of every decision


def decisions_of(question: Question, cut: Pieces, eos: int) -> Canvas:
    """The worked answer with everything that the question does not say left open: every carry and
    every digit that follows from arithmetic is one decision, the stated answer another."""
    items, places, gold = list[Any](), list[slice](), list[list[int]]()
    position = 0
    for line, flags in zip(cut.lines, question.computed, strict=True):
        for token, is_open in zip(line, [*flags, False], strict=True):
            if is_open:
                places.append(slice(position, position + 1))
                gold.append([token])
                items.append({"mask": 1})
            else:
                items.append([token])
            position += 1
    items += [cut.delimiter, {"mask": ANSWER_TOKENS}]
    position += len(cut.delimiter)
    places.append(slice(position, position + ANSWER_TOKENS))
    gold.append(cut.answer + [eos] * (ANSWER_TOKENS - len(cut.answer)))
    return Canvas(items, places, gold)


def together(cuts: Sequence[Pieces], newline: list[int], eos: int) -> Canvas:
    """Whole worked answers behind one another, a newline between them; a decision is what one of
    them states."""
    items, places, gold = list[Any](), list[slice](), list[list[int]]()
    position = 0
    for index, cut in enumerate(cuts):
        fixed = [newline] if index else []
        reasoning = LINE_TOKENS * len(cut.lines)
        items += [*fixed, {"mask": reasoning}, cut.delimiter, {"mask": ANSWER_TOKENS}]
        position += len(newline) * len(fixed) + reasoning + len(cut.delimiter)
        places.append(slice(position, position + ANSWER_TOKENS))
        gold.append(cut.answer + [eos] * (ANSWER_TOKENS - len(cut.answer)))
        position += ANSWER_TOKENS
    return Canvas(items, places, gold)


def stated(tokens: Sequence[int], eos: int) -> list[int]:
    """A decision: its tokens before the first EOS."""
    found = list(tokens)
    return found[: found.index(eos)] if eos in found else found


class DecisionStudy:
    """All outcomes in one file, and the table."""

    def __init__(self, out: Path, questions: list[Question]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        # Canvases of every size hold the same questions.
        self.questions = questions[: len(questions) // TOGETHER[-1] * TOGETHER[-1]]
        self.out = out
        self.file = out / f"decisions_{len(self.questions)}.json"

    @property
    def is_done(self) -> bool:
        return self.file.exists()

    def run(self, llm: LLM) -> None:
        """Decide everything in every way."""
        asker = Asker(llm, self.questions)
        found = [asker.one_after_another(), asker.in_one_pass(), asker.each_alone()]
        found += [asker.together(size) for size in TOGETHER]
        unfinished = self.file.with_suffix(".part")
        unfinished.write_bytes(msgspec.json.encode(found))
        unfinished.replace(self.file)

    def report(self) -> str:
        """Write the table; returns it."""
        found = msgspec.json.decode(self.file.read_bytes(), type=list[Outcome])
        text = table(found)
        (self.out / "decisions.md").write_text(text + "\n")
        return text


class Asker:
    """Puts questions to the engine."""

    def __init__(self, llm: LLM, questions: Sequence[Question]) -> None:
        self.llm, self.questions = llm, questions
        self.texts = [question.text for question in questions]
        tokenizer: Any = llm.get_tokenizer()
        encode = encoder(tokenizer)
        self.eos = int(tokenizer.eos_token_id)
        self.newline = encode("\n")
        self.labels = [*(encode(digit)[0] for digit in "0123456789"), self.eos]
        self.cuts = [pieces(question, encode) for question in questions]
        self.canvases = [
            decisions_of(question, cut, self.eos)
            for question, cut in zip(questions, self.cuts, strict=True)
        ]

    def one_after_another(self) -> Outcome:
        """One request a question; its spans are filled from the left, the labels alone allowed."""
        params = [request(canvas.items, allowed_token_ids=self.labels) for canvas in self.canvases]
        return self._ask("one after another", self.texts, self.canvases, params, tokens_of)

    def in_one_pass(self) -> Outcome:
        """One request a question: the likeliest label of every position, all of them masked."""
        params = [request(read(canvas.items, self.eos), logprobs=MOST) for canvas in self.canvases]
        return self._ask("in one pass", self.texts, self.canvases, params, self._likeliest)

    def each_alone(self) -> Outcome:
        """One request a decision, the same canvas: the others stay masked and are not read."""
        canvases, texts, params = list[Canvas](), list[str](), list[Any]()
        for text, canvas in zip(self.texts, self.canvases, strict=True):
            for index, (place, gold) in enumerate(zip(canvas.places, canvas.gold, strict=True)):
                items = read(canvas.items, self.eos, index)
                canvases.append(Canvas(items, [place], [gold]))
                texts.append(text)
                params.append(request(items, logprobs=MOST))
        return self._ask("each alone", texts, canvases, params, self._likeliest)

    def together(self, size: int) -> Outcome:
        """So many questions in one prompt and one canvas, by MED as in the study of early exit."""
        groups = [slice(i, i + size) for i in range(0, len(self.questions), size)]
        texts = ["\n".join(question.text for question in self.questions[one]) for one in groups]
        canvases = [together(self.cuts[one], self.newline, self.eos) for one in groups]
        params = [request(canvas.items, own=MED) for canvas in canvases]
        return self._ask(f"{size} in a canvas", texts, canvases, params, tokens_of)

    def _likeliest(self, output: Any) -> list[int]:
        """By canvas position, the label of the largest log-probability."""
        return [
            max(self.labels, key=partial(logprob, entry)) if len(entry) > 1 else next(iter(entry))
            for entry in output.logprobs
        ]

    def _ask(
        self,
        way: str,
        texts: Sequence[str],
        canvases: Sequence[Canvas],
        params: list[Any],
        read: Callable[[Any], list[int]],
    ) -> Outcome:
        messages: list[Any] = [[{"role": "user", "content": text}] for text in texts]
        outputs = self.llm.chat(messages, params)
        found, right = list[list[int]](), list[bool]()
        passes = positions = 0
        for canvas, output in zip(canvases, outputs, strict=True):
            tokens, taken = read(output.outputs[0]), num_passes(output.outputs[0])
            passes += taken
            positions += taken * (len(output.prompt_token_ids or ()) + len(tokens))
            for place, gold in zip(canvas.places, canvas.gold, strict=True):
                found.append(stated(tokens[place], self.eos))
                right.append(found[-1] == stated(gold, self.eos))
        sizes = [len(canvas.places) for canvas in self.canvases]
        return Outcome(
            way=way,
            decisions=sizes if len(found) == sum(sizes) else [1] * len(self.questions),
            found=found,
            right=right,
            requests=len(canvases),
            passes=passes,
            positions=positions,
        )


def tokens_of(output: Any) -> list[int]:
    """The canvas of a filled template."""
    filled = infill(output)
    assert filled is not None
    return filled.token_ids


def logprob(entry: Any, token: int) -> float:
    """Of a token at a position, nats; -inf for one that is not among the reported."""
    return entry[token].logprob if token in entry else -math.inf


def read(items: list[Any], any_token: int, only: int | None = None) -> list[Any]:
    """A template whose free spans are read and not filled: the target is not looked at.

    Args:
        items: the template.
        any_token: of the target.
        only: index of the one free span that is read; None: all are.
    """
    found = list[Any]()
    index = 0
    for one in items:
        is_free = isinstance(one, dict)
        wanted = is_free and only in (None, index)
        found.append(one | {"target": [any_token] * one["mask"]} if wanted else one)
        index += is_free
    return found


def request(items: list[Any], own: dict[str, Any] | None = None, **standard: Any) -> Any:
    """Greedy sampling parameters of a template; `own` as in `vllm_xargs`."""
    from vllm import SamplingParams

    arguments = {"template": items, **(own or {})}
    return SamplingParams(temperature=0.0, seed=0, extra_args=arguments, **standard)
