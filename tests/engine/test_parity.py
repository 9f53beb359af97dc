"""Token for token what LLaDA's loop gives: alone, in mixed batches, after preemption."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest

from tests.engine.harness import Engine, Job, job
from tests.reference.generate import Settings, generate
from tests.reference.model import Llada

CASES_PER_SHAPE = 32
SHAPES = ("mha", "gqa")


class Case(NamedTuple):
    prompt: list[int]
    settings: Settings

    def job(self) -> Job:
        s = self.settings
        return job(
            self.prompt,
            s.gen_length,
            gen_length=s.gen_length,
            block_length=s.block_length,
            steps=s.steps,
            suppress_eos=s.suppress_eos,
        )


def random_cases(seed: int, count: int) -> list[Case]:
    """Prompts of 1 to 200 tokens, odd lengths, every `suppress_eos`."""
    rng = random.Random(seed)
    cases = []
    for index in range(count):
        block_length = rng.choice([1, 3, 4, 7, 8, 16, 32])
        blocks = rng.randint(1, 3)
        settings = Settings(
            gen_length=block_length * blocks,
            block_length=block_length,
            steps=blocks * rng.randint(1, block_length),
            suppress_eos=("no", "logits", "confidence")[index % 3],
        )
        length = (1, 200)[index] if index < 2 else rng.randint(1, 200)
        cases.append(Case([rng.randrange(256) for _ in range(length)], settings))
    return cases


@cache
def cases(shape: str) -> list[Case]:
    return random_cases(SHAPES.index(shape), CASES_PER_SHAPE)


_expected: dict[str, list[list[int]]] = {}


def expected(shape: str, reference: Callable[[str], Llada]) -> list[list[int]]:
    if shape not in _expected:
        network = reference(shape)
        _expected[shape] = [
            generate(network, case.prompt, case.settings).tokens for case in cases(shape)
        ]
    return _expected[shape]


def tokens(outputs: list[Any]) -> list[list[int]]:
    return [list(output.token_ids) for output in outputs]


@pytest.mark.parametrize("shape", SHAPES)
def test_alone(
    shape: str, engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running = engine(shape)
    got = [tokens(running.run([case.job()]))[0] for case in cases(shape)]
    assert got == expected(shape, reference)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_mixed_batches_of_16_with_staggered_arrivals(
    shape: str, engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running = engine(shape)
    largest = 0

    def watch(step: int) -> None:
        nonlocal largest
        largest = max(largest, len(running.scheduler.running))

    got = tokens(running.run([case.job() for case in cases(shape)], rate=4, at_step=watch))
    assert got == expected(shape, reference)
    assert largest >= 14  # of 16; counted between steps, when the finished have left


@pytest.mark.parametrize("shape", SHAPES)
def test_under_preemption(
    shape: str, engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """All running requests lose slot and cache again and again, in the middle of blocks."""
    running = engine(shape)
    preempted = 0

    def preempt(step: int) -> None:
        nonlocal preempted
        if step % 5 == 3:
            preempted += len(running.scheduler.running)
            running.core.reset_prefix_cache(reset_running_requests=True)

    # A block of 32 passes could never end if it were preempted every five.
    chosen = [i for i, case in enumerate(cases(shape)) if case.settings.block_length <= 4]
    jobs = [cases(shape)[i].job() for i in chosen]
    got = tokens(running.run(jobs, rate=2, at_step=preempt))
    assert got == [expected(shape, reference)[i] for i in chosen]
    assert preempted >= 5


@pytest.mark.parametrize("shape", SHAPES)
def test_preempted_once_in_the_middle_of_a_block(
    shape: str, engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running = engine(shape)

    def preempt(step: int) -> None:
        if step in (9, 23, 61):
            running.core.reset_prefix_cache(reset_running_requests=True)

    got = tokens(running.run([case.job() for case in cases(shape)], rate=2, at_step=preempt))
    assert got == expected(shape, reference)


def test_a_cache_too_small_for_all(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """20 blocks of 32 tokens hold two or three requests of these at a time."""
    running = engine("mha", num_gpu_blocks_override=20)
    got = tokens(running.run([case.job() for case in cases("mha")]))
    assert got == expected("mha", reference)
    assert running.free_blocks == 19  # one block is vLLM's own


@pytest.mark.parametrize("shape", ["tied", "padded", "ids_first", "ends_early"])
def test_other_checkpoints(
    shape: str, engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """Tied heads, padded heads, special tokens at other ids, text that ends early."""
    running = engine(shape)
    network = reference(shape)
    some = random_cases(7, 6)
    got = tokens(running.run([case.job() for case in some]))
    assert got == [generate(network, case.prompt, case.settings).tokens for case in some]
