"""`prefix` and `dual`: Fast-dLLM's tokens, mixed with `exact`, guided and preempted."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.harness import Engine, Job, job
from tests.reference.generate import Settings, generate
from tests.reference.model import Llada

SAMPLERS: list[dict[str, Any]] = [
    {"sampler": "low_confidence", "steps": 12},
    {"sampler": "threshold", "threshold": 0.6},
    {"sampler": "med", "entropy_threshold": 1.0},
    {"sampler": "klass", "threshold": 0.3, "kl_threshold": 0.5},
]


def cases(seed: int, count: int, modes: list[str]) -> list[tuple[list[int], Settings]]:
    rng = random.Random(seed)
    return [
        (
            [rng.randrange(256) for _ in range(rng.randint(1, 120))],
            Settings(
                gen_length=24,
                block_length=rng.choice([4, 8, 12]),
                kv_cache=modes[index % len(modes)],
                cfg_scale=(0.0, 0.0, 1.0)[index % 3],
                **SAMPLERS[index % len(SAMPLERS)],
            ),
        )
        for index in range(count)
    ]


def as_job(prompt: list[int], s: Settings) -> Job:
    own = next(one for one in SAMPLERS if one["sampler"] == s.sampler)
    return job(
        prompt,
        s.gen_length,
        gen_length=s.gen_length,
        block_length=s.block_length,
        kv_cache=s.kv_cache,
        cfg_scale=s.cfg_scale,
        **own,
    )


@pytest.mark.parametrize("shape", ["mha", "gqa"])
@pytest.mark.parametrize("modes", [["prefix"], ["dual"], ["exact", "dual", "prefix"]])
def test_tokens_of_the_cached_loops(
    shape: str,
    modes: list[str],
    engine: Callable[..., Engine],
    reference: Callable[[str], Llada],
) -> None:
    running, network = engine(shape), reference(shape)
    some = cases(1, 18, modes)
    jobs = [as_job(*case) for case in some]
    expected = [generate(network, *case).tokens for case in some]
    free = running.free_blocks
    assert [list(running.run([one])[0].token_ids) for one in jobs] == expected
    assert [list(output.token_ids) for output in running.run(jobs)] == expected
    assert [list(output.token_ids) for output in running.run(jobs, rate=1)] == expected
    assert running.free_blocks == free


def test_a_frozen_cache_changes_tokens(reference: Callable[[str], Llada]) -> None:
    """The cases above would not tell if every mode were `exact`."""
    network = reference("mha")
    answers = {
        mode: [generate(network, *case).tokens for case in cases(1, 18, [mode])]
        for mode in ("exact", "prefix", "dual")
    }
    assert answers["exact"] != answers["prefix"]
    assert answers["prefix"] != answers["dual"]


def test_preemption_refreshes_the_block(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running, network = engine("mha"), reference("mha")
    some = cases(2, 12, ["dual", "prefix", "exact"])

    def preempt(step: int) -> None:
        if step in (5, 17, 30):
            running.core.reset_prefix_cache(reset_running_requests=True)

    outputs = running.run([as_job(*case) for case in some], rate=2, at_step=preempt)
    assert [list(o.token_ids) for o in outputs] == [generate(network, *c).tokens for c in some]


def test_only_the_span_is_computed(engine: Callable[..., Engine]) -> None:
    """Scheduled tokens, pass by pass: prompt and canvas first, then what the mode says."""
    running = engine("mha")
    scheduled: list[int] = []
    original = running.scheduler.schedule

    def watch(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        scheduled.append(output.total_num_scheduled_tokens)
        return output

    running.scheduler.schedule = watch
    try:
        expected = {
            "exact": [26] * 6,
            "prefix": [26, 16, 16, 26, 8, 8],
            "dual": [26, 8, 8, 26, 8, 8],
        }
        for mode, lengths in expected.items():
            scheduled.clear()
            own = {"gen_length": 16, "block_length": 8, "steps": 6, "kv_cache": mode}
            running.run([job([5] * 10, 16, **own)])
            assert [count for count in scheduled if count] == lengths
    finally:
        running.scheduler.schedule = original
