"""The shims act for our architectures only: every other model is left alone."""

from __future__ import annotations

import asyncio
import pkgutil
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm import envs
from vllm.config import VllmConfig
from vllm.entrypoints.openai.chat_completion import serving as chat
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.triton_utils import HAS_TRITON

import vllm_mdlm
from tests.upstream.series import series
from vllm_mdlm import compat
from vllm_mdlm.compat import front_end, refusals


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
    """All shims of the front end and of every process.

    An engine that ran before in this process has frozen vLLM's view of the environment.
    """
    envs.disable_envs_cache()
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
PASSED = object()
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


class _Serving:
    """As much of a serving class as its shims read and write."""

    def __init__(self, engine: Any, defaults: dict[str, Any]) -> None:
        self.model_config = engine.model_config
        self.default_sampling_params = defaults


def _serving(engine: Any, defaults: dict[str, Any]) -> _Serving:
    serving = _Serving.__new__(_Serving)
    front_end._default_max_tokens(_Serving.__init__)(serving, engine, defaults)
    return serving


@others
def test_default_of_max_tokens_is_ours_only(engine: Any) -> None:
    defaults = {"top_k": 5}
    assert _serving(engine, defaults).default_sampling_params is defaults
    assert _serving(OURS, defaults).default_sampling_params == {"top_k": 5, "max_tokens": 256}


def test_default_of_max_tokens_comes_after_the_generation_config() -> None:
    assert _serving(OURS, {"max_tokens": 7}).default_sampling_params == {"max_tokens": 7}


def test_max_tokens_are_still_clipped_elsewhere() -> None:
    ask = chat.get_max_tokens
    assert ask.__mdlm_shim__
    for engine in (OTHER_DIFFUSION, AUTOREGRESSIVE):
        assert ask(100, 91, 10, _serving(engine, {}).default_sampling_params) == 90
    defaults = _serving(OURS, {}).default_sampling_params
    assert ask(100, 90, 10, defaults) == 90
    assert ask(100, None, 10, defaults) == 90  # the default may be clipped
    assert ask(100, 50, 10, defaults, 20) == 20  # and so may what exceeds the server's cap
    with pytest.raises(VLLMValidationError, match="at most 90"):
        ask(100, 91, 10, defaults)


def _refuse_tokens(self: Any, encoder_input: Any, decoder_input: Any) -> None:
    raise VLLMValidationError("Token id 9999 is out of vocabulary")


@others
def test_prompt_is_named_for_ours_only(engine: Any) -> None:
    validate = refusals._name_prompt(_refuse_tokens)
    for wanted, one in ((None, engine), ("prompt", OURS)):
        with pytest.raises(VLLMValidationError) as caught:
            validate(one, None, None)
        assert caught.value.parameter == wanted


@others
def test_http_request_of_another_model_passes_through(engine: Any) -> None:
    error = ValueError("max_tokens are what is wrong")
    extra = SimpleNamespace(model_extra={"sampler": "random"}, use_beam_search=True)

    async def create(self: Any, request: Any, raw_request: Any) -> Any:
        if raw_request is error:
            raise error
        return request, raw_request

    wrapped = refusals._check_request(create)
    assert asyncio.run(wrapped(engine, extra, PASSED)) == (extra, PASSED)
    with pytest.raises(ValueError, match="what is wrong") as caught:
        asyncio.run(wrapped(engine, extra, error))
    assert caught.value is error


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


@others
@pytest.mark.parametrize(
    "shim",
    [
        front_end._plan_at_admission,
        refusals._check_before_response,
        refusals._check_before_events,
        front_end._refuse_beam_search,
        front_end._count_in_chat_stream,
        front_end._count_in_completion_stream,
    ],
    ids=lambda shim: shim.__name__,
)
def test_call_of_another_model_passes_through(engine: Any, shim: Any) -> None:
    calls: list[Any] = []

    def original(*args: Any, **kwargs: Any) -> object:
        calls.append((args, kwargs))
        return PASSED

    params = SamplingParams(extra_args={"sampler": "no such sampler"})
    wrapped = shim(original)
    assert wrapped(engine, "request", PASSED, params, last=PASSED) is PASSED
    assert calls == [((engine, "request", PASSED, params), {"last": PASSED})]


@others
@pytest.mark.parametrize("text", [None, "", "abc"])
def test_echo_of_another_model_is_unchanged(engine: Any, text: str | None) -> None:
    extract = refusals._echo_nothing(lambda self, prompt: text)
    assert extract(engine, PASSED) == text
    assert extract(OURS, PASSED) == (text or "")


@others
def test_responses_of_another_model_are_unchanged(engine: Any) -> None:
    results = SimpleNamespace()

    def full(self: Any, batch: Any, request: Any = None) -> Any:
        return SimpleNamespace(usage=SimpleNamespace(), batch=batch)

    async def full_chat(self: Any, request: Any, generator: AsyncIterator[Any]) -> Any:
        return full(self, generator)

    completion = front_end._count_in_completion(full)(engine, results, None)
    chat = asyncio.run(front_end._count_in_chat(full_chat)(engine, None, results))
    for response in (completion, chat):
        assert response.batch is results
        assert vars(response.usage) == {}
