"""An answer depends on its own request alone; sampling follows the model's distribution."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from tests.engine.harness import Engine, Job, job
from tests.reference.model import Llada


def sampled_jobs(seed: int, count: int) -> list[Job]:
    rng = random.Random(seed)
    return [
        job(
            [rng.randrange(256) for _ in range(rng.randint(1, 60))],
            standard={"temperature": rng.choice([0.5, 1.0, 1.5]), "seed": rng.getrandbits(60)},
            gen_length=24,
            block_length=rng.choice([8, 12, 24]),
            steps=rng.choice([12, 24]),
            sampler=rng.choice(["low_confidence", "random"]),
            commit_order=rng.choice(["sample_first", "position_first"]),
        )
        for _ in range(count)
    ]


def tokens(engine: Engine, jobs: list[Job], rate: float = float("inf")) -> list[list[int]]:
    return [list(output.token_ids) for output in engine.run(jobs, rate=rate)]


@pytest.mark.parametrize("shape", ["mha", "gqa", "gqa-int8"])
def test_a_seed_gives_the_same_tokens_alone_and_in_any_batch(
    shape: str, engine: Callable[..., Engine]
) -> None:
    running = engine(shape)
    jobs = sampled_jobs(1, 16)
    alone = [tokens(running, [one])[0] for one in jobs]
    assert tokens(running, jobs) == alone
    assert tokens(running, jobs, rate=1) == alone
    assert tokens(running, jobs[::-1])[::-1] == alone
    assert len({tuple(answer) for answer in alone}) == len(jobs)


def test_another_seed_gives_other_tokens(engine: Callable[..., Engine]) -> None:
    running = engine("mha")
    answers = [
        tokens(running, [job([1, 2, 3], standard={"temperature": 1.0, "seed": seed})])[0]
        for seed in range(4)
    ]
    assert len({tuple(answer) for answer in answers}) == 4


def test_temperature_0_ignores_the_seed(engine: Callable[..., Engine]) -> None:
    running = engine("mha")
    answers = {
        tuple(tokens(running, [job([1, 2, 3], standard={"seed": seed})])[0]) for seed in range(3)
    }
    assert len(answers) == 1


def test_without_a_seed_answers_differ(engine: Callable[..., Engine]) -> None:
    running = engine("mha")
    jobs = [job([1, 2, 3], standard={"temperature": 1.0}) for _ in range(3)]
    assert len({tuple(answer) for answer in tokens(running, jobs)}) == 3


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_two_position_canvas_follows_the_tempered_distribution(
    temperature: float, engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """Both positions of a two-token canvas drawn in one pass: each follows softmax(logits / T)
    without the mask token, independently of the other.

    n = 4000 seeds; chi-square over the 12 likeliest tokens and the rest, for both positions and
    for the pair (likeliest against the rest). Bound at a false-alarm probability of 1e-6 a
    statistic, three of them, two temperatures: 6e-6 in all. The seeds are fixed.
    """
    from scipy.stats import chi2

    running, network = engine("mha"), reference("mha")
    prompt, n = [7, 11, 13], 4000
    jobs = [
        job(
            prompt,
            2,
            standard={"temperature": temperature, "seed": seed},
            gen_length=2,
            block_length=2,
            steps=1,
        )
        for seed in range(n)
    ]
    drawn = torch.tensor(tokens(running, jobs))
    logits = network.logits([*prompt, network.mask_token_id, network.mask_token_id])[-2:].double()
    logits[:, network.mask_token_id] = float("-inf")
    law = (logits / temperature).softmax(dim=1)
    is_top = []
    for position in range(2):
        top = law[position].topk(12)
        expected = torch.cat([top.values, 1 - top.values.sum(0, keepdim=True)]) * n
        counts = torch.stack([(drawn[:, position] == token).sum() for token in top.indices])
        counts = torch.cat([counts, n - counts.sum(0, keepdim=True)]).double()
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert statistic < chi2.ppf(1 - 1e-6, len(expected) - 1)
        is_top.append((drawn[:, position] == top.indices[0], top.values[0]))
    (first, p), (second, q) = is_top
    cells = [(a == first) & (b == second) for a in (True, False) for b in (True, False)]
    expected = torch.tensor([p * q, p * (1 - q), (1 - p) * q, (1 - p) * (1 - q)]) * n
    counts = torch.stack([cell.sum() for cell in cells]).double()
    assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(1 - 1e-6, 3)


def test_nothing_is_left_behind(engine: Callable[..., Engine]) -> None:
    """No slot or KV block leaks, also when requests are aborted in the middle."""
    running = engine("mha")
    before = running.free_blocks
    aborted = []

    def abort(step: int) -> None:
        if step == 4:
            aborted.extend(request.request_id for request in running.scheduler.running[:5])
            running.core.abort_request(aborted, internal=True)
            # Cache at once; the slot goes with the next step.
            assert len(running.scheduler.running) == 3

    jobs = sampled_jobs(2, 8)
    with pytest.raises(KeyError):
        running.run(jobs, at_step=abort)
    assert len(aborted) == 5
    assert running.free_blocks == before
    running.run(sampled_jobs(3, 1))
    assert running.used_slots <= 1
    assert running.scheduler.requests == {}
