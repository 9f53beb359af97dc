"""A caller's mistake is an OpenAI-shaped error that names the field, and costs nobody else."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.routes.conftest import Routes

NAN = float("nan")
FREE = [{"mask": 8, "name": "a"}]
INFILL: dict[str, Any] = {"prompt": "Hi", "template": FREE, "temperature": 0}
SCORE: dict[str, Any] = {"prompt": "Hi", "template": FREE, "answer": "a", "target": "42"}
LIKELIHOOD: dict[str, Any] = {"context": "Hi", "continuation": " there", "mc_samples": 2}
GONE = object()

TEMPLATES: list[tuple[str, Any]] = [
    ("template", GONE),
    ("template", "text"),
    ("template", []),
    ("template", [""]),
    ("template", {"mask": 3}),
    ("template", [{"mask": 600}]),
    ("template", [{"mask": 400, "name": "a"}, {"mask": 400}]),
    ("template", [3]),
    ("template", [None]),
    ("template", [["x"]]),
    ("template", [[9999]]),
    ("template", [[-1]]),
    ("template", [[2**70]]),
    ("template", ["<|mdm_mask|>"]),
    ("template", [{"mask": 0}]),
    ("template", [{"mask": -1}]),
    ("template", [{"mask": 2**60}]),
    ("template", [{"mask": 1.5}]),
    ("template", [{"mask": NAN}]),
    ("template", [{"mask": True}]),
    ("template", [{"name": "a"}]),
    ("template", [{"mask": 3, "name": 3}]),
    ("template", [{"mask": 3, "size": 3}]),
    ("template", [{"mask": 3, "block_length": 0}]),
    ("template", [{"mask": 3, "block_length": 4}]),
    ("template", [{"mask": 3, "name": "a"}, {"mask": 3, "name": "a"}]),
    ("template", [{"mask": 3}, {"mask": 3, "name": "span_0"}]),
    ("template", [[[[[]]]]]),
    ("template", ["\ud800"]),
]

PROMPTS: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"prompt": GONE}),
    ("messages", {"messages": [{"role": "user", "content": "Hi"}]}),
    ("prompt", {"prompt": ""}),
    ("prompt", {"prompt": ["a", "b"]}),
    ("prompt", {"prompt": 3}),
    ("prompt", {"prompt": [9999]}),
    ("prompt", {"prompt": "x" * 600}),
    ("messages", {"prompt": GONE, "messages": "x"}),
    ("messages", {"prompt": GONE, "messages": []}),
    ("messages", {"prompt": GONE, "messages": 3}),
    ("messages", {"prompt": GONE, "messages": [3]}),
    ("messages", {"prompt": GONE, "messages": [{"role": 3}]}),
    ("prompt", {"prompt": "\ud800"}),
    ("request_id", {"request_id": "\ud800"}),
    ("chat_template", {"chat_template": "x"}),
    ("nonsense", {"nonsense": 1}),
    ("max_tokens", {"max_tokens": 8}),
    ("stop", {"stop": "x"}),
    ("sampler", {"sampler": "nope"}),
    ("gen_length", {"gen_length": 8}),
    ("cfg_scale", {"cfg_scale": NAN}),
    ("cfg_scale", {"cfg_scale": -1}),
]

INFILL_ONLY: list[tuple[str, dict[str, Any]]] = [
    ("temperature", {"temperature": -1}),
    ("temperature", {"temperature": NAN}),
    ("temperature", {"temperature": "hot"}),
    ("top_p", {"top_p": 2}),
    ("seed", {"seed": 2**63}),
    ("n", {"n": 0}),
    ("n", {"n": 2}),
    ("n", {"n": 10**6, "temperature": 1}),
    ("logit_bias", {"logit_bias": {"9999": 1}}),
    ("allowed_token_ids", {"allowed_token_ids": []}),
    ("steps", {"steps": 0}),
    ("steps", {"steps": "4"}),
    ("block_length", {"block_length": 0}),
    ("kv_cache", {"kv_cache": "none"}),
    ("trace", {"trace": 2}),
    ("answer", {"answer": "b"}),
    ("answer", {"answer": 3}),
    ("early_exit", {"early_exit": 1}),
    ("early_exit", {"answer": "a", "early_exit": 0}),
    ("early_exit", {"answer": "a", "early_exit": NAN}),
    ("early_exit", {"answer": "a", "early_exit": "x"}),
    ("sampler", {"sampler": "random", "vllm_xargs": {"sampler": "random"}}),
    ("sampler", {"vllm_xargs": {"sampler": "nope"}}),
    ("sampler", {"sampler": "mh", "temperature": 1}),
    ("sampler", {"sampler": "mh_lookahead", "temperature": 1}),
    ("vllm_xargs", {"vllm_xargs": 3}),
    ("stream", {"stream": "maybe"}),
]

SCORE_ONLY: list[tuple[str, dict[str, Any]]] = [
    ("answer", {"answer": GONE}),
    ("answer", {"answer": "b"}),
    ("answer", {"answer": ["a"]}),
    ("target", {"target": GONE}),
    ("target", {"target": ""}),
    ("target", {"target": [4, 2]}),
    ("target", {"target": "123456789"}),
    ("target", {"target": "<|mdm_mask|>"}),
    ("template", {"template": [{"mask": 1, "name": "a", "target": [5]}]}),
    ("reasonings", {"reasonings": []}),
    ("reasonings", {"reasonings": "x"}),
    ("reasonings", {"reasonings": [3]}),
    ("reasoning", {"reasonings": ["x"]}),
    ("reasoning", {"reasonings": ["x"], "reasoning": "a"}),
    (
        "reasonings",
        {"reasonings": ["x" * 9], "template": [*FREE, {"mask": 8}], "reasoning": "span_1"},
    ),
    ("sampler", {"sampler": "random"}),
    ("temperature", {"temperature": 0}),
    ("stream", {"stream": True}),
    ("vllm_xargs", {"vllm_xargs": {"trace": 1}}),
]

LIKELIHOODS: list[tuple[str, dict[str, Any]]] = [
    ("context", {"context": GONE}),
    ("context", {"context": ""}),
    ("context", {"context": 3}),
    ("context", {"context": [[]]}),
    ("context", {"context": [9999]}),
    ("context", {"context": "x" * 600}),
    ("continuation", {"continuation": GONE}),
    ("continuation", {"continuation": ""}),
    ("continuation", {"continuation": []}),
    ("continuation", {"continuation": [1.5]}),
    ("continuation", {"continuation": [True]}),
    ("continuation", {"continuation": [9999]}),
    ("continuation", {"continuation": "<|mdm_mask|>"}),
    ("continuation", {"continuation": "x" * 600}),
    ("continuation", {"context": ["a", "b"], "continuation": ["a", "b", "c"]}),
    ("mc_samples", {"mc_samples": 0}),
    ("mc_samples", {"mc_samples": 10**6}),
    ("mc_samples", {"mc_samples": 2.5}),
    ("mc_samples", {"mc_samples": NAN}),
    ("mc_samples", {"mc_samples": 60000, "continuation": ["a", "b"]}),
    ("seed", {"seed": "x"}),
    ("seed", {"seed": 2**63}),
    ("greedy", {"greedy": 2}),
    ("cfg_scale", {"cfg_scale": NAN}),
    ("kv_cache", {"kv_cache": 3}),
    ("temperature", {"temperature": 0}),
    ("prompt", {"prompt": "x"}),
]

ROWS = (
    [("infill", INFILL, name, {"template": value}) for name, value in TEMPLATES]
    + [("reasoning_score", SCORE, name, {"template": value}) for name, value in TEMPLATES]
    + [("infill", INFILL, *row) for row in PROMPTS + INFILL_ONLY]
    + [("reasoning_score", SCORE, *row) for row in PROMPTS + SCORE_ONLY]
    + [("loglikelihood", LIKELIHOOD, *row) for row in LIKELIHOODS]
)


def name_of(row: tuple[str, dict[str, Any], str, dict[str, Any]]) -> str:
    return f"{row[0]}-{str(row[3])[:50]}"


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_refused(routes: Routes, row: tuple[str, dict[str, Any], str, dict[str, Any]]) -> None:
    path, body, parameter, mistake = row
    sent = {name: value for name, value in (body | mistake).items() if value is not GONE}
    response = routes.send(path, **sent)
    assert response.status_code == 400, response.text[:500]
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == 400
    param = str(error["param"]).removeprefix("body.")
    assert param.split(".")[0].split("[")[0] == parameter, error
    assert parameter in error["message"]


@pytest.mark.parametrize("path", ["infill", "reasoning_score", "loglikelihood"])
def test_bodies_that_are_no_request(routes: Routes, path: str) -> None:
    for content in ("", "{", "[]", "null", "3", "[" * 100000, '{"model": "tiny"}', "\ud800"):
        response = routes.http.post(f"/{path}", content=content.encode("utf-8", "surrogatepass"))
        assert response.status_code == 400, response.text
        assert response.json()["error"]["message"]
        assert response.json()["error"]["param"] is not None
    response = routes.http.post(f"/{path}", content="{}", headers={"content-type": "text/plain"})
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [("infill", INFILL), ("reasoning_score", SCORE), ("loglikelihood", LIKELIHOOD)],
)
def test_model_and_key(routes: Routes, path: str, body: dict[str, Any]) -> None:
    unknown = routes.send(path, **(body | {"model": "nope"}))
    assert unknown.status_code == 404
    assert unknown.json()["error"]["param"] == "model"
    url = f"{routes.http.base_url}{path}"
    assert httpx.post(url, json={"model": "tiny", **body}).status_code == 401
    assert httpx.get(url, headers=routes.http.headers).status_code == 405
    assert routes.send(path, **body).status_code == 200
