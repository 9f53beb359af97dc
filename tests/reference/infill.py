"""Templates: LLaDA's loop over fixed text and free spans, with early exit and scores.

The loop of `generate.py` where the canvas is not all masks. Source of the exit: Horvitz et al. 2025
(arXiv 2510.19990), which tests the answer's entropy before the sampler's step and leaves the rest
of the reasoning undecided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.reference import rules
from tests.reference.generate import (
    Network,
    Settings,
    _candidate,
    _choose,
    _Passes,
    _tokens_and_probabilities,
)
from tests.reference.rules import Candidate


@dataclass(frozen=True)
class Filled:
    """`entropies`: of the answer, nats, one a pass. `commit_pass`: -1 where no pass committed."""

    tokens: list[int]
    commit_pass: list[int]
    logprobs: list[float | None]
    entropies: list[float]
    passes: int
    forwards: int


def infill(
    model: Network,
    prompt: list[int],
    items: list[Any],
    settings: Settings,
    answer: str | None = None,
    early_exit: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> Filled:
    """Fill the template `items`: lists of token ids, and objects as a request has them.

    `settings.block_length` is that of free spans that name none; `settings.gen_length` and
    `settings.steps` (None: a pass a position) are the whole template's.
    """
    canvas: list[int] = []
    blocks: list[range] = []
    wanted, first_answer_block = range(0), -1
    for item in items:
        if isinstance(item, list):
            canvas += item
            continue
        span = range(len(canvas), len(canvas) + item["mask"])
        canvas += [model.mask_token_id] * len(span)
        length = item.get("block_length", settings.block_length)
        if answer is not None and item.get("name") == answer:
            wanted, first_answer_block = span, len(blocks)
        blocks += [span[i : i + length] for i in range(0, len(span), length)]
    assert len(canvas) == settings.gen_length
    forward = _Passes(model, prompt, settings)
    commit_pass = [-1] * len(canvas)
    logprobs: list[float | None] = [None] * len(canvas)
    entropy_of: dict[int, float] = {}
    entropies: list[float] = []
    index = passes = 0
    while index < len(blocks):
        span = blocks[index]
        steps = settings.steps // len(blocks) if settings.steps else len(span)
        schedule = rules.quotas(len(span), min(steps, len(span)))
        history: list[Tensor] = []
        while any(canvas[i] == model.mask_token_id for i in span):
            start, logits = forward.computed(canvas, span, refresh=not history)
            tokens, probabilities = _tokens_and_probabilities(model, logits, settings, dtype)
            for row, p in enumerate(probabilities):
                entropy_of[start + row] = -torch.xlogy(p, p).sum().item()
            if answer is not None:
                open_ = [i for i in wanted if canvas[i] == model.mask_token_id]
                entropies.append(sum(entropy_of[i] for i in open_))
            if index < first_answer_block and entropies[-1] < early_exit:
                index = first_answer_block - 1
                passes += 1
                break
            own = slice(span.start - start, span.stop - start)
            history.insert(0, probabilities[own])
            candidates = [
                _candidate(i, i - span.start, tokens[own], history, 0.0)
                for i in span
                if canvas[i] == model.mask_token_id
            ]
            done = len(history) - 1
            quota = max(1, schedule[min(done, len(schedule) - 1)])
            for chosen in _choose(candidates, quota, settings):
                _commit(chosen, canvas, commit_pass, passes)
                logprobs[chosen.position] = (
                    history[0][chosen.position - span.start][chosen.token].log().item()
                )
            passes += 1
        index += 1
    return Filled(canvas, commit_pass, logprobs, entropies, passes, forward.count)


def _commit(chosen: Candidate, canvas: list[int], commit_pass: list[int], now: int) -> None:
    canvas[chosen.position] = chosen.token
    commit_pass[chosen.position] = now


def score(
    model: Network, prompt: list[int], items: list[Any], cfg_scale: float = 0.0
) -> list[float]:
    """Log-probabilities of the targets, all of them masked, in one pass."""
    canvas: list[int] = []
    targets: dict[int, int] = {}
    for item in items:
        if isinstance(item, list):
            canvas += item
        else:
            targets |= dict(enumerate(item["target"], start=len(canvas)))
            canvas += [model.mask_token_id] * item["mask"]
    settings = Settings(len(canvas), len(canvas), cfg_scale=cfg_scale)
    logits = _Passes(model, prompt, settings)(canvas, range(len(canvas)), refresh=True)
    logp = logits.double().log_softmax(dim=1)
    return [logp[position, token].item() for position, token in targets.items()]
