"""Train a model of questions in plain words and write it in LLaDA's layout.

    python -m recipes.train recipes/train/arithmetic.toml --out runs/arithmetic

Start the same command again to go on after a kill. The averaged weights are in ``<out>/model``.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch

from recipes.train.data import QuestionSource, question_tokenizer
from recipes.train.evaluate import accuracy, answers
from recipes.train.layout import write_model
from recipes.train.model import LLaDA
from recipes.train.questions import check, held_out
from recipes.train.settings import QuestionData, load_settings
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
    if not isinstance(settings.data, QuestionData):
        parser.error(f"{args.settings} is a task of the masking study: use recipes.masking_study")
    tokenizer = question_tokenizer(settings.model.vocab_size)
    source = QuestionSource(settings.data, tokenizer, settings.run.seed)
    trainer = Trainer(settings, source, int(tokenizer.mask_token_id), args.out)
    watched = list(held_out(PROBE_QUESTIONS, PROBE_SEED))

    def probe(model: LLaDA) -> Mapping[str, float]:
        write_model(args.out / "model", settings.model, model.state_dict(), tokenizer)
        texts = answers(model, tokenizer, watched, gen_length=96, block_length=32, per_pass=4)
        found = accuracy([check(q, t) for q, t in zip(watched, texts, strict=True)])
        return {"answer": found.answer, "reasoning": found.reasoning}

    trainer.train(probe)


if __name__ == "__main__":
    main()
