"""The reference itself, against facts that can be checked by hand or by enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.fakes import JointTable
from tests.reference import checkpoints, rules
from tests.reference.checkpoints import GQA, MHA, PADDED, TIED, Shape
from tests.reference.generate import Generation, Settings, generate
from tests.reference.model import Llada

SHAPES = {"mha": MHA, "gqa": GQA, "tied": TIED, "padded": PADDED}
PROMPT = [10, 20, 30, 40, 50, 60, 70]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def tiny(shape: Shape = MHA, seed: int = 0) -> Llada:
    model = Llada(checkpoints.llada_config(shape), checkpoints.llada_weights(shape, seed))
    model.eot_token_id = checkpoints.token_ids(specials_first=shape.specials_first)["<|eot_id|>"]
    return model


class Fixed:
    """A network that gives the same logits `[canvas, vocab]` in every pass."""

    def __init__(self, logits: list[list[float]], mask: int, eos: int, eot: int) -> None:
        self.rows = torch.tensor(logits, dtype=torch.float64)
        self.mask_token_id, self.eos_token_id, self.eot_token_id = mask, eos, eot

    def new_cache(self, rows: int) -> None:
        """Nothing depends on earlier passes."""

    def forward(self, tokens: list[int], start: int, end: int, cache: None) -> Tensor:
        prompt = torch.zeros(len(tokens) - len(self.rows), self.rows.shape[1])
        return torch.cat([prompt.double(), self.rows])[start:end]


def candidate(position: int, confidence: float = 0.5, entropy: float = 1.0) -> rules.Candidate:
    return rules.Candidate(position, 0, confidence, 0.0, entropy, 0.0, [])


def positions(chosen: list[rules.Candidate]) -> list[int]:
    return sorted(c.position for c in chosen)


# The network


@pytest.mark.parametrize("name", SHAPES)
def test_a_later_token_changes_an_earlier_logit(name: str) -> None:
    model = tiny(SHAPES[name])
    one, other = model.logits([*PROMPT, 5]), model.logits([*PROMPT, 6])
    assert one.shape == (len(PROMPT) + 1, 320)
    assert (one[0] - other[0]).abs().max() > 1e-3


def test_gqa_is_mha_with_repeated_key_and_value_heads() -> None:
    gqa = tiny(GQA)
    repeated = dict(gqa.weights)
    head_dim = GQA.d_model // GQA.n_heads
    for name, tensor in gqa.weights.items():
        if ".k_proj." in name or ".v_proj." in name:
            heads = tensor.view(GQA.n_kv_heads, head_dim, GQA.d_model)
            repeated[name] = heads.repeat_interleave(2, dim=0).reshape(-1, GQA.d_model)
    mha = Llada(gqa.config | {"n_kv_heads": GQA.n_heads}, repeated)
    torch.testing.assert_close(mha.logits(PROMPT), gqa.logits(PROMPT))


def test_tied_head_is_the_embedding() -> None:
    tied = tiny(TIED)
    wte = tied.weights["model.transformer.wte.weight"]
    untied = Llada(
        tied.config | {"weight_tying": False},
        tied.weights | {"model.transformer.ff_out.weight": wte.clone()},
    )
    assert torch.equal(tied.logits(PROMPT), untied.logits(PROMPT))


def test_attention_sees_distances_only() -> None:
    """Rotary positions: the same tokens further right have the same logits (float64 network)."""
    model = tiny()
    wide = Llada(model.config, {k: v.double() for k, v in model.weights.items()})
    cache = wide.new_cache(len(PROMPT) + 9)
    for layer in range(wide.layers):  # Only the shifted rows are there to be attended to.
        cache.keys[layer] = cache.keys[layer][9:]
        cache.values[layer] = cache.values[layer][9:]
    first = wide.logits(PROMPT)

    class Shifted(Llada):
        def _rotate(self, x: Tensor, start: int) -> Tensor:
            return super()._rotate(x, start + 9)

    shifted = Shifted(wide.config, wide.weights).logits(PROMPT)
    torch.testing.assert_close(first, shifted, atol=1e-4, rtol=1e-4)


def test_agrees_with_transformers_llama_when_that_attends_both_ways() -> None:
    """A Llama without its causal mask is LLaDA's network under other tensor names."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=320,
        hidden_size=GQA.d_model,
        intermediate_size=GQA.mlp_hidden_size,
        num_hidden_layers=GQA.n_layers,
        num_attention_heads=GQA.n_heads,
        num_key_value_heads=GQA.n_kv_heads,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        attn_implementation="eager",
    )
    llama = LlamaForCausalLM(config).float().eval()
    names = {
        "attn_norm": "input_layernorm",
        "ff_norm": "post_attention_layernorm",
        "q_proj": "self_attn.q_proj",
        "k_proj": "self_attn.k_proj",
        "v_proj": "self_attn.v_proj",
        "attn_out": "self_attn.o_proj",
        "ff_proj": "mlp.gate_proj",
        "up_proj": "mlp.up_proj",
        "ff_out": "mlp.down_proj",
    }
    model = tiny(GQA)
    state = {
        "model.embed_tokens.weight": model.weights["model.transformer.wte.weight"],
        "model.norm.weight": model.weights["model.transformer.ln_f.weight"],
        "lm_head.weight": model.weights["model.transformer.ff_out.weight"],
    }
    for layer, (ours, theirs) in itertools.product(range(GQA.n_layers), names.items()):
        tensor = model.weights[f"model.transformer.blocks.{layer}.{ours}.weight"]
        state[f"model.layers.{layer}.{theirs}.weight"] = tensor
    llama.load_state_dict(state)
    everything = torch.zeros(1, 1, len(PROMPT), len(PROMPT))  # Additive: nothing is masked.
    with torch.no_grad():
        theirs = llama(torch.tensor([PROMPT]), attention_mask=everything).logits[0]
    torch.testing.assert_close(model.logits(PROMPT), theirs, atol=1e-4, rtol=1e-4)


def test_another_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match="alibi is True"):
        Llada(checkpoints.llada_config(MHA) | {"alibi": True}, {})


# Checkpoint folders


@pytest.mark.parametrize("shape", [PADDED, replace(GQA, specials_first=True, shard_bytes=200_000)])
def test_a_written_checkpoint_reads_back(shape: Shape, tmp_path: Path) -> None:
    folder = checkpoints.make_llada(tmp_path / "tiny", shape, seed=3)
    model, expected = Llada.load(folder), tiny(shape, seed=3)
    assert model.weights.keys() == expected.weights.keys()
    assert all(torch.equal(model.weights[k], expected.weights[k]) for k in model.weights)
    assert model.eot_token_id == expected.eot_token_id
    assert (folder / "model.safetensors.index.json").exists() == (shape.shard_bytes is not None)


def test_tokenizer_and_chat_template(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = checkpoints.make_llada(tmp_path / "tiny")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    text = "a\n é<|mdm_mask|>"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len("a\n é".encode()) + 1
    assert ids[-1] == checkpoints.llada_config(MHA)["mask_token_id"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_tiny_llama_generates(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = checkpoints.make_llama(tmp_path / "llama")
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)("Hello", return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert out.shape == (1, 13)
    assert len(set(out[0, 5:].tolist())) > 1


# The rules


@pytest.mark.parametrize(
    ("masked", "passes", "expected"),
    [
        (8, 8, [1] * 8),
        (8, 3, [3, 3, 2]),
        (32, 5, [7, 7, 6, 6, 6]),
        (2, 4, [1, 1, 0, 0]),
        (5, 1, [5]),
    ],
)
def test_quotas(masked: int, passes: int, expected: list[int]) -> None:
    assert rules.quotas(masked, passes) == expected


def test_ties_go_to_the_lowest_position() -> None:
    equal = [candidate(i) for i in range(4)]
    for rule in (rules.low_confidence, rules.entropy, rules.margin, rules.random):
        assert positions(rule(equal, 2)) == [0, 1]
    assert positions(rules.threshold(equal, threshold=0.9)) == [0]


def test_threshold_takes_the_best_and_all_at_the_threshold() -> None:
    three = [candidate(0, 0.2), candidate(1, 0.9), candidate(2, 0.95)]
    assert positions(rules.threshold(three, threshold=0.9)) == [1, 2]
    assert positions(rules.threshold(three, threshold=0.99)) == [2]


def test_factor_stops_at_the_first_failure() -> None:
    # Thresholds from rank 2 on, factor 1: 2/3, 3/4, 4/5.
    ranked = [candidate(i, c) for i, c in enumerate([0.9, 0.7, 0.7, 0.7])]
    assert positions(rules.factor(ranked, factor=1.0)) == [0, 1]
    last_fails = [candidate(i, c) for i, c in enumerate([0.9, 0.8, 0.7])]
    assert positions(rules.factor(last_fails, factor=1.0)) == [0, 1]
    hopeless = [candidate(i, c) for i, c in enumerate([0.1, 0.1])]
    assert positions(rules.factor(hopeless, factor=1.0)) == [0]


def test_entropy_bound_leaves_out_the_largest() -> None:
    ranked = [candidate(i, entropy=h) for i, h in enumerate([0.05, 0.04, 5.0, 6.0])]
    # 0.04 + 0.05 + 5 - 5 = 0.09 passes 0.1; with 6.0 the sum without the largest is 5.09.
    assert positions(rules.entropy_bound(ranked, bound=0.1)) == [0, 1, 2]
    assert positions(rules.entropy_bound(ranked, bound=0.0)) == [1]


def test_med_takes_all_below_the_threshold_else_the_lowest() -> None:
    ranked = [candidate(i, entropy=h) for i, h in enumerate([0.3, 0.1, 0.15, 0.2])]
    assert positions(rules.med(ranked, entropy_threshold=0.2, most=4)) == [1, 2]
    assert positions(rules.med(ranked, entropy_threshold=0.2, most=1)) == [1]
    assert positions(rules.med(ranked, entropy_threshold=0.01, most=4)) == [1]


def test_klass_needs_confidence_and_a_stable_history() -> None:
    calm, restless, young = [0.001, 0.002], [0.001, 0.5], [0.001]
    histories = [calm, restless, young, calm]
    four = [
        replace(candidate(i, 0.95 if i < 3 else 0.8), divergences=h)
        for i, h in enumerate(histories)
    ]
    options = {"threshold": 0.9, "kl_threshold": 0.01, "history": 2}
    assert positions(rules.klass(four, 1, **options)) == [0]
    assert positions(rules.klass(four[1:], 2, **options)) == [1, 2]


# The loop

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


def test_one_layer_dual_cache_is_stale_only_in_the_deeper_layers() -> None:
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


# Vocabulary of the next three: 0 and 1 are text, 2 EOS, 3 EoT, 4 the mask.


def test_suppressing_eos() -> None:
    logits = [[1.0, 0.0, 3.0, 0.5, -9.0], [2.0, 1.0, 0.0, 0.5, -9.0]]
    network = Fixed(logits, mask=4, eos=2, eot=3)
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
    network = Fixed(logits, mask=4, eos=2, eot=3)
    by_logits = generate(network, [0], Settings(2, 2, suppress_eos="logits"))
    by_confidence = generate(network, [0], Settings(2, 2, suppress_eos="confidence"))
    assert (by_logits.tokens, by_logits.commit_pass) == ([3, 0], [0, 1])
    assert (by_confidence.tokens, by_confidence.commit_pass) == ([3, 0], [1, 0])


def test_the_mask_is_not_committed_but_counts_in_the_confidence() -> None:
    network = Fixed([[1.0, 0.0, 0.0, 0.0, 4.0]], mask=4, eos=2, eot=3)
    out = generate(network, [4, 0], Settings(1, 1))
    assert out.tokens == [0]
    expected = torch.tensor([1.0, 0, 0, 0, 4], dtype=torch.float64).softmax(0)[0]
    assert out.confidence == [pytest.approx(expected.item())]


def test_bad_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="block_length 3 does not divide 8"):
        generate(tiny(), PROMPT, Settings(8, 3))
    with pytest.raises(ValueError, match="steps 3 is not a multiple of the 2 blocks"):
        generate(tiny(), PROMPT, Settings(8, 4, steps=3))


# The enumerable table


def test_left_to_right_follows_the_chain_rule() -> None:
    joint = JointTable.random(seed=1)
    out = generate(joint, [0, 0], Settings(4, 4, sampler="left_to_right"))
    log_p = sum(torch.tensor(out.confidence, dtype=torch.float64).log()).item()
    assert log_p == pytest.approx(joint.table[tuple(out.tokens)].log().item())


def test_every_order_gives_the_joint_probability() -> None:
    joint = JointTable.random(seed=2)
    for sampler in ("low_confidence", "entropy", "margin", "left_to_right"):
        out = generate(joint, [], Settings(4, 4, sampler=sampler))
        product = torch.tensor(out.confidence, dtype=torch.float64).prod().item()
        assert product == pytest.approx(joint.table[tuple(out.tokens)].item())


def test_conditionals_agree_with_enumeration() -> None:
    joint = JointTable.random(seed=3)
    mask = joint.mask_token_id
    consistent = [x for x in joint.sequences() if x[1] == 2]
    total = sum(joint.table[x] for x in consistent)
    expected = [sum(joint.table[x] for x in consistent if x[3] == v) / total for v in range(3)]
    got = joint.marginals([mask, 2, mask, mask])
    torch.testing.assert_close(got[3], torch.stack(expected))
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
