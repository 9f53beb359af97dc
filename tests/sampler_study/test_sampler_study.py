"""The sweep is accepted by admission; table and plot say what the results say."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.sampler_study.report import Result, changed_tokens, plot, read, table, write
from recipes.sampler_study.sweep import SWEEPS, baseline
from vllm_mdlm.params import canvas_shape, decode
from vllm_mdlm.samplers.registry import samplers

RESULTS = [
    Result("low_confidence", "steps 96", 200, 150, 140, 60.0, 0.0, 9.0),
    Result("med", "entropy_threshold 0.2", 200, 148, 139, 20.0, 0.125, 3.0),
]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_setting_is_a_valid_request_and_unique(name: str) -> None:
    sweep = SWEEPS[name]()
    for setting in sweep:
        common, _own = decode(setting.arguments())
        assert canvas_shape(common, 96, 512)[0] == 96
        # What a setting is compared with has run before it, or is itself.
        assert sweep.index(baseline(setting, sweep)) <= sweep.index(setting)
    assert len({setting.name for setting in sweep}) == len(sweep)


def test_every_sampler_is_swept() -> None:
    assert {setting.sampler for setting in SWEEPS["samplers"]()} == set(samplers())


def test_changed_tokens_count_positions_and_lengths() -> None:
    assert changed_tokens([[1, 2, 3], [4]], [[1, 2, 3], [4]]) == 0
    assert changed_tokens([[1, 2, 3], [4]], [[1, 5], [4]]) == 0.5
    assert changed_tokens([[]], [[]]) == 0


def test_the_table_compares_passes_with_the_baseline() -> None:
    rows = table(RESULTS).splitlines()
    assert "| 60.0 | 1.00 | 0.0000 |" in rows[2]
    assert "| `med` | entropy_threshold 0.2 | 0.740 (0.675 to 0.796) |" in rows[3]
    assert "| 20.0 | 3.00 | 0.1250 |" in rows[3]


def test_results_survive_a_stop(tmp_path: Path) -> None:
    write(tmp_path / "results.jsonl", RESULTS)
    assert read(tmp_path / "results.jsonl", Result) == RESULTS


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    plot(RESULTS, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
