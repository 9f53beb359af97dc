"""A caller's mistake is a 400 that names the parameter, streamed or not, and costs nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import Post
from tests.server.mistakes import BODIES, NOT_IMPLEMENTED, ROWS, own


def name_of(row: tuple[str, str, dict[str, Any]]) -> str:
    return f"{row[0].split('/')[0]}-{str(row[2])[:60]}"


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_refused(post: Post, row: tuple[str, str, dict[str, Any]]) -> None:
    path, parameter, mistake = row
    for stream in (False, True):
        response = post(path, **(BODIES[path] | mistake), stream=stream)
        assert response.status_code == 400, response.text[:500]
        error = response.json()["error"]
        assert {"message", "type", "param", "code"} <= error.keys()
        assert error["code"] == 400
        # vLLM writes the place of what its parser refuses, as in body.prompt.0.
        assert parameter in str(error["param"]).split("."), error
        assert parameter in error["message"] or "body." in str(error["param"]), error
    assert post("completions", prompt="a", max_tokens=1).status_code == 200


@pytest.mark.parametrize(("parameter", "body"), NOT_IMPLEMENTED, ids=str)
def test_not_implemented(post: Post, parameter: str, body: dict[str, Any]) -> None:
    """Accepted names and values of the contract that this version does not execute."""
    for stream in (False, True):
        response = post("completions", **(BODIES["completions"] | body), stream=stream)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == parameter
        assert "not implemented" in response.json()["error"]["message"]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"model": "tiny"}'])
def test_bodies_that_are_no_request(post: Post, content: str) -> None:
    for path in BODIES:
        response = post.raw(path, content)
        assert response.status_code == 400
        assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("parameter", "body"),
    [
        ("sampler", own(sampler="nope")),
        ("logit_bias", {"logit_bias": {"9999": 1}}),
        ("temperature", {"temperature": -1}),
        ("structured_outputs", {"text": {"format": {"type": "json_object"}}}),
        ("sampler", {"sampler": "random"}),
    ],
    ids=str,
)
def test_refused_by_the_responses_route(post: Post, parameter: str, body: dict[str, Any]) -> None:
    for stream in (False, True):
        response = post("responses", input="Hi", max_output_tokens=8, stream=stream, **body)
        assert response.status_code == 400, response.text[:500]
        assert response.json()["error"]["param"] == parameter


def test_a_batch_of_chats_takes_no_parameters_of_ours(post: Post) -> None:
    """vLLM has no field for them there, and would ignore them."""
    chats = [[{"role": "user", "content": content}] for content in ("Hi", "Ho")]
    mistakes = [
        ("sampler", {"sampler": "random"}),
        ("vllm_xargs", own(steps=4)),
        ("max_tokens", {"max_tokens": 505}),
    ]
    for parameter, mistake in mistakes:
        body = {"messages": chats, "max_tokens": 8} | mistake
        response = post("chat/completions/batch", **body)
        assert response.status_code == 400, response.text[:500]
        assert response.json()["error"]["param"] == parameter
    response = post("chat/completions/batch", messages=chats, max_tokens=8)
    assert len(response.json()["choices"]) == 2
