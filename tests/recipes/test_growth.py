"""What a pass must compute, and the lines that the measurements print."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.bench.contest.models import SIZES
from recipes.bench.growth import AXES, BASE, BLOCK, MODES, Line, Shape, operations, plot, shapes
from recipes.bench.streams import row


def test_a_pass_counts_layers_attention_and_head() -> None:
    s = SIZES["tiny"]
    shape = Shape(prompt=16, canvas=64, requests=3)
    keys_and_values = 2 * s.d_model**2
    others = 2 * s.d_model**2 + 3 * s.d_model * s.mlp_hidden_size + 2 * 80 * s.d_model
    read = BLOCK / 2
    head = read * s.d_model * s.vocab_size
    for mode, span in (("exact", 80), ("dual", BLOCK)):
        whole = (s.n_layers - 1) * span * (keys_and_values + others)
        last = span * keys_and_values + read * others
        expected = 2 * 3 * (whole + last + head)
        assert operations(s, shape, mode) == pytest.approx(expected)


def test_every_dimension_is_varied_alone() -> None:
    found = list(shapes())
    assert len(found) == sum(map(len, AXES.values()))
    for axis, shape in found:
        assert shape._replace(**{axis: getattr(BASE, axis)}) == BASE


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    lines = [Line(axis, mode, shape, 0.2, 0.1, 1e9) for axis, shape in shapes() for mode in MODES]
    plot(lines, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_a_line_of_the_streams() -> None:
    report = {"output_throughput": 300.0, "completed": 48, "duration": 2.0}
    report |= {"diffusion_canvas_positions": 500 * 32, "diffusion_committed_tokens": 750}
    report |= {f"p{p}_{m}_ms": p for p in (50, 95, 99) for m in ("ttft", "e2el")}
    expected = "| 8 | 48 | 300 | 2.00 | 50 / 95 / 99 | 50 / 95 / 99 | 250 | 1.50 |"
    assert row(8, report, alone=150.0, answer=32) == expected
