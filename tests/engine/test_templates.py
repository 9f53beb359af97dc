"""Templates: fixed text and free spans, early exit and scores, against the plain loop."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from vllm.exceptions import VLLMValidationError

from tests.engine.harness import Engine, Job, job
from tests.reference.generate import Settings
from tests.reference.infill import Filled, infill, score
from tests.reference.model import Llada
from vllm_mdlm.results import Infill, num_passes, scores, trace
from vllm_mdlm.results import infill as infill_of

SAMPLERS: list[dict[str, Any]] = [
    {"sampler": "low_confidence"},
    {"sampler": "threshold", "threshold": 0.6},
    {"sampler": "entropy"},
    {"sampler": "med", "entropy_threshold": 1.0},
    {"sampler": "klass", "threshold": 0.3, "kl_threshold": 0.5},
]


class Case(NamedTuple):
    prompt: list[int]
    items: list[Any]
    own: dict[str, Any]

    def job(self, **more: Any) -> Job:
        return job(self.prompt, 1, template=self.items, trace=1, **(self.own | more))

    def filled(self, network: Llada, **more: Any) -> Filled:
        own = self.own | more
        answer, early_exit = own.pop("answer", None), own.pop("early_exit", 0.0)
        length = sum(len(one) if isinstance(one, list) else one["mask"] for one in self.items)
        settings = Settings(length, **own)
        return infill(network, self.prompt, self.items, settings, answer, early_exit)


def random_items(rng: random.Random) -> list[Any]:
    """Fixed text and one to four free spans, the last the answer."""
    items: list[Any] = []
    spans = rng.randint(1, 4)
    for index in range(spans):
        items += [[rng.randrange(256) for _ in range(rng.randint(1, 6))]] * rng.randint(0, 1)
        span: dict[str, Any] = {"mask": rng.randint(1, 9), "name": f"s{index}"}
        if rng.random() < 0.5:
            span["block_length"] = rng.randint(1, span["mask"])
        items.append(span)
    items[-1]["name"] = "answer"
    return items + [[rng.randrange(256) for _ in range(2)]] * rng.randint(0, 1)


@cache
def cases() -> list[Case]:
    rng = random.Random(5)
    return [
        Case(
            [rng.randrange(256) for _ in range(rng.randint(1, 40))],
            random_items(rng),
            {
                "block_length": rng.choice([2, 4, 8]),
                "kv_cache": ("exact", "prefix", "dual")[index % 3],
                "cfg_scale": (0.0, 0.0, 0.0, 1.0)[index % 4],
                "suppress_eos": ("no", "logits")[index % 2],
                "answer": "answer",
            }
            | SAMPLERS[index % 5],
        )
        for index in range(20)
    ]


_filled: dict[float, list[Filled]] = {}


def expected(network: Llada, early_exit: float = 0.0) -> list[Filled]:
    """Of every case; kept, for the loop is slow."""
    if early_exit not in _filled:
        _filled[early_exit] = [case.filled(network, early_exit=early_exit) for case in cases()]
    return _filled[early_exit]


def check(output: Any, wanted: Filled, *, passes: bool = True) -> None:
    """Everything that the plain loop knows."""
    found, traced = infill_of(output), trace(output)
    assert found is not None
    assert traced is not None
    assert found.token_ids == list(output.token_ids) == wanted.tokens
    assert traced["forward_pass"] == wanted.commit_pass
    assert found.answer_entropy == pytest.approx(wanted.entropies, abs=1e-4)
    for got, one in zip(found.logprobs, wanted.logprobs, strict=True):
        assert (got is None) == (one is None)
        assert one is None or got == pytest.approx(one, abs=1e-4)
    if passes:
        assert num_passes(output) == wanted.forwards


def tokens(outputs: list[Any]) -> list[list[int]]:
    return [list(output.token_ids) for output in outputs]


def plain_and_template(temperature: float) -> tuple[list[Job], list[Job]]:
    """The same request as a canvas and as a template of one free span."""
    rng = random.Random(7)
    plain, filled = [], []
    for index in range(12):
        prompt = [rng.randrange(256) for _ in range(rng.randint(1, 40))]
        standard = {"temperature": temperature, "seed": rng.getrandbits(60), "logprobs": 1}
        own: dict[str, Any] = {
            "block_length": rng.choice([4, 8, 24]),
            "kv_cache": ("exact", "prefix", "dual")[index % 3],
            "cfg_scale": (0.0, 0.0, 0.0, 1.0)[index % 4],
            "commit_order": ("sample_first", "position_first")[index % 2],
            "trace": 1,
        } | [*SAMPLERS, {"sampler": "random", "steps": 12}][index % 6]
        plain.append(job(prompt, 24, standard=standard, gen_length=24, **own))
        filled.append(job(prompt, 24, standard=standard, template=[{"mask": 24}], **own))
    return plain, filled


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_one_free_span_is_a_plain_canvas(temperature: float, engine: Callable[..., Engine]) -> None:
    running = engine("mha")
    plain, filled = plain_and_template(temperature)
    outputs = running.run([*plain, *filled])
    for one, other in zip(outputs[:12], outputs[12:], strict=True):
        assert list(one.token_ids) == list(other.token_ids)
        assert trace(one) == trace(other)
        assert one.logprobs == other.logprobs
        assert infill_of(one) is None
        assert scores(other) is None
    unguided = [i for i in range(12) if i % 4 != 3]  # a pair may be admitted apart
    assert [num_passes(outputs[i]) for i in unguided] == [
        num_passes(outputs[12 + i]) for i in unguided
    ]


def test_eos_in_a_free_span_ends_nothing(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    eos = reference("mha").eos_token_id
    standard = {"ignore_eos": False, "logit_bias": {eos: 100.0}}
    items = [{"mask": 6}, [60, 61], {"mask": 4}]
    [output] = engine("mha").run([job([1, 2], 1, standard=standard, template=items)])
    assert list(output.token_ids) == [eos] * 6 + [60, 61] + [eos] * 4
    assert output.finish_reason == "length"


def test_alone_the_loop_s(engine: Callable[..., Engine], reference: Callable[[str], Llada]) -> None:
    running, network = engine("mha"), reference("mha")
    free = running.free_blocks
    for case, wanted in zip(cases(), expected(network), strict=True):
        check(running.run([case.job()])[0], wanted)
    assert running.free_blocks == free
    assert running.scheduler.requests == {}


@pytest.mark.parametrize("rate", [float("inf"), 2])
def test_in_a_batch_with_plain_requests(
    rate: float, engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running, network = engine("mha"), reference("mha")
    plain, _ = plain_and_template(1.2)
    alone = tokens([running.run([one])[0] for one in plain])
    outputs = running.run([*(case.job() for case in cases()), *plain], rate=rate)
    for output, wanted in zip(outputs, expected(network), strict=False):
        check(output, wanted, passes=False)
    assert tokens(outputs[len(cases()) :]) == alone


def test_under_preemption(engine: Callable[..., Engine], reference: Callable[[str], Llada]) -> None:
    """Answers and entropies of an untouched run; also where the canvas starts with fixed text that
    was not sent yet, and where the reasoning was left."""
    running, network = engine("mha"), reference("mha")
    early = [Case(c.prompt, c.items, c.own | {"early_exit": 9.0}) for c in cases()]
    wanted = [*expected(network), *expected(network, 9.0)]
    preempted = 0

    def preempt(step: int) -> None:
        nonlocal preempted
        if step in (1, 4, 12, 23, 24, 37, 60):
            preempted += len(running.scheduler.running)
            running.core.reset_prefix_cache(reset_running_requests=True)

    jobs = [case.job() for case in (*cases(), *early) if case.own["cfg_scale"] == 0]
    outputs = running.run(jobs, rate=3, at_step=preempt)
    unguided = [w for w, c in zip(wanted, cases() * 2, strict=True) if c.own["cfg_scale"] == 0]
    for output, one in zip(outputs, unguided, strict=True):
        check(output, one, passes=False)
    assert preempted > 20


@pytest.mark.parametrize("bound", [1e-6, 2.0, 5.0, 9.0, 1e6])
def test_early_exit_leaves_the_reasoning(
    bound: float, engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running, network = engine("mha"), reference("mha")
    outputs = running.run([case.job(early_exit=bound) for case in cases()])
    filled = expected(network, bound)
    for case, output, wanted in zip(cases(), outputs, filled, strict=True):
        check(output, wanted, passes=case.own["cfg_scale"] == 0)
        found = infill_of(output)
        assert found is not None
        left = [i for i, token in enumerate(wanted.tokens) if token == network.mask_token_id]
        assert found.undecided == left
        assert found.exited_early == bool(left)
        reasons = sum(isinstance(item, dict) for item in case.items) > 1
        if bound == 1e-6:
            assert not left
        if bound == 1e6 and reasons:
            free = sum(item["mask"] for item in case.items if isinstance(item, dict))
            answer = [item["mask"] for item in case.items if isinstance(item, dict)][-1]
            assert len(left) == free - answer


def test_bounds_decide(reference: Callable[[str], Llada]) -> None:
    """The cases above would not tell if every bound were extreme."""
    network = reference("mha")
    left = {
        sum(network.mask_token_id in one.tokens for one in expected(network, bound))
        for bound in (2.0, 5.0, 9.0)
    }
    assert len(left) == 3


def test_fixed_text_alone_takes_no_pass(engine: Callable[..., Engine]) -> None:
    running = engine("mha")
    text = job([1], 1, standard={"logprobs": 1}, template=["hello", [5]], trace=1)
    [output] = running.run([text])
    assert output.text.startswith("hello")
    assert num_passes(output) == 0
    assert infill_of(output) == Infill([71, 68, 75, 75, 78, 5], [None] * 6, [], [], False)
    assert trace(output) == {
        "forward_pass": [-1] * 6, "confidence": [1.0] * 6, "entropy": [0.0] * 6
    }  # fmt: skip
    assert output.logprobs is not None
    pairs = zip(output.logprobs, output.token_ids, strict=True)
    assert [entry[token].logprob for entry, token in pairs] == [0.0] * 6
    plain = job([1], 8, gen_length=8)
    busy = running.run([plain, text, text, plain], rate=1)
    assert [num_passes(one) for one in busy] == [8, 0, 0, 8]

    def abort(step: int) -> None:
        running.core.abort_request([f"job-{running._count}"])

    with pytest.raises(KeyError):
        running.run([text], at_step=abort)
    assert running.scheduler.requests == {}
    assert not running.scheduler.has_unfinished_requests()


def test_a_span_s_fixed_neighbours_are_seen(engine: Callable[..., Engine]) -> None:
    """Text behind a free span changes what is put there."""
    running = engine("mha")
    answers = {
        tuple(running.run([job([3, 4], 1, template=[{"mask": 8}, text])])[0].token_ids[:8])
        for text in ("abc", "xyz", "12345", [])
    }
    assert len(answers) == 4


def test_scores_are_the_network_s(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    running, network = engine("mha"), reference("mha")
    rng = random.Random(11)
    drawn = []
    for index in range(12):
        items = random_items(rng)
        for item in items:
            if isinstance(item, dict):
                item["target"] = [rng.randrange(256) for _ in range(item["mask"])]
                item.pop("block_length", None)
        own = {"kv_cache": ("exact", "dual")[index % 2], "cfg_scale": (0.0, 1.0, 0.0)[index % 3]}
        drawn.append(([rng.randrange(256) for _ in range(index + 1)], items, own))
    jobs = [
        job(prompt, 1, standard={"temperature": 1.0}, template=items, **own)
        for prompt, items, own in drawn
    ]
    for output, (prompt, items, own) in zip(running.run(jobs), drawn, strict=True):
        wanted = score(network, prompt, items, own["cfg_scale"])
        assert scores(output) == pytest.approx(wanted, abs=1e-4)
        found = infill_of(output)
        assert found is not None
        assert [one for one in found.logprobs if one is not None] == scores(output)
        assert trace(output) is None
        assert [t for i in items for t in (i if isinstance(i, list) else i["target"])] == list(
            output.token_ids
        )
    alone = running.run(jobs[:1])[0]
    assert num_passes(alone) == 1


def test_a_span_without_a_target_stays_masked(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """In the pass and in the output, beside other requests; what is scored there is the same."""
    running, network = engine("mha"), reference("mha")
    items: list[Any] = [{"mask": 3, "name": "a"}, [9], {"mask": 2, "target": [5, 6]}, {"mask": 2}]
    first, fixed, scored, last = items
    any_target = {"target": [7, 7, 7]}, {"target": [7, 7]}
    whole = [first | any_target[0], fixed, scored, last | any_target[1]]
    own = {"kv_cache": "dual", "trace": 1, "answer": "a"}
    standard = {"logprobs": 1}
    plain = job([4], 8, gen_length=8)
    for cfg_scale in (0.0, 1.0):
        one = job([1, 2], 1, standard=standard, template=items, cfg_scale=cfg_scale, **own)
        output = running.run([plain, one, plain])[1]
        wanted = score(network, [1, 2], whole, cfg_scale)[3:5]
        assert scores(output) == pytest.approx(wanted, abs=1e-4)
        mask, found, traced = network.mask_token_id, infill_of(output), trace(output)
        assert found is not None
        assert traced is not None
        canvas = [mask, mask, mask, 9, 5, 6, mask, mask]
        assert found.token_ids == list(output.token_ids) == canvas
        assert found.undecided == [0, 1, 2, 6, 7]
        assert not found.exited_early
        assert [one is None for one in found.logprobs] == [token not in (5, 6) for token in canvas]
        assert traced["forward_pass"] == [0 if token in (5, 6) else -1 for token in canvas]
        assert output.logprobs is not None
        assert output.logprobs[0][mask].logprob == 0.0
        assert found.answer_entropy[0] > 1.0


def test_reasoning_given_the_answer_follows_the_chain_rule(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """Two reasoning positions, three letters, the answer fixed, temperature 1, one position a pass,
    the least uncertain first: p(first | answer) p(second | first, answer), each renormalised to
    the letters that are allowed.

    n = 1000 seeds, chi-square over the pairs, those expected less than five times as one; false
    alarm 1e-6. The seeds are fixed.
    """
    from scipy.stats import chi2

    running, network = engine("mha"), reference("mha")
    prompt, letters, answer, n = [7, 11, 13], [89, 16, 82], [70, 71], 1000
    own = {
        "template": [{"mask": 2}, answer],
        "sampler": "entropy",
        "commit_order": "position_first",
    }
    outputs = running.run(
        [
            job(
                prompt,
                1,
                standard={"temperature": 1.0, "seed": seed, "allowed_token_ids": letters},
                **own,
            )
            for seed in range(n)
        ]
    )
    mask = network.mask_token_id

    def law(first: int, second: int, position: int) -> dict[int, float]:
        logits = network.logits([*prompt, first, second, *answer])[len(prompt) + position]
        p = logits[letters].double().softmax(dim=0)
        return dict(zip(letters, p.tolist(), strict=True))

    rows = network.logits([*prompt, mask, mask, *answer])[len(prompt) :][:2].double()
    entropies = torch.distributions.Categorical(logits=rows).entropy()
    leads = int(entropies.argmin())
    wanted = {}
    for token, p in law(mask, mask, leads).items():
        pair = (token, mask) if leads == 0 else (mask, token)
        for other, q in law(*pair, 1 - leads).items():
            wanted[(token, other) if leads == 0 else (other, token)] = n * p * q
    counts = dict.fromkeys(wanted, 0)
    for output in outputs:
        counts[tuple(output.token_ids[:2])] += 1  # type: ignore[index]
    rare = [pair for pair in wanted if wanted[pair] < 5]
    cells = [[pair] for pair in wanted if pair not in rare] + [rare]
    assert len(cells) == 7
    statistic = 0.0
    for cell in cells:
        mean = sum(wanted[pair] for pair in cell)
        statistic += (sum(counts[pair] for pair in cell) - mean) ** 2 / mean
    assert statistic < chi2.ppf(1 - 1e-6, len(cells) - 1)


@pytest.mark.parametrize(
    ("own", "standard", "parameter"),
    [
        ({"template": [{"mask": 600}]}, {}, "template"),
        ({"template": ["<|mdm_mask|>"]}, {}, r"template\[0\]"),
        ({"template": []}, {}, "template"),
        ({"template": [{"mask": 2}]}, {"stop": ["a"]}, "stop"),
        ({"template": [{"mask": 1, "target": [4]}]}, {"logit_bias": {3: 1.0}}, "logit_bias"),
        ({"answer": "a"}, {}, "answer"),
        ({"early_exit": 1.0}, {}, "early_exit"),
    ],
)
def test_refusals_name_the_parameter(
    own: dict[str, Any],
    standard: dict[str, Any],
    parameter: str,
    engine: Callable[..., Engine],
) -> None:
    with pytest.raises(VLLMValidationError, match=parameter) as caught:
        engine("mha").run([job([1], 1, standard=standard, **own)])
    assert caught.value.parameter == parameter.replace("\\", "")
