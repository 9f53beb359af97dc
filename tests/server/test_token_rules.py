"""Standard parameters that say which tokens may be chosen."""

from __future__ import annotations

import math
from typing import Any

import openai
import pytest

from tests.server.oracle import Oracle

MODEL = "tiny"


def complete(client: openai.OpenAI, prompt: str, max_tokens: int, **options: Any) -> Any:
    options = {"temperature": 0.0} | options
    return client.completions.create(model=MODEL, prompt=prompt, max_tokens=max_tokens, **options)


def test_logit_bias(client: openai.OpenAI, oracle: Oracle) -> None:
    token = str(oracle.encode("Z")[0])
    forced = complete(client, "abc", 12, logit_bias={token: 100})
    assert forced.choices[0].text == "Z" * 12
    common = max(oracle.answer("Once upon", 32).text)
    without = complete(client, "Once upon", 32, logit_bias={str(oracle.encode(common)[0]): -100})
    assert common not in without.choices[0].text


def test_allowed_token_ids(client: openai.OpenAI, oracle: Oracle) -> None:
    allowed = oracle.encode("ABC")
    for temperature in (0.0, 1.0):
        response = complete(
            client,
            "abc",
            24,
            temperature=temperature,
            extra_body={"allowed_token_ids": allowed},
        )
        text = response.choices[0].text
        assert len(text) == 24
        assert set(text) <= set("ABC")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_bad_words(client: openai.OpenAI, oracle: Oracle, temperature: float) -> None:
    greedy = oracle.answer("Once upon", 32).text
    words = [greedy[3], greedy[5:7], greedy[12:15]]
    assert all(word.strip() == word for word in words)
    response = complete(
        client,
        "Once upon",
        32,
        temperature=temperature,
        seed=2,
        n=1 if temperature == 0 else 4,
        extra_body={"bad_words": words, "ignore_eos": True},
    )
    for choice in response.choices:
        assert len(choice.text) > 0
        assert not any(word in choice.text for word in words)


def test_bad_words_in_any_order_of_filling(client: openai.OpenAI) -> None:
    """Three letters, none of which may be doubled: at every position one is left to choose. Twelve
    passes for sixteen positions: some commit two neighbours at once."""
    response = complete(
        client,
        "abc",
        16,
        temperature=1.0,
        seed=4,
        n=8,
        extra_body={
            "allowed_token_ids": client_ids("abc"),
            "bad_words": ["aa", "bb", "cc"],
            "vllm_xargs": {"sampler": "random", "steps": 12},
        },
    )
    for choice in response.choices:
        assert len(choice.text) == 16
        assert set(choice.text) <= set("abc")
        assert not any(doubled in choice.text for doubled in ("aa", "bb", "cc"))


def client_ids(letters: str) -> list[int]:
    """Ids of the byte-level tokenizer of the tests, which starts with the printable ASCII."""
    return [ord(letter) - ord("!") for letter in letters]


def test_min_tokens(client: openai.OpenAI, oracle: Oracle) -> None:
    messages: Any = [{"role": "user", "content": "Hi"}]
    short = len(oracle.answer(oracle.chat("Hi"), 32).tokens)
    for min_tokens in (short + 1, 32):
        response = client.chat.completions.create(
            model=MODEL,
            messages=messages,
            max_tokens=32,
            temperature=0.0,
            extra_body={"min_tokens": min_tokens},
        )
        assert response.usage is not None
        assert response.usage.completion_tokens >= min_tokens


@pytest.mark.parametrize(
    "only_the_best",
    [
        {"extra_body": {"top_k": 1}},
        {"top_p": 1e-6},
        {"extra_body": {"min_p": 1.0}},
    ],
)
def test_only_the_best_token_is_greedy(
    client: openai.OpenAI, oracle: Oracle, only_the_best: dict[str, Any]
) -> None:
    response = complete(client, "Hello there", 24, temperature=1.0, **only_the_best)
    assert response.choices[0].text == oracle.answer("Hello there", 24).text


def test_filters_hold_for_every_token(client: openai.OpenAI) -> None:
    """The tokens drawn, judged by the log-probabilities that the server reports."""

    def drawn(**options: Any) -> list[tuple[float, list[float]]]:
        response = complete(client, "abc", 32, temperature=1.0, n=4, seed=9, logprobs=20, **options)
        return [
            (chosen, sorted(top.values(), reverse=True))
            for choice in response.choices
            for chosen, top in zip(
                choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, strict=True
            )
        ]

    free = drawn()
    assert any(chosen < top[1] for chosen, top in free)
    assert all(chosen >= top[1] for chosen, top in drawn(extra_body={"top_k": 2}))
    for chosen, top in drawn(extra_body={"min_p": 0.3}):
        assert chosen >= top[0] + math.log(0.3) - 1e-3
    for chosen, top in drawn(top_p=0.6):
        before = sum(math.exp(value) for value in top if value > chosen)
        assert before < 0.6 + 1e-3
