"""Samplers by name: the built-in ones, and those of other packages.

Another package offers a sampler through the entry-point group `vllm_mdlm.samplers`; the entry
point names a module-level `Sampler`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from vllm_mdlm.samplers.base import ChainSampler, Sampler

ENTRY_POINT_GROUP = "vllm_mdlm.samplers"

BUILT_IN = (
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
)

CHAINS = ("mh", "mh_lookahead")
"""Samplers that run chains: their candidates are decoded by one of the others."""


@cache
def chain_samplers() -> dict[str, ChainSampler]:
    """Every sampler that runs chains, by name."""
    return {name: import_module(f"vllm_mdlm.samplers.{name}").SAMPLER for name in CHAINS}


@cache
def samplers() -> dict[str, Sampler]:
    """Every sampler by name, built-in ones first.

    Raises:
        ValueError: another package offers a name that is already taken.
        TypeError: an entry point is not a `Sampler`.
    """
    found = {name: import_module(f"vllm_mdlm.samplers.{name}").SAMPLER for name in BUILT_IN}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        sampler = entry_point.load()
        if not isinstance(sampler, Sampler):
            raise TypeError(
                f"entry point {entry_point.value!r} of group {ENTRY_POINT_GROUP} is a "
                f"{type(sampler).__name__}; it must name a vllm_mdlm.samplers.base.Sampler"
            )
        if sampler.name in found or sampler.name in CHAINS:
            raise ValueError(
                f"entry point {entry_point.value!r} offers the sampler {sampler.name!r}, which "
                "exists already; rename it"
            )
        found[sampler.name] = sampler
    return found


@cache
def sampler_ids() -> dict[str, int]:
    """Index of every sampler name, the same in every process of a server."""
    return {name: index for index, name in enumerate(samplers())}
