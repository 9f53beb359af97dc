"""`recipes.bench.peers`: the whole command with two stand-in checkouts, and its arithmetic."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes.bench import peers
from recipes.bench.contest.driver import Round, rounds
from recipes.bench.contest.messages import Answer, Cell, Failure, Lap, Order
from recipes.bench.contest.models import SIZES, random_model, random_weights
from recipes.bench.contest.peer_code import answers_of
from recipes.bench.contest.report import agreement, disturbed, line, results, spread
from recipes.train.model import LLaDA

CELL = Cell(mode="exact", sampler="low_confidence", prompt=4, canvas=64, batch=1)

NETWORK = """
import torch
from safetensors.torch import load_file

class LLaDAConfig:
    def __init__(self, **fields):
        self.__dict__.update(fields)

class LLaDAModelLM(torch.nn.Module):
    def __init__(self, config, init_params):
        super().__init__()
        self.config = config
        self.embedding = torch.nn.Embedding(config.vocab_size, config.d_model)

    def load_state_dict(self, weights):
        self.embedding.weight.data = weights["model.transformer.wte.weight"]

    def forward(self, tokens):
        return self.embedding(tokens)
"""

LLADA = """
import torch
from safetensors.torch import load_file
from pathlib import Path

def generate(model, prompt, steps, gen_length, block_length, mask_id):
    assert model.embedding.weight.dtype == torch.float32 and mask_id == model.config.mask_token_id
    with open(Path(__file__).parents[1] / "order", "a") as order:
        order.write("LLaDA ")
    for _ in range(steps):
        model(prompt)
    return torch.cat([prompt, prompt[:, :1].expand(-1, gen_length)], dim=1)
"""

FAST_DLLM = """
import torch
from safetensors.torch import load_file
from pathlib import Path
from model.modeling_llada import LLaDAModelLM

def generate(model, prompt, steps, gen_length, block_length, mask_id, threshold):
    assert isinstance(model, LLaDAModelLM) and len(prompt) == 1 and threshold is None
    with open(Path(__file__).parents[2] / "order", "a") as order:
        order.write("Fast-dLLM ")
    answer = prompt[:, :1].repeat(1, gen_length)
    answer[:, -1] += 1
    return torch.cat([prompt, answer], dim=1), steps + 1

def generate_with_prefix_cache(model, prompt, **_):
    raise IndexError("a batch is too much")
"""


class Fake:
    """A contender that takes what it is told to, and writes its turns down."""

    def __init__(self, name: str, seconds: list[float], turns: list[str]) -> None:
        self.name = name
        self.seconds = iter(seconds)
        self.turns = turns

    def runs(self, cell: Cell) -> bool:
        return cell.mode == "exact"

    def run(self, order: Order) -> Lap | Failure:
        self.turns.append(self.name)
        seconds = next(self.seconds, None)
        if seconds is None:
            return Failure("out of breath")
        return Lap(seconds, [Answer([1, 2, 3, 4], 2)])

    def cpu_seconds(self) -> float:
        return float(self.turns.count(self.name))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_contenders_take_turns_and_the_first_repetition_does_not_count() -> None:
    turns: list[str] = []
    runners = [Fake("a", [9, 1, 2, 4], turns), Fake("b", [9, 3, 4, 6], turns)]
    found = list(rounds(runners, Order(CELL, [[1]]), repeat=3, warmup=1))
    assert turns == ["a", "b"] * 4
    assert [(one.name, one.repetition) for one in found] == [
        (name, i) for i in range(3) for name in "ab"
    ]
    assert all((one.cpu_seconds, one.idle) == (1, 0) for one in found)
    first, second = results(found, "a")
    assert first.speeds == [4, 2, 1]
    assert first.ratio is None
    assert second.ratio is not None
    # 3/1, 4/2 and 6/4 of the same repetition: not the ratio of the medians.
    assert (second.ratio.median, second.ratio.low, second.ratio.high) == (2, 1.5, 3)
    assert (second.passes, second.same_tokens, second.same_answers) == (2, 1, 1)


def test_a_contender_that_fails_is_left_out_and_the_others_go_on() -> None:
    turns: list[str] = []
    runners = [Fake("a", [1, 1, 1], turns), Fake("b", [2], turns)]
    found = list(rounds(runners, Order(CELL, [[1]]), repeat=2, warmup=1))
    assert turns == ["a", "b", "a", "b", "a"]
    assert [one.lap for one in found if one.name == "b"] == [Failure("out of breath")]
    assert [result.name for result in results(found, "a")] == ["a"]


def test_a_cell_that_nobody_runs_has_no_results() -> None:
    cell = Cell(mode="dual", sampler="threshold", prompt=4, canvas=32, batch=1)
    assert results(rounds([Fake("a", [1], [])], Order(cell, [[1]]), 1)) == []


def test_spread_is_median_range_and_middle_half() -> None:
    found = spread([5.0, 1.0, 2.0, 3.0])
    assert (found.median, found.low, found.high) == (2.5, 1, 5)
    assert found.quartiles == (1.75, 3.5)


def test_agreement_counts_positions_and_whole_answers() -> None:
    left = [Answer([1, 2, 3, 4], 1), Answer([5, 6], 1)]
    right = [Answer([1, 9, 3], 1), Answer([5, 6], 1)]
    assert agreement(left, right) == (4 / 6, 0.5)


def test_tokens_from_eos_on_do_not_count() -> None:
    tokens = torch.tensor([[8, 8, 3, 0, 4], [8, 8, 3, 4, 5]])
    assert answers_of(tokens, 2, 7, eos=0) == [Answer([3], 7), Answer([3, 4, 5], 7)]


def test_a_row_shows_the_spread() -> None:
    laps = [("a", 1.0), ("b", 2.0)]
    made = [Round(CELL, 0, name, Lap(s, [Answer([1, 2], 7)]), 1.0, 0.0) for name, s in laps]
    row = line(results(made, "a")[1])
    assert "| b | 1.0 (1.0 to 1.0) | 7.0 |  | 2.00 (2.00 to 2.00; 2.00 to 2.00) |" in row
    assert row.endswith("| 100.0 % | 100 % |")


def test_a_lap_beside_busy_waiters_is_noted() -> None:
    lap = Lap(2.0, [Answer([1, 2], 2)])
    found = [Round(CELL, 0, "a", lap, 4.0, idle=0.1), Round(CELL, 0, "b", lap, 4.0, idle=0.8)]
    (note,) = disturbed(results(found, "a"))
    assert note.startswith("b, exact")
    assert "0.40 cores" in note


def test_random_weights_never_choose_what_ends_an_answer() -> None:
    settings = SIZES["tiny"]
    model = LLaDA(settings).eval()
    model.load_state_dict(random_weights(settings, [0, 2, 5], seed=1))
    tokens = torch.full((1, 96), 2)
    tokens[0, :32] = torch.arange(300, 332)
    with torch.no_grad():
        probability = model(tokens).softmax(dim=-1)[0]
    assert probability[:, [0, 2, 5]].max() == 0
    confidence = probability[32:].amax(dim=1)
    assert confidence.min() < 0.9 < confidence.max()
    assert len(probability[32:].argmax(dim=1).unique()) > 2


def test_int8_weights_are_those_of_the_others_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(tmp_path, "tiny")
    monkeypatch.setattr(sys, "argv", ["peers", "--engines", "vllm-mdlm", "vllm-mdlm-int8"])
    given = peers.settings(peers.parse(), model)
    assert given["vllm-mdlm"].model == str(model)
    written = Path(given["vllm-mdlm-int8"].model) / "model.safetensors"
    rounded = load_file(written)
    name = "model.transformer.blocks.0.attn_out"
    back = rounded[f"{name}.weight"] * rounded[f"{name}.weight_scale"]
    original = load_file(model / "model.safetensors")[f"{name}.weight"]
    assert (back - original).abs().max() < rounded[f"{name}.weight_scale"].max()
    made = written.stat().st_mtime_ns
    assert peers.settings(peers.parse(), model) == given
    assert written.stat().st_mtime_ns == made


def test_the_command_runs_checkouts_in_turn_and_writes_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    llada = write(tmp_path / "llada" / "generate.py", LLADA).parent
    folder = tmp_path / "fast"
    write(folder / "llada" / "generate.py", FAST_DLLM)
    write(folder / "llada" / "model" / "modeling_llada.py", NETWORK)
    options = "--model tiny --dtype float32 --mode exact prefix --sampler low_confidence "
    options += "--prompt 8 --canvas 64 --batch 2 --passes-per-block 4 --repeat 2"
    checkouts = ["--llada", str(llada), "--fast-dllm", str(folder)]
    engines = ["--engines", "LLaDA", "Fast-dLLM", "--output", str(tmp_path / "out")]
    # The command sets the threads of its own process: here they stay what they are.
    engines += ["--threads", str(torch.get_num_threads())]
    monkeypatch.setattr(sys, "argv", ["peers", *options.split(), *checkouts, *engines])
    peers.main()
    # Fast-dLLM answers a batch of two in two calls.
    assert (tmp_path / "order").read_text().split() == ["LLaDA", "Fast-dLLM", "Fast-dLLM"] * 3
    found = json.loads((tmp_path / "out" / "tiny-float32.json").read_text())
    first, second, failed = found["results"]
    assert first["passes"] == 8
    assert second["passes"] == 9
    assert second["same_tokens"] == pytest.approx(63 / 64)
    assert second["same_answers"] == 0
    assert len(second["speeds"]) == 2
    assert first["floor_share"] > 0
    assert failed["failed"] == "IndexError: a batch is too much"
    assert "Fast-dLLM failed, prefix" in capsys.readouterr().out
    assert found["machine"]["LLaDA"]["threads"] == found["machine"]["threads"]
    caption, table = (tmp_path / "out" / "tiny-float32.md").read_text().split("\n\n")
    assert caption.startswith("tiny, float32;")
    assert "LLaDA / it" in table
    assert len(table.splitlines()) == 4
    assert len({row.count("|") for row in table.splitlines()}) == 1
