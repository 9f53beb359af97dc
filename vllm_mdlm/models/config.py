"""LLaDA's published configuration, under the names that vLLM reads."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

# What the published modelling code can be configured to do and this model does not implement,
# with the only value accepted.
_REQUIRED = {
    "block_type": "llama",
    "layer_norm_type": "rms",
    "activation_type": "silu",
    "rope": True,
    "alibi": False,
    "attention_layer_norm": False,
    "input_emb_norm": False,
    "scale_logits": False,
    "layer_norm_with_affine": True,
    "bias_for_layer_norm": False,
}


class LLaDAConfig(PretrainedConfig):
    """Configuration of LLaDA-8B, LLaDA-1.5 and iLLaDA checkpoints (`model_type` "llada").

    Keeps every published field and adds the Llama names of the same quantities, so that the
    network can be vLLM's Llama layers. `canvas_length` marks a diffusion model to vLLM.

    Args:
        canvas_length: canvas positions of a request that names neither `gen_length` nor
            `max_tokens`.

    Raises:
        ValueError: the checkpoint asks for a variant of the architecture that is not implemented.
    """

    model_type = "llada"
    # One value under two names, so that `--hf-overrides` may use either.
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "max_position_embeddings": "max_sequence_length",
    }

    def __init__(
        self,
        d_model: int = 4096,
        n_layers: int = 32,
        n_heads: int = 32,
        n_kv_heads: int | None = None,
        mlp_hidden_size: int | None = None,
        mlp_ratio: int = 4,
        vocab_size: int = 126464,
        embedding_size: int | None = None,
        max_sequence_length: int = 4096,
        rope_theta: float = 10000.0,
        rms_norm_eps: float = 1e-5,
        weight_tying: bool = False,
        include_bias: bool = False,
        include_qkv_bias: bool | None = None,
        multi_query_attention: bool | None = None,
        mask_token_id: int | None = None,
        canvas_length: int = 256,
        **kwargs: Any,
    ) -> None:
        for name, wanted in _REQUIRED.items():
            if kwargs.get(name, wanted) not in (wanted, None):
                raise ValueError(
                    f"LLaDA checkpoint with {name}={kwargs[name]!r}; only {name}={wanted!r} is "
                    "implemented"
                )
        self.d_model = d_model
        self.n_layers = n_layers
        self.n_heads = n_heads
        if n_kv_heads is None:
            n_kv_heads = 1 if multi_query_attention else n_heads
        self.n_kv_heads = n_kv_heads
        self.mlp_hidden_size = mlp_hidden_size
        self.mlp_ratio = mlp_ratio
        self.intermediate_size = mlp_hidden_size or mlp_ratio * d_model
        # vLLM's vocab_size counts the rows of the embedding and of the head, which may be padded;
        # token_vocab_size counts the ids that mean something.
        self.embedding_size = embedding_size
        self.vocab_size = max(vocab_size, embedding_size or 0)
        self.token_vocab_size = vocab_size
        self.max_sequence_length = max_sequence_length
        self.rope_theta = rope_theta
        self.rope_parameters = {"rope_type": "default", "rope_theta": rope_theta}
        self.rms_norm_eps = rms_norm_eps
        self.hidden_act = "silu"
        self.weight_tying = weight_tying
        self.include_bias = self.attention_bias = self.mlp_bias = include_bias
        self.include_qkv_bias = include_qkv_bias
        self.qkv_bias = include_bias if include_qkv_bias is None else include_qkv_bias
        self.mask_token_id = mask_token_id
        self.canvas_length = canvas_length
        kwargs["tie_word_embeddings"] = weight_tying
        super().__init__(**kwargs)
