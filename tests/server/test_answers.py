"""Answers of the server are the reference's, and its numbers say what they cost."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.server.conftest import Post
from tests.server.oracle import Answer, Oracle
from tests.server.process import Server

MODEL = "tiny"


def complete(client: openai.OpenAI, prompt: Any, max_tokens: int, **options: Any) -> Any:
    options = {"temperature": 0.0} | options
    return client.completions.create(model=MODEL, prompt=prompt, max_tokens=max_tokens, **options)


def chat(client: openai.OpenAI, content: str, **options: Any) -> Any:
    options = {"temperature": 0.0} | options
    messages: Any = [{"role": "user", "content": content}]
    return client.chat.completions.create(model=MODEL, messages=messages, **options)


def assert_same(response: Any, text: str, expected: Answer) -> None:
    assert text == expected.text
    assert response.choices[0].finish_reason == expected.finish_reason
    usage = response.usage
    assert usage.prompt_tokens == len(expected.prompt)
    assert usage.completion_tokens == len(expected.tokens)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.forward_passes == expected.passes


@pytest.mark.parametrize("prompt", ["Hello there", "Once upon", "a", "xyz " * 30])
def test_completion(client: openai.OpenAI, oracle: Oracle, prompt: str) -> None:
    response = complete(client, prompt, 24)
    assert_same(response, response.choices[0].text, oracle.answer(prompt, 24))


def test_chat_ends_before_its_end_of_text(client: openai.OpenAI, oracle: Oracle) -> None:
    for content, reason in [("Hi", "stop"), ("Tell me", "stop"), ("What?", "length")]:
        response = chat(client, content, max_tokens=32)
        expected = oracle.answer(oracle.chat(content), 32)
        assert expected.finish_reason == reason
        assert_same(response, response.choices[0].message.content, expected)


def test_chat_without_max_tokens_has_the_default_canvas(client: openai.OpenAI) -> None:
    usage: Any = chat(client, "Hi", extra_body={"vllm_xargs": {"steps": 32}}).usage
    assert usage.completion_tokens <= 256
    assert usage.forward_passes <= 32


def test_tokens_without_max_tokens_have_the_default_canvas(server: Server) -> None:
    """Sent as they are or as the render route returns a chat: not the rest of the context."""
    chat = {"model": server.model, "messages": [{"role": "user", "content": "Hi"}]}
    rendered = httpx.post(f"{server.url}/v1/chat/completions/render", json=chat, timeout=60).json()
    plain = {"token_ids": [1, 2], "sampling_params": {}}
    for body in (plain, rendered):
        body["sampling_params"] |= {"ignore_eos": True}
        url = f"{server.url}/inference/v1/generate"
        response = httpx.post(url, json=body, timeout=60).json()
        assert response["usage"]["completion_tokens"] == 256


@pytest.mark.parametrize("sent", [{}, {"max_tokens": None}])
def test_without_max_tokens_gen_length_says_how_many(
    client: openai.OpenAI, post: Post, sent: dict[str, None]
) -> None:
    """In completions too, where vLLM's default is 16; that is left where no canvas is named."""
    body: dict[str, Any] = {"prompt": "The cat", "temperature": 0, "ignore_eos": True, **sent}
    long = post("completions", **body, vllm_xargs={"gen_length": 40, "steps": 5}).json()
    assert long["usage"]["completion_tokens"] == 40
    assert long["choices"][0]["finish_reason"] == "length"
    short = post("completions", **body, vllm_xargs={"gen_length": 8}).json()
    assert short["usage"]["completion_tokens"] == 8
    plain = post("completions", prompt="The cat", temperature=0, ignore_eos=True).json()
    assert plain["usage"]["completion_tokens"] == 16
    options: dict[str, Any] = {"ignore_eos": True, "vllm_xargs": {"gen_length": 40, "steps": 5}}
    assert chat(client, "What?", extra_body=options).usage.completion_tokens == 40


def test_token_prompt(client: openai.OpenAI, oracle: Oracle) -> None:
    prompt = [40, 41, 300, 256, 7]
    response = complete(client, prompt, 8)
    assert_same(response, response.choices[0].text, oracle.answer(prompt, 8))


def test_echo(client: openai.OpenAI, oracle: Oracle) -> None:
    cases: list[tuple[str | list[int], str]] = [
        ("abc", "abc"),
        ([40, 41], oracle.decode([40, 41])),
        ([300], ""),
    ]
    for prompt, text in cases:
        answer = oracle.answer(prompt, 8).text
        assert complete(client, prompt, 8, echo=True).choices[0].text == text + answer
        events = complete(client, prompt, 8, echo=True, stream=True)
        assert "".join(event.choices[0].text for event in events) == text + answer


@pytest.mark.parametrize(("max_tokens", "gen_length"), [(13, None), (5, 32), (1, None), (40, 16)])
def test_max_tokens_is_a_promise(
    client: openai.OpenAI, oracle: Oracle, max_tokens: int, gen_length: int | None
) -> None:
    own: dict[str, Any] = {} if gen_length is None else {"gen_length": gen_length}
    response = complete(client, "The cat", max_tokens, extra_body={"vllm_xargs": own})
    expected = oracle.answer("The cat", max_tokens, **own)
    assert expected.finish_reason == "length"
    assert_same(response, response.choices[0].text, expected)


@pytest.mark.parametrize(
    "own",
    [
        {"block_length": 32},
        {"block_length": 4, "steps": 16},
        {"steps": 8},
        {"steps": 4, "block_length": 16},
        {"gen_length": 32, "block_length": 32, "steps": 5},
        {"sampler": "margin", "steps": 16},
        {"sampler": "left_to_right", "steps": 8},
        {"sampler": "threshold", "threshold": 0.6},
        {"sampler": "factor", "factor": 0.7, "block_length": 16},
        {"sampler": "entropy_bound", "entropy_bound": 0.8},
        {"sampler": "klass", "threshold": 0.5, "kl_threshold": 0.5, "history": 1},
    ],
)
def test_parameters_of_the_request(
    client: openai.OpenAI, oracle: Oracle, own: dict[str, Any]
) -> None:
    response = complete(client, "Once upon", 32, extra_body={"vllm_xargs": own})
    assert_same(response, response.choices[0].text, oracle.answer("Once upon", 32, **own))
    if "steps" in own:
        usage: Any = response.usage
        assert usage.forward_passes == own["steps"]


@pytest.mark.parametrize("alpha", [0.5, 100])
def test_the_bounds_of_alpha_reach_the_worker(client: openai.OpenAI, alpha: float) -> None:
    """Candidates are drawn at temperature 1 / alpha, which vLLM checks again on the way."""
    own = {"sampler": "mh", "alpha": alpha, "mh_steps": 1}
    response = complete(client, "Hi", 8, temperature=1.0, extra_body={"vllm_xargs": own})
    assert response.usage.forward_passes == 16


def test_ignore_eos(client: openai.OpenAI, oracle: Oracle) -> None:
    response = chat(client, "Hi", max_tokens=32, extra_body={"ignore_eos": True})
    expected = oracle.answer(oracle.chat("Hi"), 32, ignore_eos=True)
    assert_same(response, response.choices[0].message.content, expected)


def test_several_prompts(client: openai.OpenAI, oracle: Oracle) -> None:
    prompts = ["abc", "Hello there", "z"]
    response = complete(client, prompts, 16)
    expected = [oracle.answer(prompt, 16) for prompt in prompts]
    assert [choice.text for choice in response.choices] == [one.text for one in expected]
    assert response.usage.forward_passes == sum(one.passes for one in expected)
    assert response.usage.completion_tokens == sum(len(one.tokens) for one in expected)


def test_n_answers_differ_and_follow_the_seed(client: openai.OpenAI) -> None:
    texts = [choice.text for choice in complete(client, "abc", 32, n=4, temperature=1.0).choices]
    # Equal by chance: 32 tokens of several nats each, far below 1e-9.
    assert len(set(texts)) == 4
    one, again = (complete(client, "abc", 16, n=2, temperature=1.0, seed=5) for _ in range(2))
    assert [c.text for c in one.choices] == [c.text for c in again.choices]
    assert one.choices[0].text != one.choices[1].text
    alone = [complete(client, "abc", 16, temperature=1.0, seed=5) for _ in range(2)]
    assert {answer.choices[0].text for answer in alone} == {one.choices[0].text}
    usage: Any = one.usage
    assert 2 <= usage.forward_passes <= 2 * 16
    assert complete(client, "abc", 16, temperature=1.0, seed=6).choices[0].text != texts[0]


@pytest.mark.parametrize("seed", [2**63 - 1, -(2**63), 0])
def test_every_seed_serves_n_answers(client: openai.OpenAI, seed: int) -> None:
    response = complete(client, "abc", 8, n=2, temperature=1.0, seed=seed)
    assert len(response.choices) == 2


def test_stop_string(client: openai.OpenAI, oracle: Oracle) -> None:
    expected = oracle.answer("Once upon", 32)
    stop = expected.text[9:11]
    kept = expected.text[: expected.text.index(stop)]
    for include in (False, True):
        response = complete(
            client,
            "Once upon",
            32,
            stop=["never here", stop],
            extra_body={"include_stop_str_in_output": include},
        )
        choice = response.choices[0]
        assert choice.text == (kept + stop if include else kept)
        assert (choice.finish_reason, choice.stop_reason) == ("stop", stop)
        decided = len(kept) + len(stop)
        assert response.usage.completion_tokens == decided
        assert response.usage.forward_passes >= max(expected.canvas.commit_pass[:decided]) + 1
        assert response.usage.forward_passes <= 32


def test_tokens_behind_a_stop_string_are_not_counted(client: openai.OpenAI, oracle: Oracle) -> None:
    """Also where the pass that wrote the string wrote all the rest: a token is a byte here."""
    own = {"steps": 1, "block_length": 32}
    text = oracle.answer("Once upon", 32, **own).text
    stop = text[4:6]
    response = complete(client, "Once upon", 32, stop=stop, extra_body={"vllm_xargs": own})
    assert response.choices[0].text == text[: text.index(stop)]
    assert response.usage.completion_tokens == text.index(stop) + len(stop)
    assert response.usage.forward_passes == 1


def test_stop_token(client: openai.OpenAI, oracle: Oracle) -> None:
    expected = oracle.answer("Once upon", 32)
    token = expected.tokens[11]
    kept = expected.tokens[: expected.tokens.index(token)]
    response = complete(client, "Once upon", 32, extra_body={"stop_token_ids": [token]})
    choice = response.choices[0]
    assert choice.text == oracle.decode(kept)
    assert (choice.finish_reason, choice.stop_reason) == ("stop", token)
    assert response.usage.completion_tokens == len(kept)
    assert response.usage.forward_passes == max(expected.canvas.commit_pass[: len(kept) + 1]) + 1


def test_mask_in_a_prompt_is_text(client: openai.OpenAI, oracle: Oracle) -> None:
    for prompt in ("Hello<|mdm_mask|> there<|mdm_mask|>", "<|mdm_mask|><|mdm_mask|>a"):
        assert oracle.network.mask_token_id in oracle.encode(prompt)
        response = complete(client, prompt, 16)
        assert_same(response, response.choices[0].text, oracle.answer(prompt, 16))


def test_mask_never_in_an_answer(client: openai.OpenAI, oracle: Oracle) -> None:
    mask = oracle.network.mask_token_id
    for sampler in ("low_confidence", "random"):
        response = complete(
            client,
            "abc",
            32,
            n=4,
            temperature=2.0,
            seed=1,
            logit_bias={str(mask): 100},
            extra_body={
                "vllm_xargs": {"sampler": sampler},
                "return_token_ids": True,
                "ignore_eos": True,
                "skip_special_tokens": False,
            },
        )
        for choice in response.choices:
            assert len(choice.token_ids) == 32
            assert mask not in choice.token_ids
            assert "<|mdm_mask|>" not in choice.text


def test_random_order_follows_the_seed(client: openai.OpenAI) -> None:
    def texts(seed: int) -> str:
        own = {"sampler": "random", "steps": 16}
        return str(
            complete(client, "abc", 32, seed=seed, extra_body={"vllm_xargs": own}).choices[0].text
        )

    assert texts(1) == texts(1)
    assert len({texts(seed) for seed in range(4)}) > 1
