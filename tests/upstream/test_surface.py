"""vLLM still has the names that we rely on."""

from __future__ import annotations

import ast
import inspect

import pytest

from tests.upstream.source import attributes, find_class, global_names, parameters
from tests.upstream.surface import ATTRIBUTES, GLOBALS, SAMPLER_ATTRIBUTES, SIGNATURES
from vllm_mdlm.compat import cpu_kernels

LOOK = "read what became of it in vLLM, then change our module named in tests/upstream/surface.py"


@pytest.mark.parametrize(("module", "function"), SIGNATURES, ids=lambda name: name)
def test_signature(module: str, function: str) -> None:
    wanted = tuple(SIGNATURES[module, function].split())
    found = parameters(module, function)
    assert found == wanted, f"{module}.{function} has other parameters; {LOOK}"


@pytest.mark.parametrize(("module", "owner"), ATTRIBUTES, ids=lambda name: name)
def test_attributes(module: str, owner: str) -> None:
    missing = set(ATTRIBUTES[module, owner].split()) - attributes(module, owner)
    assert not missing, f"{module}.{owner} has no {sorted(missing)} any more; {LOOK}"


@pytest.mark.parametrize("module", GLOBALS)
def test_globals(module: str) -> None:
    missing = set(GLOBALS[module].split()) - global_names(module)
    assert not missing, f"{module} has no {sorted(missing)} any more; {LOOK}"


@pytest.mark.parametrize("kernel", cpu_kernels.KERNELS)
def test_kernel_has_the_parameters_of_its_body(kernel: str) -> None:
    module, _dot, name = (cpu_kernels.PREFIX + kernel).rpartition(".")
    body = inspect.signature(cpu_kernels.KERNELS[kernel]).parameters.values()
    names = tuple(p.name for p in body if p.kind is not inspect.Parameter.VAR_KEYWORD)
    assert parameters(module, name) == names, f"{module}.{name} has other parameters; {LOOK}"


def test_runner_asks_a_sampler_for_nothing_new() -> None:
    runner = find_class("vllm.v1.worker.gpu.model_runner", "GPUModelRunner")
    read = {
        node.attr
        for node in ast.walk(runner)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self.sampler"
    }
    assert read == SAMPLER_ATTRIBUTES, (
        "GPUModelRunner reads other attributes of its sampler; see whether DenoisingExecutor "
        "needs them"
    )
