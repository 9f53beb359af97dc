"""The clock of recipes/bench/pass_overhead.py."""

import pytest
import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, rotation: nn.Module) -> None:
        super().__init__()
        self.attn, self.qkv_proj, self.o_proj = nn.Identity(), nn.Identity(), nn.Identity()
        self.rotary_emb = rotation


class Layer(nn.Module):
    def __init__(self, rotation: nn.Module) -> None:
        super().__init__()
        self.self_attn = Attention(rotation)
        self.mlp = nn.ModuleDict(
            {name: nn.Identity() for name in ("gate_up_proj", "down_proj", "act_fn")}
        )
        self.input_layernorm, self.post_attention_layernorm = nn.Identity(), nn.Identity()


class Network(nn.Module):
    """Two layers that share one rotation, as vLLM's do."""

    def __init__(self) -> None:
        super().__init__()
        rotation = nn.Identity()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Identity()
        self.model.layers = nn.ModuleList([Layer(rotation), Layer(rotation)])


def test_a_call_of_a_shared_module_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # The recipe sets this variable when it is imported, for its own process.
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    from recipes.bench import pass_overhead

    network = Network()
    ticks = iter(range(100))
    clock = pass_overhead.Clock(lambda: float(next(ticks)))
    pass_overhead.wrap_layers(clock, network)
    for layer in network.model.layers:
        layer.self_attn.rotary_emb(torch.zeros(1))
        layer.self_attn.attn(torch.zeros(1))
    assert clock.spent == {"rotary": 2, "attention": 2}
