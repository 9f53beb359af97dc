"""Everything that changes vLLM 0.32 from outside, or writes its private state.

What vLLM offers to be extended (scheduler class, model state, registries) is used where it
belongs. Each shim acts for our architectures only and has its upstream diff in `patches/`: with
all of them merged, this package is empty. Modules:

* `registration`: what every process needs to know (configuration class, model runner);
* `front_end`: request rules, admission and response fields, in the process that parses requests;
* `refusals`: the HTTP layer's, before a response starts and naming the parameter;
* `requests`: the scheduler's request objects;
* `kv_slots`: the scheduler's cache manager;
* `step_queue`: the queue between engine core and CPU worker;
* `cpu_runner`, `cpu_kernels`: Model Runner V2 without Triton, in a CPU worker.
"""

from vllm_mdlm.compat.registration import (
    install,
    is_default_token_budget,
    load_tokenizer,
    register_config,
    serves_our_model,
)

__all__ = [
    "install",
    "install_front_end",
    "is_default_token_budget",
    "load_tokenizer",
    "register_config",
    "serves_our_model",
]


def install_front_end() -> None:
    """Install the front end's shims; imported late, the HTTP stack is heavy."""
    from vllm_mdlm.compat import front_end

    front_end.install()
