"""Commit the quota of the positions with the lowest entropy.

Source: the entropy score of Dream (Ye et al. 2025, arXiv 2508.15487, `alg="entropy"`); with a
quota of one it is the baseline "entropy decoding" of Horvitz et al. 2025 (arXiv 2510.19990).
Dream scores the tempered, filtered distribution; here the entropy is the untempered one's, our
choice, so that temperature changes what is drawn and not where.
"""

from __future__ import annotations

import torch

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection, take_best


def select(
    view: BlockView, params: dict[str, torch.Tensor], state: torch.Tensor | None
) -> Selection:
    assert view.entropy is not None
    return Selection(take_best(-view.entropy, view.masked, view.quota))


SAMPLER = Sampler("entropy", SamplerParams, select, needs=frozenset({"entropy"}))
