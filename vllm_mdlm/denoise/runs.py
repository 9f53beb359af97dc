"""What a request's chains are made of: the candidates of one, and what it makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import torch
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.outputs import LogprobsLists

from vllm_mdlm.denoise.peeks import Peek
from vllm_mdlm.kernels.noise import derived_seeds, row_keys, uniform, wrap_int64
from vllm_mdlm.params import ChainPlan, RequestPlan
from vllm_mdlm.results import ChainReport
from vllm_mdlm.samplers.mh import run_chain

if TYPE_CHECKING:
    from vllm.v1.request import Request

# Lane of the noise that accepts candidates; token ids are lanes too, and so is what chooses
# positions.
ACCEPTANCE_LANE = 1 << 41


class Candidate:
    """What a candidate has brought so far."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.traces: list[np.ndarray] = []
        self.logprobs: list[LogprobsLists] = []
        self.peek: Peek | None = None

    def take(self, output: EngineCoreOutput, weights: Sequence[float], peek: Peek | None) -> None:
        """Note the tokens of one output, and what came with them."""
        self.peek = peek
        self.tokens += output.new_token_ids
        self.weights += weights
        if output.routed_experts is not None:
            self.traces.append(output.routed_experts)
        if output.new_logprobs is not None:
            self.logprobs.append(output.new_logprobs)

    @property
    def log_weight(self) -> float:
        """Nats; the same in whatever pieces the tokens came."""
        return math.fsum(self.weights)

    @property
    def trace(self) -> np.ndarray | None:
        """[tokens, 3], the pass counted from the start of the candidate."""
        return np.concatenate(self.traces) if self.traces else None

    def top_logprobs(self, count: int) -> LogprobsLists | None:
        """Of the first `count` tokens."""
        if not self.logprobs:
            return None
        columns = zip(*(one[:3] for one in self.logprobs), strict=True)
        ids, values, ranks = (np.concatenate(column)[:count] for column in columns)
        return LogprobsLists(ids, values, ranks)


class Start(NamedTuple):
    """A candidate to be queued."""

    name: str
    plan: RequestPlan
    known: list[int]  # the first tokens of its canvas
    seed: int
    candidate: Candidate


class Run:
    """The chains of a request whose candidates are whole blocks, or the whole canvas.

    Args:
        request: it has its canvas.
        plan: its plan.
    """

    def __init__(self, request: Request, plan: RequestPlan) -> None:
        assert plan.chain is not None
        assert request.sampling_params is not None
        assert request.sampling_params.seed is not None
        self.request = request
        self.plan = plan
        self.chain: ChainPlan = plan.chain
        self.seed = wrap_int64(request.sampling_params.seed)
        self.unfinished: dict[str, Candidate] = {}
        self.first: EngineCoreOutput | None = None  # that any candidate had
        self.passes = 0  # of the results so far, for the trace
        self._seeds = derived_seeds(self.seed, range(self.chain.candidates))
        self._own_plan = msgspec.structs.replace(plan, chain=None, power=self.chain.alpha)
        self.begin()

    def begin(self) -> None:
        """A chain at the first position that is not decided."""
        self.start = self.request.num_output_tokens
        self.end = min(self.start + self.chain.length, self.plan.gen_length)
        self.candidates: list[Candidate] = []

    def next_candidate(self) -> Start | None:
        """One more to be queued, if there is any."""
        index = len(self.candidates)
        if index == self.chain.candidates:
            return None
        self.candidates.append(Candidate())
        return Start(
            f"{self.request.request_id}#candidate-{self.start}-{index}",
            self._own_plan,
            list(self.request.output_token_ids),
            self._seeds[index],
            self.candidates[-1],
        )

    def result(self) -> tuple[Candidate, ChainReport] | None:
        """Run the chain, all candidates being complete; None if it needs others."""
        index, report = self._run([candidate.log_weight for candidate in self.candidates])
        return self.candidates[index], report

    def _run(self, log_weights: list[float]) -> tuple[int, ChainReport]:
        count = len(log_weights) - 1
        steps = torch.arange(1, count + 1)
        keys = row_keys(
            torch.full_like(steps, self.seed), torch.full_like(steps, self.start), steps
        )
        uniforms = uniform(keys, torch.tensor([ACCEPTANCE_LANE]))[:, 0].tolist()
        end = run_chain(log_weights, uniforms)
        return end.result, ChainReport(count, end.acceptances, log_weights[end.result])


class LookaheadRun(Run):
    """Chains whose candidates are single tokens, each weighed by a peek at what follows it.

    A peek also draws the tokens of the next position, for the case that its own token is taken; so
    only the first position of a block needs a peek that weighs nothing.
    """

    def __init__(self, request: Request, plan: RequestPlan) -> None:
        self._drawn: list[int] = []  # tokens at `start`; empty: a peek must draw them
        super().__init__(request, plan)
        # A pass decides one position, whatever `steps` says.
        self._own_plan = msgspec.structs.replace(
            self._own_plan, draws=self.chain.candidates, block_steps=plan.block_length
        )

    def begin(self) -> None:
        super().begin()
        block_length = self.plan.block_length
        # What is weighed ends with the block, and so does what was drawn.
        if self.start % block_length == 0:
            self._drawn = []
        block_end = (self.start // block_length + 1) * block_length
        self._is_last = self.start + 1 == min(block_end, self.plan.gen_length)
        self._peeks: dict[int, Candidate] = {}  # by token; that of -1 draws at `start`
        self._ask()

    def _ask(self) -> None:
        """Say which peeks are wanted: equal tokens share one."""
        if not self._drawn:
            self._wanted = [-1]
        else:
            self._wanted = [] if self._is_last else list(dict.fromkeys(self._drawn))
        self.end = self.start + (2 if self._drawn else 1)

    def next_candidate(self) -> Start | None:
        if not self._wanted:
            return None
        token = self._wanted.pop(0)
        known = list(self.request.output_token_ids) + ([token] if token >= 0 else [])
        self._peeks[token] = candidate = Candidate()
        name = f"{self.request.request_id}#candidate-{len(known)}-{token}"
        return Start(name, self._own_plan, known, self.seed, candidate)

    def result(self) -> tuple[Candidate, ChainReport] | None:
        if not self._drawn:
            self._drawn = self._seen(-1).tokens
            self._ask()
            if self._wanted:
                return None
        scores = [0.0 if self._is_last else self._seen(token).score for token in self._drawn]
        index, report = self._run(scores)
        taken = Candidate()
        taken.tokens = [self._drawn[index]]
        if not self._is_last:
            self._drawn = self._seen(taken.tokens[0]).tokens
        return taken, report

    def _seen(self, token: int) -> Peek:
        peek = self._peeks[token].peek
        assert peek is not None
        return peek
