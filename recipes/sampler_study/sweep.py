"""What the study runs: every sampler over a sweep of the parameter that trades passes."""

from __future__ import annotations

from typing import Any, NamedTuple

GEN_LENGTH = 96
BLOCK_LENGTH = 32
QUOTA_SAMPLERS = ("low_confidence", "random", "entropy", "margin", "left_to_right")


class Setting(NamedTuple):
    """One point of the sweep: a sampler and its parameters."""

    sampler: str
    own: dict[str, Any]

    @property
    def label(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in self.own.items())

    def arguments(self) -> dict[str, Any]:
        """Request parameters, as in `vllm_xargs`."""
        shape = {"gen_length": GEN_LENGTH, "block_length": BLOCK_LENGTH}
        return {"sampler": self.sampler, **shape, **self.own}


def sweep() -> list[Setting]:
    """All settings; the first is the baseline, one token a pass by confidence."""
    quotas = [
        Setting(sampler, {"steps": GEN_LENGTH // per_pass})
        for sampler in QUOTA_SAMPLERS
        for per_pass in (1, 2, 4)
    ]
    thresholds = [Setting("threshold", {"threshold": v}) for v in (0.5, 0.7, 0.9, 0.95, 0.99)]
    factors = [Setting("factor", {"factor": v}) for v in (0.125, 0.25, 0.5, 1.0, 2.0)]
    bounds = [Setting("entropy_bound", {"entropy_bound": v}) for v in (0.01, 0.05, 0.1, 0.5, 1.0)]
    entropies = [Setting("med", {"entropy_threshold": v}) for v in (0.01, 0.05, 0.1, 0.2, 0.5, 1.0)]
    stable = [
        Setting("klass", {"threshold": confidence, "kl_threshold": divergence})
        for confidence, divergence in ((0.6, 0.015), (0.9, 0.01), (0.9, 0.001))
    ]
    return quotas + thresholds + factors + bounds + entropies + stable
