"""Batches that lose no picture: what is done again and what is kept, killed runs, full disks."""

import errno
import fcntl
import io
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from calls import Nearest, Srx, paint, results
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sr_cli.cli import upscale as command
from sr_cli.cli.app import main
from sr_cli.engine import formats, images, output_folder
from sr_cli.engine.events import Finished, Job
from sr_cli.engine.manifest import NAME, File, Manifest, Recipe
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import InputError

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")

KILLS = int(os.environ.get("SRX_KILLS", "6"))
FUZZ = settings(
    max_examples=int(os.environ.get("SRX_FUZZ_EXAMPLES", "60")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def lines(folder: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / NAME).read_text().splitlines()]


def outcome(srx: Srx, *args: object) -> dict[str, list[str]]:
    """Names of inputs by how they ended."""
    run = srx("upscale", *args, "--json")
    report = json.loads(run.out)
    kinds = ("results", "failures", "skipped")
    return {kind: [Path(entry["input"]).name for entry in report[kind]] for kind in kinds}


# ------------------------------------------------------------------------ what is done again


def test_what_is_done_is_not_done_again(srx: Srx, photos: Path) -> None:
    assert outcome(srx, photos, "out")["results"] == ["a.png", "b.jpg"]
    before = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    assert outcome(srx, photos, "out")["skipped"] == ["a.png", "b.jpg"]
    assert {path: path.stat().st_mtime_ns for path in Path("out").glob("*.png")} == before
    done = [line for line in lines() if line["status"] == "done"]
    assert [line["output"] for line in done] == ["a.png", "b.png"]
    assert done[0]["options"]["order"] == 3
    assert done[0]["options"]["seed"] == 0
    assert len(done[0]["networks"]["model"]) == len(done[0]["source"]["sha256"]) == 64


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def changed(path: Path) -> None:
    paint(path, (9, 9))


@pytest.mark.parametrize(
    "change",
    [
        lambda: emptied(Path("out/a.png")),
        lambda: cut(Path("out/a.png")),
        lambda: changed(Path("in/a.png")),
        lambda: Path("out/a.png").unlink(),
    ],
    ids=["empty", "cut", "other input", "removed"],
)
def test_what_does_not_agree_is_done_again(
    srx: Srx, photos: Path, change: Callable[[], None]
) -> None:
    srx("upscale", photos, "out")
    change()
    assert outcome(srx, photos, "out") == {
        "results": ["a.png"], "failures": [], "skipped": ["b.jpg"],
    }  # fmt: skip
    with Image.open("out/a.png") as image, Image.open("in/a.png") as source:
        assert image.size == (source.width * 4, source.height * 4)


@pytest.mark.parametrize(
    "args", ["--steps 3", "--seed 1", "--scale 2", "--tag", "--strip gps", "--quality 90"]
)
def test_other_options_are_another_result(srx: Srx, photos: Path, args: str) -> None:
    srx("upscale", photos, "out")
    assert len(outcome(srx, photos, "out", *args.split())["results"]) == 2
    assert len(outcome(srx, photos, "out", *args.split())["skipped"]) == 2


def test_a_machine_makes_no_other_result(srx: Srx, photos: Path) -> None:
    srx("upscale", photos, "out")
    assert len(outcome(srx, photos, "out", "--tile", 64, "--batch", 3)["skipped"]) == 2


def test_another_model_is_another_result(
    srx: Srx, photos: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    srx("upscale", photos, "out")
    monkeypatch.setenv("SRX_WEIGHTS", str(tiny_weights))
    assert len(outcome(srx, photos, "out")["results"]) == 2


def test_an_empty_result_without_a_manifest_is_done_again(srx: Srx, photos: Path) -> None:
    Path("out").mkdir()
    Path("out/a.png").touch()
    paint(Path("out/b.png"), (30, 30))
    cut(Path("out/b.png"))
    assert outcome(srx, photos, "out")["results"] == ["a.png", "b.jpg"]


def test_a_picture_that_nobody_knows_of_is_kept_and_named(srx: Srx, photos: Path) -> None:
    other = paint(Path("out/a.png"), (24, 16)).read_bytes()
    run = srx("upscale", photos, "out")
    assert run.code == 1
    assert "out/a.png exists" in run.err
    assert "--trust-existing" in run.err
    assert Path("out/a.png").read_bytes() == other
    assert srx("upscale", photos, "out", "--trust-existing").code == 0
    assert Path("out/a.png").read_bytes() == other
    assert srx("upscale", photos, "out", "--overwrite").code == 0
    assert Path("out/a.png").read_bytes() != other


@pytest.mark.parametrize("kind", ["animated", "text", "locked"])
def test_what_is_not_read_may_be_somebody_s(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    Path("out").mkdir()
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue")]
    if kind == "text":
        Path("out/a.png").write_text("mine")
    else:
        frames[0].save("out/a.png", save_all=kind == "animated", append_images=frames[1:])
    mine = Path("out/a.png").read_bytes()
    if kind == "locked":
        opened = Path.open

        def locked(path: Path, *args: Any, **options: Any) -> Any:
            if path == Path("out/a.png"):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return opened(path, *args, **options)

        monkeypatch.setattr(Path, "open", locked)
    assert outcome(srx, photos, "out")["failures"] == ["a.png"]
    with open("out/a.png", "rb") as file:  # noqa: PTH123
        assert file.read() == mine


def test_a_retouched_result_is_kept(srx: Srx, photos: Path) -> None:
    srx("upscale", photos, "out")
    changed(Path("out/a.png"))
    mine = Path("out/a.png").read_bytes()
    assert outcome(srx, photos, "out")["failures"] == ["a.png"]
    assert Path("out/a.png").read_bytes() == mine


# ------------------------------------------------------------------------ the manifest


def a_manifest(folder: Path) -> tuple[Manifest, Job, Recipe]:
    job = Job(paint(folder / "in.png"), folder / "out.png")
    paint(job.output)
    manifest = Manifest(folder)
    recipe = Recipe({"steps": 1}, {"model": "0"})
    finished = Finished(job, (6, 4), (6, 4), 1.0, None)
    manifest.done(finished, recipe, File("0", 1, 2), job.output, 1.0)
    return manifest, job, recipe


@settings(FUZZ)
@given(garbage=st.binary(max_size=60), at=st.floats(0, 1), keep=st.floats(0, 1))
def test_any_manifest_is_read(tmp_path: Path, garbage: bytes, at: float, keep: float) -> None:
    (tmp_path / NAME).unlink(missing_ok=True)
    manifest, job, recipe = a_manifest(tmp_path)
    data = (tmp_path / NAME).read_bytes()
    place_ = int(at * len(data))
    data = (data[:place_] + garbage + data[place_:])[: int(keep * 2 * len(data))]
    (tmp_path / NAME).write_bytes(data)
    manifest = Manifest(tmp_path)
    manifest.is_done(job, recipe)
    manifest.is_ours(job.output)
    manifest.begin(job)
    assert Manifest(tmp_path).unfinished[str(job.input)] >= 1


@settings(FUZZ, max_examples=FUZZ.max_examples // 2)
@given(data=st.data())
def test_any_json_in_a_manifest_is_read(tmp_path: Path, data: st.DataObject) -> None:
    _, job, recipe = a_manifest(tmp_path)
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    values: st.SearchStrategy[Any] = st.recursive(
        leaf, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x)
    )
    keys: st.SearchStrategy[str] = st.sampled_from(
        ["status", "input", "output", "source", "result", "options"]
    )
    line: dict[str, Any] = {"status": "done", "input": str(job.input), "output": "out.png"}
    line |= data.draw(st.dictionaries(keys, values))
    deep = data.draw(st.sampled_from(["", "[" * 5000, "null", "[1]", '{"status": "done"}']))
    with (tmp_path / NAME).open("a") as file:
        file.write(json.dumps(line) + "\n" + deep + "\n")
    manifest = Manifest(tmp_path)
    manifest.is_done(job, recipe)
    manifest.is_ours(job.output)


def test_a_line_after_a_cut_one_is_whole(tmp_path: Path) -> None:
    manifest, job, _ = a_manifest(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-9])
    manifest = Manifest(tmp_path)
    assert not manifest.knows(job.output)
    manifest.begin(job)
    assert Manifest(tmp_path).unfinished[str(job.input)] == 1


# ------------------------------------------------------------------------ nothing overwritten


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    def appearing(*arguments: Any) -> None:
        encode(*arguments)
        if not Path("out/a.png").exists():
            Path("out/a.png").write_bytes(b"mine")

    encode = formats.encode
    monkeypatch.setattr(images, "encode", appearing)
    if not links:

        def none(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", none)
    run = srx("upscale", photos, "out")
    assert run.code == 1
    assert "out/a.png appeared while the run went on" in run.err
    assert Path("out/a.png").read_bytes() == b"mine"
    assert results() == {"a.png", "b.png"}


def test_a_disk_without_links_is_written_all_the_same(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none)
    assert srx("upscale", photos, "out").code == 0
    assert results() == {"a.png", "b.png"}


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and links")
def test_overwriting_keeps_modes_and_says_of_links(srx: Srx, photos: Path) -> None:
    target = paint(Path("elsewhere.png"))
    before = target.read_bytes()
    paint(Path("out/b.png")).chmod(0o604)
    Path("out/a.png").symlink_to(target.resolve())
    run = srx("upscale", photos, "out", "--overwrite")
    assert run.code == 0
    assert Path("out/b.png").stat().st_mode & 0o777 == 0o604
    assert target.read_bytes() == before
    assert not Path("out/a.png").is_symlink()
    assert "it replaced a link, and not what that points to" in run.err


def test_results_are_on_the_disk_before_they_have_their_names(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for name in ("fsync", "link"):
        real = getattr(os, name)

        def call(*args: Any, name: str = name, real: Any = real) -> Any:
            told.append(name)
            return real(*args)

        monkeypatch.setattr(os, name, call)
    srx("upscale", photos / "a.png", "out")
    assert told[: told.index("link")].count("fsync") >= 2  # the picture and its line


def test_what_is_flushed_may_be_written_as_windows_wants_it(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, flushed = os.fsync, []

    def fsync(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            flushed.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert srx("upscale", photos / "a.png", "out").code == 0
    assert os.O_RDONLY not in flushed
    assert len(flushed) >= 2


def test_another_run_on_the_folder_is_told_to_wait(srx: Srx, photos: Path) -> None:
    Path("out").mkdir()
    with FileLock(Path("out") / output_folder.LOCK):
        run = srx("upscale", photos, "out")
    assert run.code == 1
    assert "Another run of srx works on out" in run.err
    assert not results() - {output_folder.LOCK}
    (Path("out") / output_folder.LOCK).touch()  # of a run that was killed
    assert srx("upscale", photos, "out").code == 0
    assert results() == {"a.png", "b.png"}


def test_single_files_can_be_made_side_by_side(srx: Srx, photos: Path) -> None:
    Path("out").mkdir()
    with FileLock(Path("out") / f"{output_folder.LOCK}-a.png"):
        assert srx("upscale", photos / "a.png", "out/a.png").code == 1
        assert srx("upscale", photos / "b.jpg", "out/b.png").code == 0


def test_left_overs_of_killed_runs_go(srx: Srx, photos: Path) -> None:
    Path("out/sub").mkdir(parents=True)
    for name in ("out/.srx-0-1.partial", "out/sub/.srx-2-3.partial", "out/.mine"):
        Path(name).touch()
    srx("upscale", photos, "out", "-r")
    assert results() == {"a.png", "b.png", "sub", ".mine"}
    assert results("out/sub") == {"c.png"}


def test_what_a_run_of_one_file_writes_is_no_left_over(srx: Srx, photos: Path) -> None:
    Path("out").mkdir()
    Path("out/.srx-0-1.partial").touch()
    with FileLock(Path("out") / f"{output_folder.LOCK}-big.png"):
        assert srx("upscale", photos, "out").code == 0
        assert ".srx-0-1.partial" in results()
    (Path("out") / f"{output_folder.LOCK}-big.png").touch()  # of a run that was killed
    srx("upscale", photos, "out", "--overwrite")
    assert results() == {"a.png", "b.png"}


# ------------------------------------------------------------------------ runs that end early


def test_a_removed_output_folder_ends_the_run_with_a_word(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removing(*arguments: Any) -> None:
        if Path("out/a.png").exists():
            Path("out").rename("gone")
            Path("out").mkdir()  # as another program may
        encode(*arguments)

    for number in range(6):  # which are to come when it is noticed
        paint(Path(f"in/sub/{number}.png"))
    encode = formats.encode
    monkeypatch.setattr(images, "encode", removing)
    run = srx("upscale", photos, "out", "-r")
    assert run.code == 1
    assert "The output folder out was removed while the run went on" in run.err
    assert "a.png was written, but is not there any more" in run.err
    assert not [line for line in run.err.splitlines() if line.endswith(" done")]


def test_a_reader_of_stderr_that_goes_costs_no_picture(photos: Path) -> None:
    for number in range(12):
        paint(Path("in") / f"{number}.png")
    code = "import sys; from calls import Nearest, command, main\n"
    code += "command.make_upscaler = lambda options, machine: Nearest(options)\nmain(sys.argv[1:])"
    line = '"$0" -c "$1" upscale in out 2>&1 >/dev/null | head -1'
    folders = os.pathsep.join([str(Path(__file__).parent), str(Path(command.__file__).parents[2])])
    shell = ["bash", "-c", line, sys.executable, code]
    subprocess.run(shell, check=True, env=os.environ | {"PYTHONPATH": folders}, capture_output=True)
    assert len(results()) == 14


def test_a_full_disk_in_between_loses_nothing(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the room ends: in the picture, at its flush, in the manifest, at the link."""
    srx("upscale", photos, "expected", "-r")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("write", "fsync", "link"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            assert srx("upscale", photos, "out", "-r").code == 1
        assert not list(Path("out").rglob("*.partial"))
    assert srx("upscale", photos, "out", "-r").code == 0
    for path in Path("expected").rglob("*.png"):
        assert (Path("out") / path.relative_to("expected")).read_bytes() == path.read_bytes()


# ------------------------------------------------------------------------ kills


@pytest.fixture
def fifty() -> None:
    for number in range(50):
        paint(Path("in") / f"{number}.png", (4 + number % 5, 4))


def child(output: str) -> int:
    """A run in a process of its own, which is this one's copy and so begins at once."""
    pid = os.fork()
    if pid == 0:
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            main(["upscale", "in", output])
        except SystemExit as end:
            os._exit(end.code if isinstance(end.code, int) else 0)
        except BaseException:
            os._exit(99)
    return pid


def told() -> int:
    """Bytes of the manifest."""
    path = Path("out") / NAME
    return path.stat().st_size if path.exists() else 0


def ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).glob("*.png")}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_picture_that_kills_is_named_and_tried_last(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deadly(self: Nearest, lr: Any, on_step: Any) -> Any:
        if lr.shape[2] == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, lr, on_step)

    real = Nearest.enlarge
    monkeypatch.setattr(Nearest, "enlarge", deadly)
    for made in (set(), {"b.png"}):  # whose reading had begun too, the first time
        for _ in range(2):
            _, status = os.waitpid(child("out"), 0)
            assert os.WTERMSIG(status) == signal.SIGKILL
            assert [x["input"] for x in lines() if x["status"] == "begun"].count("in/a.png")
        assert results() - {output_folder.LOCK} >= made
    monkeypatch.setattr(Nearest, "enlarge", real)
    run = srx("upscale", "in", "out")
    assert run.code == 0
    assert "A run was killed while it worked on in/a.png: tried last" in run.err
    assert "killed" not in srx("upscale", "in", "out").err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.parametrize(("processes", "jobs"), [(1, 1), (2, 1), (1, 3)])
def test_killed_batches_end_like_one_that_was_not(
    srx: Srx, fifty: None, monkeypatch: pytest.MonkeyPatch, processes: int, jobs: int
) -> None:
    assert srx("upscale", "in", "expected").code == 0
    monkeypatch.setenv("SRX_JOBS", str(jobs))
    model = SimpleNamespace(tiling="exact", bytes_per_pixel=100)
    monkeypatch.setattr(Nearest, "model", model)  # enlarged side by side
    expected = contents("expected")
    chance = random.Random(processes)
    progress = set()
    for _ in range(KILLS):
        pids = [child("out") for _ in range(processes)]
        written = told() + chance.randrange(9000)  # a line has about 200 or 1000 bytes
        while told() < written and not all(map(ended, pids)):
            time.sleep(0.001)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        found = contents("out")
        progress.add(len(found))
        assert all(found[name] == expected[name] for name in found)
        if len(found) == 50:
            for path in Path("out").glob("*.png"):
                path.unlink()
    assert len(progress) > 1  # it was killed in between
    assert srx("upscale", "in", "out").code == 0
    assert contents("out") == contents("expected")
    assert results() == results("expected") == {f"{number}.png" for number in range(50)}
    for line in (Path("out") / NAME).read_text().splitlines()[-1:]:
        json.loads(line)


# ------------------------------------------------------------------------ planning


def test_names_of_other_systems_and_brackets_are_found(srx: Srx) -> None:
    paint(Path("in/Games\\2\\a.png"))
    paint(Path("in/ok.png"))
    assert outcome(srx, "in", "out")["results"] == ["Games\\2\\a.png", "ok.png"]
    paint(Path("trip [2020]/a.png"))
    paint(Path("x/day [1]/b.png"))
    assert outcome(srx, "trip [2020]/*.png", "out2")["results"] == ["a.png"]
    assert outcome(srx, "*/day [1]/*.png", "out3")["results"] == ["b.png"]


def test_a_file_that_a_template_cannot_name_fails_alone(srx: Srx, photos: Path) -> None:
    paint(Path("in/7.png"))
    made = outcome(srx, photos, "out", "--name", "{stem:.0}{stem:s}x")
    assert len(made["results"]) == 3
    monkey = OutputOptions.file_name

    def odd(self: OutputOptions, values: Any, suffix: str) -> str:
        name = monkey(self, values, suffix)
        if values["stem"] == "a":
            from sr_cli.errors import UsageError

            raise UsageError("The name template names no file.")
        return name

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OutputOptions, "file_name", odd)
        assert outcome(srx, photos, "out2") == {
            "results": ["7.png", "b.jpg"], "failures": ["a.png"], "skipped": [],
        }  # fmt: skip
        assert srx("upscale", photos / "a.png", "out3").code == 2


def test_a_folder_that_may_not_be_read_fails_alone(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterdir(folder: Path) -> Any:
        if folder.name == "sub":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return real(folder)

    real = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", iterdir)
    run = srx("upscale", photos, "out", "-r")
    assert run.code == 1
    assert "in/sub cannot be read: Permission denied" in run.err
    assert "2 done, 1 failed" in run.err


def test_an_unreadable_argument_fails_by_name(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "a.png" and path.parent.name == "in":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **options)

    real = Path.open
    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "a.png")
    run = srx("upscale", "in/a.png", "in/b.jpg", "out")
    assert run.code == 1
    assert "in/a.png cannot be read: Permission denied" in run.err
    assert results() == {"b.png"}


def test_what_a_folder_leaves_out_is_said(srx: Srx) -> None:
    picture = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    picture.convert("1").save(paint(Path("in/b.pbm")), "PPM")
    picture.save(Path("in/c.tga"))
    picture.convert("RGB").save(Path("in/d.mpo"), "MPO", save_all=True, append_images=[])
    picture.save(Path("in/e.bin"), "JPEG")
    picture.save(Path("in/f.j2k"), no_jp2=True)
    picture.save(Path("in/g.nef"), "TIFF")  # as raw files begin
    for name in ("notes.txt", "film.mov"):
        Path("in", name).write_text("BM no picture")
    run = srx("upscale", "in", "out")
    assert results() == {"b.png", "c.png", "d.png", "e.png", "f.png"}
    assert "3 other files left out: " in run.err
    assert all(name in run.err for name in ("notes.txt", "film.mov", "g.nef"))


def test_folders_that_are_not_entered_are_said(srx: Srx) -> None:
    for name in ("in/a.png", "in/2023/b.png", "in/out/c.png"):
        paint(Path(name))
    said = "1 folder not entered without -r: in/2023.\n"  # not the one where results go
    assert said in srx("upscale", "in", "in/out").err
    assert "not entered" not in srx("upscale", "in", "tree", "--recursive").err


def test_content_is_recognised_only_where_it_is_a_picture_s(tmp_path: Path) -> None:
    for data in (b"", b"P4", b"P9 1 1", b"BM", b"II*\0", b"RIFF....WAVE", b"%PDF", b"\0" * 40):
        (tmp_path / "a").write_bytes(data)
        assert not images.resembles_picture(tmp_path / "a")
    assert {".mpo", ".j2k", ".pbm", ".tga"} <= images.SUFFIXES


# ------------------------------------------------------------------------ options


def test_the_format_of_the_input(srx: Srx) -> None:
    for name in ("a.jpg", "b.png", "c.tif", "d.webp", "e.bmp", "f.JPEG"):
        paint(Path("in") / name)
    srx("upscale", "in", "out", "--format", "same")
    assert results() == {"a.jpg", "b.png", "c.tiff", "d.webp", "e.png", "f.jpg"}


@pytest.mark.parametrize("name", ["JPEG", "Jpg", "WebP"])
def test_case_does_not_matter_in_formats(srx: Srx, photos: Path, name: str) -> None:
    assert srx("upscale", photos / "a.png", "out", "--format", name).code == 0
    assert len(results()) == 1


def test_what_is_large_enough_is_skipped_if_asked_for(srx: Srx, photos: Path) -> None:
    assert outcome(srx, photos, "out", "--long-side", 6, "--only-enlarge") == {
        "results": [], "failures": [], "skipped": ["a.png", "b.jpg"],
    }  # fmt: skip
    made = outcome(srx, photos, "out", "--size", "7x9", "--only-enlarge")
    assert made["results"] == ["a.png", "b.jpg"]


def test_times_are_kept_if_asked_for(srx: Srx, photos: Path) -> None:
    os.utime("in/a.png", (1_000_000_000, 1_000_000_000))
    srx("upscale", photos, "out", "--keep-times")
    assert Path("out/a.png").stat().st_mtime == 1_000_000_000
    assert outcome(srx, photos, "out", "--keep-times")["skipped"] == ["a.png", "b.jpg"]


def test_strip_alone_means_all(srx: Srx) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Path("in").mkdir()
    Image.new("RGB", (5, 5)).save("in/a.jpg", exif=exif)
    for args, made in (((), "Maker"), (("--strip", "gps"), "Maker"), (("--strip",), None)):
        assert srx("upscale", "--overwrite", *args, "in", "out", "--format", "jpeg").code == 0
        assert Image.open("out/a.jpg").getexif().get(0x010F) == made
    assert srx("upscale", "in", "out", "--overwrite", "--tag").code == 0
    assert "enlarged by a neural network from 5x5 to 20x20" in Image.open("out/a.png").info["srx"]


def test_a_dry_run_finds_a_folder_that_cannot_be_written(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert srx("upscale", photos, "out/new", "--dry-run").code == 0
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) == photos)
    for args in (("--dry-run",), ()):
        run = srx("upscale", photos, "out/new", *args)
        assert run.code == 1
        assert "is not writable" in run.err
    assert not results(".") & {"out"}


def test_megapixels_are_limited(srx: Srx, photos: Path) -> None:
    paint(Path("in/large.png"), (40, 40))
    for flags in ((), ("--dry-run",)):
        run = srx("upscale", photos, "out", "--max-megapixels", 0.001, *flags)
        assert run.code == 1
        assert "large.png has 40×40 pixels" in run.err + run.out
        assert "--max-megapixels" in run.err + run.out
    assert srx("upscale", photos, "out", "--max-megapixels", 0).code == 2


def test_lists_of_files(srx: Srx, photos: Path) -> None:
    for text in ("in/a.png\nin/sub/c.png\n", "in/a.png\0in/sub/c.png\0"):
        Path("list").write_text(text)
        made = outcome(srx, "--files-from", "list", "out", "--overwrite")
        assert made["results"] == ["a.png", "c.png"]
    made = outcome(srx, "in/b.jpg", "--files-from", "list", "out", "--overwrite")
    assert made["results"] == ["b.jpg", "a.png", "c.png"]
    Path("list").write_text("")
    assert srx("upscale", "--files-from", "list", "out").code == 2
    assert srx("upscale", "--files-from", "none", "out").code == 2
    Path("list").write_text("in/none.png\n")
    run = srx("upscale", "--files-from", "list", "out")
    assert (run.code, "in/none.png does not exist" in run.err) == (2, True)


def test_lists_of_editors_that_mark_their_encoding(srx: Srx, photos: Path) -> None:
    Path("list").write_text("in/a.png\n", "utf-8-sig")
    assert outcome(srx, "--files-from", "list", "out")["results"] == ["a.png"]
    Path("list").write_text("in/a.png\n", "utf-16")
    run = srx("upscale", "--files-from", "list", "out")
    assert (run.code, "save it as UTF-8" in run.err) == (2, True)


@pytest.mark.parametrize("gone", ["none.png", "*.bmp", "nowhere/"])
@pytest.mark.parametrize("listed", [True, False])
def test_what_does_not_exist_fails_beside_what_does(
    srx: Srx, photos: Path, gone: str, listed: bool
) -> None:
    Path("list").write_text(f"{gone}\nin/a.png\n")
    inputs = ("--files-from", "list") if listed else (gone, "in/a.png")
    run = srx("upscale", *inputs, "out", "--json")
    report = json.loads(run.out)
    assert (run.code, results()) == (1, {"a.png"})
    (failed,) = report["failures"]
    assert (failed["input"], failed["exit_code"]) == (gone.rstrip("/"), 1)
    assert gone.rstrip("/") in failed["reason"]
    assert "1 done, 1 failed" in run.err
    assert srx("upscale", *inputs, "out", "--dry-run").code == 1
    Path("list").write_text("in/a.png\n")  # the control
    assert srx("upscale", "--files-from", "list", "out").code == 0


@pytest.fixture
def piped(srx: Srx, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, bytes]]:
    """The command with bytes on stdin: its exit code and the bytes on stdout."""

    def call(*args: str, stdin: bytes = b"") -> tuple[int, bytes]:
        out = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", io.TextIOWrapper(out))
            with pytest.raises(SystemExit) as end:
                main(["upscale", *args])
            sys.stdout.flush()
            assert isinstance(end.value.code, int | None)
            return end.value.code or 0, out.getvalue()

    return call


def test_one_picture_through_pipes(piped: Callable[..., tuple[int, bytes]], photos: Path) -> None:
    data = Path("in/a.png").read_bytes()
    code, out = piped("-", "-", "--format", "webp", stdin=data)
    assert (code, out[8:12]) == (0, b"WEBP")
    assert piped("-", "out.png", stdin=data) == (0, b"")
    assert Image.open("out.png").size == (24, 16)
    assert piped("in/a.png", "-")[1][1:4] == b"PNG"
    assert piped("-", "-", stdin=b"no picture") == (1, b"")
    for wrong in (("-", "in/a.png", "out"), ("-", "-", "--json")):
        assert piped(*wrong, stdin=data)[0] == 2
    assert piped("--files-from", "-", "out", stdin=b"in/a.png\n")[0] == 0
    assert results() == {"a.png"}


# ------------------------------------------------------------------------ colours


def test_greys_in_three_channels_stay_neutral(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tinted(self: Nearest, lr: Any, on_step: Any) -> Any:
        larger = real(self, lr, on_step)
        larger[0] = (larger[0] * 0.9 + 0.1).clamp(0, 0.99)
        return larger

    real = Nearest.enlarge
    monkeypatch.setattr(Nearest, "enlarge", tinted)
    Path("in/grey.png").unlink(missing_ok=True)
    Image.fromarray(np.arange(0, 192, 2, dtype=np.uint8).reshape(12, 8)).convert("RGB").save(
        "in/grey.png"
    )
    srx("upscale", photos, "out")
    pixels = np.asarray(Image.open("out/grey.png"))
    assert pixels.shape[2] == 3
    assert (pixels == pixels[..., :1]).all()
    colours = np.asarray(Image.open("out/a.png"))
    assert not (colours == colours[..., :1]).all()


def test_a_file_in_the_way_of_the_folder_is_named(photos: Path) -> None:
    with (
        pytest.raises(InputError, match="cannot be made"),
        output_folder.working(Path("in/a.png/x"), [], single=False),
    ):
        pass


def test_recipes_know_options_that_are_younger_than_a_line() -> None:
    recipe = Recipe.of(UpscaleOptions(), OutputOptions())
    older = {k: v for k, v in recipe.options.items() if k != "variant"}
    assert recipe.is_same(older, recipe.networks)
    assert not recipe.is_same(older | {"steps": 3}, recipe.networks)
    assert not recipe.is_same(older, {"model": "other"})
    assert not recipe.is_same([], recipe.networks)
