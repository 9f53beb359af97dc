"""The study from settings to table, on a task small enough to learn in seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from recipes.intervals import wilson
from recipes.masking_study.agreement import agreement, read_answers
from recipes.masking_study.commits import chain_cells, commits, sort_cells
from recipes.masking_study.commits import table as commits_table
from recipes.masking_study.decoders import sampler_of, torch_decoder
from recipes.masking_study.report import curves, plot, pooled, read_results, table
from recipes.masking_study.run import (
    LOG,
    answers_path,
    evaluate,
    lowest_nll,
    orders_of,
    run_folder,
    train,
)
from recipes.masking_study.settings import Decoding, Study, load_study
from recipes.masking_study.source import TaskSource, Vocabulary, held_out_examples, rows_of
from recipes.masking_study.tasks import Task, build_task
from recipes.masking_study.tasks.addition import Addition
from recipes.train.settings import (
    ModelSettings,
    OptimSettings,
    PaplMasking,
    PumaMasking,
    RandomMasking,
    RunSettings,
    TaskData,
)

DATA = TaskData(task="addition", size=1, examples=50, batch=16)
ORDERS = ("low_confidence", "max_logit", "random", "left_to_right", "oracle")
STUDY = Study(
    model=ModelSettings(
        d_model=32, n_layers=1, n_heads=1, n_kv_heads=1, mlp_hidden_size=64, vocab_size=16
    ),
    data=DATA,
    optim=OptimSettings(steps=200, learning_rate=1e-2, warm_up=5, ema=0.9, method="muon"),
    run=RunSettings(probe_every=50, checkpoint_every=100, precision="float32"),
    schemes={
        "random": RandomMasking(),
        "papl": PaplMasking(),
        "puma": PumaMasking(stages_start=1, stages_end=2, stages_increment=1),
    },
    seeds=(41,),
    test=Decoding(orders=ORDERS, strata=(1,), natural=40, per_stratum=20, watched=10),
)


STUDIES = Path("recipes/masking_study")


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.toml")))
def test_the_settings_files_decode(name: str) -> None:
    study = load_study(STUDIES / f"{name}.toml")
    task = build_task(study.data)
    assert study.data.task == name.split("_")[0]
    assert len(Vocabulary(task).names) <= study.model.vocab_size
    assert {type(s) for s in study.schemes.values()} == {RandomMasking, PaplMasking, PumaMasking}
    if study.data.task != "sudoku":  # Its puzzles take most of a minute to dig.
        (example,) = held_out_examples(task, 1, None)
        cells = len(example.prompt) + len(example.answer)
        assert cells <= study.model.max_sequence_length


@pytest.mark.parametrize(
    ("name", "network", "steps", "rate", "stages", "alpha"),
    [
        ("addition", (2, 2, 128), 300_000, 1e-3, (3, 16, 3), 1),
        ("maze", (3, 3, 192), 50_000, 3e-4, (10, 40, 3), 5),
        ("listops", (8, 6, 384), 300_000, 3e-4, (2, 10, 2), 5),  # The paper has 8 heads.
        ("countdown", (12, 12, 384), 200_000, 3e-4, (4, 20, 3), 5),
        ("sudoku", (8, 8, 256), 300_000, 3e-4, (8, 40, 5), 5),
    ],
)
def test_the_full_scale_is_the_papers(
    name: str,
    network: tuple[int, int, int],
    steps: int,
    rate: float,
    stages: tuple[int, int, int],
    alpha: float,
) -> None:
    study = load_study(STUDIES / f"{name}_full.toml")
    model, papl, puma = study.model, study.schemes["papl"], study.schemes["puma"]
    assert isinstance(papl, PaplMasking)
    assert isinstance(puma, PumaMasking)
    assert (model.n_layers, model.n_heads, model.d_model) == network
    assert (study.optim.steps, study.optim.learning_rate) == (steps, rate)
    assert (study.data.batch, study.optim.method, study.run.precision) == (256, "adamw", "float32")
    assert (puma.stages_start, puma.stages_end, puma.stages_increment) == stages
    assert (papl.alpha, papl.tau, puma.threshold) == (alpha, 1, 0.9)
    assert (study.seeds, study.optim.ema) == ((41, 42, 43), 0.9999)


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    text = Path("recipes/masking_study/addition_small.toml").read_text()
    path = tmp_path / "study.toml"
    path.write_text(text.replace("per_stratum", "per_strata"))
    with pytest.raises(msgspec.ValidationError, match="per_strata"):
        load_study(path)


def test_every_epoch_has_every_example_once_in_another_order() -> None:
    task = build_task(DATA)
    source = TaskSource(DATA, task, Vocabulary(task), seed=0)
    rows = torch.cat([source.batch(step).tokens for step in range(25)])
    epochs = rows.view(8, 50, -1)
    first = sorted(epochs[0].tolist())
    assert all(sorted(epoch.tolist()) == first for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(source.batch(7).tokens, rows[7 * 16 : 8 * 16])


def test_only_the_answer_is_maskable() -> None:
    task = build_task(DATA)
    batch = TaskSource(DATA, task, Vocabulary(task), seed=0).batch(0)
    assert batch.maskable.tolist() == [[False] * 4 + [True] * 2] * 16


@pytest.mark.parametrize("name", ["listops", "maze", "countdown"])
def test_symbols_survive_ids_and_the_written_tokenizer(name: str) -> None:
    size = {"listops": 3, "maze": 3, "countdown": 4}[name]
    task: Task = build_task(TaskData(task=name, size=size, examples=1, batch=1))
    vocabulary = Vocabulary(task)
    (example,) = held_out_examples(task, 1, None)
    ids = vocabulary.encode(example.prompt)
    assert vocabulary.decode(ids) == example.prompt
    tokenizer = vocabulary.tokenizer()
    assert tokenizer.encode("".join(example.prompt), add_special_tokens=False) == ids
    assert tokenizer.decode(ids) == "".join(example.prompt)


def test_test_sets_are_the_same_every_time() -> None:
    task = build_task(DATA)
    assert held_out_examples(task, 9, 1) == held_out_examples(task, 9, 1)
    assert all(e.difficulty >= 1 for e in held_out_examples(task, 9, 1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    for scheme in STUDY.schemes:
        train(STUDY, scheme, 41, out)
        evaluate(STUDY, scheme, 41, out, "torch")
    return out


def test_runs_write_counts_a_table_and_a_plot(finished: Path) -> None:
    results = read_results(finished, "torch")
    assert len(results) == 3 * 5 * 2
    assert {(r.puzzles, r.difficulty) for r in results} == {(40, None), (20, 1)}
    text = table(results)
    assert text.count("\n") == 2 + 3 * 5
    assert "| papl | oracle |" in text
    plot(results, finished / "plot.png")
    curves(finished, finished / "curves.png")
    assert all((finished / n).stat().st_size > 5000 for n in ("plot.png", "curves.png"))


def test_the_log_has_the_watched_puzzles_of_every_probe(finished: Path) -> None:
    text = (run_folder(finished, "random", 41) / LOG).read_text()
    lines = map(json.loads, text.splitlines())
    shares = [(r["low_confidence"], r["oracle"]) for r in lines if "nll" in r]
    assert len(shares) == 4
    assert 0 < max(shares[-1]) <= 1


def test_answers_are_kept_and_compared(finished: Path) -> None:
    first = read_answers(answers_path(run_folder(finished, "random", 41), "torch"))
    assert {key[0] for key in first} == set(ORDERS)
    assert agreement(first, first)["oracle"] == (60, 60)
    spoilt = first | {("oracle", 1): ["??", *first["oracle", 1][1:]]}
    assert agreement(first, spoilt)["oracle"] == (59, 60)


def test_only_orders_that_are_samplers_go_through_vllm() -> None:
    sampled = ("low_confidence", "random", "left_to_right")
    assert orders_of(STUDY, "torch") == ORDERS
    assert orders_of(STUDY, "plugin") == (*sampled, "oracle")
    test = msgspec.structs.replace(STUDY.test, orders=("threshold", "max_logit"))
    assert orders_of(msgspec.structs.replace(STUDY, test=test), "torch") == ("max_logit",)
    assert orders_of(msgspec.structs.replace(STUDY, test=test), "plugin") == ("threshold",)
    maze = msgspec.structs.replace(STUDY, data=TaskData(task="maze", size=3, examples=1, batch=1))
    assert orders_of(maze, "plugin") == sampled


def test_chains_are_found_with_the_cell_that_takes_their_carry() -> None:
    addition = Addition(4)
    assert chain_cells(addition.example(5127, 3871)) == [1, 2, 3]
    assert chain_cells(addition.example(9053, 5846)) == [2, 3, 4]


def test_commits_are_early_while_the_cell_to_the_right_is_masked() -> None:
    order = torch.tensor([0, 4, 2, 3, 1])
    wrong = torch.tensor([True, False, False, True, False])
    sure = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    known = torch.tensor([False, True, True, True, True])
    found = sort_cells([0, 1, 2, 3], order, wrong, sure, known)
    assert [cell.early for cell in found.cells] == [True, False, True, False]
    assert [cell.wrong for cell in found.cells] == [True, False, False, True]
    assert found.cells[2].sure == pytest.approx(0.7)
    assert (found.top, found.known) == (True, False)
    late = sort_cells([1, 2], order, wrong & known, sure, known)
    assert (late.top, late.known) == (False, True)
    right = sort_cells([0, 1], order, torch.zeros(5, dtype=torch.bool), sure, known)
    assert (right.top, right.known) == (None, None)


def test_every_cell_of_a_chain_is_counted_once(finished: Path) -> None:
    found = commits(STUDY, run_folder(finished, "random", 41) / "model", 20, 1)
    assert [len(puzzle.cells) for puzzle in found] == [2] * 20
    assert "| random | " in commits_table({"random": found})


def test_the_kept_model_is_the_one_of_the_lowest_probe(finished: Path) -> None:
    folder = run_folder(finished, "random", 41)
    lines = map(json.loads, (folder / LOG).read_text().splitlines())
    nll = [r["nll"] for r in lines if "nll" in r]
    assert len(nll) == 4
    assert lowest_nll(folder / LOG) == min(nll) < nll[0]


def test_training_learns_one_digit_addition(finished: Path) -> None:
    sums = pooled(read_results(finished, "torch"))
    assert sums["random", "oracle", None][0] > 15


def test_each_order_fills_every_cell(finished: Path) -> None:
    task = build_task(DATA)
    vocabulary = Vocabulary(task)
    answer = torch_decoder(run_folder(finished, "random", 41) / "model", vocabulary)
    examples = held_out_examples(task, 5, None)
    for order in ORDERS:
        found = answer(examples, order)
        assert [len(a) for a in found] == [2] * 5
        assert found == answer(examples, order)
    assert rows_of(examples, vocabulary).shape == (5, 6)


def test_the_interval_is_wilsons() -> None:
    assert wilson(0, 100) == pytest.approx((0.0, 0.0370), abs=1e-3)
    assert wilson(98, 100) == pytest.approx((0.9300, 0.9945), abs=1e-3)


PLUGIN = """
import json, sys
from pathlib import Path

from recipes.intervals import wilson
from recipes.masking_study.decoders import plugin_decoder
from recipes.masking_study.source import Vocabulary, held_out_examples
from recipes.masking_study.tasks import build_task
from tests.masking_study.test_study import DATA

if __name__ == "__main__":
    task = build_task(DATA)
    answer = plugin_decoder(Path(sys.argv[1]), Vocabulary(task))
    examples = held_out_examples(task, 30, None)
    orders = ("low_confidence", "left_to_right", "oracle", "random")
    Path(sys.argv[2]).write_text(json.dumps({o: answer(examples, o) for o in orders}))
"""


@pytest.mark.slow
def test_the_plugin_decodes_as_the_loop_does(finished: Path, tmp_path: Path) -> None:
    folder = run_folder(finished, "random", 41) / "model"
    script, out = tmp_path / "decode.py", tmp_path / "answers.json"
    script.write_text(PLUGIN)
    command = [sys.executable, str(script), str(folder), str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    task = build_task(DATA)
    examples = held_out_examples(task, 30, None)
    answer = torch_decoder(folder, Vocabulary(task))
    for order in ("low_confidence", "left_to_right", "oracle"):
        assert [tuple(a) for a in found[order]] == answer(examples, order)
    # Its random order is drawn otherwise.
    assert [len(a) for a in found["random"]] == [2] * 30


def test_orders_that_no_sampler_has_are_refused() -> None:
    listops: Task = build_task(TaskData(task="listops", size=3, examples=1, batch=1))
    examples = held_out_examples(listops, 3, None)
    with pytest.raises(ValueError, match="no sampler decodes in the order 'oracle' of this task"):
        sampler_of("oracle", examples)
    with pytest.raises(ValueError, match="'max_logit'"):
        sampler_of("max_logit", held_out_examples(build_task(DATA), 3, None))
