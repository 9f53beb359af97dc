"""The law of candidates, and of chains over them, by enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from tests.fakes import JointTable
from tests.samplers.batches import columns
from vllm_mdlm.kernels import log_power_sum
from vllm_mdlm.samplers.base import BlockView, Sampler


class Path(NamedTuple):
    """One way to decode a sequence."""

    tokens: tuple[int, ...]
    probability: float  # of this path, tokens drawn from p^alpha / z
    log_weight: float  # sum of log z over its commits
    law: float  # probability of its tokens at temperature 1, positions given


Step = tuple[list[int], list[int], float, float]
"""Positions, tokens, their probability when drawn from q, and from p."""

Choose = Callable[[JointTable, list[int], Sampler, int, float], Iterator[Step]]


def select(
    marginals: Tensor, tokens: list[int], mask: int, sampler: Sampler, quota: int, ranked: Tensor
) -> list[int]:
    """Positions that the sampler commits, `ranked` [length] being the confidence."""
    p = marginals
    top = p.topk(2, dim=1).values
    view = BlockView(
        masked=torch.tensor([[token == mask for token in tokens]]),
        confidence=ranked.unsqueeze(0).float(),
        quota=torch.tensor([quota]),
        entropy=-torch.xlogy(p, p).sum(1).unsqueeze(0).float(),
        margin=(top[:, 0] - top[:, 1]).unsqueeze(0).float(),
    )
    commit = sampler.select(view, columns([sampler.params()]), None).commit
    return commit[0].nonzero().flatten().tolist()


def position_first(
    joint: JointTable, tokens: list[int], sampler: Sampler, quota: int, alpha: float
) -> Iterator[Step]:
    """Positions from the distribution, then tokens there."""
    p = joint.marginals(tokens)
    q = p**alpha / (p**alpha).sum(1, keepdim=True)
    positions = select(p, tokens, joint.mask_token_id, sampler, quota, p.amax(1))
    for drawn in itertools.product(range(joint.vocab), repeat=len(positions)):
        pairs = list(zip(positions, drawn, strict=True))
        yield (
            positions,
            list(drawn),
            math.prod(q[i, v].item() for i, v in pairs),
            math.prod(p[i, v].item() for i, v in pairs),
        )


def sample_first(
    joint: JointTable, tokens: list[int], sampler: Sampler, quota: int, alpha: float
) -> Iterator[Step]:
    """A token everywhere, then the positions whose tokens are best: what a chain must not do."""
    p = joint.marginals(tokens)
    q = p**alpha / (p**alpha).sum(1, keepdim=True)
    masked = [i for i, token in enumerate(tokens) if token == joint.mask_token_id]
    for drawn in itertools.product(range(joint.vocab), repeat=len(masked)):
        token_of = dict(zip(masked, drawn, strict=True))
        ranked = torch.zeros(joint.length, dtype=torch.float64)
        for i, v in token_of.items():
            ranked[i] = p[i, v]
        positions = select(p, tokens, joint.mask_token_id, sampler, quota, ranked)
        yield (
            positions,
            [token_of[i] for i in positions],
            math.prod(q[i, v].item() for i, v in token_of.items()),
            math.prod(p[i, v].item() for i, v in token_of.items()),
        )


def paths(
    joint: JointTable, choose: Choose, sampler: Sampler, quota: int, alpha: float
) -> list[Path]:
    """Every path of a candidate, decoded by the real `select` and weighed by the real kernel."""
    done: list[Path] = []

    def extend(tokens: list[int], probability: float, log_weight: float, law: float) -> None:
        if joint.mask_token_id not in tokens:
            done.append(Path(tuple(tokens), probability, log_weight, law))
            return
        logits = joint.marginals(tokens).log()
        power = torch.full((joint.length,), alpha, dtype=torch.float64)
        log_z = log_power_sum(logits, power).tolist()
        for positions, drawn, q, p in choose(joint, tokens, sampler, quota, alpha):
            longer = list(tokens)
            for i, v in zip(positions, drawn, strict=True):
                longer[i] = v
            more = math.fsum(log_z[i] for i in positions)
            extend(longer, probability * q, log_weight + more, law * p)

    extend([joint.mask_token_id] * joint.length, 1.0, 0.0, 1.0)
    return done


class Law(NamedTuple):
    """Paths as tensors; S paths of X sequences."""

    probability: Tensor  # [S]
    log_weight: Tensor  # [S]
    sequence: Tensor  # [S] int64, index of its tokens
    target: Tensor  # [X], p^alpha normalised

    def marginal(self, over_paths: Tensor) -> Tensor:
        """From a distribution over paths to one over sequences."""
        return torch.zeros_like(self.target).index_add_(0, self.sequence, over_paths)


def law_of(found: list[Path], alpha: float) -> Law:
    index = {tokens: i for i, tokens in enumerate(sorted({path.tokens for path in found}))}
    sequence = torch.tensor([index[path.tokens] for path in found])

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    plain = torch.zeros(len(index), dtype=torch.float64)
    plain.index_add_(0, sequence, column([path.law for path in found]))
    return Law(
        column([path.probability for path in found]),
        column([path.log_weight for path in found]),
        sequence,
        plain**alpha / (plain**alpha).sum(),
    )


def transition(law: Law, accept: Callable[[float], float]) -> Tensor:
    """[S, S]: from a path to the next one, a candidate being accepted with `accept`."""
    ratios = law.log_weight.unsqueeze(0) - law.log_weight.unsqueeze(1)
    rows = [[accept(ratio) for ratio in row] for row in ratios.tolist()]
    accepted = torch.tensor(rows, dtype=torch.float64)
    moves = law.probability.unsqueeze(0) * accepted
    return moves + torch.diag(1 - moves.sum(1))


def stationary_error(law: Law, accept: Callable[[float], float]) -> float:
    """Largest change of p^alpha in one step; within a sequence, paths as a candidate has them."""
    drawn = law.marginal(law.probability)
    start = law.target[law.sequence] * law.probability / drawn[law.sequence]
    after = law.marginal(start @ transition(law, accept))
    return (after - law.target).abs().max().item()


def distances(law: Law, accept: Callable[[float], float], steps: int) -> list[float]:
    """Total variation to p^alpha after 0, 1, ... `steps` steps from a plain candidate."""
    state, matrix, found = law.probability, transition(law, accept), []
    for _ in range(steps + 1):
        found.append((law.marginal(state) - law.target).abs().sum().item() / 2)
        state = state @ matrix
    return found
