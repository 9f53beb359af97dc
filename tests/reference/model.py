"""LLaDA's network in plain torch: the published architecture, one sequence at a time.

Written for reading. Every pass names the rows `[start, end)` whose keys and values it computes;
all rows of the sequence are attended to, without a causal mask. A pass over the whole sequence is
the published model; a shorter one leaves the other rows' keys and values as the last pass that
computed them left them, which is what Fast-dLLM calls its prefix and dual caches.

Source: LLaDA-8B's published configuration and weights (arXiv 2502.09992).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# Published options that would change the arithmetic, with the only value written here.
_ONLY: dict[str, Any] = {
    "activation_type": "silu",
    "alibi": False,
    "attention_layer_norm": False,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "include_bias": False,
    "include_qkv_bias": False,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "rope": True,
    "rope_full_precision": True,
    "scale_logits": False,
}


@dataclass
class Cache:
    """Keys (rotated) and values of every row: per layer, float `[rows, kv_heads, head_dim]`."""

    keys: list[Tensor]
    values: list[Tensor]


class Llada:
    """A LLaDA checkpoint: its configuration and its tensors under their published names.

    `config` is the parsed config.json. `weights` maps published tensor names to tensors, all of
    one floating dtype, in which the network then computes. A weight with a `weight_scale`,
    `[out, 1]`, holds whole numbers; the inputs of its linear are rounded to such, with a scale per
    row.
    """

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        for name, wanted in _ONLY.items():
            if config.get(name, wanted) != wanted:
                raise ValueError(
                    f"config field {name} is {config[name]!r}; the reference network is written "
                    f"for {wanted!r} only"
                )
        self.config = config
        self.weights = weights
        self.layers: int = config["n_layers"]
        self.heads: int = config["n_heads"]
        self.kv_heads: int = config.get("n_kv_heads") or self.heads
        self.head_dim: int = config["d_model"] // self.heads
        self.vocab_size: int = config["vocab_size"]
        self.mask_token_id: int = config["mask_token_id"]
        self.eos_token_id: int = config["eos_token_id"]
        self.eot_token_id: int | None = None

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> Llada:
        """Read config.json, every *.safetensors and, for EoT, tokenizer.json from `folder`."""
        folder = Path(folder)
        weights: dict[str, Tensor] = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights.update({name: t.to(dtype) for name, t in load_file(file).items()})
        model = cls(json.loads((folder / "config.json").read_text()), weights)
        tokenizer = folder / "tokenizer.json"
        if tokenizer.exists():
            added = json.loads(tokenizer.read_text())["added_tokens"]
            model.eot_token_id = {t["content"]: t["id"] for t in added}.get("<|eot_id|>")
        return model

    def new_cache(self, rows: int) -> Cache:
        """A cache of `rows` rows filled with NaN, so that reading an unwritten row shows."""
        shape = (rows, self.kv_heads, self.head_dim)
        dtype = self._weight("model.transformer.wte").dtype

        def blank() -> list[Tensor]:
            return [torch.full(shape, torch.nan, dtype=dtype) for _ in range(self.layers)]

        return Cache(blank(), blank())

    def logits(self, tokens: list[int]) -> Tensor:
        """Logits `[len(tokens), vocab_size]` of one whole sequence."""
        return self.forward(tokens, 0, len(tokens), self.new_cache(len(tokens)))

    def logits_of_each(self, sequences: list[list[int]]) -> list[Tensor]:
        """`logits` of every sequence, each run alone: there is no padding to get wrong."""
        return [self.logits(tokens) for tokens in sequences]

    @torch.no_grad()
    def forward(self, tokens: list[int], start: int, end: int, cache: Cache) -> Tensor:
        """One pass over rows `[start, end)` of `tokens`; logits `[end - start, vocab_size]`.

        Writes the rows' keys and values into `cache` and attends to all `len(tokens)` rows of it.
        """
        x = self._weight("model.transformer.wte")[torch.tensor(tokens[start:end])]
        for layer in range(self.layers):
            block = f"model.transformer.blocks.{layer}"
            x = x + self._attention(block, layer, x, start, end, cache)
            n = self._rms_norm(x, f"{block}.ff_norm")
            gate = torch.nn.functional.silu(self._linear(n, f"{block}.ff_proj"))
            x = x + self._linear(gate * self._linear(n, f"{block}.up_proj"), f"{block}.ff_out")
        x = self._rms_norm(x, "model.transformer.ln_f")
        tied = self.config["weight_tying"]
        logits = self._linear(x, "model.transformer.wte" if tied else "model.transformer.ff_out")
        # Rows of the head beyond vocab_size only pad it to embedding_size: they are no tokens.
        return logits[:, : self.vocab_size]

    def _attention(
        self, block: str, layer: int, x: Tensor, start: int, end: int, cache: Cache
    ) -> Tensor:
        rows = end - start
        n = self._rms_norm(x, f"{block}.attn_norm")
        q = self._linear(n, f"{block}.q_proj").view(rows, self.heads, self.head_dim)
        k = self._linear(n, f"{block}.k_proj").view(rows, self.kv_heads, self.head_dim)
        v = self._linear(n, f"{block}.v_proj").view(rows, self.kv_heads, self.head_dim)
        q, k = self._rotate(q, start), self._rotate(k, start)
        cache.keys[layer][start:end] = k
        cache.values[layer][start:end] = v

        outputs = []
        for head in range(self.heads):
            kv_head = head * self.kv_heads // self.heads
            keys, values = cache.keys[layer][:, kv_head], cache.values[layer][:, kv_head]
            scores = q[:, head] @ keys.T / self.head_dim**0.5
            outputs.append(scores.softmax(dim=-1) @ values)
        return self._linear(torch.cat(outputs, dim=-1), f"{block}.attn_out")

    def _rotate(self, x: Tensor, start: int) -> Tensor:
        """Half-split rotary embedding in float32; `x` is `[rows, heads, head_dim]`."""
        half = self.head_dim // 2
        exponent = torch.arange(half, dtype=torch.float32) * 2 / self.head_dim
        frequency = 1.0 / self.config["rope_theta"] ** exponent
        position = torch.arange(start, start + x.shape[0], dtype=torch.float32)
        angle = torch.outer(position, frequency)[:, None, :]
        left, right = x.float()[..., :half], x.float()[..., half:]
        cos, sin = angle.cos(), angle.sin()
        rotated = torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)
        return rotated.to(x.dtype)

    def _rms_norm(self, x: Tensor, name: str) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + self.config["rms_norm_eps"])
        return (wide * scale).to(x.dtype) * self._weight(name)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        scale = self.weights.get(f"{name}.weight_scale")
        if scale is None:
            return x @ self._weight(name).T
        step = x.abs().amax(dim=-1, keepdim=True) / 127
        return (x * (1 / step)).round() @ self._weight(name).T * step * scale.T

    def _weight(self, name: str) -> Tensor:
        return self.weights[f"{name}.weight"]
