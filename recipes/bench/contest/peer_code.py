"""Running published code from its checkout: its modules, and its network with our weights."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from recipes.bench.contest.contenders import Setting
from recipes.bench.contest.messages import Answer


def import_from(folder: Path, name: str) -> Any:
    """Import module `name` as a script that lies in `folder` would."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def load_network(code: Any, setting: Setting) -> nn.Module:
    """The published network class in `code`, a module with `LLaDAModelLM`, with the weights.

    Two adaptations to transformers 5, neither of them in what is timed: the weights come in by
    `load_state_dict`, as its `from_pretrained` asks the class for a table of tied weights that it
    does not have; and `use_cache`, which the forward pass reads when it is not given, is set on the
    configuration to the published value, as transformers no longer does.
    """
    model = Path(setting.model)
    stored = json.loads((model / "config.json").read_text())
    config = code.LLaDAConfig(**stored)
    if not hasattr(config, "use_cache"):
        config.use_cache = False
    network: nn.Module = code.LLaDAModelLM(config, init_params=False)
    network.load_state_dict(load_file(model / "model.safetensors"))
    return network.to(getattr(torch, setting.dtype)).eval()


def answers_of(tokens: torch.Tensor, prompt: int, passes: int, eos: int) -> list[Answer]:
    """Answers from filled sequences [requests, prompt + canvas]."""
    rows = tokens[:, prompt:].tolist()
    return [Answer(row[: row.index(eos)] if eos in row else row, passes) for row in rows]
