"""`trace=1`: the pass, the confidence and the entropy of every commit are the plain loop's."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.harness import Engine, job
from tests.reference.generate import Settings, generate
from tests.reference.model import Llada
from vllm_mdlm.results import num_passes, trace

SHAPE = {"gen_length": 24, "block_length": 8}
VARIANTS: list[dict[str, Any]] = [
    {"sampler": "low_confidence", "steps": 12},
    {"sampler": "threshold", "threshold": 0.6},
    {"sampler": "med", "entropy_threshold": 1.0, "cfg_scale": 1.0},
]


@pytest.mark.parametrize("preempted", [False, True])
def test_trace_of_the_plain_loop(
    preempted: bool, engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running, network = engine("mha"), reference("mha")
    rng = random.Random(3)
    cases = [([rng.randrange(256) for _ in range(1 + 9 * i)], VARIANTS[i % 3]) for i in range(6)]
    jobs = [
        job(
            prompt,
            24,
            standard={"logprobs": (None, 2)[i % 2]},
            trace=1,
            **SHAPE,
            **variant,
        )
        for i, (prompt, variant) in enumerate(cases)
    ]
    untraced = job([1, 2], 24, standard={"logprobs": 3}, **SHAPE)

    def preempt(step: int) -> None:
        if preempted and step == 6:
            running.core.reset_prefix_cache(reset_running_requests=True)

    outputs = running.run([*jobs, untraced], at_step=preempt)
    assert trace(outputs[-1]) is None
    assert len(outputs[-1].logprobs or ()) == 24
    for output, (prompt, variant) in zip(outputs, cases, strict=False):
        expected = generate(network, prompt, Settings(**SHAPE, **variant))
        found = trace(output)
        assert found is not None
        assert list(output.token_ids) == expected.tokens
        assert found["forward_pass"] == expected.commit_pass
        assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-4)
        assert found["entropy"] == pytest.approx(expected.entropy, abs=1e-3)
        if not preempted:
            factor = 2 if "cfg_scale" in variant else 1
            assert num_passes(output) == factor * (1 + max(found["forward_pass"]))
        if output.logprobs is not None:
            assert all(len(entry) in (2, 3) for entry in output.logprobs)


def test_a_trace_ends_with_the_answer(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """Cut at max_tokens and at EOS, one entry a token."""
    running = engine("ends_early")
    rng = random.Random(0)
    jobs = [
        job(
            [rng.randrange(256) for _ in range(20)],
            21,
            standard={"ignore_eos": False},
            trace=1,
            **SHAPE,
        )
        for _ in range(8)
    ]
    outputs = running.run(jobs)
    assert {output.finish_reason for output in outputs} == {"stop", "length"}
    for output in outputs:
        found = trace(output)
        if output.token_ids:
            assert found is not None
            assert {len(column) for column in found.values()} == {len(output.token_ids)}
