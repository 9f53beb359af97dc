"""The reference decoding loop, against facts that can be checked by hand or by enumeration."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.fakes import JointTable
from tests.reference import checkpoints
from tests.reference.checkpoints import GQA, MHA, Shape
from tests.reference.generate import Generation, Settings, generate
from tests.reference.model import Llada
from tests.reference.tokenizer import token_ids

PROMPT = [10, 20, 30, 40, 50, 60, 70]


def tiny(shape: Shape = MHA, seed: int = 0) -> Llada:
    model = Llada(checkpoints.llada_config(shape), checkpoints.llada_weights(shape, seed))
    model.eot_token_id = token_ids(specials_first=shape.specials_first)["<|eot_id|>"]
    return model


class Fixed:
    """The same logits `[canvas, 5]` in every pass. 0 and 1 are text, 2 EOS, 3 EoT, 4 the mask."""

    mask_token_id, eos_token_id, eot_token_id = 4, 2, 3

    def __init__(self, logits: list[list[float]]) -> None:
        self.rows = torch.tensor(logits, dtype=torch.float64)

    def new_cache(self, rows: int) -> None:
        """Nothing depends on earlier passes."""

    def forward(self, tokens: list[int], start: int, end: int, cache: None) -> Tensor:
        prompt = torch.zeros(len(tokens) - len(self.rows), self.rows.shape[1])
        return torch.cat([prompt.double(), self.rows])[start:end]


EVERY_SAMPLER = [
    "low_confidence",
    "random",
    "entropy",
    "margin",
    "left_to_right",
    "threshold",
    "factor",
    "entropy_bound",
    "med",
    "klass",
]


@pytest.mark.parametrize("sampler", EVERY_SAMPLER)
def test_every_sampler_fills_the_canvas_block_by_block(sampler: str) -> None:
    model = tiny(GQA)
    out = generate(model, PROMPT, Settings(12, 6, sampler=sampler, kv_cache="dual"))
    assert len(out.tokens) == 12
    assert model.mask_token_id not in out.tokens
    assert set(out.commit_pass) == set(range(out.passes))
    assert max(out.commit_pass[:6]) < min(out.commit_pass[6:])


def test_quotas_decide_the_passes() -> None:
    out = generate(tiny(), PROMPT, Settings(12, 6, steps=8))
    assert [out.commit_pass.count(t) for t in range(8)] == [2, 2, 1, 1, 2, 2, 1, 1]
    assert out.passes == out.forwards == 8


def test_random_follows_the_noise_and_left_to_right_the_positions() -> None:
    model = tiny()
    out = generate(
        model, PROMPT, Settings(6, 6, sampler="random"), noise=lambda t, i: ((i * 5 + t) % 7) / 7
    )
    seen: list[int] = []
    for t in range(6):
        left = [i for i in range(6) if i not in seen]
        seen.append(max(left, key=lambda i: (i * 5 + t) % 7))
    assert out.commit_pass == [seen.index(i) for i in range(6)]
    ordered = generate(model, PROMPT, Settings(6, 6, sampler="left_to_right"))
    assert ordered.commit_pass == list(range(6))


def same(one: Generation, other: Generation) -> bool:
    return one.tokens == other.tokens and one.commit_pass == other.commit_pass


@pytest.mark.parametrize("kv_cache", ["prefix", "dual"])
def test_caches_are_exact_when_every_pass_refreshes(kv_cache: str) -> None:
    model = tiny(GQA)
    one_pass_a_block = Settings(8, 2, steps=4)
    exact = generate(model, PROMPT, one_pass_a_block)
    assert same(generate(model, PROMPT, replace(one_pass_a_block, kv_cache=kv_cache)), exact)


def test_caches_are_exact_when_the_block_is_the_whole_sequence() -> None:
    model = tiny(GQA)
    whole = Settings(8, 8)
    exact = generate(model, [], whole)
    for kv_cache in ("prefix", "dual"):
        assert same(generate(model, [], replace(whole, kv_cache=kv_cache)), exact)


def test_caches_are_exact_for_one_layer() -> None:
    """With one layer, K/V of unchanged tokens are themselves unchanged: caches lose nothing."""
    model = tiny(replace(MHA, n_layers=1))
    exact = generate(model, PROMPT, Settings(12, 6))
    for kv_cache in ("prefix", "dual"):
        assert same(generate(model, PROMPT, Settings(12, 6, kv_cache=kv_cache)), exact)


def test_frozen_rows_keep_the_keys_of_the_refresh_pass() -> None:
    model = tiny()
    tokens = [*PROMPT, *[model.mask_token_id] * 6]
    cache = model.new_cache(len(tokens))
    model.forward(tokens, 0, len(tokens), cache)
    before = [t.clone() for t in cache.keys + cache.values]
    tokens[8] = 3
    logits = model.forward(tokens, 7, 10, cache)
    for old, new in zip(before, cache.keys + cache.values, strict=True):
        assert torch.equal(old[:7], new[:7])
        assert torch.equal(old[10:], new[10:])
    assert (before[0][8] - cache.keys[0][8]).abs().max() > 1e-3
    # Two layers: the frozen rows of the second one are stale, so the logits are not the exact ones.
    assert (logits - model.logits(tokens)[7:10]).abs().max() > 1e-4


def test_guidance_follows_the_formula() -> None:
    model = tiny()
    out = generate(model, PROMPT, Settings(1, 1, cfg_scale=1.5))
    mask = [model.mask_token_id]
    cond = model.logits([*PROMPT, *mask])[-1]
    uncond = model.logits([*mask * len(PROMPT), *mask])[-1]
    guided = uncond + 2.5 * (cond - uncond)
    guided[model.mask_token_id] = -torch.inf
    assert out.tokens == [int(guided.argmax())]
    assert (out.passes, out.forwards) == (1, 2)


def test_suppressing_eos() -> None:
    logits = [[1.0, 0.0, 3.0, 0.5, -9.0], [2.0, 1.0, 0.0, 0.5, -9.0]]
    network = Fixed(logits)
    no, by_logits, by_confidence = (
        generate(network, [0], Settings(2, 2, suppress_eos=how))
        for how in ("no", "logits", "confidence")
    )
    assert (no.tokens, no.commit_pass) == ([2, 0], [0, 1])
    assert (by_logits.tokens, by_logits.commit_pass) == ([0, 0], [1, 0])
    assert (by_confidence.tokens, by_confidence.commit_pass) == ([2, 0], [1, 0])
    assert by_confidence.confidence[0] == 0.0
    without_both = torch.tensor([2.0, 1.0, -9.0], dtype=torch.float64).softmax(0)[0]
    assert by_confidence.confidence[1] == pytest.approx(without_both.item())


def test_eot_is_only_suppressed_in_the_confidence() -> None:
    logits = [[0.0, 0.0, -1.0, 5.0, -9.0], [1.0, 0.0, 0.0, 0.0, -9.0]]
    network = Fixed(logits)
    by_logits = generate(network, [0], Settings(2, 2, suppress_eos="logits"))
    by_confidence = generate(network, [0], Settings(2, 2, suppress_eos="confidence"))
    assert (by_logits.tokens, by_logits.commit_pass) == ([3, 0], [0, 1])
    assert (by_confidence.tokens, by_confidence.commit_pass) == ([3, 0], [1, 0])


def test_the_mask_is_not_committed_but_counts_in_the_confidence() -> None:
    network = Fixed([[1.0, 0.0, 0.0, 0.0, 4.0]])
    out = generate(network, [4, 0], Settings(1, 1))
    assert out.tokens == [0]
    expected = torch.tensor([1.0, 0, 0, 0, 4], dtype=torch.float64).softmax(0)[0]
    assert out.confidence == [pytest.approx(expected.item())]


def test_bad_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="block_length 3 does not divide 8"):
        generate(tiny(), PROMPT, Settings(8, 3))
    with pytest.raises(ValueError, match="steps 3 is not a multiple of the 2 blocks"):
        generate(tiny(), PROMPT, Settings(8, 4, steps=3))


@pytest.mark.parametrize("sampler", ["low_confidence", "entropy", "margin", "left_to_right"])
def test_every_order_follows_the_chain_rule(sampler: str) -> None:
    for seed in range(5):
        joint = JointTable.random(seed=seed)
        out = generate(joint, [0, 0], Settings(4, 4, sampler=sampler))
        product = torch.tensor(out.confidence, dtype=torch.float64).prod().item()
        assert product == pytest.approx(joint.table[tuple(out.tokens)].item())


def test_conditionals_agree_with_enumeration() -> None:
    joint = JointTable.random(seed=3)
    mask = joint.mask_token_id
    consistent = [x for x in joint.sequences() if x[1] == 2]
    total = sum(joint.table[x].item() for x in consistent)
    expected = [
        sum(joint.table[x].item() for x in consistent if x[3] == v) / total for v in range(3)
    ]
    got = joint.marginals([mask, 2, mask, mask])
    assert got[3].tolist() == pytest.approx(expected)
    assert got[1].tolist() == [0.0, 0.0, 1.0]


def test_error_of_parallel_commits_is_the_entropy_gap() -> None:
    """KL(joint || product) = sum of H_i - H(joint), which EB-Sampler's left side bounds."""
    joint = JointTable.random(seed=4)
    tokens = [joint.mask_token_id, 1, joint.mask_token_id, joint.mask_token_id]
    pair = joint.conditional(tokens, [0, 2])
    first, second = joint.marginals(tokens)[0], joint.marginals(tokens)[2]
    product = torch.outer(first, second)
    kl = (pair * (pair / product).log()).sum()

    def entropy(p: Tensor) -> Tensor:
        return -(p * p.log()).sum()

    torch.testing.assert_close(kl, entropy(first) + entropy(second) - entropy(pair))
    assert kl <= torch.minimum(entropy(first), entropy(second))
