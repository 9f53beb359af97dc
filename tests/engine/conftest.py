"""Real engines in this process, on tiny checkpoints made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

# The engine core in this process, so that tests can read its counters.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"

from recipes.quantize.__main__ import quantize
from tests.engine.harness import Engine
from tests.pages import ROOT
from tests.reference.checkpoints import GQA, MHA, PADDED, TIED, Shape, make_llada
from tests.reference.model import Llada

EMBEDDED = ROOT / "recipes/models/arithmetic"

SHAPES = {
    "mha": MHA,
    "gqa": GQA,
    "tied": TIED,
    "padded": PADDED,
    "ids_first": Shape(specials_first=True),
    "ends_early": Shape(eos_preference=6.0),
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny LLaDA by the name of its shape; "gqa-int8" is "gqa" with rounded linears.
    "embedded" is the model of the repository."""
    made: dict[str, Path] = {"embedded": EMBEDDED}

    def get(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("checkpoints") / name
            shape = name.removesuffix("-int8")
            if shape == name:
                make_llada(folder, SHAPES[name], seed=list(SHAPES).index(name))
            else:
                quantize(get(shape), folder)
            made[name] = folder
        return made[name]

    return get


@pytest.fixture(scope="session")
def reference(checkpoint: Callable[[str], Path]) -> Callable[[str], Llada]:
    """The independent network on the same checkpoint."""
    loaded: dict[str, Llada] = {}

    def get(name: str) -> Llada:
        if name not in loaded:
            loaded[name] = Llada.load(checkpoint(name))
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def engine(checkpoint: Callable[[str], Path]) -> Iterator[Callable[..., Engine]]:
    """A running engine by shape and options; made once for the session."""
    running: dict[Any, Engine] = {}

    def get(name: str, **options: Any) -> Engine:
        key = (name, *sorted(options.items()))
        if key not in running:
            running[key] = Engine(checkpoint(name), **options)
        return running[key]

    yield get
    # Every engine collects garbage when it ends, which takes a second with all that is here.
    with patch("gc.collect"):
        for one in running.values():
            one.close()
