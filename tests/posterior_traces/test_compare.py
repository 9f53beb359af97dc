"""The comparison's questions, training files and table."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from recipes.posterior_traces import compare, shift
from recipes.posterior_traces.arithmetic import is_right
from recipes.posterior_traces.questions import Item, read_questions
from recipes.posterior_traces.settings import load_settings
from recipes.train.questions import HELD_OUT_ONE_IN, side_of

STUDY = msgspec.toml.decode(compare.SETTINGS.read_bytes(), type=compare.Comparison)


def test_questions_of_the_new_signs_are_read_checked_and_on_their_side(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    drawn = list(shift.questions(40, "train", seed=1))
    shift.write_questions(path, map(shift.item_of, drawn))
    items = read_questions(path)
    assert len(items) == 40 > HELD_OUT_ONE_IN
    held = list(shift.questions(40, "held_out", seed=1))
    assert {side_of(q.steps[0]) for q in drawn} == {"train"}
    assert {side_of(q.steps[0]) for q in held} == {"held_out"}
    for question, item in zip(drawn, items, strict=True):
        assert int(item.answer) == question.steps[0].a + question.steps[0].b
        assert item.reasoning is not None
        assert item.positions == len(f"{item.reasoning}\n")
        assert is_right(item, item.reasoning)
        assert not is_right(item, item.reasoning.replace("=0", "=1").replace("=1", "=2"))


def chats(*pairs: tuple[str, str]) -> bytes:
    return b"".join(msgspec.json.encode(compare.chat(*pair)) + b"\n" for pair in pairs)


def test_every_arm_gets_its_traces(tmp_path: Path) -> None:
    template = load_settings(Path("recipes/posterior_traces/arithmetic.toml")).template
    (tmp_path / "settings.json").write_bytes(msgspec.json.encode({"template": template}))
    distinct = chats(("a", "first"), ("a", "second"), ("b", "third"))
    (tmp_path / "distinct.jsonl").write_bytes(distinct)
    (tmp_path / "kept.jsonl").write_bytes(chats(("a", "second")))
    items = [
        Item(question="a", answer="2", reasoning="1+1+0=02"),
        Item(question="b", answer="3", reasoning="1+2+0=03"),
    ]
    files = compare.write_arms(items, tmp_path, tmp_path / "data")
    texts = {arm: list(map(json.loads, files[arm].read_text().splitlines())) for arm in files}
    replies = {
        arm: [(line["messages"][0]["content"], line["messages"][-1]["content"]) for line in lines]
        for arm, lines in texts.items()
    }
    assert replies == {
        "posterior, filtered": [("a", "second")],
        "human, of the same questions": [("a", "1+1+0=02\nThe answer is 2")],
        "posterior, unfiltered": [("a", "first"), ("b", "third")],
        "human": [("a", "1+1+0=02\nThe answer is 2"), ("b", "1+2+0=03\nThe answer is 3")],
        "answers only": [("a", "The answer is 2"), ("b", "The answer is 3")],
    }
    with pytest.raises(ValueError, match="'c' has no `reasoning`"):
        compare.write_arms([*items, Item(question="c", answer="4")], tmp_path, tmp_path / "data")


def test_the_settings_make_the_runs_of_the_trainer(tmp_path: Path) -> None:
    if not Path(STUDY.model, "config.json").is_file():
        pytest.skip("no arithmetic model in this checkout")
    settings = STUDY.settings(tmp_path / "human.jsonl", seed=3)
    assert settings.run.seed == 3
    assert settings.run.start_from == STUDY.model
    assert settings.data == msgspec.convert(
        {
            "type": "chat",
            "file": str(tmp_path / "human.jsonl"),
            **msgspec.structs.asdict(STUDY.rows),
        },
        compare.ChatData,
    )


def test_the_table_has_means_over_questions_and_seeds() -> None:
    def result(arm: str, seed: int | None, *answer: bool) -> compare.Result:
        return compare.Result(
            arm=arm, seed=seed, traces=7, answer=[*answer], reasoning=[*answer], known=[True, True]
        )

    text = compare.table(
        [
            result("no fine-tuning", None, False, False),
            result("human", 1, True, True),
            result("human", 2, True, False),
        ]
    )
    human, base = text.splitlines()[2:4]
    assert human.startswith("| human | 7 | 0.750 (0.500 to 1.000) | 1.000, 0.500 | 0.750")
    assert base.startswith("| no fine-tuning | 7 | 0.000 (0.000 to 0.000) | 0.000 |")
    assert "2 held-out questions" in text
