"""The patches apply to the pinned vLLM, none is merged yet, and together they cover every shim."""

from __future__ import annotations

import ast
import importlib.metadata
import pkgutil
import re
from pathlib import Path

import pytest

import vllm_mdlm.compat
from tests.upstream.series import FIELDS, FOLDER, Patch, apply, copy_sources, series

COMPAT = Path(vllm_mdlm.compat.__file__).parent

NO_SHIMS = {
    "install_front_end": "installs shims",
    "front_end.install": "installs shims",
    "refusals.install": "installs shims",
    "registration.register_config": "registers with transformers, in public; vLLM reads that",
    "registration.serves_our_model": "decides whether a shim acts",
    "registration.load_tokenizer": "calls vLLM and changes nothing there",
    "requests.make_candidate": "builds a request of ours for a chain and changes nothing of vLLM",
    "requests.make_companion": "builds a request of ours for guidance and changes nothing of vLLM",
    "step_queue.sleep_until_notified": "installs shims",
    "wrapping.wrap": "installs shims",
}
"""Functions of `compat` that stand for nothing in vLLM, with the reason."""

PATCHES = series()
each_patch = pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.path.stem)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The touched files of the installed vLLM, unpatched."""
    target = tmp_path_factory.mktemp("installed")
    copy_sources(PATCHES, target)
    return target


def test_series_lists_every_patch() -> None:
    assert [patch.path.name for patch in PATCHES] == sorted(
        path.name for path in FOLDER.glob("*.patch")
    )


@each_patch
def test_header_is_complete(patch: Patch) -> None:
    assert set(patch.header) == FIELDS
    assert all(value.strip() for value in patch.header.values())
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", patch.header["Last-Update"])


@each_patch
def test_target_is_the_pinned_version(patch: Patch) -> None:
    project = (FOLDER.parent / "pyproject.toml").read_text()
    assert patch.header["Applies-To"] in (FOLDER / "series").read_text()
    assert patch.header["Applies-To"].replace(" ", "==") in project
    name, version = patch.header["Applies-To"].split()
    installed = {
        importlib.metadata.version(found).partition("+")[0]
        for found in importlib.metadata.packages_distributions()[name]
    }
    assert installed == {version}


def test_patches_apply_in_order_and_compile(tmp_path: Path) -> None:
    copy_sources(PATCHES, tmp_path)
    for patch in PATCHES:
        result = apply(patch, tmp_path)
        assert result.returncode == 0, f"{patch.path.name} does not apply:\n{result.stderr}"
        for name in patch.touched:
            compile((tmp_path / name).read_text(), name, "exec")


@each_patch
def test_patch_is_not_merged(patch: Patch, sources: Path) -> None:
    reverse = apply(patch, sources, "--reverse", "--check")
    assert reverse.returncode != 0, (
        f"the installed vLLM contains {patch.path.name}: remove the patch and its shims, "
        f"{', '.join(patch.replaces())}"
    )
    merged_files = [name for name in patch.added if (sources / name).exists()]
    assert not merged_files, f"vLLM now has {merged_files}: compare with {patch.path.name}"


def test_a_merged_patch_is_noticed(tmp_path: Path) -> None:
    """The check above can fail."""
    copy_sources(PATCHES, tmp_path)
    for patch in PATCHES:
        assert apply(patch, tmp_path).returncode == 0
    assert apply(PATCHES[-1], tmp_path, "--reverse", "--check").returncode == 0


@each_patch
def test_replaced_names_exist(patch: Patch) -> None:
    assert patch.replaces()
    for shim, names in patch.replaces().items():
        for name in (shim, *names):
            if name.rsplit(".", 1)[-1] not in INSTANCE_ATTRIBUTES:
                pkgutil.resolve_name(name)


INSTANCE_ATTRIBUTES = {"_all_token_ids", "_output_token_ids", "is_prefill_chunk"}
"""Set in `__init__`; `test_surface` finds them in the source."""


def _functions_and_classes(path: Path) -> list[str]:
    prefix = "" if path.stem == "__init__" else f"{path.stem}."
    nodes = ast.parse(path.read_text()).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [prefix + node.name for node in nodes if isinstance(node, kinds)]


def test_every_function_of_compat_has_a_patch() -> None:
    replaced = {shim for patch in PATCHES for shim in patch.replaces()}
    found = {name for path in COMPAT.glob("*.py") for name in _functions_and_classes(path)}
    covered = {name.removeprefix("vllm_mdlm.compat.") for name in replaced}
    missing = found - NO_SHIMS.keys() - covered
    assert not missing, f"no patch of {FOLDER.name}/ names {sorted(missing)} under Replaces"
    assert found.issuperset(NO_SHIMS), "NO_SHIMS lists what is not there"


def _vllm_imports(tree: ast.AST) -> dict[str, str]:
    """Local name -> full name of everything that a module imports from vLLM."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm"
        for alias in node.names
    }


def _loops(tree: ast.AST) -> dict[str, list[ast.expr]]:
    """Name of a loop's variable -> the values that it takes, where they are written out."""
    found = {}
    for node in ast.walk(tree):
        match node:
            case ast.For(target=ast.Name(variable), iter=ast.Tuple(values)):
                found[variable] = values
    return found


def _changed_names(path: Path) -> set[str]:
    """Full names of what a module wraps or assigns in vLLM."""
    tree = ast.parse(path.read_text())
    imported = _vllm_imports(tree)
    loops = _loops(tree)
    changed = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name("wrap"), args=[owner, ast.Constant(attribute), _]):
                for one in loops.get(ast.unparse(owner), [owner]):
                    name, dot, rest = ast.unparse(one).partition(".")
                    changed.add(f"{imported[name]}{dot}{rest}.{attribute}")
            case ast.Call(func=ast.Name("wrap" | "setattr")) if path.stem != "wrapping":
                # Which attribute is not known here; `owner` says enough to look at it.
                changed.add(ast.unparse(node.args[0]))
            case ast.Assign(targets=[ast.Attribute(ast.Name(owner), attribute)]) if (
                owner in imported
            ):
                changed.add(f"{imported[owner]}.{attribute}")
            case ast.Assign(targets=[ast.Subscript(ast.Name(table))]) if table in imported:
                changed.add(imported[table])
    return changed


def _identity(name: str) -> int:
    return id(pkgutil.resolve_name(name))


@pytest.mark.parametrize("path", sorted(COMPAT.glob("*.py")), ids=lambda path: path.stem)
def test_every_changed_name_of_vllm_has_a_patch(path: Path) -> None:
    prefix = f"vllm_mdlm.compat.{path.stem}."
    listed = {
        name
        for patch in PATCHES
        for shim, names in patch.replaces().items()
        if shim.startswith(prefix)
        for name in names
    }
    pairs = {name.rpartition(".")[::2] for name in listed if name.count(".") > 1}
    for changed in _changed_names(path):
        if changed == "tables":  # the BlockTables instance of this worker
            assert "vllm.v1.worker.gpu.block_table.BlockTables.gather_block_tables" in listed
            continue
        owner, _dot, attribute = changed.rpartition(".")
        found = any(
            attribute == listed_attribute and _identity(owner) == _identity(listed_owner)
            for listed_owner, listed_attribute in pairs
        )
        assert found, f"{path.name} changes {changed}; no patch names it under Replaces"
