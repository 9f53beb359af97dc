"""Conversations of a JSONL file as training data, and runs that begin with a model."""

import json
from pathlib import Path

import msgspec
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from recipes.train.__main__ import source_of, tokenizer_of
from recipes.train.data import ChatSource
from recipes.train.layout import write_model
from recipes.train.model import LLaDA
from recipes.train.settings import (
    ChatData,
    ModelSettings,
    OptimSettings,
    RandomMasking,
    RunSettings,
    Settings,
    TaskData,
)
from recipes.train.tokenizer import build_tokenizer
from recipes.train.trainer import Trainer

MODEL = ModelSettings(
    d_model=32, n_layers=1, n_heads=1, n_kv_heads=1, mlp_hidden_size=32, vocab_size=300
)
QUESTION, REPLY = "What is 1 + 1?", "1+1+0=02\nThe answer is 2"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer([f"user assistant system {QUESTION} {REPLY}"] * 9, 300)


def line(*turns: tuple[str, str]) -> str:
    messages = [{"role": role, "content": content} for role, content in turns]
    return json.dumps({"messages": messages}) + "\n"


GOOD = line(("user", QUESTION), ("assistant", REPLY))
LONGER = line(("system", "Be brief."), ("user", QUESTION), ("assistant", f"{REPLY} {REPLY}"))


def data(path: Path, text: str, *row_lengths: int) -> ChatData:
    path.write_text(text)
    return ChatData(
        file=str(path),
        row_lengths=row_lengths,
        row_weights=(1.0,) * len(row_lengths),
        tokens_per_batch=256,
    )


def settings(chats: ChatData, **run: object) -> Settings:
    return Settings(
        model=MODEL,
        data=chats,
        masking=RandomMasking(block_share=0.5),
        optim=OptimSettings(steps=2, learning_rate=1e-3, warm_up=1),
        run=RunSettings(precision="float32", **run),  # type: ignore[arg-type]
    )


def test_the_prompt_is_never_masked_and_rows_end_with_eos(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    source = ChatSource(data(tmp_path / "chats.jsonl", GOOD + LONGER, 64, 128), tokenizer, seed=0)
    prompts, replies, lengths = set(), set(), set()
    for step in range(12):
        tokens, maskable, computed, _ = source.batch(step)
        assert computed is None
        assert len(tokens) == 256 // tokens.shape[1]
        lengths.add(tokens.shape[1])
        for row, cells in zip(tokens, maskable, strict=True):
            assert row[-1] == tokenizer.eos_token_id
            prompts.add(tokenizer.decode(row[~cells]))
            reply = tokenizer.decode(row[cells]).replace("<|endoftext|>", "")
            replies.add(reply)
            assert tokens.shape[1] == 128 or reply == REPLY  # The longer one does not fit in 64.
    assert lengths == {64, 128}
    asked = "<|start_header_id|>user<|end_header_id|>\n\n" + QUESTION + "<|eot_id|>"
    reply = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    system = "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    assert prompts == {f"<|startoftext|>{head}{asked}{reply}" for head in ("", system)}
    assert replies == {REPLY, f"{REPLY} {REPLY}"}


def test_batches_are_functions_of_seed_and_step(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    chats = data(tmp_path / "chats.jsonl", GOOD + LONGER, 128)
    source = ChatSource(chats, tokenizer, seed=0)
    assert torch.equal(source.batch(5).tokens, source.batch(5).tokens)
    batches = [source.batch(step).tokens.tolist() for step in range(6)]
    other = [ChatSource(chats, tokenizer, seed=1).batch(step).tokens.tolist() for step in range(6)]
    assert batches != other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + '{"messages": [{"role": "user"}]}\n', "line 2.*content"),
        (GOOD + line(("user", QUESTION)), "line 2.*last, the assistant"),
        (GOOD + line(("assistant", REPLY)), "line 2.*a user"),
        (GOOD + line(("robot", REPLY)), "line 2.*robot"),
        (GOOD + "{", "line 2"),
        (GOOD + LONGER, "line 2 takes .* longest of row_lengths is 64"),
        ("", "has no line"),
    ],
)
def test_a_line_that_is_no_conversation_is_named(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, text: str, message: str
) -> None:
    chats = data(tmp_path / "chats.jsonl", text, 64)
    with pytest.raises(ValueError, match=message):
        ChatSource(chats, tokenizer, seed=0)


def test_a_row_length_that_holds_nothing_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match=r"rows of \[16\]"):
        ChatSource(data(tmp_path / "chats.jsonl", GOOD, 16, 128), tokenizer, seed=0)


def test_a_run_begins_with_the_weights_and_tokenizer_of_a_model(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model, folder = LLaDA(MODEL), tmp_path / "model"
    write_model(folder, MODEL, model.state_dict(), tokenizer)
    chosen = settings(data(tmp_path / "chats.jsonl", GOOD, 64), start_from=str(folder))
    found = tokenizer_of(chosen)
    assert found.get_vocab() == tokenizer.get_vocab()
    trainer = Trainer(chosen, source_of(chosen, found), found.mask_token_id, tmp_path / "run")
    for name, weight in model.state_dict().items():
        stored = weight.bfloat16().float()
        assert torch.equal(trainer.model.state_dict()[name], stored), name
        assert torch.equal(trainer.average.weights[name], stored), name
    trainer.train(lambda _: {})
    assert trainer.step == 2
    assert any(
        p.requires_grad and not torch.equal(p, model.state_dict()[n].bfloat16().float())
        for n, p in trainer.model.named_parameters()
    )
    wider = msgspec.structs.replace(
        chosen, model=msgspec.structs.replace(MODEL, mlp_hidden_size=64)
    )
    with pytest.raises(ValueError, match="same sizes"):
        Trainer(wider, source_of(chosen, found), found.mask_token_id, tmp_path / "other")


def test_chain_masks_are_refused_where_no_cell_is_known_to_be_computed(tmp_path: Path) -> None:
    chats = data(tmp_path / "chats.jsonl", GOOD, 64)
    with pytest.raises(ValueError, match="chain_share"):
        msgspec.structs.replace(settings(chats), masking=RandomMasking(chain_share=0.5))


def test_tasks_of_the_masking_study_are_not_of_this_command(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    chats = settings(data(tmp_path / "chats.jsonl", GOOD, 64))
    task = TaskData(task="addition", size=2, examples=4, batch=2)
    with pytest.raises(ValueError, match=r"recipes\.masking_study"):
        source_of(msgspec.structs.replace(chats, data=task), tokenizer)
