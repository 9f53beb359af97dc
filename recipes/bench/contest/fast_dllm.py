"""Fast-dLLM v1 (github.com/NVlabs/Fast-dLLM): plain, prefix cache, dual cache; threshold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from recipes.bench.contest.contenders import Setting
from recipes.bench.contest.messages import Answer, Cell
from recipes.bench.contest.peer_code import answers_of, import_from, load_network

FUNCTIONS = {
    "exact": "generate",
    "prefix": "generate_with_prefix_cache",
    "dual": "generate_with_dual_cache",
}
FOLDERS = ("llada", "v1/llada")


class FastDLLM:
    """One request after another: its loops make a canvas of one row, whatever the prompts are."""

    def __init__(self, setting: Setting) -> None:
        assert setting.code is not None
        torch.set_num_threads(setting.threads)
        self.versions = {"torch": str(torch.__version__), "transformers": transformers.__version__}
        folder = source_folder(Path(setting.code))
        self._loops = import_from(folder, "generate")
        self._network: Any = load_network(import_from(folder, "model.modeling_llada"), setting)

    def run(self, cell: Cell, prompts: list[list[int]]) -> list[Answer]:
        config = self._network.config
        generate = getattr(self._loops, FUNCTIONS[cell.mode])
        answers = []
        for prompt in prompts:
            tokens, passes = generate(
                self._network,
                torch.tensor([prompt]),
                steps=cell.steps,
                gen_length=cell.canvas,
                block_length=cell.block,
                mask_id=config.mask_token_id,
                threshold=cell.threshold if cell.sampler == "threshold" else None,
            )
            answers += answers_of(tokens, cell.prompt, passes, config.eos_token_id)
        return answers


def source_folder(checkout: Path) -> Path:
    """Where the LLaDA part lies: the repository has moved it."""
    for name in FOLDERS:
        if (checkout / name / "generate.py").exists():
            return checkout / name
    raise FileNotFoundError(
        f"{checkout} has no {' or '.join(f'{name}/generate.py' for name in FOLDERS)}; "
        "give a checkout of NVlabs/Fast-dLLM"
    )


def load(setting: Setting) -> FastDLLM:
    return FastDLLM(setting)
