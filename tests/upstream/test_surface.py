"""vLLM still has the names that we rely on, and the shims leave every other model alone."""

from __future__ import annotations

import ast
import asyncio
import inspect
import pkgutil
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.config import ModelConfig, VllmConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.triton_utils import HAS_TRITON

import vllm_mdlm
from tests.upstream.series import series
from tests.upstream.source import attributes, find_class, global_names, parameters
from tests.upstream.surface import ATTRIBUTES, GLOBALS, SAMPLER_ATTRIBUTES, SIGNATURES
from vllm_mdlm import compat
from vllm_mdlm.compat import cpu_kernels

LOOK = "read what became of it in vLLM, then change our module named in tests/upstream/surface.py"


@pytest.mark.parametrize(("module", "function"), SIGNATURES, ids=lambda name: name)
def test_signature(module: str, function: str) -> None:
    wanted = tuple(SIGNATURES[module, function].split())
    found = parameters(module, function)
    assert found == wanted, f"{module}.{function} has other parameters; {LOOK}"


@pytest.mark.parametrize(("module", "owner"), ATTRIBUTES, ids=lambda name: name)
def test_attributes(module: str, owner: str) -> None:
    missing = set(ATTRIBUTES[module, owner].split()) - attributes(module, owner)
    assert not missing, f"{module}.{owner} has no {sorted(missing)} any more; {LOOK}"


@pytest.mark.parametrize("module", GLOBALS)
def test_globals(module: str) -> None:
    missing = set(GLOBALS[module].split()) - global_names(module)
    assert not missing, f"{module} has no {sorted(missing)} any more; {LOOK}"


@pytest.mark.parametrize("kernel", cpu_kernels.KERNELS)
def test_kernel_has_the_parameters_of_its_body(kernel: str) -> None:
    module, _dot, name = (cpu_kernels.PREFIX + kernel).rpartition(".")
    body = inspect.signature(cpu_kernels.KERNELS[kernel]).parameters.values()
    names = tuple(p.name for p in body if p.kind is not inspect.Parameter.VAR_KEYWORD)
    assert parameters(module, name) == names, f"{module}.{name} has other parameters; {LOOK}"


def test_runner_asks_a_sampler_for_nothing_new() -> None:
    runner = find_class("vllm.v1.worker.gpu.model_runner", "GPUModelRunner")
    read = {
        node.attr
        for node in ast.walk(runner)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self.sampler"
    }
    assert read == SAMPLER_ATTRIBUTES, (
        "GPUModelRunner reads other attributes of its sampler; see whether DenoisingExecutor "
        "needs them"
    )


def _installed() -> dict[str, Any]:
    """What stands in vLLM at every name that a shim replaces."""
    names = {
        name
        for patch in series()
        for targets in patch.replaces().values()
        for name in targets
        if "vllm.v1.request.Request." not in name  # set by `__init__`
    }
    return {name: pkgutil.resolve_name(name) for name in names}


@pytest.fixture(scope="module", autouse=True)
def shims() -> None:
    """All shims of the front end and of every process."""
    vllm_mdlm.register()
    compat.install_front_end()


def test_installing_twice_changes_nothing() -> None:
    before = _installed()
    vllm_mdlm.register()
    compat.install_front_end()
    after = _installed()
    assert {name for name in before if before[name] != after[name]} == set()


def _engine(architecture: str, **hf_config: Any) -> Any:
    """As much of an engine configuration as the shims read."""
    model_config = SimpleNamespace(
        architectures=[architecture],
        hf_config=SimpleNamespace(**hf_config),
        is_diffusion="canvas_length" in hf_config,
        generation_config="vllm",
        override_generation_config={},
    )
    return SimpleNamespace(
        model_config=model_config,
        attention_config=SimpleNamespace(hisparse_config=None),
        _get_v2_model_runner_unsupported_features=list,
    )


OURS = _engine("LLaDAModelLM", canvas_length=256)
OTHER_DIFFUSION = _engine("DiffusionGemmaForBlockDiffusion", canvas_length=256)
AUTOREGRESSIVE = _engine("LlamaForCausalLM")
others = pytest.mark.parametrize(
    "engine", [OTHER_DIFFUSION, AUTOREGRESSIVE], ids=["diffusion", "autoregressive"]
)

HONOURED = [
    {"temperature": 0.5},
    {"seed": 1},
    {"min_p": 0.1},
    {"min_tokens": 1},
    {"logit_bias": {1: 1.0}},
    {"bad_words": ["a"]},
    {"allowed_token_ids": [1]},
]


@pytest.mark.parametrize("asked", HONOURED, ids=lambda asked: next(iter(asked)))
def test_request_rules_are_lifted_for_ours_only(asked: dict[str, Any]) -> None:
    params = SamplingParams(**asked)
    params._validate_diffusion(OURS.model_config)
    params._validate_diffusion(AUTOREGRESSIVE.model_config)
    with pytest.raises(VLLMValidationError, match="not yet supported with diffusion models"):
        params._validate_diffusion(OTHER_DIFFUSION.model_config)


def test_structured_outputs_are_still_refused_by_vllm_elsewhere() -> None:
    params = SamplingParams(structured_outputs=StructuredOutputsParams(regex="a"))
    params._validate_structured_outputs(OURS.model_config, SimpleNamespace(), None)
    with pytest.raises(VLLMValidationError, match="not yet supported for diffusion"):
        params._validate_structured_outputs(OTHER_DIFFUSION.model_config, SimpleNamespace(), None)
    with pytest.raises(VLLMValidationError, match="requires a tokenizer"):
        params._validate_structured_outputs(AUTOREGRESSIVE.model_config, SimpleNamespace(), None)


@others
def test_default_of_max_tokens_is_ours_only(engine: Any) -> None:
    assert ModelConfig.get_diff_sampling_param(engine.model_config) == {}
    assert ModelConfig.get_diff_sampling_param(OURS.model_config) == {"max_tokens": 256}


@pytest.mark.skipif(HAS_TRITON, reason="the choice of the runner is vLLM's where Triton works")
@others
def test_model_runner_is_v2_without_triton_for_ours_only(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_USE_V2_MODEL_RUNNER", raising=False)
    choose = VllmConfig.use_v2_model_runner.fget  # type: ignore[attr-defined]
    assert choose(engine) is False
    assert choose(OURS) is True
    VllmConfig._validate_v2_model_runner(OURS)
    with pytest.raises(ValueError, match="requires Triton"):
        VllmConfig._validate_v2_model_runner(engine)


def test_model_runner_can_still_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")
    assert VllmConfig.use_v2_model_runner.fget(OURS) is False  # type: ignore[attr-defined]


PASSED = object()


@others
@pytest.mark.parametrize(
    "shim",
    [
        "_plan_at_admission",
        "_check_before_response",
        "_refuse_beam_search",
        "_count_in_chat_stream",
        "_count_in_completion_stream",
    ],
)
def test_call_of_another_model_passes_through(engine: Any, shim: str) -> None:
    from vllm_mdlm.compat import front_end

    calls: list[Any] = []

    def original(*args: Any, **kwargs: Any) -> object:
        calls.append((args, kwargs))
        return PASSED

    params = SamplingParams(extra_args={"sampler": "no such sampler"})
    wrapped = getattr(front_end, shim)(original)
    assert wrapped(engine, "request", PASSED, params, last=PASSED) is PASSED
    assert calls == [((engine, "request", PASSED, params), {"last": PASSED})]


@others
def test_responses_of_another_model_are_unchanged(engine: Any) -> None:
    from vllm_mdlm.compat import front_end

    results = SimpleNamespace()

    def full(self: Any, batch: Any) -> Any:
        return SimpleNamespace(usage=SimpleNamespace(), batch=batch)

    async def full_chat(self: Any, request: Any, generator: AsyncIterator[Any]) -> Any:
        return full(self, generator)

    completion = front_end._count_in_completion(full)(engine, results)
    chat = asyncio.run(front_end._count_in_chat(full_chat)(engine, None, results))
    for response in (completion, chat):
        assert response.batch is results
        assert vars(response.usage) == {}
