"""Every sampler through the engine: the tokens of its plain loop, and all of them in one batch."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.harness import Engine, Job, job
from tests.reference.generate import Settings, generate
from tests.reference.model import Llada

OWN: dict[str, list[dict[str, Any]]] = {
    "low_confidence": [{}],
    "entropy": [{}],
    "margin": [{}],
    "left_to_right": [{}],
    "threshold": [{}, {"threshold": 0.5}],
    "factor": [{}, {"factor": 0.5}],
    "entropy_bound": [{}, {"entropy_bound": 1.0}],
    "med": [{}, {"entropy_threshold": 1.0}, {"entropy_threshold": 2.0, "max_tokens_per_step": 3}],
    "klass": [{}, {"threshold": 0.4, "kl_threshold": 0.5, "history": 1}],
}
"""Deterministic samplers and parameters to run them with; `random` has no loop to compare with."""

CASES = [(sampler, own) for sampler, variants in OWN.items() for own in variants]


@pytest.mark.parametrize(("sampler", "own"), CASES)
def test_tokens_and_passes_of_the_plain_loop(
    sampler: str,
    own: dict[str, Any],
    engine: Callable[..., Engine],
    reference: Callable[[str], Llada],
) -> None:
    running, network = engine("gqa"), reference("gqa")
    rng = random.Random(sampler)
    shape = {"gen_length": 24, "block_length": 12, "steps": 12}
    prompts = [[rng.randrange(256) for _ in range(rng.randint(1, 50))] for _ in range(4)]
    outputs = running.run([job(p, 24, sampler=sampler, **shape, **own) for p in prompts])
    for output, prompt in zip(outputs, prompts, strict=True):
        expected = generate(network, prompt, Settings(sampler=sampler, **shape, **own))
        assert list(output.token_ids) == expected.tokens
        assert sum(output.spec_decode_metrics.histogram) == expected.passes  # type: ignore[union-attr]


def mixed_jobs(count: int) -> list[Job]:
    rng = random.Random(5)
    cases = [*CASES, ("random", {})]
    jobs = []
    for index in range(count):
        sampler, own = cases[index % len(cases)]
        block_length = rng.choice([4, 8, 16])
        jobs.append(
            job(
                [rng.randrange(256) for _ in range(rng.randint(1, 40))],
                32,
                standard={
                    "temperature": rng.choice([0.0, 0.7, 1.2]),
                    "seed": index,
                    "top_p": rng.choice([1.0, 0.9]),
                    "top_k": rng.choice([0, 20]),
                    "min_p": rng.choice([0.0, 0.02]),
                },
                sampler=sampler,
                gen_length=32,
                block_length=block_length,
                steps=rng.choice([16, 32]),
                commit_order=rng.choice(["sample_first", "position_first"]),
                suppress_eos=rng.choice(["no", "logits", "confidence"]),
                cfg_scale=rng.choice([0.0, 0.0, 1.0]),
                **own,
            )
        )
    return jobs


@pytest.mark.parametrize("asked", [["top_p"], ["top_k"], ["min_p"], ["min_p", "top_p"]])
def test_filters_that_nobody_asks_for_are_not_computed(
    asked: list[str], engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A greedy request with a filter asks for none, for it has nothing to draw."""
    seen: set[str] = set()

    def filter_logits(*args: Any, **columns: Any) -> None:
        seen.update(columns)

    monkeypatch.setattr("vllm_mdlm.denoise.proposal.filter_logits", filter_logits)
    values = {"top_p": 0.9, "top_k": 20, "min_p": 0.02}
    drawn = {"temperature": 1.0, "seed": 1} | {name: values[name] for name in asked}
    engine("gqa").run([job([1, 2], 8, standard=drawn), job([3], 8, standard=values)])
    assert seen == set(asked)


def test_32_mixed_requests_give_what_each_gives_alone(engine: Callable[..., Engine]) -> None:
    """All samplers, temperatures, filters, orders and guidance; other sizes and orders too."""
    running = engine("gqa", max_num_seqs=64)
    jobs = mixed_jobs(32)
    alone = [list(running.run([one])[0].token_ids) for one in jobs]

    def together(some: list[Job]) -> list[list[int]]:
        return [list(output.token_ids) for output in running.run(some)]

    assert together(jobs) == alone
    assert together(jobs[::-1]) == alone[::-1]
    for size in (5, 13):
        parts = [together(jobs[i : i + size]) for i in range(0, len(jobs), size)]
        assert [answer for part in parts for answer in part] == alone
