"""Answers of `mh` against their exact law: a canvas of three positions, four tokens allowed.

python -m tests.engine.chain_law 20000
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.stats import chi2
from torch import Tensor

from tests.engine.harness import Engine, Job, job
from tests.reference.checkpoints import MHA, make_llada
from tests.reference.model import Llada
from vllm_mdlm.samplers.mh import acceptance

PROMPT = [7, 11, 13]
LENGTH = 3
ALLOWED = [52, 59, 62, 71]  # of which no sequence is nearly certain
ALPHA = 2.5
STEPS = 2
ENGINE = {"max_num_seqs": 256}


class Law(NamedTuple):
    """Over the sequences of allowed tokens, in their lexical order; X of them."""

    plain: Tensor  # [X] float64, a candidate: each token from p^alpha / z
    log_weight: Tensor  # [X]
    target: Tensor  # [X], p^alpha

    def after(self, steps: int) -> Tensor:
        """The law of a chain's result, by its transition matrix."""
        ratios = self.log_weight.unsqueeze(0) - self.log_weight.unsqueeze(1)
        accepted = ratios.apply_(acceptance)
        moves = self.plain.unsqueeze(0) * accepted
        matrix = moves + torch.diag(1 - moves.sum(1))
        state = self.plain
        for _ in range(steps):
            state = state @ matrix
        return state


def exact_law(network: Llada) -> Law:
    """By the reference network, left to right, position by position."""
    network = Llada(network.config, {name: t.double() for name, t in network.weights.items()})

    def marginal(known: tuple[int, ...]) -> Tensor:
        canvas = [*known, *[network.mask_token_id] * (LENGTH - len(known))]
        row = network.logits(PROMPT + canvas)[len(PROMPT) + len(known)]
        return row[ALLOWED].double().log_softmax(0)

    seen = {
        known: marginal(known)
        for length in range(LENGTH)
        for known in itertools.product(ALLOWED, repeat=length)
    }
    rows = []
    for sequence in itertools.product(ALLOWED, repeat=LENGTH):
        log_p = log_z = 0.0
        for i, token in enumerate(sequence):
            conditional = seen[sequence[:i]]
            log_p += conditional[ALLOWED.index(token)].item()
            log_z += (conditional * ALPHA).logsumexp(0).item()
        rows.append((ALPHA * log_p - log_z, log_z, ALPHA * log_p))
    plain, log_weight, powered = torch.tensor(rows, dtype=torch.float64).T
    return Law(plain.exp(), log_weight, powered.softmax(0))


def lookahead_law(network: Llada, candidates: int) -> Tensor:
    """[X] float64: the law of `mh_lookahead`, position by position; every one its own chain."""
    network = Llada(network.config, {name: t.double() for name, t in network.weights.items()})

    def masked_rows(known: tuple[int, ...]) -> Tensor:
        canvas = [*known, *[network.mask_token_id] * (LENGTH - len(known))]
        rows = network.logits(PROMPT + canvas)[len(PROMPT) + len(known) :]
        return rows[:, ALLOWED].double().log_softmax(1)

    def conditional(known: tuple[int, ...]) -> Tensor:
        powered = masked_rows(known)[0] * ALPHA
        after = [masked_rows((*known, token)) * ALPHA for token in ALLOWED]
        scores = torch.stack([rows.logsumexp(1).sum() for rows in after])
        return Law(powered.softmax(0), scores, powered).after(candidates - 1)

    law = {(): 1.0}
    for _ in range(LENGTH):
        law = {
            (*known, token): so_far * p
            for known, so_far in law.items()
            for token, p in zip(ALLOWED, conditional(known).tolist(), strict=True)
        }
    return torch.tensor(list(law.values()), dtype=torch.float64)


def jobs(count: int, **own: Any) -> list[Job]:
    """The same request with seeds from 0."""
    return [
        job(
            PROMPT,
            LENGTH,
            standard={"temperature": 1.0, "seed": seed, "allowed_token_ids": ALLOWED},
            alpha=ALPHA,
            gen_length=LENGTH,
            **own,
        )
        for seed in range(count)
    ]


def counts(running: Engine, some: list[Job]) -> Tensor:
    """[X] float64, how often each sequence was answered."""
    found = Counter(tuple(output.token_ids) for output in running.run(some))
    sequences = itertools.product(ALLOWED, repeat=LENGTH)
    result = torch.tensor([found.pop(one, 0) for one in sequences], dtype=torch.float64)
    assert not found, "a token that is not allowed"
    return result


def chi_square(observed: Tensor, law: Tensor) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; sequences expected less than five times
    make one cell."""
    expected = law * observed.sum()
    rare = expected < 5
    if rare.any():
        observed = torch.cat([observed[~rare], observed[rare].sum().unsqueeze(0)])
        expected = torch.cat([expected[~rare], expected[rare].sum().unsqueeze(0)])
    return ((observed - expected) ** 2 / expected).sum().item(), len(expected) - 1


def distance(observed: Tensor, law: Tensor) -> float:
    """Total variation."""
    return (observed / observed.sum() - law).abs().sum().item() / 2


def main(count: int) -> None:
    folder = make_llada(Path(tempfile.mkdtemp()), MHA)
    law = exact_law(Llada.load(folder))
    running = Engine(folder, **ENGINE)
    for steps in (STEPS,):
        begin = time.time()
        observed = counts(running, jobs(count, sampler="mh", mh_steps=steps))
        exact = law.after(steps)
        statistic, freedom = chi_square(observed, exact)
        print(
            f"mh_steps={steps}: {count} answers in {time.time() - begin:.0f} s; chi-square "
            f"{statistic:.1f} with {freedom} degrees of freedom, p = "
            f"{chi2.sf(statistic, freedom):.3f}; total variation to the exact law "
            f"{distance(observed, exact):.4f}, to p^alpha {distance(observed, law.target):.4f} "
            f"(exact {(exact - law.target).abs().sum().item() / 2:.4f})"
        )
    running.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
