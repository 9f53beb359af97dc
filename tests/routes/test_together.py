"""Requests of all routes at once: none changes another's answer."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import httpx
import pytest

from tests.routes.conftest import Routes
from vllm_mdlm.routes.door import Door

FREE: list[Any] = [{"mask": 8, "name": "r"}, " so ", {"mask": 4, "name": "a"}]
BODIES: list[tuple[str, dict[str, Any]]] = [
    ("infill", {"prompt": "Hi", "template": FREE, "temperature": 0, "answer": "a"}),
    ("infill", {"prompt": "Once", "template": FREE, "seed": 4, "n": 2}),
    ("infill", {"prompt": "Hi", "template": FREE, "temperature": 0, "kv_cache": "dual"}),
    ("infill", {"prompt": "Hi", "template": ["all of it"], "temperature": 0}),
    ("infill", {"prompt": "Hi", "template": FREE, "sampler": "nope"}),
    (
        "reasoning_score",
        {
            "prompt": "Hi",
            "template": FREE,
            "answer": "a",
            "target": "42",
            "reasoning": "r",
            "reasonings": ["x", "xy", "xyz"],
        },
    ),
    ("loglikelihood", {"context": "Hi", "continuation": " my friend", "mc_samples": 12}),
    ("loglikelihood", {"context": "Hi", "continuation": ["a", "b"], "mc_samples": 0}),
    ("systemone", {"state": "x", "questions": {"q": {"type": "score", "criteria": ["a", "b"]}}}),
    ("chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}),
    ("completions", {"prompt": "Hi", "max_tokens": 16, "seed": 2}),
]
CHANGES = {"id", "created", "system_fingerprint"}


def test_mixed_requests(routes: Routes) -> None:
    bodies = [(path, {"model": "tiny", **body}) for path, body in BODIES]

    async def send(at_once: int) -> list[tuple[int, Any]]:
        gate = asyncio.Semaphore(at_once)
        base, headers = routes.http.base_url, routes.http.headers
        async with httpx.AsyncClient(base_url=base, headers=headers, timeout=120) as http:

            async def one(path: str, body: dict[str, Any]) -> tuple[int, Any]:
                async with gate:
                    response = await http.post(f"/{path}", json=body)
                answer = response.json()
                return response.status_code, {k: answer[k] for k in answer.keys() - CHANGES}

            return await asyncio.gather(*(one(path, body) for path, body in bodies))

    alone = asyncio.run(send(at_once=1))
    assert [status for status, _ in alone].count(400) == 2
    assert {status for status, _ in alone} == {200, 400}
    together = asyncio.run(send(at_once=len(bodies)))
    for (path, _), one, other in zip(bodies, alone, together, strict=True):
        assert _rounded(one) == _rounded(other), path


def _rounded(value: Any) -> Any:
    """Numbers to three places: batches of other sizes round otherwise in the last bits."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def test_a_call_takes_a_bounded_number_of_places() -> None:
    """And its first failure ends what is under way."""
    door = object.__new__(Door)
    door.limit = 3
    running, most, ended = 0, 0, 0

    async def job(number: int) -> int:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(0.01 if number < 10 else 10)
            if number == 7:
                raise ValueError("seven")
            return number
        finally:
            running -= 1
            ended += 1

    def jobs(numbers: range) -> Any:
        return [functools.partial(job, number) for number in numbers]

    assert asyncio.run(door.together(jobs(range(7)))) == list(range(7))
    assert most == 3
    with pytest.raises(ValueError, match="seven"):
        asyncio.run(door.together(jobs(range(7, 30))))
    assert running == 0
    assert ended < 7 + 8
