"""`klass`: all that are confident and stable, else the quota."""

from __future__ import annotations

import torch
from hypothesis import given

from tests.samplers.batches import columns
from tests.samplers.passes import committed, distinct, num_passes, one_block
from vllm_mdlm.samplers.klass import SAMPLER, KlassParams
from vllm_mdlm.samplers.low_confidence import SAMPLER as LOW_CONFIDENCE

INF = float("inf")


def passes(divergences: list[list[float]], params: KlassParams) -> list[list[int]]:
    """Positions committed in consecutive passes over four confident positions."""
    view, state, chosen = one_block([0.95, 0.91, 0.99, 0.5]), torch.zeros(1, 4), []
    for row in divergences:
        view = view._replace(divergence=torch.tensor([row]))
        commit, state = SAMPLER.select(view, columns([params]), state)
        assert state is not None
        view = view._replace(masked=view.masked & ~commit)
        chosen.append(commit[0].nonzero().flatten().tolist())
    return chosen


def test_waits_for_the_history_then_commits_all_that_are_ready() -> None:
    still = [0.001] * 4
    assert passes([[INF] * 4, still, still], KlassParams()) == [[2], [0], [1]]
    view_late = passes([[INF] * 4, still], KlassParams(history=1))
    assert view_late == [[2], [0, 1]]


def test_one_unstable_pass_starts_the_count_again() -> None:
    moved = [0.001, 0.5, 0.001, 0.001]
    rows = [[INF] * 4, [0.001] * 4, moved, [0.001] * 4]
    # Position 1 moved in the third pass: it is taken by the quota there, as no other is ready.
    assert passes(rows, KlassParams()) == [[2], [0], [1], [3]]


def test_a_confident_position_is_taken_alone_when_the_other_is_not_stable() -> None:
    params = KlassParams(history=1)
    rows = [[INF] * 4, [0.5, 0.001, 0.001, 0.001]]
    assert passes(rows, params) == [[2], [1]]


def test_both_comparisons_are_strict() -> None:
    params = KlassParams(threshold=0.75, kl_threshold=0.125, history=1)
    view = one_block([0.75, 0.8, 0.9])
    view = view._replace(divergence=torch.tensor([[0.0, 0.0625, 0.125]]))
    assert committed(SAMPLER, params, view) == [1]


@given(distinct)
def test_nothing_stable_is_low_confidence(values: list[float]) -> None:
    for quota in (1, 2, len(values)):
        view = one_block(values, quota=quota)
        baseline = LOW_CONFIDENCE.params()
        wanted = committed(LOW_CONFIDENCE, baseline, view)
        assert committed(SAMPLER, KlassParams(), view) == wanted
        assert num_passes(SAMPLER, KlassParams(), view) == -(-len(values) // quota)


@given(distinct)
def test_all_stable_and_confident_is_one_pass(values: list[float]) -> None:
    view = one_block(values)
    view = view._replace(divergence=torch.zeros_like(view.confidence))
    assert num_passes(SAMPLER, KlassParams(threshold=0, history=1), view) == 1
