"""Guided requests: LLaDA's tokens, two passes each, in lockstep with their companion."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from vllm.exceptions import VLLMValidationError
from vllm.inputs import TokensPrompt
from vllm.v1.core.sched.interface import PauseState

from tests.engine.harness import Engine, Job, job
from tests.reference.generate import Settings, generate
from tests.reference.model import Llada
from vllm_mdlm.results import infill


def guided(seed: int, count: int) -> list[tuple[list[int], Settings]]:
    """Two of three guided."""
    rng = random.Random(seed)
    return [
        (
            [rng.randrange(256) for _ in range(rng.randint(1, 60))],
            Settings(
                gen_length=16,
                block_length=8,
                steps=rng.choice([4, 8, 16]),
                cfg_scale=(0.0, 0.5, 2.0)[index % 3],
                suppress_eos=rng.choice(["no", "logits", "confidence"]),
            ),
        )
        for index in range(count)
    ]


def as_job(prompt: list[int], s: Settings) -> Job:
    return job(
        prompt,
        s.gen_length,
        gen_length=s.gen_length,
        block_length=s.block_length,
        steps=s.steps,
        cfg_scale=s.cfg_scale,
        suppress_eos=s.suppress_eos,
    )


@pytest.mark.parametrize("rate", [float("inf"), 1.0])
def test_tokens_and_passes_are_llada_s(
    rate: float, engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running, network = engine("mha"), reference("mha")
    free = running.free_blocks
    cases = guided(0, 12)
    outputs = running.run([as_job(*case) for case in cases], rate=rate)
    expected = [generate(network, *case) for case in cases]
    assert [list(output.token_ids) for output in outputs] == [one.tokens for one in expected]
    passes = [sum(output.spec_decode_metrics.histogram) for output in outputs]  # type: ignore[union-attr]
    # Admitted in different steps, a request and its companion take a pass in vain each.
    extra = [n - one.forwards for n, one in zip(passes, expected, strict=True)]
    assert set(extra) <= {0, 2}
    assert running.free_blocks == free
    assert running.scheduler.requests == {}


def test_guidance_changes_tokens(reference: Callable[[str], Llada]) -> None:
    """The cases above would not tell if the network ignored its prompt."""
    network = reference("mha")
    cases = [(prompt, s) for prompt, s in guided(0, 12) if s.cfg_scale]
    plain = [
        generate(network, prompt, Settings(16, 8, s.steps, suppress_eos=s.suppress_eos)).tokens
        for prompt, s in cases
    ]
    assert plain != [generate(network, *case).tokens for case in cases]


def test_under_preemption_and_with_little_room(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running, network = engine("mha", num_gpu_blocks_override=20, max_num_seqs=4), reference("mha")

    def preempt(step: int) -> None:
        if step % 11 == 6:
            running.core.reset_prefix_cache(reset_running_requests=True)

    cases = guided(1, 8)
    outputs = running.run([as_job(*case) for case in cases], at_step=preempt)
    assert [list(o.token_ids) for o in outputs] == [generate(network, *c).tokens for c in cases]
    assert running.free_blocks == 19


def test_a_request_that_waits_for_its_companion(engine: Callable[..., Engine]) -> None:
    """The last place is its own, so it takes its first pass alone: nothing is decided, and nothing
    lost. Its rules have no row to act on while others draw."""
    running = engine("mha", num_gpu_blocks_override=20, max_num_seqs=4)
    others = [job([7, index], 16, standard={"temperature": 1.0, "seed": 3}) for index in range(3)]
    ruled = {"min_tokens": 4, "top_p": 0.9, "logit_bias": {70: 1.0}, "bad_words": ["k"]}
    template: list[Any] = [[65, 66, 67], {"mask": 8, "name": "answer"}]
    waiting = [
        job([5, 6], 16, standard=ruled, cfg_scale=1.0),
        job([5, 6], 16, template=template, cfg_scale=1.0, answer="answer", trace=1),
    ]
    for one in waiting:
        (alone,) = running.run([one])
        together = running.run([*others, one])[-1]
        assert together.token_ids == alone.token_ids
        assert infill(together) == infill(alone)


def test_priorities_do_not_part_a_pair(engine: Callable[..., Engine]) -> None:
    """With one place left, an urgent guided request does not take it from the companion of a
    running one: both would wait without end."""
    running = engine("mha", max_num_seqs=2, scheduling_policy="priority")

    def start(name: str, priority: int, **own: Any) -> None:
        one = job([1, 2, priority], 16, **own)
        prompt = TokensPrompt(prompt_token_ids=one.prompt)
        running.core.add_request(name, prompt, one.params, priority=priority)

    start("plain", 0)
    start("patient", 2, cfg_scale=1.0)
    finished = []
    for step in range(200):
        if step == 1:
            assert len(running.scheduler.running) == 2
            running.core.abort_request(["plain"])
            start("urgent", 1, cfg_scale=1.0)
        finished += [output.request_id for output in running.core.step() if output.finished]
    assert sorted(finished) == ["patient", "urgent"]


def test_a_pause_does_not_part_a_pair(engine: Callable[..., Engine]) -> None:
    """A pause that waits for running requests lets no new one run; the companion of a running
    request is none, and without it the request would keep the pause waiting for ever."""
    running = engine("mha", max_num_seqs=2, scheduling_policy="priority")
    for name, one in {"plain": job([1, 2, 3], 16), "guided": job([4], 16, cfg_scale=1.0)}.items():
        prompt = TokensPrompt(prompt_token_ids=one.prompt)
        running.core.add_request(name, prompt, one.params)
    finished = []
    for step in range(100):
        if step == 1:
            assert len(running.scheduler.running) == 2
            running.scheduler.set_pause_state(PauseState.PAUSED_NEW)
        finished += [output.request_id for output in running.core.step() if output.finished]
    running.scheduler.set_pause_state(PauseState.UNPAUSED)
    while running.core.has_unfinished_requests():
        running.core.step()
    assert sorted(finished) == ["guided", "plain"]


def test_abort_ends_the_companion_too(engine: Callable[..., Engine]) -> None:
    running = engine("mha")
    free = running.free_blocks

    def abort(step: int) -> None:
        if step == 3:
            assert len(running.scheduler.requests) == 6
            names = [name for name in running.scheduler.requests if "#" not in name]
            running.core.abort_request(names[:2], internal=True)
            assert len(running.scheduler.requests) == 2

    jobs = [job([1, 2, 3 + i], 16, cfg_scale=1.0) for i in range(3)]
    with pytest.raises(KeyError):
        running.run(jobs, at_step=abort)
    assert running.free_blocks == free
    assert running.scheduler.requests == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_num_seqs": 1}, "cfg_scale.*two places"),
        ({"num_gpu_blocks_override": 17}, "exceed half of what"),
    ],
)
def test_a_pair_that_never_fits_is_refused(
    options: dict[str, Any], message: str, engine: Callable[..., Engine]
) -> None:
    running = engine("mha", **options)
    with pytest.raises(VLLMValidationError, match=message):
        running.run([job([1] * 250, 32, cfg_scale=1.0)])
    assert running.run([job([1] * 250, 32)])
