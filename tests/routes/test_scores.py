"""`POST /v1/reasoning_score` and `POST /v1/loglikelihood`, against the reference network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from tests.routes.conftest import Routes
from tests.server.oracle import Oracle
from vllm_mdlm.routes.estimators import draw_masks

PROMPT = "Hello there"
CLOSE = 2e-3
MASK = None


def logprobs(
    oracle: Oracle, prompt: str, canvas: Sequence[int | None], targets: dict[int, int]
) -> list[float]:
    """Log-probabilities of target tokens by canvas position, with `MASK` where nothing is."""
    mask = oracle.network.mask_token_id
    ids = oracle.encode(prompt)
    tokens = ids + [mask if token is MASK else token for token in canvas]
    found = oracle.network.logits(tokens).double().log_softmax(dim=1)
    return [found[len(ids) + position, token].item() for position, token in targets.items()]


TEMPLATE: list[Any] = [{"mask": 8, "name": "reasoning"}, " so ", {"mask": 4, "name": "answer"}]


def expected_score(oracle: Oracle, reasoning: str, target: str) -> list[float]:
    known = oracle.encode(reasoning)
    canvas = [*known, *[MASK] * (8 - len(known)), *oracle.encode(" so "), *[MASK] * 4]
    return logprobs(oracle, PROMPT, canvas, dict(enumerate(oracle.encode(target), start=12)))


def test_scores_of_partial_reasonings(routes: Routes, oracle: Oracle) -> None:
    reasonings = ["", "abc", "abcdefgh"]
    for target in ("42", "1234"):
        answer = routes.ask(
            "reasoning_score",
            prompt=PROMPT,
            template=TEMPLATE,
            answer="answer",
            target=target,
            reasonings=reasonings,
        )
        assert [score["index"] for score in answer["scores"]] == [0, 1, 2]
        for score, reasoning in zip(answer["scores"], reasonings, strict=True):
            expected = expected_score(oracle, reasoning, target)
            assert score["token_logprobs"] == pytest.approx(expected, abs=CLOSE)
            assert score["logprob"] == pytest.approx(sum(expected), abs=CLOSE)
            assert score["token_ids"] == oracle.encode(target)
            assert score["forward_passes"] == 1
        assert answer["usage"]["forward_passes"] == 3


def test_score_of_a_template_as_it_stands(routes: Routes, oracle: Oracle) -> None:
    template = ["abc", {"mask": 5}, " so ", {"mask": 4, "name": "x"}]
    answer = routes.ask(
        "reasoning_score", prompt=PROMPT, template=template, answer="x", target="42"
    )
    (score,) = answer["scores"]
    assert score["token_logprobs"] == pytest.approx(expected_score(oracle, "abc", "42"), abs=CLOSE)


def test_guidance_changes_scores(routes: Routes) -> None:
    body: dict[str, Any] = {
        "prompt": PROMPT,
        "template": TEMPLATE,
        "answer": "answer",
        "target": "42",
    }
    (plain,) = routes.ask("reasoning_score", **body)["scores"]
    (guided,) = routes.ask("reasoning_score", **body, cfg_scale=1.0)["scores"]
    assert guided["logprob"] != pytest.approx(plain["logprob"], abs=0.1)


def expected_bound(
    oracle: Oracle, context: str, continuation: str, samples: int, seed: int
) -> list[float]:
    """The estimate of every sample, by the reference network and the same masks."""
    tokens = oracle.encode(continuation)
    values = []
    for mask in draw_masks(len(tokens), samples, seed):
        canvas = [MASK if i in mask else token for i, token in enumerate(tokens)]
        found = logprobs(oracle, context, canvas, {i: tokens[i] for i in mask})
        values.append(len(tokens) / len(mask) * sum(found))
    return values


def test_loglikelihood(routes: Routes, oracle: Oracle) -> None:
    answer = routes.ask(
        "loglikelihood", context=PROMPT, continuation=" my friend", mc_samples=6, seed=3
    )
    (result,) = answer["results"]
    values = expected_bound(oracle, PROMPT, " my friend", 6, 3)
    assert result["loglikelihood"] == pytest.approx(sum(values) / 6, abs=10 * CLOSE)
    assert 0 < result["standard_error"] < (max(values) - min(values))
    assert (result["num_tokens"], result["mc_samples"]) == (10, 6)
    assert result["is_greedy"] is None
    assert result["forward_passes"] == answer["usage"]["forward_passes"] == 6


def test_one_token_takes_one_pass(routes: Routes, oracle: Oracle) -> None:
    """All 128 samples have the same mask."""
    answer = routes.ask("loglikelihood", context=PROMPT, continuation="!")
    (result,) = answer["results"]
    (expected,) = logprobs(oracle, PROMPT, [MASK], {0: oracle.encode("!")[0]})
    assert result["loglikelihood"] == pytest.approx(expected, abs=CLOSE)
    assert (result["standard_error"], result["mc_samples"]) == (0, 128)
    assert result["forward_passes"] == 1


def test_several_pairs(routes: Routes, oracle: Oracle) -> None:
    options = {"mc_samples": 2, "seed": 1}
    one_context = routes.ask(
        "loglikelihood", context=PROMPT, continuation=[" abc", " x"], **options
    )
    paired = routes.ask(
        "loglikelihood",
        context=[oracle.encode(PROMPT), oracle.encode("Once")],
        continuation=[oracle.encode(" abc"), oracle.encode(" x")],
        **options,
    )
    alone = [
        routes.ask("loglikelihood", context=context, continuation=continuation, **options)
        for context, continuation in ((PROMPT, " abc"), (PROMPT, " x"), ("Once", " x"))
    ]
    found = [answer["results"][0]["loglikelihood"] for answer in alone]
    assert [result["loglikelihood"] for result in one_context["results"]] == found[:2]
    assert [result["loglikelihood"] for result in paired["results"]] == [found[0], found[2]]
    # Spaces that end the context belong to the continuation.
    moved = routes.ask("loglikelihood", context=f"{PROMPT} ", continuation="abc", **options)
    assert moved["results"][0]["loglikelihood"] == found[0]


def test_greedy(routes: Routes, oracle: Oracle) -> None:
    greedy = oracle.answer(PROMPT, 6, block_length=6, ignore_eos=True).canvas.tokens
    other = [*greedy[:-1], greedy[-1] ^ 1]
    answer = routes.ask(
        "loglikelihood",
        context=oracle.encode(PROMPT),
        continuation=[greedy, other],
        mc_samples=1,
        greedy=1,
    )
    assert [result["is_greedy"] for result in answer["results"]] == [True, False]
    assert [result["forward_passes"] for result in answer["results"]] == [7, 7]
    assert [result["standard_error"] for result in answer["results"]] == [None, None]
    assert all(math.isfinite(result["loglikelihood"]) for result in answer["results"])
