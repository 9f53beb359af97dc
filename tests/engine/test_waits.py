"""Nothing of ours waits for the device between the network and the runner's copy of the tokens, so
that the host queues it all while the network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.engine.harness import Engine, Job, job
from tests.engine.test_samplers import CASES
from tests.waits import noted_waits
from vllm_mdlm.denoise.executor import DenoisingExecutor
from vllm_mdlm.denoise.model_state import DenoisingModelState

DRAWN = {"temperature": 0.8, "seed": 1}
SHAPE = {"gen_length": 16, "block_length": 8, "steps": 8}


def plain(standard: dict[str, Any] | None = None, **own: Any) -> Job:
    return job([3, 1, 4, 1, 5], 16, standard=standard, **(SHAPE | own))


def filled(*items: Any, standard: dict[str, Any] | None = None, **own: Any) -> Job:
    return job([3, 1, 4], 1, standard=standard, template=list(items), **own)


REQUESTS = {
    **{f"{name}-{index}": plain(sampler=name, **own) for index, (name, own) in enumerate(CASES)},
    "random": plain(sampler="random"),
    "drawn": plain(DRAWN),
    "random-drawn": plain(DRAWN, sampler="random"),
    "position_first": plain(DRAWN, commit_order="position_first", sampler="threshold"),
    "top_k": plain(DRAWN | {"top_k": 20}),
    "top_p": plain(DRAWN | {"top_p": 0.9}, sampler="threshold", threshold=0.5),
    "min_p": plain(DRAWN | {"min_p": 0.02}, sampler="med"),
    "logit_bias": plain({"logit_bias": {70: 2.0}}),
    "allowed_token_ids": plain({"allowed_token_ids": [*range(60, 90)]} | DRAWN),
    "min_tokens": plain({"min_tokens": 4, "ignore_eos": False}),
    "bad_words": plain({"bad_words": ["a", "bc", "def"]}),
    "bad_words-drawn": plain({"bad_words": ["ab", "ba"], "allowed_token_ids": [97, 98]} | DRAWN),
    "eos-logits": plain(suppress_eos="logits"),
    "eos-confidence": plain(suppress_eos="confidence"),
    "eos-confidence-drawn": plain(DRAWN, suppress_eos="confidence"),
    "guided": plain(cfg_scale=1.0),
    "guided-drawn": plain(DRAWN, cfg_scale=0.5, sampler="klass"),
    "prefix": plain(kv_cache="prefix"),
    "dual": plain(kv_cache="dual", sampler="threshold"),
    "trace": plain(trace=1),
    "template": filled("hello", {"mask": 7}, [5, 6], {"mask": 4}, block_length=4),
    "early_exit": filled(
        {"mask": 12}, [5], {"mask": 3, "name": "a"}, answer="a", early_exit=9.0, cfg_scale=1.0
    ),
    "scores": filled({"mask": 3, "target": [7, 8, 9]}, [4], {"mask": 2}),
}
"""By name."""

CHAINED = {"temperature": 1.0, "seed": 1}
COMMITTED, PEEKED = "records._committed: nonzero", "records._peek: nonzero"
WAITING = {
    "logprobs": (plain({"logprobs": 1}), {COMMITTED}),
    "mh": (plain(CHAINED, sampler="mh", mh_steps=1), {COMMITTED}),
    "mh_lookahead": (plain(CHAINED, sampler="mh_lookahead"), {COMMITTED, PEEKED}),
}
"""Requests that wait, and where."""


@contextmanager
def after_the_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Gives a set that grows by what waits behind the network."""
    found: set[str] = set()

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with noted_waits() as waits:
                result = function(*args, **kwargs)
            found.update(waits)
            return result

        return call

    with monkeypatch.context() as patch:
        for owner, name in (
            (DenoisingExecutor, "__call__"),
            (DenoisingModelState, "postprocess_state"),
        ):
            patch.setattr(owner, name, watched(getattr(owner, name)))
        yield found


@pytest.mark.parametrize("name", REQUESTS)
def test_no_request_waits(
    name: str, engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = engine("gqa")
    with after_the_network(monkeypatch) as waits:
        running.run([REQUESTS[name]])
    assert waits == set()


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_does_so_when_all_else_is_queued(
    name: str, engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/architecture.md names these three."""
    request, where = WAITING[name]
    running = engine("gqa")
    with after_the_network(monkeypatch) as waits:
        running.run([request])
    assert waits == where


def test_all_of_them_in_one_batch_do_not_wait(
    engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where requests differ, some rows are chosen and others are not."""
    running = engine("gqa", max_num_seqs=64)
    with after_the_network(monkeypatch) as waits:
        running.run(list(REQUESTS.values()))
    assert waits == set()
