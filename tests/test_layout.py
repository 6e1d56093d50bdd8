"""Imports point one way: cli → {engine, evaluation, training} → models → diffusion."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sr_cli"
LEVEL = {"diffusion": 0, "models": 1, "engine": 2, "evaluation": 2, "training": 2, "cli": 3}


def imports(source: str) -> set[str]:
    """Dotted names of every import in the source, wherever it stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def upward(folder: str, source: str) -> set[str]:
    """Imports from a folder above `folder`."""
    parts = [name.split(".") for name in imports(source)]
    own = {p[1] for p in parts if p[0] == "sr_cli" and len(p) > 1 and p[1] in LEVEL}
    return {name for name in own if LEVEL[name] > LEVEL[folder]}


@pytest.mark.parametrize("folder", LEVEL)
def test_no_folder_imports_from_above(folder: str) -> None:
    for file in (PACKAGE / folder).rglob("*.py"):
        assert not upward(folder, file.read_text("utf-8")), file


def test_the_rule_would_be_noticed() -> None:
    assert upward("models", "from sr_cli.engine.tiling import tiles") == {"engine"}
    assert upward("engine", "def f():\n    import sr_cli.cli.ui") == {"cli"}


def test_rich_is_imported_by_ui_alone() -> None:
    users = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == "rich" for name in imports(file.read_text("utf-8")))
    }
    assert users == {"cli/ui.py"}


def test_only_the_command_line_prints_or_exits() -> None:
    for file in PACKAGE.rglob("*.py"):
        if file.parent.name == "cli" or file.name == "__main__.py":
            continue
        calls = (n for n in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(n, ast.Call))
        names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
        assert not names & {"print", "exit", "input"}, file


def test_diffusion_needs_no_torch() -> None:
    for file in (PACKAGE / "diffusion").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(file.read_text("utf-8"))} & {"torch"}
