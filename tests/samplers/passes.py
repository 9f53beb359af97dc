"""Blocks decoded to the end, with statistics that stay as they are or that a joint table gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from hypothesis import strategies as st

from tests.fakes import JointTable
from tests.samplers.batches import columns
from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams

# Blocks without ties, certainties or impossibilities.
distinct = st.integers(1, 9).flatmap(
    lambda n: st.lists(st.floats(1 / 64, 63 / 64, width=32), min_size=n, max_size=n, unique=True)
)


def one_block(values: list[float], quota: int = 1) -> BlockView:
    """One row, wholly masked, every statistic equal to `values`."""
    table = torch.tensor([values], dtype=torch.float32)
    return BlockView(
        masked=torch.ones_like(table, dtype=torch.bool),
        confidence=table,
        quota=torch.tensor([quota]),
        entropy=table,
        margin=table,
        draw=table.double(),
        divergence=torch.full_like(table, torch.inf),
    )


def committed(sampler: Sampler, params: SamplerParams, view: BlockView) -> list[int]:
    """Positions that one pass over the first row commits."""
    state = torch.zeros(view.masked.shape) if sampler.has_state else None
    commit = sampler.select(view, columns([params] * len(view.masked)), state).commit
    return commit[0].nonzero().flatten().tolist()


def num_passes(sampler: Sampler, params: SamplerParams, view: BlockView) -> int:
    """Passes until the first row is done."""
    state = torch.zeros(view.masked.shape) if sampler.has_state else None
    count = 0
    while view.masked[0].any():
        commit, state = sampler.select(view, columns([params] * len(view.masked)), state)
        view = view._replace(masked=view.masked & ~commit)
        count += 1
    return count


class Commitment(NamedTuple):
    """One pass over a joint table, in float64."""

    positions: list[int]
    joint: torch.Tensor  # [vocab] * len(positions): p(x at positions | context)
    marginals: torch.Tensor  # [len(positions), vocab]
    entropies: torch.Tensor  # [len(positions)], nats


def decode(joint: JointTable, sampler: Sampler, params: SamplerParams) -> Iterator[Commitment]:
    """Greedy decoding of a joint table, every position in one block."""
    tokens = [joint.mask_token_id] * joint.length
    while joint.mask_token_id in tokens:
        masked = torch.tensor([[token == joint.mask_token_id for token in tokens]])
        marginals = joint.marginals(tokens)
        entropy = -torch.xlogy(marginals, marginals).sum(1)
        view = BlockView(
            masked=masked,
            confidence=marginals.amax(1, keepdim=True).T.float(),
            quota=torch.tensor([1]),
            entropy=entropy.unsqueeze(0).float(),
        )
        positions = committed(sampler, params, view)
        yield Commitment(
            positions,
            joint.conditional(tokens, positions),
            marginals[positions],
            entropy[positions],
        )
        for position in positions:
            tokens[position] = int(marginals[position].argmax())


def independent(marginals: torch.Tensor) -> torch.Tensor:
    """Product of marginals [n, vocab] as a table [vocab] * n."""
    table = torch.ones((), dtype=marginals.dtype)
    for row in marginals:
        table = table.unsqueeze(-1) * row
    return table


def kl(p: torch.Tensor, q: torch.Tensor) -> float:
    """KL(p || q) of two tables, nats."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().item()


def entropy_of(p: torch.Tensor) -> float:
    """Entropy of a table, nats."""
    return -torch.xlogy(p, p).sum().item()
