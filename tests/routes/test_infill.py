"""`POST /v1/infill`."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.routes.conftest import Routes
from tests.server.oracle import Oracle

PROMPT = "Hello there"
TWO: list[Any] = [{"mask": 12, "name": "reasoning"}, " so ", {"mask": 4, "name": "answer"}]


def test_one_free_span_is_a_completion(routes: Routes) -> None:
    """Greedy and drawn."""
    for settings in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 5}):
        whole = routes.ask("completions", prompt=PROMPT, max_tokens=32, **settings)
        filled = routes.ask("infill", prompt=PROMPT, template=[{"mask": 32}], **settings)
        assert filled["choices"][0]["text"] == whole["choices"][0]["text"]
        assert filled["choices"][0]["spans"]["span_0"]["complete"]


def test_parameters_are_plain_fields_or_in_vllm_xargs(routes: Routes) -> None:
    settings = {"sampler": "threshold", "threshold": 0.3, "block_length": 8}
    whole = routes.ask(
        "completions", prompt=PROMPT, max_tokens=24, temperature=0, vllm_xargs=settings
    )
    body: dict[str, Any] = {"prompt": PROMPT, "template": [{"mask": 24}], "temperature": 0}
    for sent in (settings, {"vllm_xargs": settings}):
        filled = routes.ask("infill", **body, **sent)
        assert filled["choices"][0]["text"] == whole["choices"][0]["text"]
        assert filled["usage"]["forward_passes"] < 24
    assert routes.ask("infill", **body)["usage"]["forward_passes"] == 24


def test_messages(routes: Routes, oracle: Oracle) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    filled = routes.ask("infill", template=TWO, temperature=0, **chat)
    same = routes.ask("infill", template=TWO, temperature=0, prompt=oracle.chat("Hi"))
    assert filled["choices"] == same["choices"]


def test_what_is_fixed_stays(routes: Routes, oracle: Oracle) -> None:
    answer = routes.ask("infill", prompt=PROMPT, template=["It is ", [40, 41], "."], temperature=0)
    (choice,) = answer["choices"]
    assert choice["text"] == f"It is {oracle.decode([40, 41])}."
    assert (choice["spans"], choice["forward_passes"]) == ({}, 0)
    assert answer["usage"]["completion_tokens"] == 0


def test_spans(routes: Routes, oracle: Oracle) -> None:
    answer = routes.ask(
        "infill", prompt=PROMPT, template=TWO, temperature=0, answer="answer", trace=1
    )
    (choice,) = answer["choices"]
    passes = choice["trace"]["forward_pass"]
    assert sorted(passes) == [-1] * 4 + list(range(16))
    assert list(choice["spans"]) == ["reasoning", "answer"]
    for name, length in (("reasoning", 12), ("answer", 4)):
        span = choice["spans"][name]
        assert len(span["token_ids"]) == length
        assert span["complete"]
        assert span["mean_logprob"] < 0
    texts = [span["text"] for span in choice["spans"].values()]
    assert choice["text"] == " so ".join(texts)
    # With one token a pass, the last pass sees all but one position of the canvas.
    assert choice["forward_passes"] == len(choice["answer_entropy"]) == 16
    assert not choice["exited_early"]
    assert answer["usage"] == {
        "prompt_tokens": len(PROMPT),
        "completion_tokens": 16,
        "total_tokens": len(PROMPT) + 16,
        "forward_passes": 16,
    }
    first = [*oracle.encode(PROMPT), *[oracle.network.mask_token_id] * 12, *oracle.encode(" so ")]
    logits = oracle.network.logits(first + [oracle.network.mask_token_id] * 4)
    logprobs = logits[len(first) :].double().log_softmax(dim=1)
    entropy = -(logprobs.exp() * logprobs).sum().item()
    assert choice["answer_entropy"][0] == pytest.approx(entropy, abs=1e-3)


def test_early_exit(routes: Routes) -> None:
    body: dict[str, Any] = {"prompt": PROMPT, "template": TWO, "temperature": 0}
    (choice,) = routes.ask("infill", **body, answer="answer", early_exit=1e6)["choices"]
    assert choice["exited_early"]
    assert not choice["spans"]["reasoning"]["complete"]
    assert choice["spans"]["reasoning"]["text"] == ""
    assert choice["spans"]["reasoning"]["mean_logprob"] is None
    assert choice["spans"]["answer"]["complete"]
    assert choice["forward_passes"] < 16
    assert choice["text"] == " so " + choice["spans"]["answer"]["text"]


def test_several_choices(routes: Routes) -> None:
    body: dict[str, Any] = {"prompt": PROMPT, "template": TWO, "temperature": 1.0}
    answer = routes.ask("infill", **body, n=3, seed=7)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({choice["text"] for choice in answer["choices"]}) == 3
    for index, choice in enumerate(answer["choices"]):
        (alone,) = routes.ask("infill", **body, seed=7 + index)["choices"]
        assert alone | {"index": index} == choice
    assert answer["usage"]["forward_passes"] == 3 * 16


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"n": 2, "seed": 3}], ids=str)
def test_stream(routes: Routes, settings: dict[str, Any]) -> None:
    body: dict[str, Any] = {"prompt": PROMPT, "template": TWO, "block_length": 4, **settings}
    whole = routes.ask("infill", **body)
    *pieces, last = routes.events("infill", **body)
    for field in ("choices", "usage", "model", "object"):
        assert last[field] == whole[field]
    assert {piece["object"] for piece in pieces} == {"infill.chunk"}
    assert {piece["id"] for piece in pieces} == {last["id"]}
    sent: dict[tuple[int, str], list[Any]] = {}
    for piece in pieces:
        (part,) = piece["choices"]
        sent.setdefault((part["index"], part["span"]), []).append(part)
    assert len(sent[0, "reasoning"]) > 1
    for choice in whole["choices"]:
        for name, span in choice["spans"].items():
            parts = sent[choice["index"], name]
            assert "".join(part["text"] for part in parts) == span["text"]
            assert [token for part in parts for token in part["token_ids"]] == span["token_ids"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_leaving_frees_everything(routes: Routes, stream: bool) -> None:
    body = {"model": "tiny", "prompt": PROMPT, "template": [{"mask": 480}], "temperature": 0}
    steps = "vllm:diffusion_num_denoising_steps_total"
    before = routes.metric(steps)
    with suppress(httpx.ReadTimeout):
        limit = httpx.Timeout(5, read=0.5)
        sent = body | {"stream": stream}
        with routes.http.stream("POST", "/infill", json=sent, timeout=limit) as response:
            assert stream
            next(response.iter_lines())
    end = time.monotonic() + 5
    while time.monotonic() < end:
        routes.ask("completions", prompt="a", max_tokens=1, vllm_xargs={"block_length": 1})
        if routes.metric("vllm:num_requests_running") == 0:
            break
    assert routes.metric("vllm:num_requests_running") == 0
    # All 480 passes would have taken longer; most of them did not happen.
    assert routes.metric(steps) - before < 400
