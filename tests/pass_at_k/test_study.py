"""The study from settings to report: loading, asking, a kill, grading, tables."""

from __future__ import annotations

import csv
import json
import random
import sys
import threading
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from vllm.sampling_params import SamplingParams

from recipes.pass_at_k import __main__ as command
from recipes.pass_at_k.curves import curves
from recipes.pass_at_k.estimator import pass_at_k
from recipes.pass_at_k.harder import new_words
from recipes.pass_at_k.report import by_passes, by_samples, differences, write
from recipes.pass_at_k.run import Request, requests, seed_of
from recipes.pass_at_k.settings import RANDOM_AT_ZERO, Study, Task, load_study
from recipes.pass_at_k.store import Answer, Grade, Log, read
from recipes.pass_at_k.tasks import SOURCES, load
from tests.pass_at_k.endpoint import completion, endpoint
from vllm_mdlm.admission import ServerRules, plan_request

FOLDER = Path("recipes/pass_at_k")
STUDY = """
model = "none"
seed = 1
samples = 4
ks = [1, 2, 4]
budgets = [5, 10, 30, 1000]
concurrency = 3
[[tasks]]
name = "arithmetic"
kind = "two steps"
questions = 5
max_tokens = 96
arguments = { block_length = 32 }
[[tasks]]
name = "math500"
questions = 2
max_tokens = 64
[[samplers]]
sampler = "low_confidence"
temperature = 0.0
[[samplers]]
sampler = "mh"
temperature = 1.0
commit_order = "position_first"
arguments = { alpha = 4.0 }
"""

RULES = ServerRules(
    defaults={},
    limit=4096,
    limit_name="the context",
    guided_limit=0,
    default_max_tokens=256,
    vocab_size=448,
    mask_token_id=2,
    eos_token_id=0,
)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_the_settings_files_decode_and_admission_takes_every_request(path: Path) -> None:
    study = load_study(path)
    for task in study.tasks:
        for sampler in study.samplers:
            params = SamplingParams(
                max_tokens=task.max_tokens,
                temperature=sampler.temperature,
                extra_args=sampler.vllm_xargs(task),
            )
            assert plan_request(params, 64, RULES).gen_length >= task.max_tokens
    assert {s.sampler for s in study.samplers} >= {"random", "left_to_right", *RANDOM_AT_ZERO}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("samples = 4", "sample = 4", "unknown field `sample`"),
        ("temperature = 1.0", "temperature = -1.0", "temperature"),
        ("ks = [1, 2, 4]", "ks = [1, 8]", "`ks`"),
        ("ks = [1, 2, 4]", "ks = [2, 1]", "`ks`"),
        ("alpha = 4.0", "seed = 4", "`arguments` names seed"),
        ("questions = 5", "", "`questions`"),
        ('name = "math500"', 'name = "gsm8k"', "Invalid enum value 'gsm8k'"),
        ('name = "math500"', 'name = "math500"\nkind = "addition"', "`kind`"),
        ('"position_first"', '"any"', "Invalid enum value 'any'"),
        ("concurrency", 'compare = [["mh", "mh"]]\nconcurrency', "`compare` names \\['mh'\\]"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    path = tmp_path / "study.toml"
    path.write_text(STUDY.replace(old, new))
    with pytest.raises(msgspec.ValidationError, match=message):
        load_study(path)


def test_the_same_curve_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(STUDY + '[[samplers]]\nsampler = "low_confidence"\ntemperature = 0\n')
    with pytest.raises(msgspec.ValidationError, match="low_confidence, T 0 more than once"):
        load_study(path)


@pytest.mark.parametrize("name", SOURCES)
def test_every_task_reads_its_samples(name: str) -> None:
    items = load(Task(name=name, max_tokens=1), FOLDER / "samples")  # type: ignore[arg-type]
    assert 5 <= len(items) <= 10
    assert len({item.id for item in items}) == len(items)
    assert load(Task(name=name, max_tokens=1, questions=2), FOLDER / "samples")[1].id == items[1].id  # type: ignore[arg-type]


def test_the_hub_is_asked_for_the_named_split(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load_dataset(*arguments: object, **named: object) -> list[dict[str, Any]]:
        calls.append((arguments, named))
        return [{"id": 7, "problem": "p", "answer": "073", "url": ""}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    (item,) = load(Task(name="aime24", max_tokens=1))
    assert calls == [(("HuggingFaceH4/aime_2024", None), {"split": "train"})]
    assert (item.id, item.gold) == ("7", "73")


def test_a_row_without_its_field_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mbpp.jsonl").write_text('{"task_id": 1, "text": "t"}\n')
    with pytest.raises(msgspec.ValidationError, match="test_list"):
        load(Task(name="mbpp", max_tokens=1), tmp_path)


def test_arithmetic_takes_held_out_questions_of_a_kind() -> None:
    items = load(Task(name="arithmetic", kind="two steps", questions=30, max_tokens=96))
    assert all(len(item.gold.steps) == 2 for item in items)
    assert len({item.id for item in items}) == 30
    new = load(Task(name="arithmetic", kind="new words", questions=4, max_tokens=40))
    assert [item.gold for item in new] == list(islice(new_words(), 4))
    mixed = load(Task(name="arithmetic", questions=30, max_tokens=96))
    assert len({item.gold.kind for item in mixed}) == 3


def test_seeds_differ_between_samples_and_questions() -> None:
    seeds = {seed_of(s, "t", q, i) for s in (1, 2) for q in "ab" for i in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def answer(sample: int, text: str = "t", **fields: Any) -> Answer:
    return Answer(
        task="arithmetic",
        question="q",
        setting="s",
        sample=sample,
        seed=1,
        text=text,
        finish_reason="stop",
        completion_tokens=1,
        forward_passes=2,
        **fields,
    )


@pytest.mark.parametrize("torn", range(1, 100, 7))
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "answers.jsonl"
    log = Log(path, Answer)
    for sample in range(3):
        log.append(answer(sample, "a\nb\u2028é"))
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-torn])
    log = Log(path, Answer)
    assert sorted(key[3] for key in log.records) == [0, 1]
    log.append(answer(2, "a\nb\u2028é"))
    log.close()
    assert path.read_bytes() == whole


def test_a_broken_line_inside_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"task": 1\n' + msgspec.json.encode(answer(0)) + b"\n")
    with pytest.raises(ValueError, match=r"line 1, is no Answer"):
        Log(path, Answer)


def test_a_file_is_written_by_one_process_and_read_by_any(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    log = Log(path, Answer)
    log.append(answer(0))
    with path.open("ab") as file:
        file.write(b'{"task": "half of a re')
    with pytest.raises(RuntimeError, match="another process writes to"):
        Log(path, Answer)
    assert list(read(path, Answer).values()) == [answer(0)]
    assert path.read_bytes().endswith(b"half of a re")
    log.close()
    Log(path, Answer).close()


class Server:
    """Answers arithmetic rightly for even seeds; `refuse_after` requests it fails."""

    def __init__(self, study: Study) -> None:
        self.items = {i.prompt: i for t in study.tasks for i in load(t, FOLDER / "samples")}
        self.bodies: list[dict[str, Any]] = []
        self.refuse_after = 10**9
        self.lock = threading.Lock()
        self.first = threading.Barrier(study.concurrency)
        self.now = self.most = 0

    def __call__(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        assert path == "/v1/chat/completions"
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if len(self.bodies) >= self.refuse_after:
                self.now -= 1
                return 400, {"error": {"message": "no more", "type": "t", "code": 400}}
            self.bodies.append(body)
            count = len(self.bodies)
        if count <= self.first.parties:
            self.first.wait(10)  # Breaks if the client sends fewer at once.
        item = self.items[body["messages"][0]["content"]]
        right = item.gold.completion if item.grader == "arithmetic" else rf"\boxed{{{item.gold}}}"
        text = right if body["seed"] % 2 == 0 else "The answer is 0"
        response = completion(text, forward_passes=10, completion_tokens=5)
        if body["vllm_xargs"]["sampler"] == "mh":
            chains = {"proposals": [4, 4], "acceptances": [0, 2], "log_weight": [-1.0, -2.0]}
            response["choices"][0]["trace"] = chains
        with self.lock:
            self.now -= 1
        return 200, response


def run(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    out = ["--out", str(tmp_path / "out"), "--samples", str(FOLDER / "samples")]
    arguments = ["pass_at_k", str(tmp_path / "study.toml"), *out, "--base-url", url, *more]
    monkeypatch.setattr(sys, "argv", arguments)
    command.main()


def test_the_command_asks_goes_on_after_a_stop_grades_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = msgspec.toml.decode(STUDY, type=Study)
    server, out = Server(study), tmp_path / "out"
    server.refuse_after = 12
    with endpoint(server) as url:
        with pytest.raises(Exception, match="no more"):
            run(tmp_path, url, monkeypatch)
        kept = (out / "answers.jsonl").read_bytes()
        lines = kept.count(b"\n")
        assert 9 <= lines <= 12  # Those under way when the server refused may be lost.
        (out / "answers.jsonl").write_bytes(kept[:-9])
        server.refuse_after = 10**9
        run(tmp_path, url, monkeypatch)
        asked = len(server.bodies)
        run(tmp_path, url, monkeypatch, "--stages", "answer")
        assert len(server.bodies) == asked
    total = 7 * (1 + 4)
    assert asked == 12 + total - (lines - 1)  # The torn one was asked again.
    assert server.most == study.concurrency
    check_requests(server.bodies)
    check_outputs(out, total)
    assert "| arithmetic | mh, T 1, position_first, alpha 4.0 | 5 | 4 |" in capsys.readouterr().out


def check_requests(bodies: list[dict[str, Any]]) -> None:
    arithmetic = [b for b in bodies if b["max_tokens"] == 96]
    mh = [b for b in arithmetic if b["temperature"] == 1.0]
    assert {json.dumps(b["vllm_xargs"], sort_keys=True) for b in mh} == {
        '{"alpha": 4.0, "block_length": 32, "commit_order": "position_first", "sampler": "mh"}'
    }
    assert len({(b["messages"][0]["content"], b["seed"]) for b in mh}) == 5 * 4


def check_outputs(out: Path, total: int) -> None:
    answers, grades = read(out / "answers.jsonl", Answer), read(out / "grades.jsonl", Grade)
    assert len(answers) == len(grades) == total
    for key, one in answers.items():
        assert one.forward_passes == 10
        assert (one.proposals, one.acceptances) == ((8, 2) if "mh" in one.setting else (None, None))
        assert grades[key].right == (one.seed % 2 == 0)
    assert (out / "by_samples.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "by_passes.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "report.md").read_text()
    assert "## At equal forward passes" in text
    assert "Mathematics graded by" in text


def test_answers_of_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    study = msgspec.toml.decode(STUDY, type=Study)
    command.check_folder(study, None, tmp_path)
    command.check_folder(msgspec.structs.replace(study, samples=9, samplers=()), None, tmp_path)
    for change, name in (({"seed": 2}, "seed"), ({"model": "other"}, "model")):
        with pytest.raises(ValueError, match=f"holds answers of {name}"):
            command.check_folder(msgspec.structs.replace(study, **change), None, tmp_path)
    for field, value in (("max_tokens", 64), ("kind", "new words")):
        other = msgspec.structs.replace(study.tasks[0], **{field: value})
        with pytest.raises(ValueError, match="task arithmetic"):
            command.check_folder(msgspec.structs.replace(study, tasks=(other,)), None, tmp_path)


def test_a_server_that_counts_no_passes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        endpoint(lambda path, body: (200, completion("x"))) as url,
        pytest.raises(RuntimeError, match="no `forward_passes`"),
    ):
        run(tmp_path, url, monkeypatch)


def synthetic(study: Study) -> tuple[list[Answer], dict[Any, Grade]]:
    """Answers whose counts are known: question j of 5 has j right ones."""
    rng = random.Random(0)
    answers, grades = [], {}
    items = {t.name: load(t, FOLDER / "samples") for t in study.tasks[:1]}
    study = msgspec.structs.replace(study, tasks=study.tasks[:1])
    order = {item.id: j for j, item in enumerate(items["arithmetic"])}
    for request in requests(study, items, study.samplers):
        text = "odd" if request.sample % 2 else "even"
        one = record(request, text, passes=10 if request.sampler.is_deterministic else 20)
        answers.append(one)
        right = request.sample < order[request.item.id]
        grades[one.key] = Grade(
            task=one.task,
            question=one.question,
            setting=one.setting,
            sample=one.sample,
            right=right,
            by="arithmetic",
        )
    rng.shuffle(answers)
    return answers, grades


def record(request: Request, text: str, passes: int) -> Answer:
    task, question, setting, sample = request.key
    return Answer(
        task=task,
        question=question,
        setting=setting,
        sample=sample,
        seed=0,
        text=text,
        finish_reason="stop",
        completion_tokens=5,
        forward_passes=passes,
    )


def test_tables_and_points_say_what_the_counts_say(tmp_path: Path) -> None:
    study = msgspec.toml.decode(STUDY, type=Study)
    found = curves(study, *synthetic(study))
    assert [one.sampler.sampler for one in found] == ["low_confidence", "mh"]
    expected = {k: float(np.mean(pass_at_k(np.full(5, 4), np.arange(5), k))) for k in study.ks}
    rows = by_samples(study, found).splitlines()
    assert rows[2].count("0.800") == 3  # 4 of 5 questions, for every k
    assert all(f"{value:.3f} (" in rows[3] for value in expected.values())
    assert rows[3].endswith("| 2.0 | 20.0 | 5.0 |  |")  # two texts a question
    cells = [cell.strip() for cell in by_passes(study, found).splitlines()[3].split("|")[5:-1]]
    assert cells[:2] == ["no answer", "no answer"]
    assert cells[2].endswith("k 1")
    assert cells[3] == "not sampled, k 50"
    study = msgspec.structs.replace(
        study, compare=(("mh, T 1, position_first, alpha 4.0", "low_confidence, T 0"),)
    )
    less = [cell.strip() for cell in differences(study, found).splitlines()[2].split("|")[4:-1]]
    gaps = [float(cell.split(" ")[0]) for cell in less[:3]]
    assert gaps == pytest.approx([value - 0.8 for value in expected.values()], abs=5e-4)
    assert less[3:] == ["not sampled", "not sampled", less[0], "not sampled"]
    write(study, found, ["A note."], tmp_path)
    with (tmp_path / "points.csv").open() as file:
        points = list(csv.DictReader(file))
    mh = {(p["axis"], int(p["k"])): p for p in points if p["setting"].startswith("mh")}
    assert {key for key in mh if key[0] == "samples"} == {("samples", k) for k in study.ks}
    assert float(mh["samples", 2]["value"]) == pytest.approx(expected[2], abs=1e-6)
    assert float(mh["samples", 2]["passes"]) == 40
    assert float(mh["passes", 1]["budget"]) == 30
    assert (tmp_path / "report.md").read_text().endswith("A note.\n")


def test_requests_are_each_sample_of_each_question_once() -> None:
    study = msgspec.toml.decode(STUDY, type=Study)
    items = {t.name: load(t, FOLDER / "samples") for t in study.tasks}
    keys = Counter(r.key for r in requests(study, items, study.samplers))
    assert set(keys.values()) == {1}
    assert Counter(key[2] for key in keys) == {
        "low_confidence, T 0": 7,
        "mh, T 1, position_first, alpha 4.0": 28,
    }
