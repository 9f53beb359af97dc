"""LLaDA's own `generate.py` (github.com/ML-GSAI/LLaDA) with its published network code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from recipes.bench.contest.contenders import Setting
from recipes.bench.contest.messages import Answer, Cell
from recipes.bench.contest.peer_code import answers_of, import_from, load_network


class LLaDA:
    """The whole batch in one call: prompts of one length, as the function takes them.

    It does not say how many passes it took, so a hook counts the network's calls.
    """

    def __init__(self, setting: Setting) -> None:
        assert setting.code is not None
        assert setting.network is not None
        torch.set_num_threads(setting.threads)
        self.versions = {"torch": str(torch.__version__), "transformers": transformers.__version__}
        network = Path(setting.network)
        network_code = import_from(network.parent, f"{network.name}.modeling_llada")
        self._network: Any = load_network(network_code, setting)
        self._network.register_forward_hook(self._count)
        self._generate = import_from(Path(setting.code), "generate").generate
        self._passes = 0

    def _count(self, *_: object) -> None:
        self._passes += 1

    def run(self, cell: Cell, prompts: list[list[int]]) -> list[Answer]:
        self._passes = 0
        config = self._network.config
        tokens = self._generate(
            self._network,
            torch.tensor(prompts),
            steps=cell.steps,
            gen_length=cell.canvas,
            block_length=cell.block,
            mask_id=config.mask_token_id,
        )
        return answers_of(tokens, cell.prompt, self._passes, config.eos_token_id)


def load(setting: Setting) -> LLaDA:
    return LLaDA(setting)
