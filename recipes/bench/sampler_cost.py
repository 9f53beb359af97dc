"""What the sampler pass costs beside reading the logits once.

    python recipes/bench/sampler_cost.py --threads 2
    python recipes/bench/sampler_cost.py --vocabulary 126464 --requests 64 --block 32 --memory

The pass is everything between the logits and the positions to commit: statistics of every row,
draws and filters where a request asks for them, and `select` of every sampler in the batch. The
unit is one `logits.amax(dim=1)`. With `--memory`, the peak of resident memory that a pass adds,
as a ratio to the logits, each pass in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from vllm_mdlm.kernels import filter_logits, row_divergence, row_stats
from vllm_mdlm.kernels.noise import row_keys
from vllm_mdlm.samplers import BlockView, Sampler, samplers
from vllm_mdlm.samplers.base import param_values
from vllm_mdlm.samplers.registry import BUILT_IN

MASK_TOKEN = 7


class Case(NamedTuple):
    """A batch: request i uses sampler i modulo their number."""

    name: str
    samplers: Sequence[str]
    drawn: float = 0.0  # share of the requests at temperature 0.7
    top_p: float = 1.0  # of the requests that draw


CASES = (
    Case("low_confidence", ("low_confidence",)),
    Case("threshold", ("threshold",)),
    Case("med", ("med",)),
    Case("margin", ("margin",)),
    Case("klass", ("klass",)),
    Case("all ten", BUILT_IN),
    Case("all ten, half of the requests drawn", BUILT_IN, drawn=0.5),
    Case("all ten, half drawn with top-p 0.95", BUILT_IN, drawn=0.5, top_p=0.95),
    Case("low_confidence, all drawn", ("low_confidence",), drawn=1.0),
)


class Batch(NamedTuple):
    """Logits and what the host knows of the requests."""

    logits: torch.Tensor  # [requests * block, V] bf16
    previous: torch.Tensor  # [klass requests * block, V] bf16
    requests: dict[str, torch.Tensor]  # sampler to [n] int64 requests
    drawn_rows: torch.Tensor  # [M] int64
    shape: tuple[int, int]  # requests, block


def make_batch(case: Case, num_requests: int, block: int, vocabulary: int) -> Batch:
    generator = torch.Generator().manual_seed(0)

    def normal(num_rows: int) -> torch.Tensor:
        rows = torch.empty(num_rows, vocabulary, dtype=torch.bfloat16)
        return rows.normal_(0, 3, generator=generator)

    index = torch.arange(num_requests)
    count = len(case.samplers)
    requests = {name: index[i::count] for i, name in enumerate(case.samplers)}
    drawn_requests = index[: int(case.drawn * num_requests)]
    drawn_rows = (drawn_requests.unsqueeze(1) * block + torch.arange(block)).flatten()
    previous = normal(len(requests.get("klass", ())) * block)
    return Batch(
        normal(num_requests * block), previous, requests, drawn_rows, (num_requests, block)
    )


def rows_of(requests: torch.Tensor, block: int) -> torch.Tensor:
    return (requests.unsqueeze(1) * block + torch.arange(block)).flatten()


def sampler_pass(case: Case, batch: Batch) -> torch.Tensor:
    """One pass: [requests, block] bool, what is committed."""
    num_rows = len(batch.logits)
    used = [samplers()[name] for name in batch.requests]
    needs = frozenset[str]().union(*(sampler.needs for sampler in used))
    count = torch.arange(num_rows)
    temperature = noise_keys = choice = choice_rows = None
    if len(batch.drawn_rows):
        temperature = torch.zeros(num_rows, dtype=torch.float64)
        temperature[batch.drawn_rows] = 0.7
        noise_keys = row_keys(count // batch.shape[1], count % batch.shape[1], count * 0)
        if case.top_p < 1:
            choice_rows = batch.drawn_rows
            top_p = torch.full((len(choice_rows),), case.top_p)
            choice = filter_logits(batch.logits[choice_rows], temperature[choice_rows], top_p=top_p)
    stats = row_stats(
        batch.logits,
        choice,
        choice_rows=choice_rows,
        mask_token=MASK_TOKEN,
        temperature=temperature,
        noise_keys=noise_keys,
        drawn_rows=batch.drawn_rows,
        need_entropy="entropy" in needs,
        need_margin="margin" in needs,
    )
    dense = {
        name: table for name, table in zip(stats._fields, stats, strict=True) if table is not None
    }
    dense = {name: table.view(batch.shape) for name, table in dense.items()}
    dense["confidence"] = dense["logprob"].exp()
    commit = torch.zeros(batch.shape, dtype=torch.bool)
    for sampler in used:
        requests = batch.requests[sampler.name]
        commit[requests] = select(sampler, requests, dense, batch)
    return commit


def select(
    sampler: Sampler, requests: torch.Tensor, dense: dict[str, torch.Tensor], batch: Batch
) -> torch.Tensor:
    """[n, block] bool, as an executor asks one sampler for its requests."""
    shape = (len(requests), batch.shape[1])
    divergence = None
    if "divergence" in sampler.needs:
        rows = rows_of(requests, batch.shape[1])
        divergence = row_divergence(batch.logits[rows], batch.previous).view(shape)
    view = BlockView(
        masked=torch.ones(shape, dtype=torch.bool),
        confidence=dense["confidence"][requests],
        quota=torch.full((len(requests),), 4),
        entropy=dense["entropy"][requests] if "entropy" in sampler.needs else None,
        margin=dense["margin"][requests] if "margin" in sampler.needs else None,
        draw=torch.rand(shape, dtype=torch.float64) if "draw" in sampler.needs else None,
        divergence=divergence,
    )
    values = torch.tensor([param_values(sampler.params())] * len(requests), dtype=torch.float64)
    names = sampler.params.__struct_fields__
    params = {name: values[:, i] for i, name in enumerate(names)}
    state = torch.zeros(shape) if sampler.has_state else None
    return sampler.select(view, params, state).commit


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def milliseconds(work: Callable[[], object], clock: Callable[[], float], repeats: int) -> float:
    """The best of several times, after one that is not counted."""
    work()
    best = float("inf")
    for _ in range(repeats):
        start = clock()
        work()
        best = min(best, clock() - start)
    return best * 1e3


def extra_memory(case: Case, num_requests: int, block: int, vocabulary: int, threads: int) -> float:
    """Peak resident memory that a pass adds, as a ratio to the logits."""
    torch.set_num_threads(threads)
    batch = make_batch(case, num_requests, block, vocabulary)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident_bytes("VmRSS")
    sampler_pass(case, batch)
    return (resident_bytes("VmHWM") - before) / batch.logits.nbytes


def resident_bytes(field: str) -> int:
    """Resident memory of this process, now (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    kibibytes = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    assert kibibytes is not None
    return int(kibibytes[1]) * 1024


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--block", type=int, default=32, help="positions of a request")
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[126464, 32000, 4096])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: processor time, for one thread on a machine that others use too",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="also the peak memory (Linux)")
    return parser.parse_args()


def line(vocabulary: object, name: str, taken: object, ratio: object, memory: object) -> str:
    return f"{vocabulary:>10}  {name:<40} {taken:>10} {ratio:>8} {memory:>8}"


def table(vocabulary: int, options: argparse.Namespace) -> Iterator[str]:
    """The lines of one vocabulary."""
    size = (options.requests, options.block, vocabulary)
    clock = CLOCKS[options.clock]
    logits = make_batch(CASES[0], *size).logits
    read = milliseconds(partial(logits.amax, dim=1), clock, options.repeats)
    yield line(vocabulary, "reading the logits once", f"{read:.1f}", "1.0", "")
    del logits
    for case in CASES:
        batch = make_batch(case, *size)
        taken = milliseconds(partial(sampler_pass, case, batch), clock, options.repeats)
        del batch
        memory = ""
        if options.memory:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                memory = f"{pool.apply(extra_memory, (case, *size, options.threads)):.2f}"
        yield line(vocabulary, case.name, f"{taken:.1f}", f"{taken / read:.1f}", memory)


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    print(
        f"{options.requests} requests x {options.block} positions, bf16; "
        f"{options.threads} threads, {options.clock} clock"
    )
    print(line("vocabulary", "pass", "ms", "x read", "memory"))
    for vocabulary in options.vocabulary:
        for row in table(vocabulary, options):
            print(row, flush=True)


if __name__ == "__main__":
    main()
