"""The network: attention paths agree, padding changes nothing, the layout is the published one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from recipes.train.attention import attend, attend_products
from recipes.train.data import question_tokenizer
from recipes.train.layout import read_model, write_model
from recipes.train.model import LLaDA
from recipes.train.settings import ModelSettings
from recipes.train.tokenizer import CHAT_TEMPLATE, chat_prompt

TINY = ModelSettings(
    d_model=64, n_layers=2, n_heads=2, n_kv_heads=1, mlp_hidden_size=96, vocab_size=448
)
TEXTS = ["What is 4871 + 359?", "1+9+0=10\n7+5+1=13\nThe answer is 5230", "  héllo\n\n\n日本 x  "]


def test_products_equal_sdpa() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(3, 7, 4, 32, generator=generator)
    k, v = (torch.randn(3, 7, 2, 32, generator=generator) for _ in range(2))
    assert torch.allclose(attend_products(q, k, v), attend(q, k, v, None), atol=1e-5)


def test_a_padded_row_gives_what_it_gives_alone() -> None:
    torch.manual_seed(0)
    model = LLaDA(TINY).eval()
    tokens = torch.randint(0, 448, (2, 9))
    both = model(tokens, lengths=(9, 5))
    assert torch.allclose(both[1, :5], model(tokens[1:, :5])[0], atol=1e-5)
    assert torch.allclose(both[0], model(tokens[:1])[0], atol=1e-5)


def test_attention_is_bidirectional_and_knows_positions() -> None:
    torch.manual_seed(0)
    model = LLaDA(TINY).eval()
    logits = model(torch.tensor([[5, 6, 7], [5, 6, 8], [6, 5, 7]]))
    assert not torch.allclose(logits[0, 0], logits[1, 0], atol=1e-4)
    assert not torch.allclose(logits[0, 2], logits[2, 2], atol=1e-4)


def test_logits_of_some_positions_are_those_of_all() -> None:
    torch.manual_seed(0)
    model = LLaDA(TINY).eval()
    tokens = torch.randint(0, 448, (2, 6))
    some = model(tokens, where=torch.tensor([1, 8]))
    every = model(tokens)
    assert torch.allclose(some, torch.stack([every[0, 1], every[1, 2]]), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"n_heads": 4}, "head dimension must be"), ({"n_kv_heads": 3}, "must be a multiple")],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, int], message: str) -> None:
    sizes = {name: getattr(TINY, name) for name in TINY.__struct_fields__}
    with pytest.raises(ValueError, match=message):
        ModelSettings(**{**sizes, **change})


def test_written_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, tokenizer = LLaDA(TINY).eval(), question_tokenizer(448)
    write_model(tmp_path, TINY, model.state_dict(), tokenizer)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "llada"
    assert config["architectures"] == ["LLaDAModelLM"]
    names = set(load_file(tmp_path / "model.safetensors"))
    projections = ("q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out")
    assert names == {
        *(f"model.transformer.{n}.weight" for n in ("wte", "ln_f", "ff_out")),
        *(
            f"model.transformer.blocks.{i}.{n}.weight"
            for i in range(2)
            for n in (*projections, "attn_norm", "ff_norm")
        ),
    }
    tokens = torch.randint(0, 448, (1, 6))
    assert torch.allclose(read_model(tmp_path)(tokens), model(tokens), atol=0.1)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.mask_token_id, loaded.eos_token_id) == (
        config["mask_token_id"],
        config["eos_token_id"],
    )
    assert loaded.chat_template == CHAT_TEMPLATE


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_gives_back_any_text(text: str) -> None:
    tokenizer = question_tokenizer(448)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_are_single_tokens_and_a_fixed_delimiter_is_a_prefix() -> None:
    tokenizer = question_tokenizer(448)
    whole = tokenizer.tokenize("The answer is 5230")
    assert whole[-4:] == list("5230")
    assert whole[:-4] == tokenizer.tokenize("The answer is ")


def test_the_chat_template_is_the_prompt_of_training() -> None:
    tokenizer = question_tokenizer(448)
    message = [{"role": "user", "content": "What is 1 + 2?"}]
    rendered = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    assert rendered == chat_prompt("What is 1 + 2?")


def test_a_vocabulary_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size is 100"):
        question_tokenizer(100)
