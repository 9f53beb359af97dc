"""This package: vLLM's offline `LLM` with its defaults, engine core and worker in processes."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from recipes.bench.contest.contenders import Setting
from recipes.bench.contest.messages import Answer, Cell


class Ours:
    """The engine that a user gets, told nothing but model, precision and which cores are its."""

    def __init__(self, setting: Setting) -> None:
        from vllm import LLM

        self.versions = {name: importlib.metadata.version(name) for name in ("vllm", "torch")}
        dtype: Any = setting.dtype
        self._llm = LLM(setting.model, dtype=dtype)

    def run(self, cell: Cell, prompts: list[list[int]]) -> list[Answer]:
        from vllm import SamplingParams

        from vllm_mdlm.results import num_passes

        own: dict[str, Any] = {"sampler": cell.sampler, "kv_cache": cell.mode}
        own |= {"gen_length": cell.canvas, "block_length": cell.block}
        if cell.sampler == "low_confidence":
            own["steps"] = cell.steps
        else:
            own["threshold"] = cell.threshold
        params = SamplingParams(
            temperature=0, max_tokens=cell.canvas, detokenize=False, extra_args=own
        )
        inputs: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = [
            request.outputs[0] for request in self._llm.generate(inputs, params, use_tqdm=False)
        ]
        return [Answer(list(output.token_ids), num_passes(output)) for output in outputs]


def load(setting: Setting) -> Ours:
    return Ours(setting)
