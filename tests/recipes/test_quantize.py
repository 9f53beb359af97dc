"""Rounding a checkpoint to int8: what is written, what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes.quantize.__main__ import main, quantize
from recipes.quantize.converter import linear_weights, round_to_nearest
from tests.reference.checkpoints import GQA, MHA, TIED, make_llada

NAMES = linear_weights(MHA.n_layers)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for file in folder.glob("*.safetensors")
        for name, tensor in load_file(file).items()
    }


def test_rounding_is_to_the_nearest_step_of_the_channel() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    weight[3] = 0
    rounded = round_to_nearest(weight)
    whole, scale = rounded["weight"], rounded["weight_scale"]
    assert (whole.dtype, scale.dtype, scale.shape) == (torch.int8, torch.float32, (8, 1))
    # The largest may fall a whole step short: 127.5 steps are 127.
    assert ((whole * scale - weight.float()).abs() <= scale * 0.501).all()
    assert (whole[3] == 0).all()
    assert (whole.abs().amax(dim=1)[[0, 1, 2, 4, 5, 6, 7]] >= 127).all()


@pytest.mark.parametrize(
    "shape", [GQA, TIED, replace(MHA, shard_bytes=100_000)], ids=["gqa", "tied", "shards"]
)
def test_linears_of_the_blocks_are_rounded_and_all_else_is_as_it_was(
    shape: object, tmp_path: Path
) -> None:
    source, out = make_llada(tmp_path / "source", shape), tmp_path / "out"
    quantize(source, out)
    before, after = tensors_of(source), tensors_of(out)
    for name, tensor in before.items():
        if name in NAMES:
            scale = after.pop(f"{name}_scale")
            torch.testing.assert_close(after[name] * scale, tensor, rtol=0, atol=float(scale.max()))
            assert after.pop(name).dtype == torch.int8
        else:
            assert torch.equal(after.pop(name), tensor)
    assert after == {}
    files = {file.name for file in source.iterdir()}
    assert {file.name for file in out.iterdir()} == files | {"model.safetensors.index.json"}
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(tensors_of(out))
    config = json.loads((out / "config.json").read_text())
    written = config.pop("quantization_config")
    assert config == json.loads((source / "config.json").read_text())
    assert (written["quant_method"], written["format"]) == ("compressed-tensors", "int-quantized")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}


def set_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def drop(folder: Path, name: str) -> None:
    tensors = tensors_of(folder)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")


def spoil(folder: Path) -> None:
    tensors = tensors_of(folder)
    tensors[sorted(NAMES)[0]][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors")


MISTAKES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
    "another model": (lambda folder: set_config(folder, model_type="llama"), "'llama'"),
    "quantised": (
        lambda folder: set_config(folder, quantization_config={"quant_method": "gptq"}),
        r"quantised already \(gptq\)",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "more layers": (lambda folder: set_config(folder, n_layers=3), "lacks 7 of 21 weights"),
    "a missing tensor": (lambda folder: drop(folder, sorted(NAMES)[0]), "lacks 1 of 14 weights"),
    "not a number": (spoil, "finite numbers"),
    "out exists": (lambda folder: (folder.parent / "out").mkdir(), "exists"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(
    mistake: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil_it, message = MISTAKES[mistake]
    source, out = make_llada(tmp_path / "source"), tmp_path / "out"
    spoil_it(source)
    monkeypatch.setattr("sys.argv", ["quantize", str(source), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    left = {"source", "out"} if mistake == "out exists" else {"source"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    source = make_llada(tmp_path / "source", replace(MHA, shard_bytes=100_000))
    shard = sorted(source.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ValueError, match=f"lacks 1 of its files: {shard.name}"):
        quantize(source, tmp_path / "out")


def test_out_inside_the_checkpoint_is_refused(tmp_path: Path) -> None:
    source = make_llada(tmp_path / "source")
    with pytest.raises(ValueError, match="lies in the checkpoint"):
        quantize(source, source / "int8")
