"""Imports point one way: cli → {evaluation, training} → engine → degradation → models → diffusion,
and above files and devices. No files import each other in a circle."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

from sr_cli.cli.app import NAMES

PACKAGE = Path(__file__).parents[1] / "sr_cli"
LEVEL = {
    **{
        "errors": 0,
        "memory": 0,
        "each": 0,
        "stopping": 0,
        "files": 1,
        "device": 1,
        "diffusion": 1,
        "models": 2,
        "degradation": 3,
    },
    **{"engine": 4, "evaluation": 5, "training": 6, "cli": 7},
}
LOUD = {"print", "input", "exit", "quit", "sys.exit", "os._exit"}
LOUD |= {f"sys.{stream}.{call}" for stream in ("stdout", "stderr") for call in ("write", "flush")}


def imports(source: str, package: str = "") -> set[str]:
    """Dotted names of every import in the source, wherever it stands; package: where that is."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            found.update(f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def upward(place: str, source: str) -> set[str]:
    """Imports from above `place`, a folder or a file of the package, or from beside it."""
    parts = [name.split(".") for name in imports(source, f"sr_cli.{place}")]
    used = {p[1] for p in parts if p[0] == "sr_cli" and len(p) > 1 and p[1] in LEVEL}
    return {other for other in used - {place} if LEVEL[other] >= LEVEL[place]}


@pytest.mark.parametrize("place", LEVEL)
def test_nothing_imports_from_above_or_from_beside(place: str) -> None:
    folder = PACKAGE / place
    for file in folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
        assert not upward(place, file.read_text("utf-8")), file


def test_the_rule_would_be_noticed() -> None:
    assert upward("models", "from sr_cli.engine.tiling import tiles") == {"engine"}
    assert upward("engine", "def f():\n    import sr_cli.cli.ui") == {"cli"}
    assert upward("engine", "from sr_cli import cli") == {"cli"}
    assert upward("diffusion", "from ..models import protocol") == {"models"}
    assert upward("diffusion", "from .. import engine") == {"engine"}
    assert upward("evaluation", "from sr_cli.training import train") == {"training"}
    assert upward("files", "from sr_cli.device import home") == {"device"}
    assert not upward("engine", "from . import tiling")


def graph(files: dict[str, str]) -> dict[str, set[str]]:
    """Which files, of modules by name, import which, in functions too, but not for types alone."""
    found: dict[str, set[str]] = {}
    for module, source in files.items():
        tree = ast.parse(source)
        typing = [n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n)]
        tree.body = [node for node in tree.body if node not in typing]
        names = imports(ast.unparse(tree), module.rpartition(".")[0])
        found[module] = {n for name in names for n in (name, name.rpartition(".")[0]) if n in files}
    return found


def circle(edges: dict[str, set[str]]) -> list[str]:
    """One circle, if there is any."""
    done: set[str] = set()

    def follow(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for other in sorted(edges[module] - {module}):
            if found := follow(other, [*trail, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := follow(module, []))), [])


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {
        ".".join(("sr_cli", *file.relative_to(PACKAGE).with_suffix("").parts)): file.read_text()
        for file in PACKAGE.rglob("*.py")
        if file.name != "__init__.py"
    }
    assert not circle(graph(files))


def test_a_circle_would_be_noticed() -> None:
    files = {
        "sr_cli.a": "from sr_cli import b",
        "sr_cli.b": "def f():\n    from sr_cli.c import x",
        "sr_cli.c": "import sr_cli.a",
    }
    assert circle(graph(files)) == ["sr_cli.a", "sr_cli.b", "sr_cli.c", "sr_cli.a"]
    files["sr_cli.c"] = "if TYPE_CHECKING:\n    import sr_cli.a"
    assert not circle(graph(files))


def test_rich_is_imported_where_the_terminal_is_drawn_alone() -> None:
    users = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == "rich" for name in imports(file.read_text("utf-8"), "sr_cli"))
    }
    assert users == {"cli/ui.py", "cli/progress.py"}


def calls(source: str) -> set[str]:
    """What the source calls, as it is written there."""
    nodes = ast.walk(ast.parse(source))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


def test_only_the_command_line_prints_or_exits() -> None:
    for file in PACKAGE.rglob("*.py"):
        if file.parent.name == "cli" or file.name == "__main__.py":
            continue
        assert not calls(file.read_text("utf-8")) & LOUD, file


def test_printing_and_exiting_would_be_noticed() -> None:
    for source in ("print(1)", "def f():\n    sys.exit(2)", "sys.stderr.write('x')"):
        assert calls(source) & LOUD


COMMANDS = {name.replace("-", "_") for name in NAMES} | {"train_dossr"}


def commands_of(source: str) -> set[str]:
    """Files of commands that a source in sr_cli/cli imports from."""
    parts = [name.split(".") for name in imports(source, "sr_cli.cli")]
    return {p[2] for p in parts if p[:2] == ["sr_cli", "cli"] and len(p) > 2} & COMMANDS


def test_commands_share_modules_and_are_none_themselves() -> None:
    files = {file.stem: file for file in (PACKAGE / "cli").glob("*.py")}
    assert files.keys() >= COMMANDS
    for name in files.keys() - {"app"}:
        assert not commands_of(files[name].read_text("utf-8")) - {name}, name


def test_a_command_that_imports_another_would_be_noticed() -> None:
    assert commands_of((PACKAGE / "cli/app.py").read_text("utf-8")) == {"train_dossr"}
    assert commands_of("from sr_cli.cli.upscale import upscale") == {"upscale"}
    assert commands_of("def f():\n    from . import bench") == {"bench"}
    assert not commands_of("from sr_cli.cli.options import option")


def without_torch(*modules: str) -> bool:
    """Whether they can all be imported where neither torch nor diffusers can."""
    blocked = "import sys; sys.modules['torch'] = sys.modules['diffusers'] = None"
    code = "\n".join((blocked, *(f"import {module}" for module in modules)))
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_diffusion_needs_no_torch() -> None:
    """But for `noise`, which is drawn where tensors live, and the functions of `samplers`, which
    import diffusers when they are called."""
    files = list((PACKAGE / "diffusion").glob("[!_]*.py"))
    assert without_torch(
        *(f"sr_cli.diffusion.{file.stem}" for file in files if file.stem != "noise")
    )
    assert not without_torch("sr_cli.models.embedded")
    users = {
        file.stem
        for file in files
        for name in imports(file.read_text("utf-8"), "sr_cli.diffusion")
        if name.split(".")[0] in {"torch", "diffusers"}
    }
    assert users == {"samplers", "noise"}


def test_no_module_is_long() -> None:
    for file in PACKAGE.rglob("*.py"):
        assert len(file.read_text("utf-8").splitlines()) <= 350, file
