"""Text flows as soon as a prefix of the answer is final."""

from __future__ import annotations

import asyncio
from typing import Any

import openai

from tests.server.oracle import Answer, Oracle
from tests.server.process import Server

MODEL = "tiny"
USAGE: Any = {"include_usage": True}


def final_lengths(answer: Answer) -> set[int]:
    """Lengths of the final prefix after every pass, in tokens."""
    canvas = answer.canvas.commit_pass
    lengths = set()
    for done in range(answer.canvas.passes):
        open_positions = [i for i, commit_pass in enumerate(canvas) if commit_pass > done]
        lengths.add(min([*open_positions, len(answer.tokens)]))
    return lengths


def read(events: Any) -> tuple[list[str], Any]:
    """Texts of the first choice, without empty ones, and the usage."""
    texts, usage = [], None
    for event in events:
        usage = event.usage or usage
        for choice in event.choices:
            if text := choice.text if hasattr(choice, "text") else choice.delta.content:
                texts.append(text)
    return texts, usage


def test_completion(client: openai.OpenAI, oracle: Oracle) -> None:
    options: dict[str, Any] = {"model": MODEL, "max_tokens": 32, "temperature": 0.0}
    for prompt in ("Hello there", "Once upon"):
        events = client.completions.create(
            prompt=prompt, stream=True, stream_options=USAGE, **options
        )
        texts, usage = read(events)
        expected = oracle.answer(prompt, 32)
        assert "".join(texts) == expected.text
        ends = {sum(map(len, texts[: i + 1])) for i in range(len(texts))}
        # The front end may join what it did not send in time, and never cuts elsewhere.
        assert ends <= final_lengths(expected)
        # Four blocks: more pieces than blocks, so text flows inside a block too.
        assert len(texts) > 4
        whole = client.completions.create(prompt=prompt, **options)
        assert usage.model_dump(include={"prompt_tokens", "completion_tokens"}) == (
            whole.usage.model_dump(include={"prompt_tokens", "completion_tokens"})
        )
        assert usage.forward_passes == whole.usage.forward_passes == expected.passes


def test_chat(client: openai.OpenAI, oracle: Oracle) -> None:
    for content in ("Hi", "Tell me"):
        events = list(
            client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": content}],
                max_tokens=32,
                temperature=0.0,
                stream=True,
                stream_options=USAGE,
            )
        )
        expected = oracle.answer(oracle.chat(content), 32)
        texts, usage = read(events)
        assert "".join(texts) == expected.text
        assert len(texts) > 2
        reasons = [c.finish_reason for e in events for c in e.choices if c.finish_reason]
        assert reasons == ["stop"]
        assert usage.completion_tokens == len(expected.tokens)
        assert usage.forward_passes == expected.passes


def test_stop_string(client: openai.OpenAI, oracle: Oracle) -> None:
    text = oracle.answer("Once upon", 32).text
    stop = text[9:11]
    texts, usage = read(
        client.completions.create(
            model=MODEL,
            prompt="Once upon",
            max_tokens=32,
            temperature=0.0,
            stop=stop,
            stream=True,
            stream_options=USAGE,
        )
    )
    assert "".join(texts) == text[: text.index(stop)]
    assert usage.forward_passes > 0


def test_n_answers(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {
        "model": MODEL,
        "prompt": ["abc", "xyz"],
        "max_tokens": 16,
        "temperature": 1.0,
        "seed": 3,
        "n": 2,
    }
    whole = client.completions.create(**options)
    texts = dict.fromkeys(range(4), "")
    usage: Any = None
    for event in client.completions.create(stream=True, stream_options=USAGE, **options):
        usage = event.usage or usage
        for choice in event.choices:
            texts[choice.index] += choice.text
    assert texts == {choice.index: choice.text for choice in whole.choices}
    whole_usage: Any = whole.usage
    assert usage.forward_passes == whole_usage.forward_passes
    assert usage.completion_tokens == whole_usage.completion_tokens


def test_concurrent_streams(server: Server, oracle: Oracle) -> None:
    prompts = ["Hello there", "Once upon", "The cat", "abc"]

    async def one(client: openai.AsyncOpenAI, prompt: str) -> str:
        stream = await client.completions.create(
            model=MODEL, prompt=prompt, max_tokens=24, temperature=0.0, stream=True
        )
        return "".join([event.choices[0].text async for event in stream])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return await asyncio.gather(*(one(client, prompt) for prompt in prompts))

    assert asyncio.run(all_of_them()) == [oracle.answer(prompt, 24).text for prompt in prompts]
