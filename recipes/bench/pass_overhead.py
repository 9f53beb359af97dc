"""What a denoising pass costs beyond the model: scheduler, inputs, sampler, output.

Runs the engine core in this process and times every step and, inside it, the parts. The model's
own time (network and head) is taken out. Medians over the steps in which the whole batch runs.
With `--profile`, a second line says where the model's own time goes.

    python recipes/bench/pass_overhead.py --model recipes/models/arithmetic
    python recipes/bench/pass_overhead.py --model recipes/models/arithmetic --profile
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

BEYOND_THE_MODEL = ("schedule", "inputs", "attn inputs", "plan", "denoise", "after", "update")

PARTS_OF_A_LAYER = {
    "attention": ("self_attn.attn",),
    "linears": ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"),
    "rotary": ("self_attn.rotary_emb",),
    "norms": ("input_layernorm", "post_attention_layernorm"),
    "activation": ("mlp.act_fn",),
}


class Clock:
    """Time spent in wrapped calls during one step, seconds by name.

    Args:
        now: what tells the time.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.spent: dict[str, float] = defaultdict(float)

    def wrap(self, owner: Any, method: str, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self.now()
            try:
                return original(*args, **kwargs)
            finally:
                self.spent[name] += self.now() - start

        setattr(owner, method, timed)


def wrap_layers(clock: Clock, model: Any) -> None:
    """Time the modules of every layer, and the embedding, under the names of their kinds."""
    clock.wrap(model.model.embed_tokens, "forward", "embedding")
    # Layers share modules, as the rotation: wrapped for each, a call would count once a layer.
    names = {
        layer.get_submodule(path): name
        for layer in model.model.layers
        for name, paths in PARTS_OF_A_LAYER.items()
        for path in paths
    }
    for module, name in names.items():
        clock.wrap(module, "forward", name)


def measure(
    llm: Any, clock: Clock, batch: int, gen_length: int, prompt_length: int, kv_cache: str
) -> dict[str, float]:
    """Median seconds of a step and of its parts with `batch` requests in it."""
    from vllm import SamplingParams

    engine = llm.llm_engine
    params = SamplingParams(
        temperature=0,
        max_tokens=gen_length,
        ignore_eos=True,
        detokenize=False,
        extra_args={"kv_cache": kv_cache},
    )
    for index in range(batch):
        prompt = [10 + (index + offset) % 50 for offset in range(prompt_length)]
        engine.add_request(f"{batch}-{index}", {"prompt_token_ids": prompt}, params)
    steps: list[dict[str, float]] = []
    while engine.has_unfinished_requests():
        clock.spent.clear()
        start = clock.now()
        engine.step()
        steps.append(dict(clock.spent) | {"step": clock.now() - start})
    whole = steps[5:-5]
    names = sorted({name for step in whole for name in step})
    return {name: median(step.get(name, 0.0) for step in whole) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a small LLaDA checkpoint")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--gen-length", type=int, default=64)
    parser.add_argument("--prompt-length", type=int, default=32)
    parser.add_argument("--kv-cache", choices=["exact", "prefix", "dual"], default="exact")
    parser.add_argument("--profile", action="store_true", help="also the parts of the network")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="of all threads, in the place of wall time: for a machine that does other things too",
    )
    arguments = parser.parse_args()
    shape = (arguments.gen_length, arguments.prompt_length, arguments.kv_cache)

    from vllm import LLM

    llm = LLM(
        arguments.model,
        enforce_eager=True,
        max_num_seqs=max(arguments.batches),
        max_num_batched_tokens=16384,
        kv_cache_memory_bytes=1 << 29,
    )
    core = llm.llm_engine.engine_core.engine_core  # type: ignore[attr-defined]
    runner = core.model_executor.driver_worker.worker.model_runner
    clock = Clock(time.process_time if arguments.processor_time else time.perf_counter)
    clock.wrap(core.scheduler, "schedule", "schedule")
    clock.wrap(core.scheduler, "update_from_output", "update")
    clock.wrap(runner, "execute_model", "execute")
    clock.wrap(runner, "sample_tokens", "sample")
    clock.wrap(runner, "prepare_inputs", "inputs")
    clock.wrap(runner, "prepare_attn", "attn inputs")
    clock.wrap(runner.model_state, "prepare_attn", "attn inputs")
    clock.wrap(runner.model_state, "prepare_inputs", "plan")
    clock.wrap(runner.model, "forward", "network")
    clock.wrap(runner.model, "compute_logits", "head")
    clock.wrap(type(runner.sampler), "__call__", "denoise")
    clock.wrap(runner, "postprocess_sampled", "after")

    if arguments.profile:
        wrap_layers(clock, runner.model)

    measure(llm, clock, 2, *shape)
    print(f"{'batch':>5} {'step':>8} {'model':>8} {'beyond':>8}   of which (ms)")
    for batch in arguments.batches:
        seconds = measure(llm, clock, batch, *shape)
        parts = {name: 1e3 * value for name, value in seconds.items()}
        step, model = parts["step"], parts["network"] + parts["head"]
        inside = "  ".join(f"{name} {parts[name]:.2f}" for name in BEYOND_THE_MODEL)
        print(f"{batch:>5} {step:>8.2f} {model:>8.2f} {step - model:>8.2f}   {inside}")
        if arguments.profile:
            names = ["head", "embedding", *PARTS_OF_A_LAYER]
            rest = parts["network"] - sum(parts[name] for name in names[1:])
            inside = "  ".join(f"{name} {parts[name]:.2f}" for name in names)
            print(f"{'':>15} of the model:      {inside}  rest {rest:.2f}")


if __name__ == "__main__":
    main()
