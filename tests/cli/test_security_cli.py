"""A stranger's folder: what its srx.toml, cards and names may do, and what not."""

import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from calls import Srx, paint, results
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sr_cli.cli import config
from sr_cli.cli.app import Patient, app, with_values
from sr_cli.cli.ui import terminal
from sr_cli.errors import UsageError

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")

FUZZ = settings(
    max_examples=int(os.environ.get("SRX_FUZZ_EXAMPLES", "60")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@cache
def commands() -> dict[str, Any]:
    found: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return found


def taken_from(text: str, chosen: str = "upscale") -> dict[str, Any]:
    """What a command takes from the srx.toml of the current folder."""
    Path("srx.toml").write_text(text)
    values = config.defaults(Path("srx.toml"), commands(), chosen)
    return config._harmless(values)


DANGEROUS = [
    ("sweep-t1", '[sweep-t1]\ncache = "/home/me/.bashrc"'),
    ("sweep-t1", '[sweep-t1]\ncsv = "/home/me/file"'),
    ("bench", '[bench]\nplot = "x.png"'),
    ("bench", "[bench]\ndownload = true"),
    ("bench", '[bench]\nrow = ["--method diffsr --prior x/y"]'),
    ("bench", '[bench]\npeer = ["a=b.pth"]'),
    ("upscale", "overwrite = true"),
    ("upscale", "skip_existing = false"),
    ("upscale", "trust_existing = true"),
    ("upscale", 'prior = "x/y"'),
    ("upscale", 'preprocess = "evil.pth"'),
    ("upscale", 'preprocess = "/evil.pth"'),
    ("upscale", 'model = "../x"'),
    ("upscale", 'model = "evil.pth"'),
    ("upscale", 'device = "cuda:7"'),
    ("upscale", "threads = 1"),
    ("upscale", "tile = 16"),
    ("upscale", "batch = 999"),
    ("upscale", 'compile = "on"'),
    ("upscale", 'name = "$(touch x)"'),
    ("upscale", "recursive = true"),
    ("upscale", 'files_from = "/etc/passwd"'),
    ("upscale", "max_megapixels = 100000"),
    ("upscale", "quiet = true"),
    ("upscale", "json = true"),
    ("upscale", 'strip = "all"'),
    ("prf-search", '[prf-search]\nplot = "x.png"'),
]


@pytest.mark.parametrize(("command", "text"), DANGEROUS)
def test_the_file_of_a_folder_sets_looks_alone(command: str, text: str) -> None:
    assert taken_from(text, command) == {}
    assert config.defaults(Path("srx.toml"), commands(), command)  # the control: it is an option


def test_looks_are_options_and_are_no_paths() -> None:
    known = {param.name: param for command in commands().values() for param in command.params}
    for name in config.LOOKS - {"texture", "model", "preprocess"}:
        assert name in known
        assert "path" not in str(known[name].type_descriptor).lower()
    assert taken_from('steps = 3\nmodel = "clean"\npreprocess = "none"').keys() == {
        "steps", "model", "preprocess",
    }  # fmt: skip


def test_one_line_says_that_it_was_read(srx: Srx) -> None:
    paint(Path("in/a.png"))
    Path("srx.toml").write_text("steps = 3\noverwrite = true\n[bench]\ncsv = 'x'")
    run = srx("upscale", "in", "out")
    said = [line for line in run.err.splitlines() if "srx.toml" in line]
    assert said == [
        "srx.toml of this folder sets steps, but may not set overwrite "
        "(--config srx.toml trusts it)."
    ]
    assert not [line for line in srx("upscale", "in", "out", "--no-config").err.splitlines()
                if "srx.toml" in line]  # fmt: skip
    Path("srx.toml").unlink()
    assert "srx.toml" not in srx("upscale", "in", "out", "--overwrite").err


def test_a_plain_upscale_replaces_nothing_whatever_the_folder_says(srx: Srx) -> None:
    paint(Path("in/a.png"))
    mine = paint(Path("out/a.png"), (9, 9)).read_bytes()
    for dangerous in ("trust_existing = true", "overwrite = true"):
        Path("srx.toml").write_text(dangerous)
        assert srx("upscale", "in", "out").code == 1
        assert Path("out/a.png").read_bytes() == mine
    srx("upscale", "in", "out", "--config", "srx.toml")
    assert Path("out/a.png").read_bytes() != mine  # the control: who names it trusts it


def test_no_config_reads_none(srx: Srx) -> None:
    paint(Path("in/a.png"))
    user = Path("config/srx/srx.toml")
    user.parent.mkdir(parents=True)
    for path in (Path("srx.toml"), user):
        path.write_text("nonsense = 3")
        assert srx("upscale", "in", "out").code == 2
        assert srx("upscale", "in", "out", "--no-config", "--overwrite").code == 0
        path.unlink()
    run = srx("upscale", "in", "out", "--no-config", "--config", "x.toml")
    assert (run.code, "contradict" in run.err) == (2, True)


def test_names_of_pictures_are_never_commands(srx: Srx) -> None:
    name = "$(touch owned)`touch owned`;touch owned.png"
    paint(Path("in") / name)
    srx("upscale", "in", "out")
    assert results() == {name}
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    "deep", ["x = " + "[" * 9000 + "]" * 9000, "x" * (2 << 20), "\0", "[a" * 99]
)
def test_hostile_toml_is_a_sentence(srx: Srx, deep: str) -> None:
    paint(Path("in/a.png"))
    Path("srx.toml").write_text(deep)
    run = srx("upscale", "in", "out")
    assert run.code == 2
    assert re.match(r"error: The config file srx.toml ", run.err)


@FUZZ
@given(data=st.data())
def test_any_config_is_read_or_a_usage_error(
    tmp_path: Path, isolated: None, data: st.DataObject
) -> None:
    names = [param.name for command in commands().values() for param in command.params]
    value = st.sampled_from(["1", '"a"', "true", "[]", "{}", "1.5", "nan", '"../x"', "1979-05-27"])
    keys = st.sampled_from([*names, "nonsense", "upscale"]) | st.text("ab-_ .", min_size=1)
    lines = data.draw(st.lists(st.tuples(keys, value), max_size=4))
    table = data.draw(st.sampled_from(["", "[bench]", "[sweep-t1]"]))
    text = "\n".join([table, *(f"{key} = {value}" for key, value in lines)])
    raw = text.encode() if data.draw(st.booleans()) else data.draw(st.binary(max_size=40))
    path = tmp_path / "a.toml"
    path.write_bytes(raw)
    for command in ("upscale", "bench", "sweep-t1", "prf-search"):
        try:
            values = config.defaults(path, commands(), command)
        except UsageError:
            continue
        assert config._harmless(values).keys() <= config.LOOKS


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\u202e\x9b2J"
    terminal.grid(["name"], [[evil]])
    terminal.note(evil)
    terminal.error(evil)
    terminal.verbose = True
    terminal.detail(f"line\n{evil}")
    for text in capsys.readouterr():
        assert not set(text) & set("\x1b\x07\x9b\u202e")


def test_a_stream_without_reader_takes_everything() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    broken = os.fdopen(writer, "w")
    stream = Patient(broken)
    for _ in range(3):
        stream.write("x" * 100_000)
        stream.flush()
    assert not stream.isatty()
    assert Patient(stream).inner is broken  # type: ignore[arg-type]
    broken.write("x")
    with pytest.raises(BrokenPipeError):  # the control
        broken.flush()
    with suppress(BrokenPipeError):
        broken.close()


def test_strip_has_a_value_of_its_own() -> None:
    assert with_values(["--strip", "in", "out"]) == ["--strip", "all", "in", "out"]
    assert with_values(["in", "--strip", "gps"]) == ["in", "--strip", "gps"]
    assert with_values(["--strip"]) == ["--strip", "all"]
    assert with_values([]) == []
