"""Log-probabilities are those of the pass that committed the token."""

from __future__ import annotations

import math
from typing import Any

import openai
import pytest

from tests.server.oracle import Oracle

MODEL = "tiny"
# The server's network and the reference's, both in float32.
CLOSE = 2e-4


def test_completion(client: openai.OpenAI, oracle: Oracle) -> None:
    response: Any = client.completions.create(
        model=MODEL, prompt="Once upon", max_tokens=20, temperature=0.0, logprobs=3
    )
    logprobs = response.choices[0].logprobs
    expected = oracle.answer("Once upon", 20)
    assert "".join(logprobs.tokens) == expected.text == response.choices[0].text
    assert logprobs.text_offset == list(range(20))
    for position, token in enumerate(expected.tokens):
        reference = oracle.logprobs(expected, position)
        top = logprobs.top_logprobs[position]
        assert logprobs.token_logprobs[position] == pytest.approx(
            reference[token].item(), abs=CLOSE
        )
        # The chosen token is one of the three, or follows them.
        assert len(top) in (3, 4)
        assert top[logprobs.tokens[position]] == logprobs.token_logprobs[position]
        assert sorted(top.values(), reverse=True)[:3] == pytest.approx(
            reference.topk(3).values.tolist(), abs=CLOSE
        )


def test_chat(client: openai.OpenAI, oracle: Oracle) -> None:
    response = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=32,
        temperature=0.0,
        logprobs=True,
        top_logprobs=5,
    )
    expected = oracle.answer(oracle.chat("Hi"), 32)
    content: Any = response.choices[0].logprobs
    # The end of text is not part of the answer, and neither are its numbers.
    assert len(content.content) == len(expected.tokens)
    for position, entry in enumerate(content.content):
        reference = oracle.logprobs(expected, position)
        assert bytes(entry.bytes).decode() == entry.token
        assert entry.logprob == pytest.approx(
            reference[expected.tokens[position]].item(), abs=CLOSE
        )
        assert [top.logprob for top in entry.top_logprobs] == pytest.approx(
            reference.topk(5).values.tolist(), abs=CLOSE
        )


def test_streamed_numbers_are_the_same(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {
        "model": MODEL,
        "prompt": "The cat",
        "max_tokens": 24,
        "temperature": 0.0,
        "logprobs": 2,
    }
    whole: Any = client.completions.create(**options).choices[0].logprobs
    parts: list[Any] = [
        event.choices[0].logprobs
        for event in client.completions.create(stream=True, **options)
        if event.choices[0].logprobs is not None
    ]
    assert [t for part in parts for t in part.tokens] == whole.tokens
    assert [v for part in parts for v in part.token_logprobs] == whole.token_logprobs
    assert [v for part in parts for v in part.top_logprobs] == whole.top_logprobs


def test_no_top_and_the_most_allowed(client: openai.OpenAI) -> None:
    for wanted in (0, 20):
        response: Any = client.completions.create(
            model=MODEL, prompt="abc", max_tokens=8, temperature=1.0, logprobs=wanted, seed=1
        )
        logprobs = response.choices[0].logprobs
        length = response.usage.completion_tokens
        assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == length
        assert all(math.isfinite(value) and value <= 0 for value in logprobs.token_logprobs)
        assert all(max(wanted, 1) <= len(top) <= wanted + 1 for top in logprobs.top_logprobs)


def test_bias_does_not_change_them(client: openai.OpenAI, oracle: Oracle) -> None:
    token = oracle.encode("Z")[0]
    response: Any = client.completions.create(
        model=MODEL,
        prompt="abc",
        max_tokens=1,
        temperature=0.0,
        logprobs=1,
        logit_bias={str(token): 100},
        extra_body={"vllm_xargs": {"gen_length": 1, "block_length": 1}},
    )
    assert response.choices[0].text == "Z"
    canvas = [*oracle.encode("abc"), oracle.network.mask_token_id]
    reference = oracle.network.logits(canvas)[-1].double().log_softmax(dim=0)
    got = response.choices[0].logprobs.token_logprobs[0]
    assert got == pytest.approx(reference[token].item(), abs=CLOSE)


def test_after_a_stop_string_there_are_none(client: openai.OpenAI, oracle: Oracle) -> None:
    text = oracle.answer("Once upon", 32).text
    response: Any = client.completions.create(
        model=MODEL, prompt="Once upon", max_tokens=32, temperature=0.0, logprobs=1, stop=text[9]
    )
    logprobs = response.choices[0].logprobs
    assert len(logprobs.tokens) == response.usage.completion_tokens
    assert "".join(logprobs.tokens).startswith(response.choices[0].text)
