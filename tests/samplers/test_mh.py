"""`mh`: stationary for p^alpha on a model small enough to enumerate, and nothing else is."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import JointTable
from tests.samplers.chain import (
    Choose,
    Law,
    distances,
    law_of,
    paths,
    position_first,
    sample_first,
    stationary_error,
)
from vllm_mdlm.kernels import log_power_sum
from vllm_mdlm.kernels.noise import derived_seeds
from vllm_mdlm.samplers import samplers
from vllm_mdlm.samplers.mh import acceptance, run_chain

ALPHA = 3.0
PROPOSALS = [name for name, one in samplers().items() if one.reads_canvas_only]


def greedy(log_ratio: float) -> float:
    """The mutant that only accepts improvements."""
    return float(log_ratio > 0)


def law(name: str, *, quota: int = 1, choose: Choose = position_first, seed: int = 0) -> Law:
    joint = JointTable.random(3, 3, seed=seed)
    return law_of(paths(joint, choose, samplers()[name], quota, ALPHA), ALPHA)


def is_exact(found: Law, accept: object = acceptance) -> bool:
    return stationary_error(found, accept) < 1e-12  # type: ignore[arg-type]


def falls_to_the_target(found: Law, accept: object = acceptance) -> bool:
    by_steps = distances(found, accept, 40)  # type: ignore[arg-type]
    falling = all(b < a for a, b in itertools.pairwise(by_steps[:8]))
    return falling and by_steps[-1] < 0.02 * by_steps[0]


@pytest.mark.parametrize("quota", [1, 2])
@pytest.mark.parametrize("name", PROPOSALS)
def test_is_stationary_for_the_power_of_the_law(name: str, quota: int) -> None:
    found = law(name, quota=quota)
    assert found.probability.sum().item() == pytest.approx(1, abs=1e-12)
    assert is_exact(found)
    assert falls_to_the_target(found)


@pytest.mark.parametrize("seed", range(3))
def test_one_commit_a_pass_targets_the_joint_table(seed: int) -> None:
    """Then the law is the table's whatever the order, and the target known without the decoder."""
    powered = JointTable.random(3, 3, seed=seed).table.flatten() ** ALPHA
    for name in ("left_to_right", "low_confidence", "entropy"):
        target = law(name, seed=seed).target
        assert torch.allclose(target, powered / powered.sum(), atol=1e-12, rtol=0)


def test_greedy_acceptance_fails_these_checks() -> None:
    found = law("low_confidence")
    assert not is_exact(found, greedy)
    assert not falls_to_the_target(found, greedy)


def test_sampling_before_ranking_fails_these_checks() -> None:
    found = law("low_confidence", choose=sample_first)
    assert found.probability.sum().item() == pytest.approx(1, abs=1e-12)
    assert not is_exact(found)
    assert not falls_to_the_target(found)


def test_no_steps_are_plain_candidates() -> None:
    assert run_chain([-3.0], []) == (0, 0)
    found = law("left_to_right")
    plain = (found.marginal(found.probability) - found.target).abs().sum().item() / 2
    assert distances(found, acceptance, 0) == [plain]


def test_power_1_accepts_everything() -> None:
    joint = JointTable.random(3, 3)
    found = paths(joint, position_first, samplers()["left_to_right"], 1, 1.0)
    weights = [path.log_weight for path in found]
    assert set(weights) == {0.0}
    assert run_chain(weights, [1 - 1e-16] * (len(weights) - 1)) == (26, 26)


def test_the_chain_moves_as_written() -> None:
    """Up always, down with the ratio's probability: exp(-1) is 0.3679."""
    assert run_chain([0.0, 1.0, 0.0], [0.99, 0.36]) == (2, 2)
    assert run_chain([0.0, 1.0, 0.0], [0.99, 0.37]) == (1, 1)
    assert run_chain([0.0, -800.0, -801.0], [0.5, 0.5]) == (0, 0)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=9), st.floats(0.05, 20))
def test_log_power_sum_is_its_definition(logits: list[float], power: float) -> None:
    row = torch.tensor([[*logits, float("-inf")]], dtype=torch.float64)
    p = row.softmax(1)
    wanted = (p**power).sum().log().item()
    got = log_power_sum(row, torch.tensor([power], dtype=torch.float64)).item()
    assert got == pytest.approx(wanted, abs=1e-9, rel=1e-9)


def test_a_row_s_power_sum_does_not_depend_on_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 1000, generator=generator) * 4
    power = torch.linspace(0.5, 8, 7, dtype=torch.float64)
    together = log_power_sum(logits, power)
    alone = [log_power_sum(logits[i : i + 1], power[i : i + 1]) for i in range(7)]
    assert torch.equal(together, torch.cat(alone))


def test_candidates_have_their_own_noise_and_the_first_is_the_request_s() -> None:
    seeds = [derived_seeds(seed, range(50)) for seed in (0, 1, 2**63 - 1, 2**63, -5)]
    assert [one[0] for one in seeds] == [0, 1, 2**63 - 1, -(2**63), -5]
    assert len({seed for one in seeds for seed in one}) == 250
    assert derived_seeds(7, range(3, 5)) == derived_seeds(7, range(5))[3:]
