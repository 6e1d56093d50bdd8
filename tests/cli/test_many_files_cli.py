"""Folders of thousands of files: a table that can be read, memory and time that do not grow."""

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from calls import Srx, paint

from sr_cli.cli.ui import ROWS, terminal
from sr_cli.engine.events import Failed, Finished, Job, Skipped
from sr_cli.engine.inputs import Links
from sr_cli.engine.jobs import collect_jobs
from sr_cli.engine.manifest import Manifest
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import InputError

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")


def links(folder: Path, count: int) -> None:
    """A folder of pictures that are one file on the disk."""
    original = paint(folder / "0.png", (2, 2))
    for number in range(1, count):
        os.link(original, folder / f"{number}.png")


def finished(number: int, *notes: str) -> Finished:
    return Finished(Job(Path(f"{number}.png"), Path()), (1, 1), (100, 100), 2.0, None, notes)


def test_a_closing_table_of_many_files_shows_what_needs_a_look(
    capsys: pytest.CaptureFixture[str],
) -> None:
    skipped = [Skipped(Job(Path(f"s{n}.png"), Path()), "done already") for n in range(30)]
    failed = Failed(Job(Path("bad.png"), Path()), InputError("It is bad."))
    noted = finished(7, "made smaller")
    terminal.table([*map(finished, range(ROWS)), *skipped, failed, noted])
    err = capsys.readouterr().err
    assert len(err.splitlines()) < 20
    assert "130 more files have no row here" in err
    assert "101 done, 1 failed, 30 skipped (30 done already); 1.0 MP, 2.00 s each" in err
    assert "It is bad." in err
    assert "made smaller" in err


def test_a_closing_table_of_few_files_shows_all(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table([finished(number) for number in range(ROWS)])
    assert len(capsys.readouterr().err.splitlines()) > ROWS


def test_no_table_is_longer_than_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table([finished(number, "a note") for number in range(9 * ROWS)])
    assert len(capsys.readouterr().err.splitlines()) < ROWS + 10


def test_a_list_that_was_asked_for_is_whole(srx: Srx) -> None:
    links(Path("in"), ROWS + 50)
    run = srx("upscale", "in", "out", "--dry-run")
    assert all(f"in/{number}.png" in run.out for number in range(ROWS + 50))
    found = json.loads(srx("upscale", "in", "out", "--json", "--quiet").out)
    assert len(found["results"]) == ROWS + 50


def calls_of(function: Any, of: str) -> int:
    """How often a function of this name is called."""
    count = 0

    def profile(frame: Any, event: str, _: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_name == of

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_each_folder_is_resolved_once() -> None:
    links(Path("in"), 60)
    plan = [Path("in")], Path("out"), UpscaleOptions(), OutputOptions()
    assert calls_of(lambda: collect_jobs(*plan), "realpath") < 20
    assert calls_of(lambda: [os.path.realpath(p) for p in Path("in").iterdir()], "realpath") == 60


def test_real_paths_are_those_of_the_system() -> None:
    links(Path("in"), 2)
    Path("link").symlink_to("in")
    Path("file.png").symlink_to("in/0.png")
    Path("round").symlink_to("round")
    for name in ("in/0.png", "link/1.png", "file.png", "round", "in/..", "/", "no/such", "link"):
        assert Links().resolved(Path(name)) == os.path.realpath(name)


def test_results_beside_thousands_of_originals_are_found_at_once() -> None:
    """In a time that grows with their number: once with its square."""
    links(Path("in"), 400)
    for number in range(400):
        Path(f"in/{number}_x4.png").touch()
    files = OutputOptions(name="{stem}_x{scale}")
    counts = calls_of(
        lambda: collect_jobs([Path("in")], Path("in"), UpscaleOptions(), files), "__hash__"
    )
    assert counts < 10 * 800


def test_what_is_known_of_a_file_is_little() -> None:
    """Options and networks, which all lines repeat, are kept once."""
    Path("out").mkdir()
    manifest = Manifest(Path("out"))
    line = {
        "status": "done",
        "input": "a",
        "options": {str(number): "long" * 99 for number in range(30)},
        "networks": {"model": "0" * 64},
        "source": {"sha256": "0" * 64, "bytes": 1, "mtime_ns": 2},
        "result": {"sha256": "0" * 64, "bytes": 1, "mtime_ns": 2},
    }
    lines = [json.dumps(line | {"output": f"{number}.png"}) for number in range(2000)]
    manifest.path.write_text("\n".join(lines) + "\n")
    tracemalloc.start()
    found = Manifest(Path("out"))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.knows(Path("out/1999.png"))
    assert kept / 2000 < 2000 < len(lines[0])


MANY = """
import sys
from calls import Nearest, command, main
leak, keep = [], sys.argv.pop(1) == "keep"
class Kept(Nearest):
    def enlarge(self, lr, on_step):
        leak.append(super().enlarge(lr, on_step))
        return leak[-1]
command.make_upscaler = lambda options, *_: (Kept if keep else Nearest)(options)
try:
    main(sys.argv[1:])
finally:
    status = open("/proc/self/status").read()  # ru_maxrss begins with that of the parent
    print(status.partition("VmHWM:")[2].split()[0])
"""


def peak(how: str, folder: str) -> int:
    """KiB at most in a process that enlarges a folder, and perhaps keeps what it made."""
    tests = Path(__file__).parent
    env = os.environ | {"PYTHONPATH": f"{tests.parents[1]}{os.pathsep}{tests}"}
    call = [sys.executable, "-c", MANY, how, "upscale", folder, f"{folder}-{how}", "--quiet"]
    done = subprocess.run(call, env=env, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="KiB are Linux's")
def test_memory_does_not_grow_with_the_pictures() -> None:
    paint(Path("few/0.png"), (100, 100))
    original = paint(Path("many/0.png"), (100, 100))
    for number in range(1, 60):
        os.link(original, f"many/{number}.png")
    few = peak("drop", "few")
    result = 3 * 4 * 400 * 400 / 1024
    assert peak("drop", "many") - few < 15 * result
    assert peak("keep", "many") - few > 25 * result
