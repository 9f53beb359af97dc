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
        self._eos = self._llm.model_config.hf_config.eos_token_id

    def run(self, cell: Cell, prompts: list[list[int]]) -> list[Answer]:
        from vllm import SamplingParams

        from vllm_mdlm.results import num_passes

        own: dict[str, Any] = {"sampler": cell.sampler, "kv_cache": cell.mode}
        own |= {"gen_length": cell.canvas, "block_length": cell.block}
        rules: dict[str, dict[str, Any]] = {
            "low_confidence": {"steps": cell.steps},
            "threshold": {"threshold": cell.threshold},
            "med": {"entropy_threshold": cell.entropy_threshold},
        }
        own |= rules[cell.sampler]
        params = SamplingParams(
            temperature=0, max_tokens=cell.canvas, detokenize=False, extra_args=own
        )
        inputs: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = [
            request.outputs[0] for request in self._llm.generate(inputs, params, use_tqdm=False)
        ]
        return [Answer(self._before_eos(output), num_passes(output)) for output in outputs]

    def _before_eos(self, output: Any) -> list[int]:
        tokens = list(output.token_ids)
        return tokens[: tokens.index(self._eos)] if self._eos in tokens else tokens


def load(setting: Setting) -> Ours:
    return Ours(setting)
