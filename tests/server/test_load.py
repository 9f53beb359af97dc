"""Many requests at once, good and bad, and clients that leave: nothing may stay behind."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.server.conftest import Post
from tests.server.process import Server

MODEL = "tiny"
SEED = 2026
LONG = {"model": MODEL, "prompt": "Hello there", "max_tokens": 480, "temperature": 0.0}
MISTAKES: list[dict[str, Any]] = [
    {"vllm_xargs": {"sampler": "nope"}},
    {"vllm_xargs": {"steps": 2**62}},
    {"vllm_xargs": {"gen_length": 30, "block_length": 7}},
    {"vllm_xargs": {"threshold": "high"}},
    {"temperature": -1},
    {"max_tokens": 4000},
    {"min_tokens": 400},
    {"logit_bias": {"99999": 1}},
    {"presence_penalty": 1},
    {"prompt": [1, 2, 99999]},
    {"response_format": {"type": "json_object"}},
    {"logprobs": 50},
]


def random_request(rng: random.Random) -> dict[str, Any]:
    """A valid request that uses a few parameters."""
    block_length = rng.choice([1, 4, 8, 16])
    blocks = rng.randint(1, 4)
    own: dict[str, Any] = {
        "block_length": block_length,
        "steps": blocks * rng.randint(1, block_length),
        "gen_length": blocks * block_length,
        "sampler": rng.choice(["low_confidence", "random"]),
        "suppress_eos": rng.choice(["no", "logits", "confidence"]),
        "commit_order": rng.choice(["sample_first", "position_first"]),
    }
    body: dict[str, Any] = {
        "model": MODEL,
        "prompt": [rng.randrange(256) for _ in range(rng.randint(1, 200))],
        "max_tokens": rng.randint(1, blocks * block_length),
        "temperature": rng.choice([0.0, 0.5, 1.0, 2.0]),
        "seed": rng.randrange(2**63),
        "vllm_xargs": own,
        "stream": rng.random() < 0.5,
    }
    if body["temperature"] > 0:
        body["n"] = rng.randint(1, 3)
        body["top_p"] = rng.choice([0.5, 1.0])
        body["top_k"] = rng.choice([0, 3])
        body["min_p"] = rng.choice([0.0, 0.1])
    optional = {
        "logprobs": rng.randint(0, 5),
        "stop": rng.choice(["k", ["Q", "zz"]]),
        "bad_words": ["k", "QQ"],
        "logit_bias": {str(rng.randrange(256)): rng.choice([-100, 5, 100])},
        "min_tokens": min(3, body["max_tokens"]),
        "ignore_eos": True,
        "echo": True,
    }
    chosen = rng.sample(sorted(optional), rng.randint(0, 3))
    if "echo" in chosen and "logprobs" in chosen:
        chosen.remove("echo")
    return body | {name: optional[name] for name in chosen}


def assert_idle(server: Server, post: Post) -> None:
    """The engine publishes its gauges with a step, so give it one."""
    assert post("completions", prompt="a", max_tokens=1).status_code == 200
    limit = time.monotonic() + 5
    while any(server.load().values()) and time.monotonic() < limit:
        time.sleep(0.1)
    assert set(server.load().values()) == {0.0}
    assert server.is_healthy()


def test_64_requests_at_once(server: Server, post: Post) -> None:
    rng = random.Random(SEED)
    bodies = []
    for index in range(64):
        mistake = rng.choice(MISTAKES) if index % 4 == 3 else None
        bodies.append((random_request(rng) | (mistake or {}), mistake))

    async def send() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:
            return await asyncio.gather(
                *(http.post("/v1/completions", json=body) for body, _ in bodies)
            )

    responses = asyncio.run(send())
    for (body, mistake), response in zip(bodies, responses, strict=True):
        assert response.status_code == (200 if mistake is None else 400), (body, response.text)
        assert "mdm_mask" not in response.text
        if mistake is not None:
            [outer] = mistake
            assert response.json()["error"]["param"] in {outer, *body["vllm_xargs"]}
        elif body["stream"]:
            assert '"error"' not in response.text
            assert response.text.endswith("data: [DONE]\n\n")
        else:
            answer = response.json()
            assert len(answer["choices"]) == body.get("n", 1)
            assert answer["usage"]["forward_passes"] >= 1
            assert answer["usage"]["completion_tokens"] <= body.get("n", 1) * body["max_tokens"]
    assert_idle(server, post)


def test_answers_do_not_depend_on_the_batch(server: Server) -> None:
    rng = random.Random(SEED + 1)
    bodies = [random_request(rng) | {"stream": False} for _ in range(12)]

    async def send(at_once: int) -> list[Any]:
        gate = asyncio.Semaphore(at_once)
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as http:

            async def one(body: dict[str, Any]) -> list[str]:
                async with gate:
                    answer = (await http.post("/v1/completions", json=body)).json()
                return [choice["text"] for choice in answer["choices"]]

            return await asyncio.gather(*map(one, bodies))

    assert asyncio.run(send(at_once=1)) == asyncio.run(send(at_once=12))


@pytest.mark.parametrize("extra", [{}, {"n": 3, "temperature": 1.0}], ids=["one", "three"])
def test_leaving_a_stream_frees_everything(
    server: Server, client: openai.OpenAI, post: Post, extra: dict[str, Any]
) -> None:
    steps = "vllm:diffusion_num_denoising_steps_total"
    before = server.metric(steps)
    with client.completions.create(**(LONG | extra), stream=True) as stream:  # type: ignore[call-overload]
        next(iter(stream))
    assert_idle(server, post)
    # All 480 passes would have taken longer; most of them did not happen.
    assert server.metric(steps) - before < 400


def test_leaving_without_a_stream_frees_everything(server: Server, post: Post) -> None:
    steps = "vllm:diffusion_num_denoising_steps_total"
    before = server.metric(steps)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/completions", json=LONG, timeout=httpx.Timeout(5, read=0.5))
    assert_idle(server, post)
    assert server.metric(steps) - before < 400


def test_bench_serve_and_prometheus_show_the_passes(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    """8 requests of 32 positions in 16 passes each; vLLM's benchmark takes one pass a canvas for
    the one that sends it, which ours have not apart."""
    names = ("denoising_steps", "canvas_positions", "committed_tokens")
    before = [server.metric(f"vllm:diffusion_num_{name}_total") for name in names]
    own = {"vllm_xargs": {"gen_length": 32, "steps": 16}}
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.cli.main", "bench", "serve"),
        *("--base-url", server.url, "--model", MODEL, "--tokenizer", str(folder)),
        *("--num-prompts", "8", "--random-input-len", "10", "--random-output-len", "32"),
        *("--ignore-eos", "--temperature", "0", "--extra-body", json.dumps(own)),
        *("--save-result", "--result-dir", str(tmp_path), "--result-filename", "bench.json"),
    ]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["completed"] == 8
    assert report["diffusion_committed_tokens"] == 8 * 32
    assert report["diffusion_denoising_steps"] == 8 * (16 - 1)
    assert report["diffusion_committed_per_step"] == pytest.approx(32 / 15)
    after = [server.metric(f"vllm:diffusion_num_{name}_total") for name in names]
    passes, positions, committed = (b - a for a, b in zip(before, after, strict=True))
    assert (passes, positions, committed) == (8 * 16, 8 * 16 * 32, 8 * 32)
