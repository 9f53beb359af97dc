"""lm-eval's two kinds of questions, against a stand-in for the server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from recipes.lm_eval import __main__ as command
from recipes.lm_eval.client import Client
from recipes.lm_eval.data import TASKS, main
from recipes.train.questions import held_out
from tests.pass_at_k.endpoint import completion, endpoint

ANSWERS = {question.text: question for question in held_out(200)}


class Server:
    """Knows the answers: right statements are likelier, and most questions are answered."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.bodies.append((path, body))
        if path == "/v1/chat/completions":
            question = ANSWERS[body["messages"][0]["content"]]
            wrong = question.answer % 4 == 0
            return 200, completion("I pass" if wrong else question.completion)
        if path != "/v1/loglikelihood":
            return 404, {"error": {"message": "no such route", "type": "t", "code": 404}}
        question = ANSWERS[body["context"].split("\n")[0]]
        right = body["continuation"].endswith(f" {question.answer}")
        result = {"loglikelihood": -1.5 if right else -9.0, "is_greedy": right}
        return 200, {"object": "loglikelihood", "results": [{"standard_error": 0.1, **result}]}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with endpoint(server) as address:
        yield address


def test_a_likelihood_is_asked_of_the_route(server: Server, url: str) -> None:
    question = next(iter(ANSWERS.values()))
    client = Client(url, mc_samples=7, seed=3)
    found = client.loglikelihood(question.text, f"The answer is {question.answer}")
    assert found == (-1.5, True)
    ((path, body),) = server.bodies
    assert path == "/v1/loglikelihood"
    assert (body["mc_samples"], body["seed"], body["greedy"]) == (7, 3, 1)
    assert client.loglikelihood(question.text, "The answer is -1") == (-9.0, False)


def test_a_generation_carries_the_tasks_options_and_the_samplers(server: Server, url: str) -> None:
    question = next(iter(ANSWERS.values()))
    client = Client(url, {"sampler": "threshold", "threshold": 0.8})
    client.generate(question.text, {"until": ["Q:"], "max_gen_toks": 5, "temperature": 0.7})
    client.generate(question.text, {"until": "\n", "do_sample": False, "temperature": 0.7})
    (_, sampled), (_, greedy) = server.bodies
    assert (sampled["max_tokens"], sampled["stop"], sampled["temperature"]) == (5, ["Q:"], 0.7)
    assert (greedy["max_tokens"], greedy["stop"], greedy["temperature"]) == (256, ["\n"], 0.0)
    assert sampled["vllm_xargs"] == {"sampler": "threshold", "threshold": 0.8}


def test_an_option_that_would_be_ignored_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="generation_kwargs has num_beams"):
        Client(url).generate("x", {"num_beams": 4})


def test_a_server_without_the_route_is_an_error() -> None:
    error = {"error": {"message": "Not Found", "type": "t", "code": 404}}
    with (
        endpoint(lambda path, body: (404, error)) as url,
        pytest.raises(openai.NotFoundError),
    ):
        Client(url).loglikelihood("a", "b")


def test_the_tasks_questions_are_those_that_the_recipe_writes(tmp_path: Path) -> None:
    main(tmp_path)
    for name in ("arithmetic_choice.jsonl", "arithmetic_words.jsonl"):
        assert (tmp_path / name).read_text() == (TASKS / name).read_text()


def test_both_tasks_run_through_lm_eval(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    out = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", ["lm_eval", "--base-url", url, "--out", str(out)])
    command.main()
    found = json.loads(out.read_text())
    answers = [json.loads(line)["answer"] for line in _lines("arithmetic_words.jsonl")]
    expected = sum(int(answer) % 4 != 0 for answer in answers) / len(answers)
    assert found["mdlm_arithmetic_choice"]["acc,none"] == 1.0
    assert found["mdlm_arithmetic_words"]["exact_match,stated"] == pytest.approx(expected)
    assert 0 < expected < 1


def _lines(name: str) -> list[str]:
    return (TASKS / name).read_text().splitlines()
