"""Templates as callers write them: what is read, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from vllm_mdlm.errors import ParameterError
from vllm_mdlm.params import decode, decode_defaults, merge, template_shape
from vllm_mdlm.spans import Blocks
from vllm_mdlm.templates import FREE, FreeSpan, TemplatePlan, parse_template

MASK = 99


def encode(text: str) -> list[int]:
    return [MASK if letter == "?" else ord(letter) - 96 for letter in text]


def plan(items: list[Any], **arguments: Any) -> TemplatePlan:
    common, _ = decode(merge({}, {"template": items} | arguments))
    template = parse_template(items, encode, mask_token_id=MASK, vocab_size=100)
    return template_shape(common, template, MASK, {"template": items} | arguments).plan


def test_positions() -> None:
    template = parse_template(
        ["ab", {"mask": 2, "name": "r"}, [7], {"mask": 1, "target": [5]}], encode
    )
    assert template.tokens == (1, 2, FREE, FREE, 7, FREE)
    assert template.spans == (
        FreeSpan(2, 4, "r", None, None, 1),
        FreeSpan(5, 6, None, None, (5,), 3),
    )


@pytest.mark.parametrize(
    ("items", "parameter"),
    [
        ([], "template"),
        (["", []], "template"),
        (["a", 3], "template[1]"),
        (["a", None], "template[1]"),
        ([[1, "a"]], "template[0]"),
        ([[True]], "template[0]"),
        ([[-1]], "template[0]"),
        ([[100]], "template[0]"),
        (["ab?"], "template[0]"),
        (["a", "\ud800"], "template[1]"),
        ([{"mask": 60}, {"mask": 41}], "template"),
        ([{"mask": 10**15}], "template"),
        ([[MASK]], "template[0]"),
        ([{}], "template[0].mask"),
        ([{"mask": 0}], "template[0].mask"),
        ([{"mask": 1.5}], "template[0].mask"),
        (["a", {"mask": "3"}], "template[1].mask"),
        ([{"mask": 3, "length": 3}], "template[0].length"),
        ([{"mask": 3, "name": 3}], "template[0].name"),
        ([{"mask": 3, "name": "r"}, "a", {"mask": 1, "name": "r"}], "template[2].name"),
        ([{"mask": 3, "block_length": 0}], "template[0].block_length"),
        ([{"mask": 3, "block_length": 4}], "template[0].block_length"),
        ([{"mask": 3, "target": [1, 2]}], "template[0].target"),
        ([{"mask": 1, "target": "a"}], "template[0].target"),
        ([{"mask": 1, "target": [MASK]}], "template[0].target"),
        ([{"mask": 1, "target": [100]}], "template[0].target"),
    ],
)
def test_what_is_wrong_is_named(items: list[Any], parameter: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_template(items, encode, mask_token_id=MASK, vocab_size=100, most_positions=100)
    assert caught.value.parameter == parameter


def test_text_needs_a_tokenizer() -> None:
    with pytest.raises(ParameterError, match=r"template\[1\].*no tokenizer.*token ids"):
        parse_template([[1], "a"], None)
    assert parse_template([[1], {"mask": 1}], None).tokens == (1, FREE)


def test_blocks_of_every_span() -> None:
    cut = plan(
        ["a", {"mask": 5}, "b", {"mask": 3, "block_length": 1}, {"mask": 2, "name": "x"}],
        block_length=4,
        answer="x",
    )
    assert cut.blocks == [(1, 5), (5, 6), (7, 8), (8, 9), (9, 10), (10, 12)]
    assert cut.tokens == [1, *[MASK] * 5, 2, *[MASK] * 5]
    assert (cut.answer, cut.answer_block) == ((10, 12), 5)


def test_scores_take_one_block() -> None:
    cut = plan([{"mask": 2, "target": [3, 4]}, "ab", {"mask": 1, "target": [5]}], kv_cache="dual")
    assert cut.blocks == [(0, 5)]
    assert cut.targets == [3, 4, 5]
    cut = plan([{"mask": 2}, {"mask": 1, "target": [5]}, "a", {"mask": 1}])
    assert cut.blocks == [(0, 5)]
    assert cut.targets == [MASK, MASK, 5, MASK]


FREE_ITEMS = [{"mask": 4, "name": "r"}, "a", {"mask": 2, "name": "x"}]
SCORED = [{"mask": 1, "name": "x", "target": [1]}]


@pytest.mark.parametrize(
    ("items", "arguments", "parameter"),
    [
        (FREE_ITEMS, {"gen_length": 7}, "gen_length"),
        (FREE_ITEMS, {"answer": "y"}, "answer"),
        ([{"mask": 1}], {"answer": "y"}, "answer"),
        (FREE_ITEMS, {"early_exit": 0.1}, "early_exit"),
        (FREE_ITEMS, {"early_exit": 0.0, "answer": "x"}, "early_exit"),
        (FREE_ITEMS, {"early_exit": 0.1, "answer": "r"}, "answer"),
        (FREE_ITEMS, {"steps": 3}, "steps"),
        (SCORED, {"sampler": "entropy"}, "sampler"),
        (SCORED, {"block_length": 1}, "block_length"),
        (SCORED, {"early_exit": 0.1, "answer": "x"}, "early_exit"),
        ("ab", {}, "template"),
    ],
)
def test_what_does_not_go_together(
    items: list[Any], arguments: dict[str, Any], parameter: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        plan(items, **arguments)
    assert caught.value.parameter == parameter


def test_defaults_of_a_server() -> None:
    """Those of the plain canvas do not shape a template, and scores have no sampler."""
    defaults = {"gen_length": 64, "steps": 64, "block_length": 8, "sampler": "med"}
    merged = merge(defaults, {"template": FREE_ITEMS})
    assert merged == {"block_length": 8, "sampler": "med", "template": FREE_ITEMS}
    merged = merge(defaults | {"kv_cache": "dual"}, {"template": SCORED})
    assert merged == {"kv_cache": "dual", "template": SCORED}
    for name, value in (("template", SCORED), ("answer", "x"), ("early_exit", 1.0)):
        with pytest.raises(ParameterError, match=name):
            decode_defaults({name: value})


def test_blocks_by_final_tokens() -> None:
    listed = Blocks(20, 4, [(2, 6), (6, 9), (12, 13)])
    assert [listed.index_at(n) for n in (0, 2, 5, 6, 8, 9, 12, 13, 20)] == [
        *(0, 0, 0, 1, 1, 2, 2, 3, 3)
    ]
    assert listed.bounds(1) == (6, 9)
    assert listed.bounds(3) == (20, 20)
    assert listed.starts() == {2, 6, 12}
    equal, same = Blocks(10, 4), Blocks(10, 4, [(0, 4), (4, 8), (8, 10)])
    assert len(equal) == len(same) == 3
    for n in range(11):
        assert equal.bounds(equal.index_at(n)) == same.bounds(same.index_at(n)) or n == 10
