"""`mh` through the engine: its exact law, the same answer in any company, nothing left behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from vllm.outputs import CompletionOutput

from tests.engine import chain_law
from tests.engine.harness import Engine, Job, job
from tests.reference.model import Llada
from vllm_mdlm.results import num_passes, trace

SHAPE = {"gen_length": 16, "block_length": 8}
LITTLE_ROOM = {"num_gpu_blocks_override": 20, "max_num_seqs": 4}


def chained(prompt: list[int], seed: int, standard: Any = None, **own: Any) -> Job:
    options = {"temperature": 1.0, "seed": seed, **(standard or {})}
    return job(prompt, 16, standard=options, **(SHAPE | {"sampler": "mh"} | own))


def mixed_jobs(count: int) -> list[Job]:
    """Two of three run chains: all modes, scopes and proposals, some guided, some traced."""
    rng = random.Random(2)
    jobs = []
    for index in range(count):
        prompt = [rng.randrange(256) for _ in range(rng.randint(1, 40))]
        if index % 3 == 2:
            plain = {"temperature": 0.8, "seed": index}
            jobs.append(job(prompt, 16, standard=plain, **SHAPE))
            continue
        own = {
            "alpha": rng.choice([1.5, 4.0]),
            "mh_steps": rng.choice([0, 2, 5]),
            "mh_scope": rng.choice(["block", "sequence"]),
            "proposal": rng.choice(["left_to_right", "low_confidence", "threshold", "med"]),
            "kv_cache": ("exact", "prefix", "dual")[index % 5 % 3],
            "cfg_scale": (0.0, 0.0, 1.0)[index % 4 % 3],
            "steps": rng.choice([4, 16]),
            "trace": rng.choice([0, 1]),
        }
        standard = {"logprobs": rng.choice([None, 1]), "logit_bias": {70: 2.0}}
        if index % 4 == 1:
            ahead = {"sampler": "mh_lookahead", "alpha": own["alpha"], "candidates": 3}
            standard["logprobs"] = None
            jobs.append(chained(prompt, index, standard, **ahead, cfg_scale=own["cfg_scale"]))
            continue
        jobs.append(chained(prompt, index, standard, **own))
    return jobs


def seen(outputs: list[CompletionOutput]) -> list[Any]:
    """What must not depend on the company."""
    found = []
    for output in outputs:
        traced = trace(output) or {}
        chains = traced.get("proposals"), traced.get("acceptances")
        found.append((list(output.token_ids), chains, traced.get("forward_pass")))
    return found


def test_the_same_answer_alone_in_a_mixed_batch_and_with_little_room(
    engine: Callable[..., Engine],
) -> None:
    """In room for four, candidates run one after another, and preemption restarts them."""
    running, narrow = engine("mha"), engine("mha", **LITTLE_ROOM)
    jobs = mixed_jobs(12)
    free, free_narrow = running.free_blocks, narrow.free_blocks
    alone = [running.run([one])[0] for one in jobs]
    assert seen(running.run(jobs)) == seen(alone)
    assert seen(running.run(jobs, rate=0.5)) == seen(alone)

    def preempt(step: int) -> None:
        if step % 13 == 9:
            narrow.core.reset_prefix_cache(reset_running_requests=True)

    outputs = narrow.run(jobs, at_step=preempt)
    assert seen(outputs) == seen(alone)
    for output, wanted in zip(outputs, alone, strict=True):
        weights = (trace(output) or {}).get("log_weight", [])
        assert weights == pytest.approx((trace(wanted) or {}).get("log_weight", []), abs=1e-4)
    accepted = [sum(chains[1]) for _, chains, _ in seen(alone) if chains[1]]
    assert len(set(accepted)) > 3
    assert (running.free_blocks, narrow.free_blocks) == (free, free_narrow)
    assert running.scheduler.requests == narrow.scheduler.requests == {}


def test_no_steps_are_the_plain_sampler(engine: Callable[..., Engine]) -> None:
    running = engine("mha")
    for proposal in ("left_to_right", "entropy", "threshold"):
        chain = chained([5, 6], 3, {"logprobs": 1}, alpha=2.0, mh_steps=0, proposal=proposal)
        plain = job(
            [5, 6],
            16,
            standard={"temperature": 0.5, "seed": 3, "logprobs": 1},
            sampler=proposal,
            commit_order="position_first",
            **SHAPE,
        )
        got, wanted = running.run([chain, plain])
        assert list(got.token_ids) == list(wanted.token_ids)
        assert num_passes(got) == num_passes(wanted)
        assert got.logprobs == wanted.logprobs


def test_power_1_accepts_all_and_every_pass_counts(engine: Callable[..., Engine]) -> None:
    running = engine("mha")
    block, guided = running.run(
        [
            chained([1, 2], 4, alpha=1.0, mh_steps=3, trace=1),
            chained([1, 2], 4, alpha=1.0, mh_steps=3, cfg_scale=1.0, mh_scope="sequence"),
        ]
    )
    assert num_passes(block) == 4 * 16
    assert num_passes(guided) == pytest.approx(2 * 4 * 16, abs=8)  # pairs admitted apart
    assert trace(guided) == {"proposals": [3], "acceptances": [3], "log_weight": [0.0]}
    found = trace(block)
    assert found is not None
    assert found["acceptances"] == found["proposals"] == [3, 3]
    assert found["log_weight"] == [0.0, 0.0]
    assert found["forward_pass"] == list(range(16))


def test_reported_weights_are_the_reference_s(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """log-weight of a result: sum of log z over its tokens, from the plain network, with a bias."""
    running, network = engine("mha"), reference("mha")
    prompt, alpha, bias = [9, 8, 7], 3.0, {65: 1.5, 70: -2.0}
    output = running.run([chained(prompt, 1, {"logit_bias": bias}, alpha=alpha, mh_steps=3)])[0]
    tokens = list(output.token_ids)
    weights = []
    for i in range(16):
        canvas = tokens[:i] + [network.mask_token_id] * (16 - i)
        row = network.logits(prompt + canvas)[len(prompt) + i].double()
        for token, value in bias.items():
            row[token] += value
        row[network.mask_token_id] = float("-inf")
        weights.append((row.log_softmax(0) * alpha).logsumexp(0).item())
    found = trace(output)
    assert found is not None
    assert found["log_weight"] == pytest.approx([sum(weights[:8]), sum(weights[8:])], abs=1e-3)


def test_answers_follow_the_exact_law(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """Three positions, four tokens, two steps: 1200 answers of seeds 0 to 1199 against the law of
    the chain by its exact transition matrix, the model's conditionals from the reference network.

    Pearson's chi-square; the bound is its quantile at a false-alarm probability of 1e-6. The
    same answers must fail against the law of plain candidates, which is what a chain that
    accepts nothing gives.
    """
    law = chain_law.exact_law(reference("mha"))
    running = engine("mha", **chain_law.ENGINE)
    observed = chain_law.counts(
        running, chain_law.jobs(1200, sampler="mh", mh_steps=chain_law.STEPS)
    )
    statistic, freedom = chain_law.chi_square(observed, law.after(chain_law.STEPS))
    assert freedom >= 3
    assert statistic < chi2.ppf(1 - 1e-6, freedom)
    statistic, freedom = chain_law.chi_square(observed, law.after(0))
    assert statistic > chi2.ppf(1 - 1e-6, freedom)
    assert torch.allclose(law.target @ torch.ones(64).double(), torch.ones(1).double())


def test_look_ahead_follows_its_law(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """As above, for `mh_lookahead` with three candidates: 1200 answers, chi-square, false-alarm
    probability 1e-6. They must fail against one candidate, which is no look-ahead."""
    running, network = engine("mha", **chain_law.ENGINE), reference("mha")
    jobs = chain_law.jobs(1200, sampler="mh_lookahead", candidates=3)
    observed = chain_law.counts(running, jobs)
    for candidates, follows in ((3, True), (1, False)):
        law = chain_law.lookahead_law(network, candidates)
        statistic, freedom = chain_law.chi_square(observed, law)
        assert (statistic < chi2.ppf(1 - 1e-6, freedom)) == follows


def test_passes_of_the_look_ahead(engine: Callable[..., Engine]) -> None:
    """A token costs at most as many passes as it has candidates; the first of a block one more,
    its last none."""
    running = engine("mha")
    for candidates in (1, 3):
        own = {"sampler": "mh_lookahead", "candidates": candidates}
        output = running.run([chained([4, 4], 1, **own)])[0]
        found = trace(output)
        assert found is not None
        assert found["proposals"] == [candidates - 1] * 16
        assert found["log_weight"][7] == found["log_weight"][15] == 0
        assert 16 <= num_passes(output) <= 2 * (1 + 7 * candidates)


def test_an_answer_ends_at_eos_and_candidates_do_not(
    engine: Callable[..., Engine], reference: Callable[[str], Llada]
) -> None:
    """Up to EOS the answer is the one that ignores it; blocks behind are not decided."""
    running, eos = engine("mha"), reference("mha").eos_token_id
    rng = random.Random(0)
    prompts = [[rng.randrange(256) for _ in range(12)] for _ in range(8)]

    def answers(ignore_eos: bool) -> list[CompletionOutput]:
        standard = {"ignore_eos": ignore_eos, "logit_bias": {eos: 3.0}}
        return running.run([chained(p, 1, standard, alpha=2.0, mh_steps=2) for p in prompts])

    ends = set()
    for got, whole in zip(answers(False), answers(True), strict=True):
        ends.add(got.finish_reason)
        assert list(whole.token_ids)[: len(got.token_ids)] == list(got.token_ids)
        found = trace(got)
        assert found is not None
        assert len(found["proposals"]) == min(2, 1 + len(got.token_ids) // 8)
        assert num_passes(got) == 3 * 8 * len(found["proposals"])
    assert ends == {"stop", "length"}


def test_an_abort_takes_the_candidates_with_it(engine: Callable[..., Engine]) -> None:
    running = engine("mha")
    free = running.free_blocks

    def abort(step: int) -> None:
        if step == 11:  # in the second block of those with eight passes a block
            names = [name for name in running.scheduler.requests if "#" not in name]
            assert len(names) == 3
            running.core.abort_request(names, internal=True)
            assert running.scheduler.requests == {}

    jobs = [chained([1, 2], seed, cfg_scale=(0.0, 1.0, 0.0)[seed]) for seed in range(3)]
    with pytest.raises(KeyError):
        running.run(jobs, at_step=abort)
    assert running.free_blocks == free
    running.run([job([1], 4)])
    assert running.used_slots <= 1


def test_max_tokens_cuts_and_ends(engine: Callable[..., Engine]) -> None:
    running = engine("mha")
    params = {"temperature": 1.0, "seed": 5}
    cut = job([3], 5, standard=params, sampler="mh", gen_length=16, block_length=4, mh_steps=1)
    output = running.run([cut])[0]
    assert len(output.token_ids) == 5
    assert output.finish_reason == "length"
    found = trace(output)
    assert found is not None
    assert len(found["proposals"]) == 2
