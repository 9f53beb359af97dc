"""Names and signatures in vLLM's source, read without running it.

Reading the source instead of the imported objects shows vLLM's own definitions whatever shims
are installed in this process.
"""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path


@cache
def module_tree(module: str) -> ast.Module:
    """Syntax tree of an installed module.

    Raises:
        AssertionError: vLLM has no such module.
    """
    folder, _dot, name = module.rpartition(".")
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    base = Path(spec.origin).parents[1].joinpath(*folder.split("."), name)
    candidates = [base.with_suffix(".py"), base / "__init__.py"]
    found = [path for path in candidates if path.exists()]
    assert found, f"vLLM has no module {module} any more"
    return ast.parse(found[0].read_text())


def find_class(module: str, name: str) -> ast.ClassDef:
    """Definition of a class at the top of a module."""
    for node in ast.walk(module_tree(module)):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise AssertionError(f"{module} has no class {name} any more")


def parameters(module: str, qualified_name: str) -> tuple[str, ...]:
    """Parameter names of a function or method, `self` and `cls` left out."""
    owner, _dot, name = qualified_name.rpartition(".")
    scope = find_class(module, owner).body if owner else module_tree(module).body
    for node in scope:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            arguments = node.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
            names += [a.arg for a in arguments.kwonlyargs]
            return tuple(n for n in names if n not in ("self", "cls"))
    raise AssertionError(f"{module} has no {qualified_name} any more")


def attributes(module: str, class_name: str) -> set[str]:
    """Fields, methods and class attributes of a class, and what its methods set on `self`."""
    definition = find_class(module, class_name)
    names = set()
    for node in ast.walk(definition):
        match node:
            case ast.Attribute(value=ast.Name("self"), attr=attribute, ctx=ast.Store()):
                names.add(attribute)
    for node in definition.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(name)):
                names.add(name)
            case ast.Assign(targets=[ast.Name(name)]):
                names.add(name)
    return names


def global_names(module: str) -> set[str]:
    """Names that a module defines or imports at its top level."""
    names = set()
    for node in module_tree(module).body:
        for inner in ast.walk(node):
            match inner:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
                case ast.alias(name=name, asname=renamed):
                    names.add(renamed or name)
    return names
