"""README, CONTRIBUTING and docs/ against the program: what they name is there, and they name all.

The snippets of Python run in a folder of small pictures; the lines of `srx` are parsed by the
command's own parser, without running.
"""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer
from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image
from sphinx.cmd.build import build_main

import sr_cli
from sr_cli.cli.app import app, with_values
from sr_cli.errors import SrxError

ROOT = Path(__file__).parents[1]
GUIDES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = (*GUIDES, ROOT / "CONTRIBUTING.md", ROOT / "BENCHMARKS.md")
MARKDOWN = MarkdownIt("commonmark").enable("table")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
PROGRAM = re.compile(r"(?:\$ )?(?:accelerate launch -m sr_cli|srx)(?= |$)")
FILE = re.compile(r"(?:sr_cli|tests|docs|examples|weights)/[\w/.-]+\.\w+")
WRONG = (typer.TyperException, SrxError)
Parse = Callable[[str], list[dict[str, Any]]]


def tokens(text: str) -> Iterator[Token]:
    """All of a page in Markdown, with what is inside its lines."""
    for token in MARKDOWN.parse(text):
        yield token
        yield from token.children or ()


def snippets(text: str) -> list[str]:
    """The code blocks of Python."""
    return [token.content for token in tokens(text) if token.info == "python"]


def command_lines(text: str) -> list[str]:
    """What follows `srx` in the lines of code blocks, up to a pipe, a file or a comment."""
    found = []
    for token in tokens(text):
        if token.type not in ("fence", "code_block") or token.info:
            continue
        for line in re.sub(r"\\\n\s*", " ", token.content).splitlines():
            if program := PROGRAM.match(line.strip()):
                found.append(line.strip()[program.end() :])
    return found


def words(line: str) -> list[str]:
    """A line as a shell takes it apart, up to what is not the command's."""
    found = shlex.split(line, comments=True)
    ends = [i for i, word in enumerate(found) if re.fullmatch(r"\d?[<>|]+\S*", word)]
    return found[: ends[0]] if ends else found


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and group by its whole name."""

    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for own, inner in getattr(command, "commands", {}).items():
            yield from below(f"{name} {own}", inner)

    return below("srx", typer.main.get_command(app))


def unnamed(text: str) -> set[str]:
    """Commands that a text does not name, and options of which it has none of the names."""
    named = set(OPTION.findall(text))
    missing = set()
    for name, command in commands():
        if not re.search(rf"\b{name}\b", text):
            missing.add(name)
        for param in command.params:
            options = {*param.opts, *param.secondary_opts}
            if param.param_type_name == "option" and not options & named:
                missing.add(f"{name} {param.opts[0]}")
    return missing


@cache
def known() -> set[str]:
    """The names of all options."""
    params = [param for _, command in commands() for param in command.params]
    return {name for param in params for name in (*param.opts, *param.secondary_opts)} | {"--help"}


def strangers(text: str) -> set[str]:
    """Options in code within lines that no command has."""
    inline = [token.content for token in tokens(text) if token.type == "code_inline"]
    return {option for code in inline for option in OPTION.findall(code)} - known()


def lost(text: str, folder: Path) -> set[str]:
    """Files that links, pictures and code of a page in this folder name, and that are not there."""
    found = set()
    for token in tokens(text):
        target = str(token.attrs.get("href") or token.attrs.get("src") or "").partition("#")[0]
        if target and "://" not in target and not (folder / target).exists():
            found.add(target)
        if token.type == "code_inline":
            found |= {path for path in FILE.findall(token.content) if not (ROOT / path).exists()}
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of its own, without the user's variables and configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in os.environ:
        if name.startswith("SRX_") and name != "SRX_HOME":
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def pictures(folder: Path) -> Path:
    """What docs/api.md says of the folder that its snippets run in."""
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    photo = Image.fromarray(colours).resize((32, 24), Image.Resampling.BICUBIC)
    photo.convert("RGB").save("in.png")
    photo.save("logo.png")
    deep = np.asarray(photo.convert("RGB")).astype(np.uint16) * 257 + 3
    tifffile.imwrite("scan.tiff", deep, photometric="rgb")
    Path("in").mkdir()
    photo.convert("RGB").save("in/a.png")
    photo.convert("RGB").save("in/b.jpg")
    Path("in/broken.png").write_bytes(Path("in.png").read_bytes()[:200])
    return folder


@pytest.fixture
def parse(folder: Path) -> Parse:
    """The command's own parser: what the commands of a line, and of its rows, are called with."""
    command = typer.main.get_command(app)

    def parsed(line: str) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []
        replaced(command, calls)
        command.main(with_values(words(line)), prog_name="srx", standalone_mode=False)
        rows = [row for call in calls for row in call.get("row") or ()]
        return calls + [call for row in rows for call in parsed(f"upscale in/ out/ {row}")]

    return parsed


def replaced(command: Any, calls: list[dict[str, Any]]) -> None:
    """Let commands do nothing but to note what they are called with."""
    for inner in getattr(command, "commands", {}).values():
        replaced(inner, calls)
    if not hasattr(command, "commands"):
        command.callback = lambda **given: calls.append(given)


PYTESTS = [
    token.content.removeprefix("pytest ")
    for page in (ROOT / "docs" / "papers.md", ROOT / "docs" / "theory.md")
    for token in tokens(page.read_text("utf-8"))
    if token.type == "code_inline" and token.content.startswith("pytest ")
]
TEXT = "\n".join(page.read_text("utf-8") for page in GUIDES)
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
LINES = [(n, line) for n in NAMES for line in command_lines((ROOT / n).read_text("utf-8"))]
LINES += [
    ("docs/papers.md", token.content.removeprefix("srx "))
    for token in tokens((ROOT / "docs" / "papers.md").read_text("utf-8"))
    if token.type == "code_inline" and token.content.startswith("srx ")
]
SNIPPETS = {
    f"{name}-{number}": source
    for name in NAMES
    for number, source in enumerate(snippets((ROOT / name).read_text("utf-8")), 1)
}


def test_every_command_and_every_option_is_named() -> None:
    assert not unnamed(TEXT)


def test_what_is_not_named_is_noticed() -> None:
    assert unnamed(TEXT.replace("--border", "border")) == {
        "srx bench --border",
        "srx compare --border",
        "srx sweep-t1 --border",
    }
    assert unnamed(TEXT.replace("srx weights verify", "")) == {"srx weights verify"}
    assert "srx bench --row" in unnamed(TEXT.replace("--row", "--rows"))


@pytest.mark.parametrize(
    ("page", "line"), LINES, ids=[f"{name}: {' '.join(words(line))}" for name, line in LINES]
)
def test_every_line_of_srx_parses(parse: Parse, page: str, line: str) -> None:
    assert parse(line)


def test_the_experiments_of_the_papers_are_among_the_lines() -> None:
    own = [words(line) for page, line in LINES if page == "docs/papers.md"]
    assert len(own) > 20
    assert {line[0] for line in own} >= {"sweep-t1", "prf-search", "bench", "upscale", "train"}


@pytest.mark.parametrize("line", PYTESTS)
def test_the_tests_that_a_page_names_are_there(line: str) -> None:
    file, chosen = (*line.split(" -k "), "")[:2]
    assert re.search(rf"^def test\w*{chosen}", (ROOT / file).read_text("utf-8"), re.MULTILINE)


def test_lines_are_found_on_the_pages_that_have_them() -> None:
    assert {page for page, _ in LINES} >= {"README.md", "docs/usage.md", "docs/training.md"}
    assert len(LINES) > 30


def test_what_a_line_ends_with_is_not_the_command_s() -> None:
    continued, piped = "    $ srx upscale a b \\\n      --tag > x.json  # so", "srx bench | head"
    page = f"{continued}\n\n```\n{piped}\n```\nsrx no\n"
    assert [words(line) for line in command_lines(page)] == [
        ["upscale", "a", "b", "--tag"],
        ["bench"],
    ]


@pytest.mark.parametrize(
    "line",
    [
        "upscale in/ out/ --solver paper",
        "upscale in/ out/ --steps many",
        "upscale in/ out/ --steps",
        "bench --row '--solver paper'",
        "upscal in/ out/",
        "weights import",
    ],
)
def test_a_line_that_does_not_parse_is_noticed(parse: Parse, line: str) -> None:
    with pytest.raises(WRONG):
        parse(line)


@pytest.mark.parametrize("name", NAMES)
def test_no_page_names_an_option_that_is_gone(name: str) -> None:
    assert not strangers((ROOT / name).read_text("utf-8"))


def test_an_option_that_is_gone_is_noticed() -> None:
    assert strangers("`--steps 3`, `--solver paper` and `srx bench --baseline`") == {
        "--solver",
        "--baseline",
    }


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    assert not lost((ROOT / name).read_text("utf-8"), (ROOT / name).parent)


def test_a_link_that_leads_nowhere_is_noticed() -> None:
    page = "[a](usage.md#pictures), [b](nowhere.md), ![c](no.png), `tests/engine/test_walk.py`"
    assert lost(page, ROOT / "docs") == {"nowhere.md", "no.png", "tests/engine/test_walk.py"}


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs" / "reference.md").read_text("utf-8")
    named = re.findall(r"^\.\. [\w:]+:: sr_cli\.(\w+)$", text, re.MULTILINE)
    assert sorted(named) == sorted(set(sr_cli.__all__) - {"__version__"})


def build(pages: Path, onto: Path) -> int:
    """The exit code of `make docs`, which is not 0 after a warning."""
    return build_main(["-q", "-E", "-W", "-b", "dummy", str(pages), str(onto)])


@pytest.mark.filterwarnings("ignore:.*is deprecated")  # what MyST asks of Sphinx
def test_the_pages_are_built_without_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (build(ROOT / "docs", tmp_path), capsys.readouterr().err) == (0, "")


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_a_warning_ends_the_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / "docs" / "conf.py", tmp_path)
    (tmp_path / "index.md").write_text("# A page\n\n[A link](nowhere.md)\n")
    assert build(tmp_path, tmp_path / "out") != 0
    assert "nowhere.md" in capsys.readouterr().err


def test_there_are_snippets() -> None:
    assert "README.md-1" in SNIPPETS
    assert len(SNIPPETS) >= 8


@pytest.mark.parametrize("name", SNIPPETS)
def test_every_snippet_runs(pictures: Path, name: str) -> None:
    exec(compile(SNIPPETS[name], name, "exec"), {"__name__": "__main__"})


def test_the_snippet_of_the_readme_makes_its_picture(pictures: Path) -> None:
    exec(compile(SNIPPETS["README.md-1"], "README.md", "exec"), {})
    with Image.open("out.webp") as image:
        assert (image.format, image.size) == ("WEBP", (86, 65))  # 2.7 · (32, 24)


@pytest.mark.parametrize("name", [name for name, source in SNIPPETS.items() if "assert" in source])
def test_a_claim_that_is_wrong_is_noticed(pictures: Path, name: str) -> None:
    last = SNIPPETS[name].rindex("assert ")
    wrong = f"{SNIPPETS[name][:last]}assert not {SNIPPETS[name][last + 7 :]}"
    with pytest.raises(AssertionError):
        exec(compile(wrong, name, "exec"), {"__name__": "__main__"})
