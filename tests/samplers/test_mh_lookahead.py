"""`mh_lookahead`: the mean field brings single tokens nearer to p^alpha, and does not reach it."""

from __future__ import annotations

import torch

from tests.fakes import JointTable
from vllm_mdlm.samplers.mh import acceptance, run_chain

ALPHA = 3.0


def first_position(joint: JointTable) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of position 0, [vocab] each: the target's marginal, q, and q times the mean field."""
    mask = joint.mask_token_id
    powered = joint.table**ALPHA
    target = powered.sum(dim=list(range(1, joint.length)))
    q = joint.marginals([mask] * joint.length)[0] ** ALPHA
    ahead = torch.stack(
        [
            (joint.marginals([v] + [mask] * (joint.length - 1))[1:] ** ALPHA).sum(1).log().sum()
            for v in range(joint.vocab)
        ]
    )
    return tuple(law / law.sum() for law in (target, q, q * ahead.exp()))  # type: ignore[return-value]


def test_the_look_ahead_helps_and_is_biased() -> None:
    """300 random tables of 3^4: distances to the target's marginal, with and without it."""
    local = corrected = 0.0
    for seed in range(300):
        target, q, ahead = first_position(JointTable.random(seed=seed))
        local += (q - target).abs().sum().item() / 600
        corrected += (ahead - target).abs().sum().item() / 600
    assert corrected < 0.75 * local
    assert corrected > 0.01


def test_a_long_chain_reaches_the_corrected_law() -> None:
    """Over candidates from q, weighed by the mean field: 4000 chains of 12, by plain draws.

    Each frequency within 5.5 standard deviations, a false alarm of 4e-8 for each of three."""
    _target, q, ahead = first_position(JointTable.random(seed=4))
    scores = (ahead / q).log()
    generator = torch.Generator().manual_seed(0)
    tokens = q.expand(4000, -1).multinomial(12, replacement=True, generator=generator)
    uniforms = torch.rand(4000, 11, generator=generator, dtype=torch.float64)
    ends = [
        drawn[run_chain(scores[drawn].tolist(), accept.tolist()).result]
        for drawn, accept in zip(tokens, uniforms, strict=True)
    ]
    found = torch.stack(ends).bincount(minlength=3) / 4000
    assert ((found - ahead).abs() < 5.5 * (ahead * (1 - ahead) / 4000).sqrt()).all()
    assert (ahead - q).abs().max() > 0.05
    assert acceptance(0.0) == 1.0
