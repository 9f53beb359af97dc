"""Train every scheme of a study under every seed and decode its test sets."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F

from recipes.masking_study.decoders import (
    SAMPLED_ORDERS,
    Decoder,
    loop_decoder,
    plugin_decoder,
    torch_decoder,
)
from recipes.masking_study.settings import WATCHED_ORDERS, Order, Study
from recipes.masking_study.source import TaskSource, Vocabulary, held_out_examples, rows_of
from recipes.masking_study.tasks import Example, Task, build_task
from recipes.train.layout import write_model
from recipes.train.model import LLaDA
from recipes.train.trainer import LOG, Trainer

PROBE_EXAMPLES = 512
DECODERS = {"torch": torch_decoder, "plugin": plugin_decoder}


class Result(NamedTuple):
    """``right`` of ``puzzles``; difficulty None is the training distribution."""

    scheme: str
    seed: int
    order: Order
    difficulty: int | None
    puzzles: int
    right: int


def run_folder(out: Path, scheme: str, seed: int) -> Path:
    """Where one run keeps its log, checkpoint and model."""
    return out / f"{scheme}-{seed}"


def train(study: Study, scheme: str, seed: int, out: Path) -> None:
    """Train one run; the averaged weights of the lowest fully masked NLL are in ``model``."""
    task = build_task(study.data)
    vocabulary = Vocabulary(task)
    source = TaskSource(study.data, task, vocabulary, seed)
    folder = run_folder(out, scheme, seed)
    settings = study.settings(scheme, seed)
    trainer = Trainer(settings, source, vocabulary.mask_id, folder)
    examples = held_out_examples(task, PROBE_EXAMPLES, None, seed=1)
    rows, first = rows_of(examples, vocabulary), len(examples[0].prompt)
    watched = held_out_examples(task, study.test.watched, study.test.strata[-1], seed=1)

    def probe(model: LLaDA) -> Mapping[str, float]:
        nll = masked_nll(model, rows, first, vocabulary.mask_id)
        if nll < lowest_nll(folder / LOG):
            tokenizer = vocabulary.tokenizer()
            write_model(folder / "model", settings.model, model.state_dict(), tokenizer)
        answer = loop_decoder(model, vocabulary)
        return {"nll": nll, **exact_matches(task, answer, watched)}

    trainer.train(probe)


@torch.no_grad()
def masked_nll(model: LLaDA, rows: torch.Tensor, first: int, mask_id: int) -> float:
    """Mean negative log-likelihood in nats a cell of answers, all of them masked."""
    rows = rows.to(next(model.parameters()).device)
    noisy = rows.clone()
    noisy[:, first:] = mask_id
    logits = model(noisy)[:, first:]
    return F.cross_entropy(logits.flatten(0, 1).float(), rows[:, first:].flatten()).item()


def exact_matches(task: Task, answer: Decoder, watched: Sequence[Example]) -> dict[str, float]:
    """The share of watched puzzles solved, by order; nothing where none is watched."""
    return {
        order: sum(task.right(e, a) for e, a in zip(watched, answer(watched, order), strict=True))
        / len(watched)
        for order in WATCHED_ORDERS
        if watched
    }


def lowest_nll(log: Path) -> float:
    """The lowest probe of a log, infinity where there is none."""
    if not log.exists():
        return math.inf
    lines = map(json.loads, log.read_text().splitlines())
    return min((line["nll"] for line in lines if "nll" in line), default=math.inf)


def results_path(folder: Path, decoder: str) -> Path:
    """The counts of a run, decoded by one decoder."""
    return folder / f"results-{decoder}.jsonl"


def answers_path(folder: Path, decoder: str) -> Path:
    """The answers behind the counts: one line an order and stratum."""
    return folder / f"answers-{decoder}.jsonl"


def orders_of(study: Study, decoder: str) -> tuple[Order, ...]:
    """The orders of a study that a decoder has: through vLLM those that are samplers, else those of
    one cell a pass.
    """
    if decoder == "torch":
        return tuple(order for order in study.test.orders if order != "threshold")
    sampled = (*SAMPLED_ORDERS, "oracle") if study.data.task == "addition" else SAMPLED_ORDERS
    return tuple(order for order in study.test.orders if order in sampled)


def evaluate(study: Study, scheme: str, seed: int, out: Path, decoder: str) -> list[Result]:
    """Decode every test set in every order of the decoder; write counts and answers beside the
    model.
    """
    task: Task = build_task(study.data)
    folder = run_folder(out, scheme, seed)
    answer = DECODERS[decoder](folder / "model", Vocabulary(task))
    results, written = [], []
    for difficulty in (None, *study.test.strata):
        count = study.test.natural if difficulty is None else study.test.per_stratum
        examples = held_out_examples(task, count, difficulty)
        for order in orders_of(study, decoder):
            answers = answer(examples, order)
            right = sum(task.right(e, a) for e, a in zip(examples, answers, strict=True))
            results.append(Result(scheme, seed, order, difficulty, count, right))
            texts = ["".join(symbols) for symbols in answers]
            written.append({"order": order, "difficulty": difficulty, "answers": texts})
    lines = [json.dumps({"decoder": decoder, **r._asdict()}) + "\n" for r in results]
    answers_path(folder, decoder).write_text("".join(json.dumps(w) + "\n" for w in written))
    results_path(folder, decoder).write_text("".join(lines))
    return results
