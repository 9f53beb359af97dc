"""LLaDA (Nie et al. 2025, arXiv 2502.09992): a Llama network read in both directions.

The layers are vLLM's Llama layers, so tensor parallelism, quantised loading and LoRA are vLLM's
own. What makes it bidirectional is the attention metadata of `DenoisingModelState`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from vllm.config import VllmConfig
from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaForCausalLM
from vllm.model_executor.models.utils import (
    AutoWeightsLoader,
    WeightsMapper,
    extract_layer_index,
)
from vllm.platforms import current_platform
from vllm.sequence import IntermediateTensors

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


class LLaDALayer(LlamaDecoderLayer):
    """vLLM's Llama layer. The last one can leave out what nobody reads."""

    def __init__(self, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        num_layers = vllm_config.model_config.hf_config.num_hidden_layers
        self.is_last = extract_layer_index(prefix) == num_layers - 1

    def forward(
        self,
        positions: torch.Tensor,
        hidden_states: torch.Tensor,
        residual: torch.Tensor | None,
        read_rows: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Layer output and residual, [N, hidden] each, or [M, hidden] of the last layer.

        Args:
            positions: [N] int64.
            hidden_states: [N, hidden].
            residual: [N, hidden], None in the first layer.
            read_rows: [M] int64, rows of the N whose logits are read. The last layer writes the
                keys and values of all N, and computes the rest of these alone. None: all.
        """
        if read_rows is None or not self.is_last:
            return super().forward(positions, hidden_states, residual)
        if residual is None:
            residual = hidden_states
            hidden_states = self.input_layernorm(hidden_states)
        else:
            hidden_states, residual = self.input_layernorm(hidden_states, residual)
        attention: Any = self.self_attn
        qkv, _ = attention.qkv_proj(hidden_states)
        q, k, v = qkv.split([attention.q_size, attention.kv_size, attention.kv_size], dim=-1)
        q, k = attention.rotary_emb(positions, q, k)
        context = attention.attn(q, k, v)
        hidden_states, _ = attention.o_proj(context[read_rows])
        hidden_states, residual = self.post_attention_layernorm(hidden_states, residual[read_rows])
        return self.mlp(hidden_states), residual


class LLaDAModelLM(LlamaForCausalLM):
    """LLaDA-8B Base and Instruct, LLaDA-1.5, iLLaDA: published tensor names and configuration."""

    hf_to_vllm_mapper = _PUBLISHED_TO_VLLM

    # LoRA's kernels expect one row of a request at the head, where a pass reads many: adapters
    # change the blocks alone, and one that names the head or the embedding is refused.
    embedding_modules: ClassVar[dict[str, str]] = {}

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=LLaDALayer)
        if current_platform.is_cpu():
            for layer in self.model.layers:
                layer.mlp.act_fn = CpuSiluAndMul()

    @staticmethod
    def get_model_state_cls() -> type[DenoisingModelState]:
        return DenoisingModelState

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        read_rows: torch.Tensor | None = None,
    ) -> torch.Tensor | IntermediateTensors:
        """Hidden states before the head.

        Args:
            input_ids: [N] token ids.
            positions: [N] int64.
            intermediate_tensors: of another pipeline rank; there is none.
            inputs_embeds: [N, hidden] in place of `input_ids`.
            read_rows: [M] int64, rows whose logits are read; not for a compiled network.

        Returns:
            [N, hidden] in the model's dtype; of `read_rows` alone where they are given.
        """
        # The compiled network takes no further argument, so None is not handed on.
        own = {} if read_rows is None else {"read_rows": read_rows}
        hidden_states: torch.Tensor | IntermediateTensors = self.model(
            input_ids, positions, intermediate_tensors, inputs_embeds, **own
        )
        return hidden_states

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
