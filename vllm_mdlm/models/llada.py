"""LLaDA (Nie et al. 2025, arXiv 2502.09992): a Llama network read in both directions.

The layers are vLLM's Llama layers, so tensor parallelism, quantised loading and LoRA are vLLM's
own. What makes it bidirectional is the attention metadata of `DenoisingModelState`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper
from vllm.platforms import current_platform

from vllm_mdlm.denoise.model_state import DenoisingModelState
from vllm_mdlm.models.cpu_ops import CpuSiluAndMul

_RENAMED = {
    r"^model\.transformer\.wte(?=\.|$)": "model.embed_tokens",
    r"^model\.transformer\.ln_f(?=\.|$)": "model.norm",
    r"^model\.transformer\.ff_out(?=\.|$)": "lm_head",
    r"^model\.transformer\.blocks(?=\.|$)": "model.layers",
    r"\.attn_norm(?=\.|$)": ".input_layernorm",
    r"\.ff_norm(?=\.|$)": ".post_attention_layernorm",
    r"\.attn_out(?=\.|$)": ".self_attn.o_proj",
    r"\.([qkv])_proj(?=\.|$)": r".self_attn.\1_proj",
    r"\.ff_proj(?=\.|$)": ".mlp.gate_proj",
    r"\.up_proj(?=\.|$)": ".mlp.up_proj",
    r"\.ff_out(?=\.|$)": ".mlp.down_proj",
}
"""Published tensor and module names -> Llama's. The head and a block's down projection share the
name `ff_out`; the head's rule comes first."""

_PUBLISHED_TO_VLLM = WeightsMapper(
    orig_to_new_regex={re.compile(pattern): name for pattern, name in _RENAMED.items()},
    orig_to_new_stacked=LlamaForCausalLM.hf_to_vllm_mapper.orig_to_new_stacked,
)


class LLaDAModelLM(LlamaForCausalLM):
    """LLaDA-8B Base and Instruct, LLaDA-1.5, iLLaDA: published tensor names and configuration."""

    hf_to_vllm_mapper = _PUBLISHED_TO_VLLM

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        if current_platform.is_cpu():
            for layer in self.model.layers:
                layer.mlp.act_fn = CpuSiluAndMul()

    @staticmethod
    def get_model_state_cls() -> type[DenoisingModelState]:
        return DenoisingModelState

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Logits of the rows that a sampler reads.

        Args:
            hidden_states: [N, hidden] in the model's dtype.

        Returns:
            [N, token_vocab_size] in the model's dtype: without the padding rows of the head.
        """
        num_tokens = self.config.token_vocab_size
        if hidden_states.shape[0] == 0:
            # The gather of an empty tensor over tensor-parallel ranks kills a worker.
            return hidden_states.new_empty(0, num_tokens)
        logits = super().compute_logits(hidden_states)
        return None if logits is None else logits[:, :num_tokens]

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        return AutoWeightsLoader(self).load_weights(weights, mapper=self.hf_to_vllm_mapper)
