"""Masked diffusion language models on vLLM.

vLLM calls `register` in every process it starts, through the entry point `vllm.general_plugins`.
"""

from __future__ import annotations

__version__ = "0.1.0"

ARCHITECTURES = {"LLaDAModelLM": "vllm_mdlm.models.llada:LLaDAModelLM"}
"""Architecture name in a checkpoint's config.json -> where its model class is."""


def register() -> None:
    """Make vLLM know our architectures. Safe to call more than once."""
    from vllm import ModelRegistry

    from vllm_mdlm import compat
    from vllm_mdlm.models import cpu_ops
    from vllm_mdlm.models.config import LLaDAConfig

    compat.register_config(LLaDAConfig)
    for name, location in ARCHITECTURES.items():
        if name not in ModelRegistry.get_supported_archs():
            ModelRegistry.register_model(name, location)
    compat.install()
    cpu_ops.register()
