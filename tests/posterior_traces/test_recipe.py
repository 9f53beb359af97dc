"""Questions, settings, choice and report of the posterior-trace recipe, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from recipes.pass_at_k.settings import Sampler
from recipes.posterior_traces import __main__ as command
from recipes.posterior_traces.arithmetic import is_right
from recipes.posterior_traces.choose import best, distinct, normalised
from recipes.posterior_traces.questions import Gsm8kRow, Item, gsm8k, gsm8k_item, read_questions
from recipes.posterior_traces.records import Scored, Trace
from recipes.posterior_traces.report import Outcome, auc, report
from recipes.posterior_traces.settings import Filter, Settings, Template, load_settings

FOLDER = Path("recipes/posterior_traces")
TEMPLATE = Template(positions=18, delimiter="The answer is ", answer_positions=6, end="<|eos|>")
SETTINGS = Settings(
    model="tiny",
    seed=1,
    samples=3,
    concurrency=2,
    template=TEMPLATE,
    sampling=Sampler(sampler="entropy", temperature=1.0),
)
SUM = Item(question="What is 12 + 9?", answer="21", positions=18)
RIGHT, WRONG = "2+9+0=11\n1+0+1=02\n", "2+9+0=11\n1+1+0=02\n"


def trace(text: str, sample: int, question: str = SUM.id) -> Trace:
    return Trace(
        task="infill",
        question=question,
        setting=SETTINGS.sampling.label,
        sample=sample,
        seed=sample,
        text=text,
        mean_logprob=-0.1,
        forward_passes=18,
    )


@pytest.mark.parametrize("name", ["arithmetic.toml", "gsm8k_llada_8b.toml"])
def test_the_settings_of_the_repository_are_read(name: str) -> None:
    settings = load_settings(FOLDER / name)
    assert settings.samples > 1
    assert settings.arguments["sampler"] == settings.sampling.sampler


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, r"samples"),
        ({"sampling": {"sampler": "entropy", "temperature": 0.0}}, "same trace every time"),
        ({"sampling": {"sampler": "entropy", "temperature": 3.0}}, r"\$.sampling.temperature"),
        ({"filter": {"least_score": 0.5}}, r"\$.filter.least_score"),
        ({"filter": {"best": 1}}, "best"),
        ({"template": {"positions": 4, "answer_positions": 2}}, "delimiter"),
        ({"data_set": "gsm9k"}, r"\$.data_set"),
    ],
)
def test_wrong_settings_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    settings = msgspec.to_builtins(SETTINGS)
    assert msgspec.convert(settings, Settings) == SETTINGS
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(settings | change, Settings)


def test_templates_and_the_reply_state_the_answer() -> None:
    free = {"mask": 18, "name": "reasoning"}
    assert TEMPLATE.sampling(18, "21") == [free, "The answer is ", "21", "<|eos|>"]
    answer = {"mask": 6, "name": "answer"}
    assert TEMPLATE.scoring(18) == [free, "The answer is ", answer, "<|eos|>"]
    assert TEMPLATE.reply(RIGHT, "21") == f"{RIGHT}The answer is 21"
    assert TEMPLATE.reply(" \n", "21") == "The answer is 21"


GOOD_LINE = '{"question": "1 + 1", "answer": "2"}'


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('{"question": "1 + 2"}', "line 2.*`answer`"),
        ('{"question": "1 + 2", "answer": 3}', "line 2.*answer"),
        ('{"question": " ", "answer": "3"}', "line 2.*question"),
        ('{"question": "1 + 2", "answer": "3", "positions": 0}', "line 2.*positions"),
        ('{"question": "1 + 2", "answer": "3", "extra": 0}', "line 2.*extra"),
        ('{"question": "a", "answer": "3", "calculation": "one"}', "line 2.*calculation"),
        ('{"question": "1 + 2", "ans', "line 2"),
        (GOOD_LINE, "line 2 asks what line 1 asks"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, second: str, message: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{GOOD_LINE}\n{second}\n")
    with pytest.raises(ValueError, match=message):
        read_questions(path)


def test_questions_keep_their_order_and_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(f'{GOOD_LINE}\n{{"question": "b", "answer": "c", "positions": 9}}\n')
    first, second = read_questions(path)
    assert (first.answer, second.positions) == ("2", 9)
    assert first.id == Item(question="1 + 1", answer="2", reasoning="not asked").id != second.id
    path.write_text("")
    with pytest.raises(ValueError, match="has no line"):
        read_questions(path)


def test_rows_of_gsm8k_become_questions() -> None:
    """Rows of our own in the data set's form."""
    row = {"question": "Ann has 3 boxes of 1,200 pens. How many pens has she?"}
    answer = "She has 3*1,200=<<3*1200=3600>>3,600 pens.\n#### 3,600"
    (item,) = gsm8k([row | {"answer": answer}])
    assert item.answer == "3600"
    assert item.reasoning == "She has 3*1,200=3,600 pens."
    with pytest.raises(ValueError, match="has no `####`"):
        gsm8k_item(Gsm8kRow(question="How many?", answer="3"))


def test_traces_that_say_the_same_count_once_and_empty_ones_not_at_all() -> None:
    assert normalised(" a\n b\t") == "a b"
    other = trace("a b", 0, question="other")
    traces = [trace("c", 3), trace(" a\n b", 1), trace("a b ", 0), trace(" \n", 2), other]
    found = distinct(traces)
    assert [(one.text, one.sample) for one in found[SUM.id]] == [("a b ", 0), ("c", 3)]
    assert found["other"] == [other]


@pytest.mark.parametrize(
    ("rule", "samples"),
    [
        (Filter(), [2, 0, 3, 1]),
        (Filter(keep=1), [2]),
        (Filter(least_score=-1.0), [2, 0, 3]),
        (Filter(least_score=-1.0, keep=2), [2, 0]),
        (Filter(least_score=-0.01), []),
    ],
)
def test_the_filter_keeps_the_best_that_are_good_enough(rule: Filter, samples: list[int]) -> None:
    traces = [trace(str(sample), sample) for sample in range(5)]
    scores = dict(zip((one.key for one in traces), (-1.0, -2.0, -0.5, -1.0, None), strict=True))
    assert [one.sample for one in best(traces, scores, rule)] == samples


def test_a_score_is_the_mean_over_the_answers_tokens() -> None:
    key = {"task": "infill", "question": "q", "setting": "s", "sample": 0}
    assert Scored(**key, logprob=-3.0, tokens=4).score == -0.75
    assert Scored(**key, logprob=None, tokens=0, note="too long").score is None


def test_arithmetic_is_checked_line_by_line() -> None:
    assert is_right(SUM, RIGHT) is True
    assert is_right(SUM, WRONG) is False
    assert is_right(SUM, "2+9+0=11") is False
    story = {"question": "Ann has 12 and gets 9 more.", "answer": "21"}
    assert is_right(Item(**story), RIGHT) is None
    assert is_right(Item(**story, calculation="12 + 9"), RIGHT) is True


def test_the_report_counts_right_traces_before_and_after_the_filter() -> None:
    asked = [trace(RIGHT, 0), trace(WRONG, 1), trace(RIGHT, 2)]
    found = distinct(asked)
    scores = {asked[0].key: -0.01, asked[1].key: -2.0}
    kept = {question: best(group, scores, Filter(keep=1)) for question, group in found.items()}
    settings = msgspec.structs.replace(SETTINGS, filter=Filter(keep=1))
    text = report(settings, Outcome([SUM], asked, found, kept, scores, [-1.5]))
    for line in (
        "| sampled | 3 | 1 | 2 of 3: 0.667",
        "| distinct | 2 | 1 | 1 of 2: 0.500",
        "| kept | 1 | 1 | 1 of 1: 1.000",
        "| without | -1.5000 |",
        "AUC of the scores: 1.000 (1 right, 1 wrong traces).",
        "refused to score: 0.",
    ):
        assert line in text
    assert auc([1.0, 0.0], [0.0, -1.0]) == 0.875


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    command.check_folder(SETTINGS, tmp_path)
    more = msgspec.structs.replace(SETTINGS, samples=9, filter=Filter(keep=1))
    command.check_folder(more, tmp_path)
    longer = msgspec.structs.replace(TEMPLATE, positions=27)
    for name, value in (("seed", 2), ("model", "other"), ("template", longer)):
        with pytest.raises(ValueError, match=f"holds traces of {name}"):
            command.check_folder(msgspec.structs.replace(SETTINGS, **{name: value}), tmp_path)


def test_chats_are_written_in_the_order_of_the_questions(tmp_path: Path) -> None:
    other = Item(question="What is 1 + 1?", answer="2")
    traces = {SUM.id: [trace(RIGHT, 0)], other.id: [trace("1+1+0=02", 0, other.id)]}
    command.write_chats(tmp_path / "kept.jsonl", SETTINGS, [other, SUM], traces)
    lines = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert [line["messages"][0] for line in lines] == [
        {"role": "user", "content": other.question},
        {"role": "user", "content": SUM.question},
    ]
    assert lines[1]["messages"][1] == {"role": "assistant", "content": f"{RIGHT}The answer is 21"}
