"""Answers of a model: by the plain-torch loop, or by vLLM with the plugin."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Generator, Tensor

from recipes.masking_study.settings import Order
from recipes.masking_study.source import Vocabulary
from recipes.masking_study.tasks import Example
from recipes.train.decode import Score, confidence, decode, left_to_right
from recipes.train.layout import read_model
from recipes.train.model import LLaDA

Decoder = Callable[[Sequence[Example], Order], list[tuple[str, ...]]]
"""(examples, order) to the answer symbols of every example, greedy."""

ROWS = 256
"""Examples decoded at once (our choice)."""

SAMPLED_ORDERS: tuple[Order, ...] = ("low_confidence", "random", "left_to_right", "threshold")
"""The orders that are samplers of the plugin, whatever the task."""

SAMPLERS = Path(__file__).with_name("samplers")
"""A folder for Python's path: the study's own sampler and its entry point."""


def max_logit(logits: Tensor, positions: Tensor) -> Tensor:
    """The highest logit, the paper's confidence on addition, ListOps and Countdown."""
    return logits.float().amax(-1)


def torch_decoder(folder: Path, vocabulary: Vocabulary, seed: int = 0) -> Decoder:
    """Decode a written checkpoint with the plain-torch loop."""
    model = read_model(folder)
    return loop_decoder(model.cuda() if torch.cuda.is_available() else model, vocabulary, seed)


def loop_decoder(model: LLaDA, vocabulary: Vocabulary, seed: int = 0) -> Decoder:
    """Decode with the plain-torch loop; the random order is a function of ``seed``."""
    device = next(model.parameters()).device

    def answer(examples: Sequence[Example], order: Order) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        generator = Generator().manual_seed(seed)
        for start in range(0, len(examples), ROWS):
            part = examples[start : start + ROWS]
            first, cells = len(part[0].prompt), len(part[0].answer)
            masks = [vocabulary.mask_id] * cells
            rows = torch.tensor([vocabulary.encode(e.prompt) + masks for e in part], device=device)
            score = _score(order, part, generator, device)
            out = decode(model, rows, first, vocabulary.mask_id, block_length=cells, score=score)
            found += [vocabulary.decode(row) for row in out.tokens[:, first:].tolist()]
        return found

    return answer


def _score(
    order: Order, examples: Sequence[Example], generator: Generator, device: torch.device
) -> Score:
    if order == "oracle":
        return partial(_fixed, -torch.tensor([e.order for e in examples], device=device).float())
    if order == "random":
        shape = (len(examples), len(examples[0].answer))
        return partial(_fixed, torch.rand(shape, generator=generator).to(device))
    return {
        "low_confidence": confidence,
        "max_logit": max_logit,
        "left_to_right": left_to_right,
    }[order]


def _fixed(scores: Tensor, logits: Tensor, positions: Tensor) -> Tensor:
    """Scores [rows, cells] chosen before decoding; the block is the whole answer."""
    return scores


def plugin_decoder(folder: Path, vocabulary: Vocabulary, seed: int = 0) -> Decoder:
    """Decode through vLLM, the whole answer one block.

    The answers raise ValueError for an order that is no sampler: ``max_logit``, and an ``oracle``
    other than addition's, which goes from right to left.
    """
    offer_samplers()
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(model=str(folder), dtype="float32", enforce_eager=True, max_num_seqs=ROWS)

    def answer(examples: Sequence[Example], order: Order) -> list[tuple[str, ...]]:
        cells = len(examples[0].answer)
        extra = {
            "sampler": sampler_of(order, examples),
            "gen_length": cells,
            "block_length": cells,
            "steps": cells,
        }
        prompts = [TokensPrompt(prompt_token_ids=vocabulary.encode(e.prompt)) for e in examples]
        params = [
            SamplingParams(
                temperature=0.0,
                max_tokens=cells,
                ignore_eos=True,
                seed=seed + number,
                extra_args=extra,
            )
            for number in range(len(examples))
        ]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return [vocabulary.decode(o.outputs[0].token_ids) for o in outputs]

    return answer


def sampler_of(order: Order, examples: Sequence[Example]) -> str:
    """The sampler that decodes in an order.

    Raises ValueError where none does.
    """
    if order in SAMPLED_ORDERS:
        return order
    cells = len(examples[0].answer)
    if order == "oracle" and all(e.order == tuple(reversed(range(cells))) for e in examples):
        return "right_to_left"
    raise ValueError(
        f"no sampler decodes in the order {order!r} of this task; decode it with --decoder torch"
    )


def offer_samplers() -> None:
    """Put the study's own sampler where vLLM's processes find it, before one is started."""
    if str(SAMPLERS) not in sys.path:
        sys.path.insert(0, str(SAMPLERS))
        paths = [str(SAMPLERS), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
