"""Traces and guidance over HTTP."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.server.oracle import Oracle

MODEL = "tiny"
OPTIONS: dict[str, Any] = {"model": MODEL, "max_tokens": 32, "temperature": 0.0}


@pytest.mark.parametrize("prompts", [["Hello there"], ["Hello there", "Once upon"]])
def test_every_choice_of_a_completion_has_its_trace(
    prompts: list[str], client: openai.OpenAI, oracle: Oracle
) -> None:
    response = client.completions.create(
        prompt=prompts, extra_body={"vllm_xargs": {"trace": 1}}, **OPTIONS
    )
    for choice, prompt in zip(response.choices, prompts, strict=True):
        expected = oracle.answer(prompt, 32)
        count = len(expected.tokens)
        found: Any = choice.trace  # type: ignore[attr-defined]
        assert found["forward_pass"] == expected.canvas.commit_pass[:count]
        assert found["confidence"] == pytest.approx(expected.canvas.confidence[:count], abs=1e-4)
        assert found["entropy"] == pytest.approx(expected.canvas.entropy[:count], abs=1e-3)


def test_a_stream_brings_the_trace_with_its_usage(client: openai.OpenAI, oracle: Oracle) -> None:
    events = client.chat.completions.create(
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
        n=2,
        seed=3,
        extra_body={"vllm_xargs": {"trace": 1}},
        **(OPTIONS | {"temperature": 1.0}),
    )
    last: Any = list(events)[-1]
    assert set(last.traces) == {"0", "1"}
    lengths = [len(found["forward_pass"]) for found in last.traces.values()]
    assert sum(lengths) == last.usage.completion_tokens
    passes = sum(1 + max(found["forward_pass"]) for found in last.traces.values())
    assert last.usage.forward_passes >= passes


def test_guidance_doubles_the_passes(client: openai.OpenAI) -> None:
    plain = client.completions.create(prompt="Hello there", **OPTIONS)
    guided = client.completions.create(
        prompt="Hello there", extra_body={"vllm_xargs": {"cfg_scale": 1.5}}, **OPTIONS
    )
    assert guided.choices[0].text != plain.choices[0].text
    assert plain.usage is not None
    assert guided.usage is not None
    assert guided.usage.forward_passes >= 2 * 8  # type: ignore[attr-defined]
