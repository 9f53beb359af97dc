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


def test_chains_report_themselves(client: openai.OpenAI) -> None:
    """Proposals, acceptances and log-weight, block by block; streamed and not, the same answer.

    The defaults of a chat request are accepted: no temperature is sent."""
    options: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 16,
        "seed": 3,
        "messages": [{"role": "user", "content": "Hello"}],
        "extra_body": {
            "ignore_eos": True,
            "vllm_xargs": {"sampler": "mh", "alpha": 2.0, "mh_steps": 3},
        },
    }
    whole = client.chat.completions.create(**options)
    found: Any = whole.choices[0].trace  # type: ignore[attr-defined]
    assert found["proposals"] == [3, 3]
    assert all(0 <= accepted <= 3 for accepted in found["acceptances"])
    assert all(weight < 0 for weight in found["log_weight"])
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 16
    assert whole.usage.forward_passes == 4 * 16  # type: ignore[attr-defined]
    events: list[Any] = list(
        client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, **options
        )
    )
    assert events[-1].traces["0"]["acceptances"] == found["acceptances"]
    assert events[-1].usage.forward_passes == 4 * 16
    text = "".join(event.choices[0].delta.content or "" for event in events[:-1])
    assert text == whole.choices[0].message.content
    stop = text[12:14]
    stopped = client.chat.completions.create(stop=stop, n=2, **options)
    first: Any = stopped.choices[0]
    assert first.message.content == text[: text.index(stop)]
    blocks = len(first.trace["proposals"])
    assert first.trace["acceptances"] == found["acceptances"][:blocks]
    assert "forward_pass" not in first.trace
    assert stopped.choices[1].trace["proposals"]  # type: ignore[attr-defined]
