"""LLaDA's decoding loop at temperature 0 for one sequence: slow, plain, the specification.

Prompt, then a canvas of mask tokens, filled block by block from left to right. Sources: LLaDA's
`generate.py` (arXiv 2502.09992) for the loop, the quotas, the guidance and the two ways to hold
EOS back; Fast-dLLM (arXiv 2505.22618) for the prefix and dual caches; `rules.py` for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from tests.reference import rules
from tests.reference.rules import Candidate


class Network(Protocol):
    """What the loop needs of a model; see `model.Llada`."""

    @property
    def mask_token_id(self) -> int: ...

    @property
    def eos_token_id(self) -> int: ...

    @property
    def eot_token_id(self) -> int | None: ...

    def new_cache(self, rows: int) -> Any: ...

    def forward(self, tokens: list[int], start: int, end: int, cache: Any) -> Tensor: ...


@dataclass(frozen=True)
class Settings:
    """One request. Names, meanings and defaults are those of the served parameters.

    `steps` None means `gen_length`; `max_tokens_per_step` None means `block_length`; `threshold`
    serves `threshold` and `klass`.
    """

    gen_length: int
    block_length: int
    steps: int | None = None
    sampler: str = "low_confidence"
    kv_cache: str = "exact"
    suppress_eos: str = "no"
    cfg_scale: float = 0.0
    threshold: float = 0.9
    factor: float = 1.0
    entropy_bound: float = 0.1
    entropy_threshold: float = 0.2
    max_tokens_per_step: int | None = None
    kl_threshold: float = 0.01
    history: int = 2


@dataclass(frozen=True)
class Generation:
    """The filled canvas. Lists have one element a canvas position.

    `commit_pass`: the pass, counted from 0 over the whole request, that committed the token.
    `confidence`, `entropy` (nats): the candidate's, in that pass. `passes`: how many there were.
    `forwards`: runs of the network, two a pass under guidance.
    """

    tokens: list[int]
    commit_pass: list[int]
    confidence: list[float]
    entropy: list[float]
    passes: int
    forwards: int


def generate(
    model: Network,
    prompt: list[int],
    settings: Settings,
    noise: Callable[[int, int], float] = lambda pass_index, position: 0.0,
    dtype: torch.dtype = torch.float64,
) -> Generation:
    """Fill the canvas after `prompt`.

    `noise(pass, canvas position)` in [0, 1) orders the `random` sampler, largest first. `dtype` is
    the precision of probabilities. A mask token inside the prompt is text and stays.

    Raises ValueError when blocks do not divide the canvas or the steps.
    """
    s = settings
    if s.gen_length % s.block_length:
        raise ValueError(f"block_length {s.block_length} does not divide {s.gen_length}")
    blocks = s.gen_length // s.block_length
    steps = s.gen_length if s.steps is None else s.steps
    if steps % blocks:
        raise ValueError(f"steps {steps} is not a multiple of the {blocks} blocks")
    forward = _Passes(model, prompt, s)
    canvas: list[Candidate | None] = [None] * s.gen_length
    commit_pass = [-1] * s.gen_length
    passes = 0
    for block in range(blocks):
        span = range(block * s.block_length, (block + 1) * s.block_length)
        schedule = rules.quotas(s.block_length, steps // blocks)
        history: list[Tensor] = []
        while any(canvas[i] is None for i in span):
            filled = [model.mask_token_id if c is None else c.token for c in canvas]
            logits = forward(filled, span, refresh=not history)
            tokens, probabilities = _tokens_and_probabilities(model, logits, s, dtype)
            history.insert(0, probabilities)
            candidates = [
                _candidate(i, i - span.start, tokens, history, noise(passes, i))
                for i in span
                if canvas[i] is None
            ]
            # LLaDA's schedule ends with the block. KLASS may be behind it (a pass that finds few
            # stable positions commits fewer than the quota): its last quota goes on, our choice.
            done = len(history) - 1
            quota = max(1, schedule[min(done, len(schedule) - 1)])
            for chosen in _choose(candidates, quota, s):
                canvas[chosen.position] = chosen
                commit_pass[chosen.position] = passes
            passes += 1
    final = [c for c in canvas if c is not None]
    return Generation(
        tokens=[c.token for c in final],
        commit_pass=commit_pass,
        confidence=[c.confidence for c in final],
        entropy=[c.entropy for c in final],
        passes=passes,
        forwards=forward.count,
    )


class _Passes:
    """Runs the network on prompt + canvas, over the rows that the KV mode recomputes."""

    def __init__(self, model: Network, prompt: list[int], settings: Settings) -> None:
        self.model, self.prompt, self.settings = model, prompt, settings
        rows = len(prompt) + settings.gen_length
        self.conditional, self.unconditional = model.new_cache(rows), model.new_cache(rows)
        self.count = 0

    def __call__(self, canvas: list[int], block: range, *, refresh: bool) -> Tensor:
        """Logits `[block rows, vocabulary]` of the canvas positions in `block`."""
        start, logits = self.computed(canvas, block, refresh=refresh)
        return logits[block.start - start : block.stop - start]

    def computed(self, canvas: list[int], block: range, *, refresh: bool) -> tuple[int, Tensor]:
        """All canvas rows that this pass computes: the first one's position, and their logits."""
        first = len(self.prompt) + block.start
        total = len(self.prompt) + len(canvas)
        start, end = {
            "exact": (0, total),
            "prefix": (first, total),
            "dual": (first, first + len(block)),
        }[self.settings.kv_cache]
        if refresh:
            start, end = 0, total

        def run(prompt: list[int], cache: Any) -> Tensor:
            self.count += 1
            logits = self.model.forward(prompt + canvas, start, end, cache)
            return logits[max(0, len(prompt) - start) :]

        logits = run(self.prompt, self.conditional)
        scale = self.settings.cfg_scale
        if scale > 0:
            hidden = [self.model.mask_token_id] * len(self.prompt)
            uncond = run(hidden, self.unconditional)
            logits = uncond + (scale + 1) * (logits - uncond)
        return max(0, start - len(self.prompt)), logits


def _tokens_and_probabilities(
    model: Network, logits: Tensor, settings: Settings, dtype: torch.dtype
) -> tuple[list[int], Tensor]:
    """The token each row would commit, and the probabilities its position is judged by.

    `suppress_eos`: `logits` takes EOS away before anything else; `confidence` lets EOS be chosen
    and then takes EOS and EoT away from the probabilities, so a chosen EOS has confidence 0 and
    comes last. The mask token cannot be chosen, but keeps its share of the probability.
    """
    logits = logits.clone()
    if settings.suppress_eos == "logits":
        logits[:, model.eos_token_id] = -torch.inf
    choosable = logits.clone()
    choosable[:, model.mask_token_id] = -torch.inf
    # Equal logits: the lowest token id. torch.argmax does not promise which.
    tokens = [int((row == row.max()).nonzero()[0]) for row in choosable]
    if settings.suppress_eos == "confidence":
        logits[:, model.eos_token_id] = -torch.inf
        if model.eot_token_id is not None:
            logits[:, model.eot_token_id] = -torch.inf
    return tokens, logits.to(dtype).softmax(dim=-1)


def _candidate(
    position: int, row: int, tokens: list[int], history: list[Tensor], noise: float
) -> Candidate:
    """Look at one row of the block; `history` holds the block's probabilities, newest first."""
    p = history[0][row]
    first, second = p.topk(2).values.tolist()
    return Candidate(
        position=position,
        token=tokens[row],
        confidence=p[tokens[row]].item(),
        margin=first - second,
        entropy=-torch.xlogy(p, p).sum().item(),
        noise=noise,
        divergences=[_kl(new[row], old[row]) for new, old in pairwise(history)],
    )


def _kl(p: Tensor, q: Tensor) -> float:
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().item()


def _choose(candidates: list[Candidate], quota: int, s: Settings) -> list[Candidate]:
    """Apply the settings' rule."""
    if s.sampler == "threshold":
        return rules.threshold(candidates, threshold=s.threshold)
    if s.sampler == "factor":
        return rules.factor(candidates, factor=s.factor)
    if s.sampler == "entropy_bound":
        return rules.entropy_bound(candidates, bound=s.entropy_bound)
    if s.sampler == "med":
        most = s.block_length if s.max_tokens_per_step is None else s.max_tokens_per_step
        return rules.med(candidates, entropy_threshold=s.entropy_threshold, most=most)
    if s.sampler == "klass":
        return rules.klass(
            candidates,
            quota,
            threshold=s.threshold,
            kl_threshold=s.kl_threshold,
            history=s.history,
        )
    by_quota = {
        "low_confidence": rules.low_confidence,
        "random": rules.random,
        "entropy": rules.entropy,
        "margin": rules.margin,
        "left_to_right": rules.left_to_right,
    }
    return by_quota[s.sampler](candidates, quota)
