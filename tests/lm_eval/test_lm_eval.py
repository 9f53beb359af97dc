"""lm-eval's two kinds of questions, against a stand-in for the server and against a server."""

from __future__ import annotations

import importlib.util
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

needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed"
)
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
        question = ANSWERS[body["context"]]
        right = body["continuation"] == question.completion
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
    found = client.loglikelihood(question.text, question.completion)
    assert found == (-1.5, True)
    ((path, body),) = server.bodies
    assert path == "/v1/loglikelihood"
    assert (body["mc_samples"], body["seed"], body["greedy"]) == (7, 3, 1)
    assert client.loglikelihood(question.text, "The answer is -1") == (-9.0, False)
    Client(url, greedy=False).loglikelihood(question.text, "x")
    assert server.bodies[-1][1]["greedy"] == 0


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


@needs_lm_eval
def test_both_tasks_run_through_lm_eval(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluate(url, tmp_path, monkeypatch)
    answers = [json.loads(line)["answer"] for line in _lines("arithmetic_words.jsonl")]
    expected = sum(int(answer) % 4 != 0 for answer in answers) / len(answers)
    assert found["mdlm_arithmetic_choice"]["acc,none"] == 1.0
    assert found["mdlm_arithmetic_words"]["exact_match,stated"] == pytest.approx(expected)
    assert found["mdlm_arithmetic_words"]["exact_match_stderr,stated"] > 0
    assert 0 < expected < 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_chat_template_is_the_servers(readme_port: int) -> None:
    client = Client(f"http://localhost:{readme_port}/v1", mc_samples=8)
    question = next(iter(ANSWERS.values()))
    message = {"role": "user", "content": question.text}
    text = client.chat_text([message])
    assert question.text in text
    assert text.endswith("assistant<|end_header_id|>\n\n")
    begun = {"role": "assistant", "content": question.reasoning[0]}
    assert client.chat_text([message, begun], False) == text + question.reasoning[0]
    options = {"max_gen_toks": 96, "do_sample": False}
    assert client.complete(text, options) == client.generate(question.text, options)
    assert client.complete(text, options) == question.completion
    tokens = client.tokens(text)
    right, is_greedy = client.loglikelihood(tokens, question.completion)
    wrong, is_greedy_too = client.loglikelihood(tokens, question.completion[:-1] + "x")
    assert right > wrong + 1
    assert (is_greedy, is_greedy_too) == (True, False)


@needs_lm_eval
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_answers_lm_eval(
    readme_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five questions a task: chance is a quarter of the first, and next to none of the second."""
    options = ["--apply-chat-template", "--skip-greedy", "--mc-samples=16", "--limit=5"]
    found = evaluate(f"http://localhost:{readme_port}/v1", tmp_path, monkeypatch, *options)
    assert found["mdlm_arithmetic_choice"]["acc,none"] >= 0.8
    assert found["mdlm_arithmetic_words"]["exact_match,stated"] >= 0.8


def evaluate(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
    """Results of the recipe's own tasks."""
    monkeypatch.setenv("HF_HOME", str(folder / "hub"))
    out = folder / "results.json"
    monkeypatch.setattr(sys, "argv", ["lm_eval", "--base-url", url, f"--out={out}", *options])
    command.main()
    return json.loads(out.read_text())


def _lines(name: str) -> list[str]:
    return (TASKS / name).read_text().splitlines()
