"""The last layer computes the rows that are read, and answers as if it computed all."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import CompilationMode
from vllm.config.compilation import CUDAGraphMode

from tests.engine.harness import Engine, Job, job
from vllm_mdlm.denoise.model_state import narrows

PROMPT = [7, 9, 11, 13, 15]


def jobs() -> list[Job]:
    """Every cache mode, guidance and a trace in one batch."""
    return [
        job(PROMPT, 64, kv_cache="exact", block_length=32, steps=8),
        job(PROMPT[:2], 32, kv_cache="prefix", block_length=8, steps=8, cfg_scale=1.0),
        job(PROMPT[1:], 48, kv_cache="dual", sampler="threshold", block_length=16, trace=1),
        job(PROMPT, 32, standard={"temperature": 1.0, "seed": 3}, block_length=32, steps=16),
    ]


def runner_of(engine: Engine) -> Any:
    return engine.core.engine_core.engine_core.model_executor.driver_worker.worker.model_runner  # type: ignore[attr-defined]


def count_rows(layer: Any, counts: list[int]) -> Any:
    """Note the rows that a layer's MLP is given, until the handle is removed."""

    def note(_: object, arguments: tuple[torch.Tensor, ...]) -> None:
        counts.append(len(arguments[0]))

    return layer.mlp.register_forward_pre_hook(note)


def test_the_last_layer_computes_masked_rows_alone(engine: Callable[..., Engine]) -> None:
    used = engine("mha")
    layers = runner_of(used).model.model.layers
    first: list[int] = []
    last: list[int] = []
    handles = [count_rows(layers[0], first), count_rows(layers[-1], last)]
    used.run([job(PROMPT, 32, block_length=16, steps=8)])
    for handle in handles:
        handle.remove()
    assert first == [37] * 8
    # 16 masks a block, 4 of them decided in a pass.
    assert last == [16, 12, 8, 4] * 2


@pytest.mark.parametrize("shape", ["mha", "gqa", "gqa-int8"])
def test_answers_are_those_of_all_rows(
    engine: Callable[..., Engine], shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = engine(shape)
    narrow = used.run(jobs())
    monkeypatch.setattr(runner_of(used).model_state, "narrows", False)
    full = used.run(jobs())
    assert [one.token_ids for one in narrow] == [one.token_ids for one in full]


def test_fixed_shapes_and_adapters_compute_all_rows() -> None:
    def allowed(**changes: Any) -> bool:
        compilation = {"mode": CompilationMode.NONE, "cudagraph_mode": CUDAGraphMode.NONE}
        adapters = changes.pop("lora_config", None)
        config: Any = SimpleNamespace(
            compilation_config=SimpleNamespace(**(compilation | changes)), lora_config=adapters
        )
        return narrows(config)

    assert allowed()
    assert not allowed(mode=CompilationMode.VLLM_COMPILE)
    assert not allowed(cudagraph_mode=CUDAGraphMode.PIECEWISE)
    assert not allowed(cudagraph_mode=CUDAGraphMode.FULL)
    assert not allowed(lora_config=object())
