"""What the study runs: sweeps over samplers, over blocks and over cache reuse."""

from __future__ import annotations

from typing import Any, NamedTuple

GEN_LENGTH = 96
BLOCK_LENGTH = 32
QUOTA_SAMPLERS = ("low_confidence", "random", "entropy", "margin", "left_to_right")


class Setting(NamedTuple):
    """One point of a sweep: a sampler, its parameters, how the canvas is cut and recomputed."""

    sampler: str
    own: dict[str, Any]
    block_length: int = BLOCK_LENGTH
    kv_cache: str = "exact"

    @property
    def label(self) -> str:
        parts = [f"{name} {value:g}" for name, value in self.own.items()]
        if self.block_length != BLOCK_LENGTH:
            parts.append(f"block {self.block_length}")
        if self.kv_cache != "exact":
            parts.append(self.kv_cache)
        return ", ".join(parts)

    @property
    def name(self) -> str:
        """Unique in a sweep."""
        return f"{self.sampler} {self.label}"

    def arguments(self) -> dict[str, Any]:
        """Request parameters, as in `vllm_xargs`."""
        return {
            "sampler": self.sampler,
            "gen_length": GEN_LENGTH,
            "block_length": self.block_length,
            "kv_cache": self.kv_cache,
            **self.own,
        }


def samplers() -> list[Setting]:
    """Every sampler over the parameter that trades passes; those of few passes first, except the
    baseline."""
    quotas = [
        Setting(sampler, {"steps": GEN_LENGTH // per_pass})
        for per_pass in (4, 2, 1)
        for sampler in QUOTA_SAMPLERS
    ]
    thresholds = [Setting("threshold", {"threshold": v}) for v in (0.5, 0.7, 0.9, 0.95, 0.99)]
    factors = [Setting("factor", {"factor": v}) for v in (0.125, 0.25, 0.5, 1.0, 2.0)]
    bounds = [Setting("entropy_bound", {"entropy_bound": v}) for v in (0.01, 0.05, 0.1, 0.5, 1.0)]
    entropies = [Setting("med", {"entropy_threshold": v}) for v in (0.01, 0.05, 0.1, 0.2, 0.5, 1.0)]
    stable = [
        Setting("klass", {"threshold": confidence, "kl_threshold": divergence})
        for confidence, divergence in ((0.6, 0.015), (0.9, 0.01), (0.9, 0.001))
    ]
    baseline = Setting("low_confidence", {"steps": GEN_LENGTH})
    others = entropies + thresholds + bounds + factors + stable + quotas
    return [baseline, *(setting for setting in others if setting != baseline)]


def blocks() -> list[Setting]:
    """One to eight tokens a pass by confidence, in blocks of several lengths."""
    return [
        Setting("low_confidence", {"steps": GEN_LENGTH // per_pass}, block_length)
        for per_pass in (8, 4, 2, 1)
        for block_length in (32, 16, 8, 96)
    ]


def caches() -> list[Setting]:
    """Every kind of sampler under every KV mode, `exact` first."""
    chosen = (
        Setting("low_confidence", {"steps": GEN_LENGTH}),
        Setting("low_confidence", {"steps": GEN_LENGTH // 2}),
        Setting("left_to_right", {"steps": GEN_LENGTH // 4}),
        Setting("threshold", {"threshold": 0.9}),
        Setting("entropy_bound", {"entropy_bound": 0.1}),
        Setting("med", {"entropy_threshold": 0.2}),
        Setting("klass", {"threshold": 0.9, "kl_threshold": 0.01}),
    )
    modes = ("exact", "prefix", "dual")
    return [setting._replace(kv_cache=mode) for setting in chosen for mode in modes]


SWEEPS = {"samplers": samplers, "blocks": blocks, "caches": caches}


def baseline(setting: Setting, sweep: list[Setting]) -> Setting:
    """What a setting is compared with: itself without cache reuse, else the sweep's first."""
    exact = setting._replace(kv_cache="exact")
    return exact if setting != exact else sweep[0]
