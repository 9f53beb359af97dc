"""Train a model of questions in plain words and write it in LLaDA's layout.

    python -m recipes.train recipes/train/arithmetic.toml --out runs/arithmetic

Start the same command again to go on after a kill. The averaged weights are in ``<out>/model``.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from recipes.train.data import ChatSource, QuestionSource, Source, question_tokenizer
from recipes.train.evaluate import accuracy, answers
from recipes.train.layout import write_model
from recipes.train.model import LLaDA
from recipes.train.questions import check, held_out
from recipes.train.settings import ChatData, QuestionData, Settings, load_settings
from recipes.train.trainer import Trainer

PROBE_QUESTIONS = 64
PROBE_SEED = 7
"""The questions watched in training are not those of the evaluation, whose seed is another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    settings = load_settings(args.settings)
    try:
        train(settings, args.out)
    except ValueError as error:
        parser.error(str(error))


def train(settings: Settings, out: Path) -> None:
    """Train, or go on; the averaged weights are in ``out / "model"``.

    Raises ValueError where data, model or folder do not fit the settings.
    """
    tokenizer = tokenizer_of(settings)
    trainer = Trainer(settings, source_of(settings, tokenizer), int(tokenizer.mask_token_id), out)
    watched = list(held_out(PROBE_QUESTIONS, PROBE_SEED))

    def probe(model: LLaDA) -> Mapping[str, float]:
        write_model(out / "model", settings.model, model.state_dict(), tokenizer)
        texts = answers(model, tokenizer, watched, gen_length=96, block_length=32, per_pass=4)
        found = accuracy([check(q, t) for q, t in zip(watched, texts, strict=True)])
        return {"answer": found.answer, "reasoning": found.reasoning}

    trainer.train(probe)


def tokenizer_of(settings: Settings) -> PreTrainedTokenizerFast:
    """That of the model that the run starts from, or else that of the questions."""
    if settings.run.start_from is None:
        return question_tokenizer(settings.model.vocab_size)
    return PreTrainedTokenizerFast.from_pretrained(settings.run.start_from)


def source_of(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> Source:
    """The batches that the settings name.

    Raises ValueError where they name a task of the masking study.
    """
    data, seed = settings.data, settings.run.seed
    if isinstance(data, QuestionData):
        return QuestionSource(data, tokenizer, seed)
    if isinstance(data, ChatData):
        return ChatSource(data, tokenizer, seed)
    raise ValueError(f"{data.task} is a task of the masking study: use recipes.masking_study")


if __name__ == "__main__":
    main()
