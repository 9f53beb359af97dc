"""The training loop through its command: learning, logging, killing and going on."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import torch

from recipes.train.data import Batch, QuestionSource, question_tokenizer
from recipes.train.optim import schedule
from recipes.train.questions import is_true_equation
from recipes.train.settings import (
    ModelSettings,
    OptimSettings,
    PaplMasking,
    PumaMasking,
    QuestionData,
    RandomMasking,
    RunSettings,
    Settings,
    load_settings,
)
from recipes.train.trainer import CHECKPOINT, LOG, Trainer

MASK = 2


def settings(masking: RandomMasking | PaplMasking | PumaMasking, steps: int = 30) -> Settings:
    return Settings(
        model=ModelSettings(
            d_model=32,
            n_layers=1,
            n_heads=1,
            n_kv_heads=1,
            mlp_hidden_size=32,
            vocab_size=16,
            dropout=0.1,
        ),
        data=QuestionData(row_lengths=(8,), row_weights=(1.0,), tokens_per_batch=64),
        masking=masking,
        optim=OptimSettings(steps=steps, learning_rate=1e-2, warm_up=5, ema=0.9, method="muon"),
        run=RunSettings(log_every=1, checkpoint_every=7, probe_every=1000, precision="float32"),
    )


class Copies:
    """Rows whose answer repeats the prompt: eight rows of four and four tokens."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    def batch(self, step: int) -> Batch:
        time.sleep(self.pause)
        half = torch.randint(3, 16, (8, 4), generator=torch.Generator().manual_seed(step))
        return Batch(torch.cat((half, half), 1), (torch.arange(8) >= 4).expand(8, -1))


SCHEMES = [
    RandomMasking(),
    RandomMasking(block_share=0.5, block_lengths=(2,)),
    PaplMasking(alpha=2.0),
    PumaMasking(stages_start=1, stages_end=3, stages_increment=1),
]


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / LOG).read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def run(scheme, folder: Path, steps: int = 30) -> Trainer:
    trainer = Trainer(settings(scheme, steps), Copies(), MASK, folder)
    trainer.train(lambda _: {})
    return trainer


@pytest.mark.parametrize("scheme", SCHEMES, ids=["random", "blocks", "papl", "puma"])
def test_a_run_broken_between_checkpoints_gives_the_same_losses(scheme, tmp_path: Path) -> None:
    whole = run(scheme, tmp_path / "whole")
    broken = Trainer(settings(scheme), Copies(), MASK, tmp_path / "broken")
    seen = 0

    def stop_at_step_11(_: float) -> None:
        nonlocal seen
        seen += 1
        if seen == 11:
            raise KeyboardInterrupt

    broken.log = lambda **n: (Trainer.log(broken, **n), stop_at_step_11(0))  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        broken.train(lambda _: {})
    resumed = run(scheme, tmp_path / "broken")
    assert losses(tmp_path / "broken") == losses(tmp_path / "whole")
    for name, weight in whole.average.weights.items():
        assert torch.equal(weight, resumed.average.weights[name]), name


def test_a_killed_process_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    """SIGKILL at whatever moment the process has reached once its log has some lines."""
    code = (
        "import sys; sys.path.insert(0, 'tests/train'); import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from test_trainer import *\n"
        f"t = Trainer(settings(SCHEMES[3]), Copies(0.02), MASK, Path({str(tmp_path / 'killed')!r}))"
        "\nt.train(lambda _: {})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    log = tmp_path / "killed" / LOG
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 10):
        assert process.poll() is None, "the process ended before it was killed"
        assert time.monotonic() < deadline, "no ten log lines within 60 seconds"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run(SCHEMES[3], tmp_path / "killed")
        run(SCHEMES[3], tmp_path / "whole")
    finally:
        torch.set_num_threads(threads)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_a_torn_checkpoint_is_never_read_and_a_torn_log_line_is_dropped(tmp_path: Path) -> None:
    run(SCHEMES[0], tmp_path, steps=7)
    (tmp_path / CHECKPOINT).with_suffix(".partial").write_bytes(b"torn")
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 8, "lo')
    run(SCHEMES[0], tmp_path, steps=7)
    assert len(losses(tmp_path)) == 7


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    run(SCHEMES[0], tmp_path, steps=7)
    with pytest.raises(ValueError, match="written with other settings"):
        run(SCHEMES[0], tmp_path, steps=9)


def test_a_checkpoint_without_a_newer_setting_is_that_setting_s_default(tmp_path: Path) -> None:
    run(SCHEMES[0], tmp_path, steps=7)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state["settings"] = state["settings"].replace('"start_from":null,', "")
    torch.save(state, tmp_path / CHECKPOINT)
    run(SCHEMES[0], tmp_path, steps=7)
    state["settings"] = state["settings"].replace('"seed":', '"sead":')
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="written with other settings"):
        run(SCHEMES[0], tmp_path, steps=7)


def test_it_learns_to_copy(tmp_path: Path) -> None:
    run(SCHEMES[0], tmp_path, steps=250)
    found = losses(tmp_path)
    assert sum(found[-20:]) < 0.3 * sum(found[:20])


def test_rows_are_chat_prompts_answers_and_eos_and_computed_cells_are_marked() -> None:
    tokenizer = question_tokenizer(448)
    data = QuestionData(row_lengths=(112,), row_weights=(1.0,), tokens_per_batch=1120)
    batch = QuestionSource(data, tokenizer, seed=0).batch(3)
    assert batch.tokens.shape == (10, 112)
    assert batch.computed is not None
    for tokens, maskable, computed in zip(
        batch.tokens, batch.maskable, batch.computed, strict=True
    ):
        prompt, answer = tokenizer.decode(tokens[~maskable]), tokenizer.decode(tokens[maskable])
        assert prompt.startswith("<|startoftext|>")
        assert prompt.endswith("assistant<|end_header_id|>\n\n")
        completion = answer.replace("<|endoftext|>", "")
        lines, sentence = completion.rsplit("\n", 1)
        assert all(map(is_true_equation, lines.split("\n")))
        found = tokenizer.decode(tokens[computed])
        assert found.endswith(sentence.removeprefix("The answer is"))
        seen = tokenizer.decode(tokens[maskable & ~computed])
        assert not any(mark in found for mark in "+-=\n")
        assert seen.count("=") == len(lines.split("\n"))


def test_batches_are_functions_of_seed_and_step() -> None:
    data = QuestionData(row_lengths=(96, 112), row_weights=(1.0, 1.0), tokens_per_batch=500)
    tokenizer = question_tokenizer(448)
    source = QuestionSource(data, tokenizer, seed=0)
    assert torch.equal(source.batch(5).tokens, source.batch(5).tokens)
    other = QuestionSource(data, tokenizer, seed=1).batch(5).tokens
    assert source.batch(5).tokens.tolist() != other.tolist()


def test_schedule() -> None:
    s = OptimSettings(steps=110, learning_rate=1.0, min_learning_rate=0.1, warm_up=10)
    assert [schedule(step, s) for step in (0, 9)] == pytest.approx([0.1, 1.0])
    assert schedule(60, s) == pytest.approx(0.55)
    assert schedule(110, s) == pytest.approx(0.1)


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    text = Path("recipes/train/arithmetic.toml").read_text()
    path.write_text(text.replace("warm_up", "warmup"))
    with pytest.raises(msgspec.ValidationError, match="warmup"):
        load_settings(path)


def test_row_weights_must_match_row_lengths() -> None:
    with pytest.raises(ValueError, match="one weight a length"):
        QuestionData(row_lengths=(8, 16), row_weights=(1.0,), tokens_per_batch=64)
