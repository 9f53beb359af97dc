"""Answers of a model: by the plain-torch loop, or by vLLM with the plugin."""

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

Decoder = Callable[[Sequence[Example], Order], list[tuple[str, ...]]]
"""(examples, order) to the answer symbols of every example, greedy, one cell a pass."""

ROWS = 256
"""Examples decoded at once (our choice)."""


def max_logit(logits: Tensor, positions: Tensor) -> Tensor:
    """The highest logit, the paper's confidence on addition, ListOps and Countdown."""
    return logits.float().amax(-1)


def torch_decoder(folder: Path, vocabulary: Vocabulary, seed: int = 0) -> Decoder:
    """Decode with the plain-torch loop; the random order is a function of ``seed``."""
    model = read_model(folder)
    if torch.cuda.is_available():
        model = model.cuda()
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
    """Decode through vLLM: the sampler is the order's name, the whole answer one block.

    Raises ValueError for ``max_logit`` and ``oracle``, which are no samplers of the plugin.
    """
    from vllm import LLM, SamplingParams, TokensPrompt

    llm = LLM(model=str(folder), dtype="float32", enforce_eager=True)

    def answer(examples: Sequence[Example], order: Order) -> list[tuple[str, ...]]:
        if order not in ("low_confidence", "random", "left_to_right"):
            raise ValueError(
                f"the plugin has no sampler for the order {order!r}; decode it with --decoder torch"
            )
        cells = len(examples[0].answer)
        extra = {"sampler": order, "gen_length": cells, "block_length": cells, "steps": cells}
        params = SamplingParams(
            temperature=0.0, max_tokens=cells, ignore_eos=True, seed=seed, extra_args=extra
        )
        prompts = [TokensPrompt(prompt_token_ids=vocabulary.encode(e.prompt)) for e in examples]
        outputs = llm.generate(prompts, params)
        return [vocabulary.decode(o.outputs[0].token_ids) for o in outputs]

    return answer
