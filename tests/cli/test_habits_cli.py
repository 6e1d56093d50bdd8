"""Presets, events as lines of JSON, progress, colours, and options that complaints name."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from calls import Srx, finished, paint

from sr_cli import __version__
from sr_cli.cli.event_lines import SCHEMA, schema
from sr_cli.cli.presets import PRESETS, Preset
from sr_cli.engine import formats, images
from sr_cli.errors import ModelError

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")

ROOT = Path(__file__).parents[2]
FAKE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from calls import Nearest, command, main
command.make_upscaler = lambda options, machine: Nearest(options)
main(sys.argv[1:])
"""

# ------------------------------------------------------------------------------------- presets


def looks(srx: Srx, *args: object) -> dict[str, Any]:
    run = srx("upscale", "in", "out", "--dry-run", "--json", *args)
    assert run.code == 0, run.err
    options: dict[str, Any] = json.loads(run.out)["options"]
    return {name: options[name] for name in ("steps", "texture")}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_options(srx: Srx, photos: Path, preset: Preset) -> None:
    written = {k: v for k, v in PRESETS[preset].items() if v is not None}
    options = [str(part) for name, value in written.items() for part in (f"--{name}", value)]
    assert looks(srx, "--preset", preset) == looks(srx, *options)
    documented = re.search(rf"^\| `{preset}` \| (.*?) \|", usage(), re.MULTILINE)
    assert documented
    assert re.findall(r"--\w+ [\d.]+", documented[1]) == [
        f"--{name} {value:g}" for name, value in written.items()
    ]


def usage() -> str:
    return (ROOT / "docs" / "usage.md").read_text("utf-8")


def test_presets_differ() -> None:
    assert len({str(options) for options in PRESETS.values()}) == len(PRESETS)


def test_options_win_over_a_preset_of_the_same_source_or_a_weaker_one(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert looks(srx, "--preset", "best", "--steps", 7)["steps"] == 7
    assert looks(srx, "--steps", 7, "--preset", "best")["steps"] == 7
    assert looks(srx, "--preset", "faithful", "--steps", 7) == {"steps": 7, "texture": 0}
    Path("srx.toml").write_text("steps = 5\ntexture = 1")
    assert looks(srx, "--preset", "best") == {"steps": 3, "texture": None}
    assert looks(srx, "--preset", "default") == {"steps": None, "texture": None}
    Path("srx.toml").write_text('preset = "best"\ntexture = 1')
    assert looks(srx) == {"steps": 3, "texture": 1}
    monkeypatch.setenv("SRX_STEPS", "6")
    assert looks(srx) == {"steps": 6, "texture": 1}
    monkeypatch.setenv("SRX_PRESET", "faithful")
    assert looks(srx) == {"steps": 6, "texture": 0}


def test_presets_are_of_dossr(srx: Srx, photos: Path) -> None:
    run = srx("upscale", photos, "out", "--preset", "best", "--method", "diffsr")
    assert (run.code, run.err) == (
        2,
        "error: --preset belongs to --method dossr: add that, or leave it out.\n",
    )
    Path("srx.toml").write_text('preset = "best"')
    assert looks(srx, "--method", "diffsr")["steps"] is None


# ------------------------------------------------------------------------------------- events


def lines(text: str) -> list[dict[str, Any]]:
    """Lines of JSON, each of which the schema of the package allows."""
    document = json.loads(resources.files("sr_cli").joinpath(SCHEMA).read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(document)
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        validator.validate(line)
    return found


def kinds(found: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in found if line["event"] != "stepped"]


def test_the_schema_that_ships_is_that_of_the_lines() -> None:
    """Made again by: python -c 'import json; from sr_cli.cli.event_lines import *;
    print(json.dumps(schema(), indent=2))' > sr_cli/events.schema.json"""
    shipped = resources.files("sr_cli").joinpath(SCHEMA).read_text("utf-8")
    assert json.loads(shipped) == json.loads(json.dumps(schema()))
    jsonschema.Draft202012Validator.check_schema(json.loads(shipped))


@pytest.mark.parametrize(
    "line",
    [
        {"event": "run", "version": 2, "srx": "1"},
        {"event": "started", "input": "a"},
        {"event": "stepped", "input": "a", "output": "b", "done": "1", "total": 2},
        {"event": "started", "input": "a", "output": "b", "more": 1},
        {"event": "begun", "input": "a", "output": "b"},
    ],
    ids=str,
)
def test_lines_of_another_form_are_noticed(line: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        lines(json.dumps(line))


def test_everything_that_happens_is_a_line(srx: Srx, photos: Path) -> None:
    (photos / "text.png").write_text("no image")
    run = srx("upscale", photos, "out", "--json-events")
    found = lines(run.out)
    assert found[0] == {"event": "run", "version": 1, "srx": __version__}
    assert found[1] == {"event": "collected", "inputs": 3}
    assert found[-1] == {"event": "end", "exit_code": run.code, "error": None}
    assert run.code == 1
    assert sorted(kinds(found)[2:-1]) == ["failed"] + ["finished"] * 2 + ["started"] * 3
    steps = [line["done"] for line in found if line["event"] == "stepped"]
    assert steps == [1, 2, 3, 4, 5] * 2
    done = next(line for line in found if line["event"] == "finished")
    assert (done["input"], done["output"], done["size_out"]) == ("in/a.png", "out/a.png", [24, 16])
    failed = next(line for line in found if line["event"] == "failed")
    assert (failed["input"], failed["exit_code"]) == ("in/text.png", 1)
    again = lines(srx("upscale", photos, "out", "--json-events").out)
    assert kinds(again).count("skipped") == 2
    dry = lines(srx("upscale", photos, "out2", "--json-events", "--dry-run").out)
    assert kinds(dry) == ["run", "collected", "planned", "planned", "failed", "end"]


def test_the_document_has_the_last_line_of_each_file(srx: Srx, photos: Path) -> None:
    (photos / "text.png").write_text("no image")
    ends = {"results": "finished", "planned": "planned", "failures": "failed", "skipped": "skipped"}
    seen = set()
    for flags in (["--dry-run"], [], []):
        found = json.loads(srx("upscale", photos, "out", "--json", *flags).out)
        assert set(found) == {"options", "environment", *ends}
        for name, event in ends.items():
            seen |= {name} if found[name] else set()
            assert all(lines(json.dumps(entry | {"event": event})) for entry in found[name])
    assert seen == set(ends)


@pytest.mark.parametrize(
    ("ending", "end"),
    [(KeyboardInterrupt(), (130, None)), (ModelError("Damaged."), (3, "Damaged."))],
    ids=repr,
)
def test_a_run_that_ends_early_has_its_last_line(
    srx: Srx,
    photos: Path,
    failure: list[BaseException],
    ending: BaseException,
    end: tuple[int, str | None],
) -> None:
    failure.append(ending)
    run = srx("upscale", photos, "out", "--json-events")
    found = lines(run.out)
    assert run.code == end[0]
    assert found[-1] == {"event": "end", "exit_code": end[0], "error": end[1]}
    assert kinds(found).count("finished") == 1


def test_a_result_that_is_gone_at_the_end_has_failed(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removing(*arguments: Any) -> None:
        Path("out/a.png").unlink(missing_ok=True)
        encode(*arguments)

    encode = formats.encode
    monkeypatch.setattr(images, "encode", removing)
    found = lines(srx("upscale", photos, "out", "--json-events").out)
    last = {line["input"]: line["event"] for line in found if "input" in line}
    assert last == {"in/a.png": "failed", "in/b.jpg": "finished"}


def test_a_reader_that_goes_costs_no_picture(photos: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = finished(FAKE, "upscale", "in", "out", "--json-events", stdout=writer)
    os.close(writer)
    assert done.code == 0
    assert "2 done" in done.err
    assert "Broken" not in done.err


@pytest.mark.parametrize("other", ["--json", "-"])
def test_stdout_is_for_one_alone(srx: Srx, photos: Path, other: str) -> None:
    output = other if other == "-" else "out"
    flags = ["--json"] if other == "--json" else []
    run = srx("upscale", photos / "a.png", output, "--json-events", *flags)
    assert run.code == 2
    assert "--json-events" in run.err


# ------------------------------------------------------------------------------------- the terminal


def on_terminal(*args: str, **variables: str) -> str:
    """What stderr of the command shows on a terminal."""
    leader, follower = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLORTERM")}
    environment |= {"TERM": "xterm", "PYTHONPATH": str(ROOT), **variables}
    child = subprocess.Popen(
        [sys.executable, "-c", FAKE, *args],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    found = b""
    while True:
        try:
            part = os.read(leader, 1 << 16)
        except OSError:  # its other end is closed
            break
        if not part:
            break
        found += part
    child.wait()
    os.close(leader)
    return found.decode()


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;)")
CURSOR = "\x1b[?25l"


@pytest.fixture
def bad(photos: Path) -> Path:
    (photos / "text.png").write_text("no image")
    return photos


def test_colours_are_left_out_where_nobody_wants_them(bad: Path) -> None:
    assert COLOUR.search(on_terminal("upscale", "in", "out"))
    assert not COLOUR.search(on_terminal("upscale", "in", "out2", NO_COLOR="1"))


@pytest.mark.parametrize(
    "plain",
    [
        lambda: on_terminal("upscale", "in", "out2", "--no-progress"),
        lambda: on_terminal("upscale", "in", "out2", SRX_NO_PROGRESS="1"),
        lambda: on_terminal("upscale", "in", "out2", TERM="dumb"),
    ],
    ids=["option", "variable", "dumb"],
)
def test_bars_are_lines_where_somebody_wants_them(photos: Path, plain: Callable[[], str]) -> None:
    bars = on_terminal("upscale", "in", "out")
    assert CURSOR in bars
    assert "[1/2]" not in bars
    lines_ = plain()
    assert CURSOR not in lines_
    assert "[1/2]" in lines_
    assert "2 done; results in out" in lines_


def test_the_closing_line_says_where_the_results_are(srx: Srx, photos: Path) -> None:
    assert "2 done; results in out\n" in srx("upscale", photos, "out").err
    assert "2 skipped; results in out\n" in srx("upscale", photos, "out").err
    assert "1 done; result big.webp\n" in srx("upscale", photos / "a.png", "big.webp").err
    paint(Path("bad/a.png")).write_text("no image")
    assert "1 failed\n" in srx("upscale", "bad", "out2").err


# ------------------------------------------------------------------------------------- complaints


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--steps 0", "--steps must lie between 1 and 1000, not 0."),
        ("--long-side 0", "--long-side must be at least 1 pixel, not 0."),
        ("--scale 99", "--scale must be above 0 and at most 32, not 99."),
        ("--texture 2", "--texture must lie between 0 and 1, not 2."),
        ("--tile 3", "--tile must be 0 (whole picture) or at least 16, not 3."),
        ("--quality 0", "--quality must lie in 1..100, not 0."),
        ("--max-megapixels 0", "--max-megapixels must be above 0 and at most 1e6, not 0."),
        ("--t1 some", "--t1 must be a whole number or auto, not 'some'."),
        ("--scale 2x", "--scale must be a number, not '2x'."),
        ("--width 4000px", "--width must be a whole number, not '4000px'."),
        ("--width 0", "--width must be at least 1 pixel, not 0."),
    ],
)
def test_a_complaint_names_the_option(srx: Srx, photos: Path, args: str, message: str) -> None:
    assert srx("upscale", photos, "out", *args.split()).err == f"error: {message}\n"


def test_a_complaint_names_the_place_that_the_value_is_from(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("srx.toml").write_text("seed = -1")
    assert "--seed must lie between 0 and 2^64 - 1, not -1 (from srx.toml).\n" in (
        srx("upscale", photos, "out").err
    )
    monkeypatch.setenv("SRX_STEPS", "0")
    assert "not 0 (from SRX_STEPS).\n" in srx("upscale", photos, "out", "--seed", 0).err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("upscale shots out --jobs 0", "--jobs must lie between 1 and 64, not 0."),
        ("bench shots --device gpu", "--device must be auto, cpu, cuda, cuda:N or mps, not"),
        ("bench shots --repeat 0", "--repeat must be at least 1, not 0."),
        ("bench shots --per-folder 0", "--per-folder must be at least 1, not 0."),
        ("compare shots --html a.html --scale 0", "--scale must be above 0 and at most 32, not 0."),
        ("sweep-t1 shots --t1 3T", "--t1 must lie between 10 and 1000, not 3000."),
        ("prf-search shots --rounds -1", "--rounds must be at least 0, not -1."),
        ("prf-search shots --scale 40", "A scale must be above 1 and at most 32, not 40."),
        ("weights export embedded out --steps 0", "--steps must lie between 1 and 1000, not 0."),
        ("train embedded shots --iterations 1 --lr 0", "--lr must be more than 0, not 0.0."),
    ],
)
def test_every_command_names_the_option(srx: Srx, photos: Path, args: str, message: str) -> None:
    photos.rename("shots")
    run = srx(*args.split())
    assert run.err.startswith(f"error: {message}"), run.err
    assert (run.code, run.err.count("\n")) == (2, 1)


def test_a_variable_that_nobody_reads_is_told_with_the_nearest(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DEVICE", "BENCH_STEPS", "WEIGHTS_LIST_JSON"):  # the controls: some command's
        monkeypatch.setenv(f"SRX_{name}", "cpu" if name == "DEVICE" else "1")
    dry = ("upscale", "in", "out", "--dry-run")
    assert "variable" not in srx(*dry).err
    for name in ("DEVCE", "WEIGTHS", "BENCH_STEP", "QQ"):
        monkeypatch.setenv(f"SRX_{name}", "1")
    for command in (dry, ("weights", "list")):
        told = [line for line in srx(*command).err.splitlines() if "variable" in line]
        assert told == [
            "No command of srx reads the variable SRX_BENCH_STEP: SRX_BENCH_STEPS is one.",
            "No command of srx reads the variable SRX_DEVCE: SRX_DEVICE is one.",
            "No command of srx reads the variable SRX_QQ.",
            "No command of srx reads the variable SRX_WEIGTHS: SRX_WEIGHTS is one.",
        ]
    assert srx(*dry, "--quiet").err == ""
