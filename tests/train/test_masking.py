"""The masking schemes against their definitions."""

import math

import pytest
import torch
from torch import Generator, Tensor

from recipes.train.masking import (
    PumaState,
    block_mask,
    chain_mask,
    mean_masked,
    papl_weights,
    pick_one,
    puma_advance,
    puma_stages,
    random_mask,
)


def answer_region(rows: int, prompt: int, answer: int) -> Tensor:
    return (torch.arange(prompt + answer) >= prompt).expand(rows, -1)


def test_random_never_masks_the_prompt_and_always_masks_something() -> None:
    maskable = answer_region(2000, 5, 2)
    masked = random_mask(maskable, Generator().manual_seed(0))
    assert not (masked & ~maskable).any()
    assert masked.any(1).all()


def test_random_masks_every_count_equally_often() -> None:
    """With t ~ U(0, 1) the count of n masked cells is uniform on 0..n; an empty row forces one.

    n = 4 cells, 20,000 rows, seed 1: P(0 forced to 1) makes the counts 1..4 have probabilities
    2/5, 1/5, 1/5, 1/5. Bound of 5 standard deviations: false-alarm probability below 3e-6.
    """
    rows = 20_000
    counts = random_mask(answer_region(rows, 1, 4), Generator().manual_seed(1)).sum(1)
    for count, p in {1: 0.4, 2: 0.2, 3: 0.2, 4: 0.2}.items():
        share = (counts == count).float().mean().item()
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / rows)


def test_the_forced_cell_is_uniform() -> None:
    """3 cells, 9,000 rows, seed 2; bound of 5 standard deviations, false alarm below 2e-6."""
    picked = pick_one(answer_region(9000, 2, 3), Generator().manual_seed(2))
    assert (picked.sum(1) == 1).all()
    assert not picked[:, :2].any()
    share = picked[:, 2:].float().mean(0)
    assert (share - 1 / 3).abs().max() < 5 * math.sqrt(2 / 9 / 9000)


def test_chain_masks_are_the_rest_of_the_calculation_and_of_the_canvas() -> None:
    maskable = torch.arange(40).ge(5).expand(400, 40)
    computed = maskable & (torch.arange(40) % 3 == 0)
    masked = chain_mask(maskable, computed, [8], Generator().manual_seed(3))
    ends, cuts = set(), set()
    for row in masked:
        cut = int(row.int().argmax())
        end = 5 + (cut - 5) // 8 * 8 + 8
        chain = computed[0] & (torch.arange(40) >= cut)
        assert torch.equal(row[:end], chain[:end])
        rest = row[end:]
        assert torch.equal(rest, chain[end:]) or rest.all()
        ends.add(bool(rest.all()) if len(rest) else None)
        cuts.add(cut)
    assert ends >= {True, False}
    assert cuts == set(computed[0].nonzero().flatten().tolist())


def test_block_masks_are_what_block_decoding_leaves() -> None:
    maskable = answer_region(3000, 4, 21)
    masked = block_mask(maskable, [8], Generator().manual_seed(3))
    assert not (masked & ~maskable).any()
    assert masked.any(1).all()
    blocks = torch.nn.functional.pad(masked[:, 4:], (0, 3)).view(-1, 3, 8)
    partly = blocks.any(2)
    first = partly.float().argmax(1)
    assert set(first.tolist()) == {0, 1, 2}
    full = blocks.sum(2) == torch.tensor([8, 8, 5])
    after = torch.arange(3) > first[:, None]
    assert full[after].all()


def test_the_loss_is_the_mean_over_masked_cells_then_over_rows() -> None:
    masked = torch.tensor([[True, True, False], [False, False, True]])
    assert mean_masked(torch.tensor([1.0, 3.0, 10.0]), masked).item() == pytest.approx((2 + 10) / 2)


def test_papl_weights_by_hand() -> None:
    masked = torch.tensor([[True, False, True], [False, True, False]])
    log_p = torch.tensor([0.8, 0.2, 0.5]).log()
    weights = papl_weights(log_p, masked, alpha=2.0, tau=1.0)
    assert weights.tolist() == pytest.approx([1 + 2 * 0.8, 1 + 2 * 0.2, 1 + 2 * 1.0])


@pytest.mark.parametrize("tau", [0.5, 4.0])
def test_papl_limits(tau: float) -> None:
    masked = torch.ones(3, 7, dtype=torch.bool)
    log_p = torch.randn(21, generator=Generator().manual_seed(0), requires_grad=True)
    weights = papl_weights(log_p, masked, alpha=1.5, tau=tau)
    assert not weights.requires_grad
    assert torch.allclose((weights - 1).view(3, 7).sum(1), torch.full((3,), 1.5))
    assert torch.equal(papl_weights(log_p, masked, alpha=0.0, tau=tau), torch.ones(21))


def advance(confidence: list[float], masked: list[bool], stage: int, stages: int) -> list[bool]:
    state = PumaState(torch.tensor([masked]), torch.tensor([stage]))
    after, _ = puma_advance(state, torch.tensor([confidence]), stages, threshold=0.9)
    return after.masked[0].tolist()


def test_puma_reveals_the_quota_of_the_most_confident() -> None:
    masked = [True, True, True, True, False]
    assert advance([0.1, 0.4, 0.3, 0.2, 1.0], masked, 0, 2) == [True, False, False, True, False]


def test_puma_reveals_everything_above_the_threshold_too() -> None:
    assert advance([0.95, 0.96, 0.97, 0.2], [True] * 4, 0, 4) == [False, False, False, True]


def test_puma_quota_rounds_up_and_the_last_stage_reveals_all() -> None:
    assert sum(advance([0.1] * 5, [True] * 5, 0, 3)) == 3
    assert sum(advance([0.1] * 5, [True] * 5, 2, 3)) == 0


def test_puma_breaks_ties_by_the_lowest_position() -> None:
    assert advance([0.5, 0.5, 0.5], [True] * 3, 0, 3) == [False, True, True]


def test_puma_empties_every_row_within_its_stages() -> None:
    stages, generator = 4, Generator().manual_seed(0)
    state = PumaState(answer_region(6, 2, 9).clone(), torch.zeros(6, dtype=torch.int64))
    for stage in range(stages):
        confidence = torch.rand(6, 11, generator=generator)
        before = state.masked
        state, finished = puma_advance(state, confidence, stages, threshold=1.0)
        assert not (state.masked & ~before).any()
        assert finished.all() == (stage == stages - 1)
    assert not state.masked.any()


def test_puma_stages_grow_during_the_first_third() -> None:
    grown = [puma_stages(step, 300, 3, 16, 3) for step in range(300)]
    assert grown == sorted(grown)
    assert sorted(set(grown)) == [3, 6, 9, 12, 15, 16]
    assert grown[100] == 16
    assert puma_stages(7, 300, 5, 5, 3) == 5
