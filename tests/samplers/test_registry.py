"""Samplers by name, and those that an installed package offers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vllm_mdlm.samplers import registry

SKELETON = Path(__file__).parents[2] / "docs" / "skeletons" / "sampler.py"
Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package of one module with one entry point of our group, as pip would."""

    def write(source: str, target: str) -> None:
        (tmp_path / "other_samplers.py").write_text(source)
        info = tmp_path / "other_samplers-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: other-samplers\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(
            f"[{registry.ENTRY_POINT_GROUP}]\nanything = other_samplers:{target}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        forget()

    def forget() -> None:
        registry.samplers.cache_clear()
        registry.sampler_ids.cache_clear()
        sys.modules.pop("other_samplers", None)

    yield write
    monkeypatch.undo()
    forget()


def test_built_in_samplers_come_by_their_own_names() -> None:
    found = registry.samplers()
    assert tuple(found)[: len(registry.BUILT_IN)] == registry.BUILT_IN
    assert all(sampler.name == name for name, sampler in found.items())


def test_ids_are_the_order_of_the_names() -> None:
    assert [*registry.sampler_ids()] == [*registry.samplers()]
    assert [*registry.sampler_ids().values()] == [*range(len(registry.samplers()))]


def test_another_package_adds_a_sampler(install: Install) -> None:
    install(SKELETON.read_text(), "SAMPLER")
    found = registry.samplers()
    assert found["skeleton"].params().gap == 0.5
    assert registry.sampler_ids()["skeleton"] >= len(registry.BUILT_IN)


def test_another_package_may_not_take_a_name(install: Install) -> None:
    install(SKELETON.read_text().replace('"skeleton"', '"random"'), "SAMPLER")
    with pytest.raises(ValueError, match=r"other_samplers:SAMPLER.*'random'.*rename it"):
        registry.samplers()


def test_an_entry_point_must_be_a_sampler(install: Install) -> None:
    install(SKELETON.read_text(), "select")
    with pytest.raises(TypeError, match=r"other_samplers:select.*is a function.*must name"):
        registry.samplers()
