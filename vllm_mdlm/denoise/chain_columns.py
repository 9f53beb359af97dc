"""What the worker sends of candidates behind the log-probabilities of a step, by request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from vllm_mdlm.denoise import peeks, weights
from vllm_mdlm.denoise.chains import Chains
from vllm_mdlm.denoise.peeks import Peek

if TYPE_CHECKING:
    from vllm.v1.outputs import ModelRunnerOutput


def take_peeks(
    chains: Chains, scheduled: Iterable[str], output: ModelRunnerOutput
) -> dict[str, Peek]:
    """What the peeks of this step saw, by candidate; their columns are removed from `output`."""
    draws = {name: chains.draws_of(name) for name in scheduled}
    if not any(draws.values()):
        return {}
    assert output.logprobs is not None
    starts = output.logprobs.cu_num_generated_tokens
    assert starts is not None
    rows = {name: starts[output.req_id_to_index[name]] for name, count in draws.items() if count}
    output.logprobs, found = peeks.split(
        output.logprobs, {row: draws[name] for name, row in rows.items()}
    )
    return {name: found[row] for name, row in rows.items()}


def take_weights(
    chains: Chains, scheduled: Iterable[str], output: ModelRunnerOutput
) -> dict[str, list[float]]:
    """What the tokens that became final in this step weigh, nats, by candidate; their columns are
    removed from `output`."""
    candidates = [name for name in scheduled if chains.is_candidate(name)]
    if not candidates:
        return {}
    assert output.logprobs is not None
    starts = output.logprobs.cu_num_generated_tokens
    assert starts is not None
    output.logprobs, values = weights.split(output.logprobs)
    found = {}
    for name in candidates:
        row = output.req_id_to_index[name]
        num_final = len(output.sampled_token_ids[row])
        found[name] = values[starts[row] : starts[row] + num_final].tolist()
    return found
