"""The packaging map, the links and the layers are what they claim to be."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import temporal_fabric

ROOT = Path(__file__).parent.parent
FOLDERS = (
    *("src/temporal_fabric", "workflows", "activities", "adapters"),
    *("tests", "tools", "benchmarks", "examples", "docs"),
)
HEAVY = (
    "temporalio",
    "pydantic",
    "pyarrow",
    "duckdb",
    "jax",
    "docker",
    "kubernetes",
    "opentelemetry",
)


def _setuptools() -> dict[str, object]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"])


def test_every_package_is_in_the_map() -> None:
    """A subpackage missing from the map runs in a checkout and never reaches the wheel."""
    listed = _setuptools()["packages"]
    source = ROOT / "src" / "temporal_fabric"
    found = {
        ".".join(["temporal_fabric", *path.parent.relative_to(source).parts])
        for pattern in ("__init__.py", "*/__init__.py", "*/*/__init__.py")
        for path in source.glob(pattern)
    }

    assert sorted(found) == listed


def test_the_links_name_the_folders_at_the_root() -> None:
    """Type checkers see the three folders through relative links."""
    for name in ("activities", "adapters", "workflows"):
        link = ROOT / "src" / "temporal_fabric" / name

        assert link.is_symlink()
        assert str(link.readlink()) == f"../../{name}"


def test_no_file_is_imported_under_two_names() -> None:
    """One file under two names would be two classes."""
    assert not {"workflows", "activities", "adapters"} & sys.modules.keys()


def test_version_is_the_projects() -> None:
    """The package's version is the one in pyproject.toml and in the changelog."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == temporal_fabric.__version__
    assert f"## [{temporal_fabric.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function, its docstring left out."""
    documented = ast.get_docstring(function, clean=False) is not None
    text = function.body[0] if documented else None
    without = 0 if text is None else (text.end_lineno or 0) - text.lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - without


def test_modules_and_functions_are_short() -> None:
    """At most 400 lines a module and 40 a function, not counting what documents it."""
    too_long: list[str] = []
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        source, name = path.read_text(), path.relative_to(ROOT)
        if len(source.splitlines()) > 400:
            too_long.append(str(name))
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, functions))
        too_long += [f"{name}: {node.name}" for node in nodes if _length(node) > 40]

    assert too_long == []


def test_public_names_exist() -> None:
    """Everything in ``__all__`` can be imported."""
    for name in temporal_fabric.__all__:
        assert getattr(temporal_fabric, name)


def test_help_imports_nothing_heavy() -> None:
    """``--help`` answers without the SDKs."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "temporal_fabric.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }

    assert "click" in imported
    assert not imported & set(HEAVY)


def test_the_lock_names_no_index() -> None:
    """The lock is universal: pinned, hashed, and silent about where packages come from."""
    lock = (ROOT / "requirements.lock").read_text()

    assert "--hash=sha256:" in lock
    assert "://" not in lock
