"""vLLM's `/v1/systemone` with a masked diffusion model."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.routes.conftest import Routes
from tests.server.oracle import Oracle

COLOUR: dict[str, Any] = {"type": "choice", "criteria": {"red": None, "green": "like grass"}}
GRADE: dict[str, Any] = {"type": "score", "criteria": ["bad", "fair", "good"]}
MASK = None


def label_logprobs(
    oracle: Oracle, content: str, canvas: list[int | None], position: int, labels: str
) -> list[float]:
    """Log-probabilities of labels at a masked canvas position, the end of the turn behind it."""
    mask = oracle.network.mask_token_id
    prompt = oracle.chat(content)
    tokens = [mask if token is MASK else token for token in canvas]
    logits = oracle.network.logits([*prompt, *tokens, oracle.network.eot_token_id])
    found = logits[len(prompt) + position].double().log_softmax(dim=0)
    return [found[oracle.encode(label)[0]].item() for label in labels]


def softmax(logprobs: list[float]) -> list[float]:
    total = sum(map(math.exp, logprobs))
    return [math.exp(one) / total for one in logprobs]


def test_one_question(routes: Routes, oracle: Oracle) -> None:
    answer = routes.ask("systemone", state="A leaf.", questions={"colour": COLOUR})
    content = "A leaf.\n\nA: red\nB: green - like grass\nAnswer with the letter of one option only."
    expected = label_logprobs(oracle, content, [MASK], 0, "AB")
    found = answer["answers"]["colour"]
    assert list(found["probabilities"].values()) == pytest.approx(softmax(expected), abs=1e-3)
    mass = sum(map(math.exp, expected))
    assert answer["diagnostics"]["colour"]["label_mass"] == pytest.approx(mass, rel=1e-2)
    assert answer["usage"]["output_tokens"] == 1


def test_questions_are_filled_in_one_canvas(routes: Routes, oracle: Oracle) -> None:
    questions = {"colour": COLOUR, "grade": GRADE}
    answer = routes.ask("systemone", state="A leaf.", questions=questions)
    content = (
        "A leaf.\n\n1. A: red\nB: green - like grass\nAnswer with the letter of one option only."
        "\n\n2. 0: bad\n1: fair\n2: good\nAnswer with the number of one level only."
        "\n\nAnswer every question on a line of its own."
    )
    before, between = oracle.encode("1: "), oracle.encode("\n2: ")
    canvas: list[int | None] = [*before, MASK, *between, MASK]
    places = {"AB": len(before), "012": len(canvas) - 1}
    first = {
        labels: label_logprobs(oracle, content, canvas, place, labels)
        for labels, place in places.items()
    }
    surest = max(first, key=lambda labels: max(first[labels]))
    (other,) = first.keys() - {surest}
    best = surest[first[surest].index(max(first[surest]))]
    canvas[places[surest]] = oracle.encode(best)[0]
    second = label_logprobs(oracle, content, canvas, places[other], other)
    assert second != pytest.approx(first[other], abs=1e-3)
    expected = {surest: softmax(first[surest]), other: softmax(second)}
    for name, labels in (("colour", "AB"), ("grade", "012")):
        found = list(answer["answers"][name]["probabilities"].values())
        assert found == pytest.approx(expected[labels], abs=1e-3)


@pytest.mark.parametrize(
    "field", ["state", "instructions", "questions", "cache_salt", "request_id"]
)
def test_half_a_surrogate_pair_is_refused_by_name(routes: Routes, field: str) -> None:
    half = "x\ud800"
    asked = {half: COLOUR | {"criteria": {half: None, "green": None}}}
    body: dict[str, Any] = {"state": "A leaf.", "questions": {"colour": COLOUR}}
    response = routes.send("systemone", **body | {field: asked if field == "questions" else half})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["message"].startswith(field)


def test_refusals(routes: Routes) -> None:
    many = {f"q{number}": COLOUR for number in range(17)}
    yes_no = {"sure": {"type": "noul"}}  # Three tokens and two in this vocabulary.
    for state, questions in (("x", many), ("x", yes_no), ("x" * 600, {"colour": COLOUR})):
        response = routes.send("systemone", state=state, questions=questions)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["message"]
