"""The reference loop over templates, against an enumerable joint and against plain generation."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from tests.fakes import JointTable
from tests.reference import checkpoints
from tests.reference.generate import Settings, generate
from tests.reference.infill import infill, score
from tests.reference.model import Llada


def test_one_free_span_is_a_plain_canvas() -> None:
    model = Llada(
        checkpoints.llada_config(checkpoints.MHA), checkpoints.llada_weights(checkpoints.MHA, 0)
    )
    settings = Settings(12, 4, steps=6, kv_cache="dual", cfg_scale=0.5)
    plain = generate(model, [1, 2, 3], settings)
    filled = infill(model, [1, 2, 3], [{"mask": 12}], settings)
    assert filled.tokens == plain.tokens
    assert filled.commit_pass == plain.commit_pass
    assert (filled.passes, filled.forwards) == (plain.passes, plain.forwards)


def joint_entropy(table: JointTable, tokens: list[int], positions: list[int]) -> float:
    p = table.conditional(tokens, positions)
    return -torch.xlogy(p, p).sum().item()


@pytest.mark.parametrize("seed", range(4))
def test_answer_entropy_bounds_the_joint_entropy(seed: int) -> None:
    """In every pass, with what the network sees then; equal when one position is left."""
    table = JointTable.random(vocab=3, length=5, seed=seed)
    mask = table.mask_token_id
    items: list[Any] = [{"mask": 2}, [1], {"mask": 2, "name": "a"}]
    filled = infill(table, [], items, Settings(5, 1, sampler="left_to_right"), "a")
    final = filled.tokens
    seen = [[mask] * 2 + [1] + [mask] * 2]
    for position in (0, 1, 3):
        seen.append([*seen[-1][:position], final[position], *seen[-1][position + 1 :]])
    for tokens, bound in zip(seen, filled.entropies, strict=True):
        open_ = [i for i in (3, 4) if tokens[i] == mask]
        joint = joint_entropy(table, tokens, open_)
        assert bound > joint - 1e-12
        assert (bound == pytest.approx(joint, abs=1e-9)) == (len(open_) == 1)


def test_scores_are_exact_conditionals() -> None:
    table = JointTable.random(vocab=3, length=4, seed=1)
    mask = table.mask_token_id
    for first, last in product(range(3), repeat=2):
        items: list[Any] = [[first], {"mask": 1, "target": [last]}, [2, 0]]
        exact = table.conditional([first, mask, 2, 0], [1])[last].log().item()
        assert score(table, [], items) == pytest.approx([exact])


def test_exit_before_the_pass_commits() -> None:
    table = JointTable.random(vocab=3, length=5, seed=2)
    items: list[Any] = [{"mask": 3}, {"mask": 2, "name": "a"}]
    settings = Settings(5, 3, sampler="entropy")
    whole = infill(table, [], items, settings, "a")
    bound = sorted(whole.entropies[:3])[0] + 1e-9
    left = infill(table, [], items, settings, "a", bound)
    exit_pass = next(i for i, u in enumerate(whole.entropies) if u < bound)
    assert left.tokens.count(table.mask_token_id) == 3 - exit_pass
    assert left.passes == exit_pass + 1 + 2
    assert infill(table, [], items, settings, "a", 1e-12).tokens == whole.tokens
