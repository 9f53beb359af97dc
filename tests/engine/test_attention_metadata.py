"""Attention metadata is built when the batch or its spans change, and serves until then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vllm.v1.worker.gpu.attn_utils import build_attn_metadata

from tests.engine.harness import Engine, job

OWN = {"block_length": 16, "steps": 8}


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Requests of every batch that metadata is built for."""
    counts: list[int] = []

    def build(**arguments: Any) -> Any:
        counts.append(arguments["num_reqs"])
        return build_attn_metadata(**arguments)

    monkeypatch.setattr("vllm_mdlm.denoise.model_state.build_attn_metadata", build)
    return counts


def test_once_for_passes_over_the_same_tokens(
    engine: Callable[..., Engine], builds: list[int]
) -> None:
    running = engine("mha")
    builds.clear()
    for _ in range(2):
        running.run([job([5] * 10, 32, **OWN)])
    assert builds == [1, 1]
    builds.clear()
    running.run([job([5] * 10, 32, **OWN), job([5] * 10, 16, **(OWN | {"steps": 4}))])
    assert builds == [2, 1]


def test_for_every_new_span(engine: Callable[..., Engine], builds: list[int]) -> None:
    running = engine("mha")
    builds.clear()
    running.run([job([5] * 10, 32, kv_cache="dual", **OWN)])
    # All, the first block, all, the second block.
    assert builds == [1] * 4
