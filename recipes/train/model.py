"""LLaDA's network in plain torch, its parameters under the published tensor names."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.train.attention import attend
from recipes.train.settings import ModelSettings


class Block(nn.Module):
    """One pre-norm layer: bidirectional attention, then a gated MLP; no biases."""

    def __init__(self, s: ModelSettings) -> None:
        super().__init__()
        self.head_dim = s.d_model // s.n_heads
        kv_width = self.head_dim * s.n_kv_heads
        self.attn_norm = nn.RMSNorm(s.d_model, eps=s.rms_norm_eps)
        self.ff_norm = nn.RMSNorm(s.d_model, eps=s.rms_norm_eps)
        self.q_proj = nn.Linear(s.d_model, s.d_model, bias=False)
        self.k_proj = nn.Linear(s.d_model, kv_width, bias=False)
        self.v_proj = nn.Linear(s.d_model, kv_width, bias=False)
        self.attn_out = nn.Linear(s.d_model, s.d_model, bias=False)
        self.ff_proj = nn.Linear(s.d_model, s.mlp_hidden_size, bias=False)
        self.up_proj = nn.Linear(s.d_model, s.mlp_hidden_size, bias=False)
        self.ff_out = nn.Linear(s.mlp_hidden_size, s.d_model, bias=False)
        self.drop = nn.Dropout(s.dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, lengths: Sequence[int] | None) -> Tensor:
        """``x`` [rows, length, d_model] to the same shape."""
        n = self.attn_norm(x)
        q, k, v = (
            w(n).unflatten(-1, (-1, self.head_dim)) for w in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, lengths)
        x = x + self.drop(self.attn_out(mixed.flatten(-2)))
        n = self.ff_norm(x)
        return x + self.drop(self.ff_out(F.silu(self.ff_proj(n)) * self.up_proj(n)))


class Transformer(nn.Module):
    """Embedding, layers, last norm and the untied head, named as the published weights are."""

    def __init__(self, s: ModelSettings) -> None:
        super().__init__()
        self.wte = nn.Embedding(s.vocab_size, s.d_model)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.n_layers))
        self.ln_f = nn.RMSNorm(s.d_model, eps=s.rms_norm_eps)
        self.ff_out = nn.Linear(s.d_model, s.vocab_size, bias=False)


class LLaDA(nn.Module):
    """A mask predictor: logits for every position from the whole sequence, no causal mask."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, s: ModelSettings) -> None:
        super().__init__()
        self.settings = s
        self.model = nn.ModuleDict({"transformer": Transformer(s)})
        angles = rope_angles(s)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self._initialise()

    @property
    def transformer(self) -> Transformer:
        return self.model["transformer"]  # type: ignore[return-value]

    def forward(
        self, tokens: Tensor, lengths: Sequence[int] | None = None, where: Tensor | None = None
    ) -> Tensor:
        """Logits of a batch.

        tokens: int64 [rows, length]. lengths: the real length of every row, where rows are padded
        on the right; None where all positions are real. where: int64 [n], flat positions to give
        logits for; None gives all.

        Returns [n, vocab_size], or [rows, length, vocab_size] without ``where``.
        """
        t = self.transformer
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        x = t.wte(tokens)
        for block in t.blocks:
            x = block(x, cos, sin, lengths)
        if where is not None:
            x = x.flatten(0, 1).index_select(0, where)
        return t.ff_out(t.ln_f(x))

    def _initialise(self) -> None:
        """Normal, standard deviation 1/sqrt(fan in), smaller into the residual stream (our
        choice).
        """
        depth = math.sqrt(2 * self.settings.n_layers)
        for name, p in self.named_parameters():
            if p.dim() < 2:
                continue
            std = 0.1 if "wte" in name else p.shape[1] ** -0.5
            nn.init.normal_(p, std=std / depth if "attn_out" in name or "ff_out" in name else std)


def rope_angles(s: ModelSettings) -> Tensor:
    """Rotation angles in radians, float32 [max_sequence_length, 1, head_dim / 2]."""
    dim = s.d_model // s.n_heads
    frequency = s.rope_theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    positions = torch.arange(s.max_sequence_length, dtype=torch.float64)
    return torch.outer(positions, frequency).float().unsqueeze(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Half-split rotation in float32 of ``x`` [rows, length, heads, head_dim]."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)
