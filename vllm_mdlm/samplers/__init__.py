"""Unmasking rules: one published method a file, pure functions on tensors."""

from vllm_mdlm.samplers.base import BlockView, Sampler, SamplerParams, Selection
from vllm_mdlm.samplers.registry import samplers

__all__ = ["BlockView", "Sampler", "SamplerParams", "Selection", "samplers"]
