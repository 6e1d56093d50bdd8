"""`srx upscale --watch`: what is there and what comes is done, until somebody interrupts it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calls import Run, Srx, paint, process, results
from PIL import Image

from sr_cli.cli.watching import latest
from sr_cli.engine.events import Failed, Finished, Job, Skipped
from sr_cli.errors import InputError

pytest.importorskip("watchfiles", reason="srx[watch] is not installed")
pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")

FAKE = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from calls import Nearest, command, main
made = []
class Slow(Nearest):
    def enlarge(self, lr, on_step):
        if lr.shape[2] == 13:
            on_step(1, 5)
            time.sleep(60)
        return super().enlarge(lr, on_step)
def make(options, machine):
    made.append(1)
    assert len(made) == 1  # the networks are loaded once
    return Slow(options)
command.make_upscaler = make
main(sys.argv[1:])
"""
Child = subprocess.Popen[str]
PATIENCE = 60.0


def until(event: str, name: str, child: Child) -> list[dict[str, Any]]:
    """The lines of a child up to this event of this input."""
    found = []
    assert child.stdout is not None
    for text in child.stdout:
        found.append(line := json.loads(text))
        if (line["event"], line.get("input")) == (event, f"in/{name}"):
            return found
    raise AssertionError(f"it ended: {child.communicate()}")


def watching(*args: str) -> Child:
    return process(FAKE, "upscale", "in", "out", "--watch", "--json-events", *args)


def ended(child: Child, number: signal.Signals = signal.SIGINT) -> Run:
    child.send_signal(number)
    out, err = child.communicate(timeout=PATIENCE)
    return Run(child.returncode, out, err)


@pytest.fixture
def watcher() -> Iterator[Child]:
    """A run that has done in/a.png and waits, or is about to."""
    paint(Path("in/a.png"))
    with watching() as child:
        until("finished", "a.png", child)
        yield child
        child.kill()


def test_what_comes_is_done_once_it_is_whole(watcher: Child) -> None:
    data = paint(Path("b.png"), (40, 30)).read_bytes()
    with Path("in/b.png").open("wb") as file:
        for begin in range(0, len(data), len(data) // 4):
            file.write(data[begin : begin + len(data) // 4])
            file.flush()
            time.sleep(0.4)
    found = until("finished", "b.png", watcher)
    Path("in/text.png").write_text("no image")
    found += until("failed", "text.png", watcher)
    paint(Path("c.png")).rename(Path("in/c.png"))
    found += until("finished", "c.png", watcher)
    with Image.open("out/b.png") as image:
        assert image.size == (160, 120)
    assert [line["input"] for line in found if line["event"] == "failed"] == ["in/text.png"]
    assert [line["inputs"] for line in found if line["event"] == "collected"] == [1, 1, 1]
    run = ended(watcher)
    assert run.code == 1  # of the text
    assert "3 done, 1 failed; results in out" in run.err
    assert "Traceback" not in run.err
    last = json.loads(run.out.splitlines()[-1])
    assert last == {"event": "end", "exit_code": 1, "error": None}


def test_what_cannot_be_done_is_said_at_once(watcher: Child) -> None:
    paint(Path("b.png")).rename(Path("in/A.png"))
    until("failed", "A.png", watcher)
    paint(Path("c.png")).rename(Path("in/c.png"))
    until("finished", "c.png", watcher)
    lines = ended(watcher).err.splitlines()
    said = next(i for i, line in enumerate(lines) if "would both become out/A.png" in line)
    assert said < next(i for i, line in enumerate(lines) if "in/c.png → out/c.png" in line)
    assert lines[said].startswith("error: ")


def test_what_changes_is_done_again(watcher: Child) -> None:
    paint(Path("new.png"), (9, 5)).rename(Path("in/a.png"))
    until("finished", "a.png", watcher)
    with Image.open("out/a.png") as image:
        assert image.size == (36, 20)
    run = ended(watcher)
    assert (run.code, results()) == (0, {"a.png"})
    assert "1 done; results in out" in run.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_it_waits_is_its_end(watcher: Child, number: signal.Signals) -> None:
    run = ended(watcher, number)
    assert run.code == 0
    assert "in/a.png" in run.err[run.err.index("┏") :]
    with watching() as again:  # a restart goes on
        paint(Path("in/b.png"))
        until("finished", "b.png", again)
        run = ended(again)
    assert run.code == 0
    assert "1 done, 1 skipped" in run.err


def test_an_interrupt_at_work_leaves_a_picture(watcher: Child) -> None:
    paint(Path("in/slow.png"), (13, 4))
    until("stepped", "slow.png", watcher)
    run = ended(watcher)
    assert run.code == 130
    assert "interrupted: 0 of 1 done; the same command does the rest" in run.err
    assert results() == {"a.png"}


def test_a_folder_that_is_removed_ends_it(watcher: Child) -> None:
    Path("in/a.png").unlink()
    Path("in").rmdir()
    _, err = watcher.communicate(timeout=PATIENCE)
    assert watcher.returncode == 1
    assert "error: The folder in was removed while it was watched." in err
    assert "1 done" in err


def test_an_empty_folder_is_watched_too() -> None:
    Path("in").mkdir()
    with watching() as child:
        assert child.stdout is not None
        child.stdout.readline()
        paint(Path("in/a.png"))
        until("finished", "a.png", child)
        child.kill()


def test_the_latest_counts_of_each_picture() -> None:
    job, other = Job(Path("a"), Path("b")), Job(Path("c"), Path("d"))
    cut = Failed(job, InputError("cut"))
    done = Finished(job, (1, 1), (4, 4), 1.0, None)
    same = Skipped(job, "done already")
    assert latest([cut, done, same]) == [done]
    assert latest([done, cut]) == [cut]
    assert latest([same, Skipped(other, "done already")]) == [same, Skipped(other, "done already")]


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ("in/a.png out --watch", "in/a.png is none"),
        ("missing out --watch", "missing is none"),
        ("- out --watch", "not for stdin"),
        ("in - --watch", "not for stdin"),
        ("in out.png --watch", "needs a folder as OUTPUT"),
        ("in out --watch --dry-run", "--dry-run cannot"),
        ("in out --watch --shard 1/2", "--shard cannot"),
    ],
)
def test_mistakes_are_told_in_one_sentence(srx: Srx, photos: Path, args: str, word: str) -> None:
    run = srx("upscale", *args.split())
    assert (run.code, run.out) == (2, "")
    assert word in run.err
    assert run.err.count("\n") == 1
    assert not Path("out").exists()


def test_two_pictures_of_one_result_are_refused_at_the_beginning(srx: Srx, photos: Path) -> None:
    paint(photos / "a.jpg")
    run = srx("upscale", photos, "out", "--watch", "--name", "x")
    assert (run.code, Path("out").exists()) == (2, False)
    assert "would both become out/x.png" in run.err


def test_the_package_that_is_missing_is_named(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing: dict[str, Any] = {"watchfiles": None}
    for name, module in missing.items():
        monkeypatch.setitem(sys.modules, name, module)
    run = srx("upscale", photos, "out", "--watch")
    assert run.code == 2
    assert "run pip install 'srx[watch]'" in run.err
