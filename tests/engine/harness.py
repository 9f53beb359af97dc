"""A vLLM engine driven step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vllm import LLM, SamplingParams
from vllm.outputs import CompletionOutput

ENGINE_OPTIONS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 512,
    "max_num_seqs": 16,
    "block_size": 32,
    "kv_cache_memory_bytes": 64 << 20,
}


class Job(NamedTuple):
    """One request: a token prompt, vLLM's parameters, ours."""

    prompt: list[int]
    params: SamplingParams


def job(prompt: list[int], max_tokens: int = 32, *, standard: Any = None, **own: Any) -> Job:
    """A greedy request that fills its whole canvas, unless told otherwise."""
    options = {"temperature": 0.0, "ignore_eos": True, "max_tokens": max_tokens}
    return Job(prompt, SamplingParams(**(options | (standard or {})), extra_args=own or None))


class Engine:
    """An engine core in this process."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.llm = LLM(str(folder), **(ENGINE_OPTIONS | options))
        self.core = self.llm.llm_engine
        self._count = 0

    @property
    def scheduler(self) -> Any:
        return self.core.engine_core.engine_core.scheduler  # type: ignore[attr-defined]

    @property
    def free_blocks(self) -> int:
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    @property
    def used_slots(self) -> int:
        worker = self.core.engine_core.engine_core.model_executor.driver_worker.worker  # type: ignore[attr-defined]
        return int(worker.model_runner.req_states.num_reqs)

    def run(
        self,
        jobs: Sequence[Job],
        rate: float = math.inf,
        at_step: Callable[[int], None] = lambda step: None,
    ) -> list[CompletionOutput]:
        """Run requests to their end.

        Args:
            jobs: what to run.
            rate: requests that arrive per step.
            at_step: called before every step.

        Returns:
            The first sequence of every job, in the order of `jobs`.
        """
        results: dict[str, CompletionOutput] = {}
        names = []
        step = 0
        waiting = list(jobs)
        while waiting or self.core.has_unfinished_requests():
            while waiting and len(names) < rate * (step + 1):
                self._count += 1
                names.append(f"job-{self._count}")
                one = waiting.pop(0)
                self.core.add_request(names[-1], {"prompt_token_ids": one.prompt}, one.params)
            at_step(step)
            for output in self.core.step():
                if output.finished:
                    results[output.request_id] = output.outputs[0]
            step += 1
        return [results[name] for name in names]

    def close(self) -> None:
        self.core.engine_core.shutdown()
