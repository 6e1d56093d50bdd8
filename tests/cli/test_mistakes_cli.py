"""What users get wrong at first, and what the command then says."""

import json
import logging
import tomllib
from pathlib import Path

import pytest
import typer
from calls import MAKE_UPSCALER, Srx, finished, paint, results
from huggingface_hub import constants
from PIL import Image

from sr_cli import __main__ as entry
from sr_cli.cli import upscale as command
from sr_cli.cli.ui import terminal
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.steps import setting
from sr_cli.models import registry
from sr_cli.models.calibration import Calibration, Start, keep
from sr_cli.models.loading import DIFFUSION

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")

ROOT = Path(command.__file__).parents[2]


@pytest.fixture
def small(isolated: None, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small weights, which nobody has calibrated."""
    monkeypatch.setenv("SRX_WEIGHTS", str(tiny_weights))


# ---------------------------------------------------------------------------------------- options


def test_a_picture_taken_as_output_is_named(srx: Srx) -> None:
    a, b = paint(Path("a.png")), paint(Path("b.png"))
    before = b.read_bytes()
    run = srx("upscale", a, b)
    assert (run.code, b.read_bytes()) == (1, before)
    assert "b.png was taken as OUTPUT" in run.err
    Path("out").mkdir()
    for _ in range(2):
        assert "was taken" not in srx("upscale", a, b, "out").err
        assert "was taken" not in srx("upscale", a, "out/c.png").err  # which is done the 2nd time


def test_a_file_that_looks_like_an_option_is_told_how_to_be_written(srx: Srx) -> None:
    assert "./" not in srx("upscale", "-x.png", "out").err
    paint(Path("-x.png"))
    run = srx("upscale", "-x.png", "out")
    assert (run.code, "The file of this name is ./-x.png." in run.err) == (2, True)
    assert srx("upscale", "./-x.png", "out").code == 0


def test_a_folder_that_may_not_be_entered_has_no_defaults(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where cron or sudo begins; and a name that is too long is no file either."""

    def is_file(path: Path) -> bool:
        if path.name == "srx.toml":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    real = Path.is_file
    monkeypatch.setattr(Path, "is_file", is_file)
    assert srx("upscale", photos / "a.png", "out").code == 0
    assert "No such option" in srx("upscale", photos, "out", "-" + "x" * 300).err
    assert "No such command" in srx("x" * 300).err


def test_a_command_that_is_none_is_told_what_was_meant(srx: Srx, photos: Path) -> None:
    run = srx(photos, "out")
    assert (run.code, run.err) == (2, "error: in is no command: srx upscale in out/ enlarges it.\n")
    assert "srx --help" in srx("help").err
    assert "Did you mean 'upscale'?" in srx("upscal", photos, "out").err  # the control


def test_too_little_memory_to_begin_is_told(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "failed to map segment"

    def load(*_: object) -> None:
        raise ImportError(f"libtorch_cpu.so: {reason} from shared object")

    monkeypatch.setattr(command, "make_upscaler", load)
    run = srx("upscale", photos, "out")
    assert (run.code, "ulimit -v" in run.err) == (4, True)
    reason = "no symbol"  # the control: a library that is broken is not memory
    run = srx("upscale", photos, "out")
    assert (run.code, "ulimit -v" in run.err) == (1, False)


@pytest.mark.parametrize(("name", "suffix"), [("jpg", ".jpg"), ("tif", ".tiff")])
def test_formats_have_their_short_names(srx: Srx, photos: Path, name: str, suffix: str) -> None:
    assert srx("upscale", photos / "a.png", "out", "--format", name).code == 0
    Path("srx.toml").write_text(f'format = "{name}"')
    assert srx("upscale", photos / "b.jpg", "out").code == 0
    found = {Image.open(path).format for path in Path("out").glob("[!.]*")}
    assert results() == {f"a{suffix}", f"b{suffix}"}
    assert found == {"JPEG" if name == "jpg" else "TIFF"}


DIFFSR = ("--prior nope", "--sampler ddpm")
DOSSR = ("--model embedded", "--order 3", "--variant paper", "--last-step x0")


@pytest.mark.parametrize("option", DIFFSR + DOSSR)
def test_options_of_the_other_method_are_refused(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    own, other = ("diffsr", "dossr") if option in DIFFSR else ("dossr", "diffsr")
    name, value = option.split()
    run = srx("upscale", photos, "out", "--method", other, name, value)
    assert run.code == 2
    assert f"{name} belongs to --method {own}" in run.err
    assert srx("upscale", photos, "out", "--method", own, name, value).code == 0
    monkeypatch.setenv("SRX_" + name[2:].replace("-", "_").upper(), value)
    assert srx("upscale", photos, "out", "--method", other).code == 0


@pytest.mark.parametrize("option", DIFFSR + DOSSR)
def test_a_search_refuses_options_of_the_other_method_too(srx: Srx, option: str) -> None:
    """Before anything is measured: its controls go on to the folder, which is missing."""
    own, other = ("diffsr", "dossr") if option in DIFFSR else ("dossr", "diffsr")
    run = srx("prf-search", "gone", "--method", other, *option.split())
    assert run.code == 2
    assert f"{option.split(maxsplit=1)[0]} belongs to --method {own}" in run.err
    assert "gone" in srx("prf-search", "gone", "--method", own, *option.split()).err


APART = (
    ("--overwrite", "--trust-existing", "--overwrite and --trust-existing say two things"),
    ("--quiet", "--verbose", "--quiet and --verbose contradict each other"),
    ("--json", "--json-events", "both want stdout"),
    ("--t1 500", "--degradation mild", "--degradation is what --t1 auto takes the input for"),
    ("--tile 0", "--overlap 8", "--overlap is the margin of tiles"),
    ("--cluster auto", "--jobs 2", "--jobs is of one machine"),
)


@pytest.mark.parametrize(("one", "other", "said"), APART)
def test_options_that_contradict_each_other_are_refused(
    srx: Srx, photos: Path, one: str, other: str, said: str
) -> None:
    run = srx("upscale", photos, "out", *one.split(), *other.split())
    assert (run.code, run.out, run.err.count("\n")) == (2, "", 1)
    assert said in run.err
    assert not Path("out").exists()


@pytest.mark.parametrize("words", [f"{one} {other}" for one, other, _ in APART[4:6]])
def test_a_variable_waits_for_what_it_is_of(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    *one, other, value = words.split()
    monkeypatch.setenv("SRX_" + other[2:].upper(), value)
    assert srx("upscale", photos, "out", *one).code == 0


def test_the_stronger_source_wins_of_two_opposites(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*flags: str) -> int:
        return len(json.loads(srx("upscale", photos, "out", "--json", *flags).out)["results"])

    assert made() == 2
    monkeypatch.setenv("SRX_OVERWRITE", "1")
    assert (made("--trust-existing"), made()) == (0, 2)
    monkeypatch.setenv("SRX_TRUST_EXISTING", "1")
    assert srx("upscale", photos, "out").code == 2
    monkeypatch.delenv("SRX_OVERWRITE")
    assert (made("--overwrite"), made()) == (2, 0)
    monkeypatch.setenv("SRX_QUIET", "1")
    assert not srx("upscale", photos, "out").err
    assert srx("upscale", photos, "out", "--verbose").err
    assert srx("report", "out", "-q", "-v").code == 2


def test_a_quality_without_use_is_noted(srx: Srx, photos: Path) -> None:
    said = "--quality is for JPEG, WebP and AVIF"
    assert said in srx("upscale", photos, "out", "--quality", 90).err
    assert said not in srx("upscale", photos, "out", "--quality", 90, "--format", "webp").err
    assert said not in srx("upscale", photos, "out", "--quality", 90, "--format", "same").err


@pytest.mark.usefixtures("small")
def test_a_texture_needs_a_model_with_a_dial(
    srx: Srx, photos: Path, dialled_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "make_upscaler", MAKE_UPSCALER)
    args = ("upscale", photos / "a.png", "out", "--device", "cpu", "--json", "--texture")
    for extra in ((), ("--dry-run",)):
        run = srx(*args, "0.5", *extra)
        assert (run.code, run.err.count("embedded has no dial for --texture")) == (2, 1)
    monkeypatch.setenv("SRX_WEIGHTS", str(dialled_weights))
    for extra in ((), ("--dry-run",)):
        run = srx(*args, "0.5", *extra, "--model", "clean")
        assert run.code == 2
        assert "clean has no dial" in run.err
        assert "choose --model embedded." in run.err
    assert srx(*args, "1.5").code == 2
    run = srx(*args, "0.5")
    report = json.loads(run.out)
    assert (run.code, report["options"]["texture"]) == (0, 0.5)
    assert report["environment"]["texture"] == 0.5
    own = json.loads(srx(*args[:-1], "--overwrite").out)
    assert (own["options"]["texture"], own["environment"]["texture"]) == (None, 1.0)


@pytest.mark.usefixtures("small")
def test_a_texture_of_the_file_waits_for_a_method_that_takes_one(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "make_upscaler", MAKE_UPSCALER)
    Path("srx.toml").write_text("texture = 0.5")
    args = ("upscale", photos / "a.png", "out", "--device", "cpu")
    assert srx(*args, "--method", "diffsr", "--t1", "0").code == 0
    assert srx(*args, "--overwrite").code == 2


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("args", "code"),
    [
        ("--model nope", 3),
        ("--model compact", 3),
        ("--model prior", 3),
        ("--method diffsr --prior embedded", 3),
        ("--method diffsr --t1 9 --prior nope", 3),
        ("--method diffsr --t1 9 --prior in", 3),
        ("--method diffsr --t1 9 --prior ./nope", 3),
        (f"--method diffsr --t1 9 --prior {'a' * 300}", 3),
        (f"--model {'a' * 300}", 3),
        (f"--preprocess {'a' * 300}", 3),
        ("--preprocess nope", 3),
        ("--preprocess nope.pth", 3),
        ("--device gpu", 2),
        ("--device cuda:99", 4),
        ("--device cpu --dtype float16", 4),
        ("--t1 auto", 2),
        ("--method diffsr --sampler ddpm", 2),
        ("--steps 499 --device cpu --preprocess none --color none", 0),
        ("--steps 500", 2),
        ("--method diffsr --t1 0 --preprocess compact --device cpu", 0),
    ],
)
def test_a_dry_run_fails_as_the_run_would(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch, args: str, code: int
) -> None:
    assert srx("upscale", photos, "out", *args.split(), "--dry-run").code == code
    monkeypatch.setattr(command, "make_upscaler", MAKE_UPSCALER)
    assert srx("upscale", photos / "a.png", "out", *args.split()).code == code


@pytest.fixture
def calibrated(small: None) -> None:
    """At 2x the default starts at 40, at 4x at 400."""
    options = UpscaleOptions()
    found = setting(options, registry.card(options.model))
    keep(found, Calibration({2: Start(40, {}), 4: Start(400, {})}))


@pytest.mark.usefixtures("calibrated")
@pytest.mark.parametrize(
    ("args", "code"),
    [
        ("--scale 2 --steps 60", 2),
        ("--long-side 12 --steps 60", 2),
        ("--scale 2", 0),
        ("--scale 4 --steps 60", 0),
        ("--long-side 24 --steps 60", 0),
        ("--method diffsr --sampler ddim --scale 2 --steps 60", 2),  # has no calibration
    ],
)
def test_a_dry_run_knows_where_each_picture_starts(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch, args: str, code: int
) -> None:
    call = ("upscale", photos / "a.png", "out", "--t1", "auto", "--device", "cpu", *args.split())
    dry = srx(*call, "--dry-run")
    monkeypatch.setattr(command, "make_upscaler", MAKE_UPSCALER)
    run = srx(*call)
    assert (dry.code, run.code) == (code, code)
    if code and "diffsr" not in args:
        assert "60 steps do not fit into t1 = 40" in dry.out
        assert "60 steps do not fit into t1 = 40" in run.err


@pytest.mark.usefixtures("calibrated")
def test_a_dry_run_finds_the_pictures_that_fail(srx: Srx, photos: Path) -> None:
    paint(photos / "large.png", (12, 8))
    args = ("upscale", photos, "out", "--t1", "auto", "--long-side", "24", "--steps", "60")
    run = srx(*args, "--dry-run", "--json")
    assert run.code == 1
    report = json.loads(run.out)
    assert [entry["input"] for entry in report["failures"]] == ["in/large.png"]
    assert [entry["input"] for entry in report["planned"]] == ["in/a.png", "in/b.jpg"]


def test_a_dry_run_looks_for_weights_that_are_somewhere_else(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRX_WEIGHTS", "gone")
    run = srx("upscale", photos, "out", "--dry-run")
    assert (run.code, "gone" in run.err) == (3, True)


@pytest.mark.usefixtures("small")
def test_a_dry_run_says_of_what_is_on_the_hub_that_it_is_not_checked(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path("hub").absolute()))
    args = ("upscale", photos, "out", "--dry-run", "--method", "diffsr", "--prior", "a/b")
    run = srx(*args)
    assert (run.code, "Not checked: a/b" in run.err) == (0, True)
    snapshot = Path("hub/models--a--b/snapshots/0/unet")
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    Path("hub/models--a--b/refs").mkdir()
    Path("hub/models--a--b/refs/main").write_text("0")
    assert "Not checked" not in srx(*args).err


def test_what_is_too_long_for_a_disk_is_a_sentence(srx: Srx, photos: Path) -> None:
    for args in (
        ["x" * 300],
        ["out", "--name", "x" * 300],
        ["out", "--name", "{stem:>9999999999}"],
    ):
        run = srx("upscale", photos, *args, "--dry-run")
        assert run.code == 2
        assert run.err.startswith("error: The ")


@pytest.mark.usefixtures("small")
def test_models_that_do_not_fit_are_not_offered(srx: Srx, photos: Path) -> None:
    said = srx("upscale", photos, "out", "--dry-run", "--model", "nope").err
    fitting = [name for name in registry.names() if registry.card(name).kind in DIFFUSION]
    assert f"(found: {', '.join(fitting)})" in said
    said = srx("upscale", photos, "out", "--dry-run", "--model", "compact").err
    assert f"choose from {', '.join(fitting)}." in said
    assert "embedded" in fitting
    assert len(fitting) < len(registry.names())


# ---------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize("words", ["", "upscale", "bench", "train", "train dossr", "weights list"])
def test_help_has_a_short_name(srx: Srx, words: str) -> None:
    short = srx(*words.split(), "-h")
    assert (short.code, short.err) == (0, "")
    assert short == srx(*words.split(), "--help")
    assert "Usage" in short.out


def test_ctrl_c_before_the_command_begins_is_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: typer.Typer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(typer.main, "get_command", interrupted)
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert end.value.code == 130
    assert capsys.readouterr() == ("", "")


STOPPED = """
import sys
class Stop:
    def find_spec(self, name, *_):
        if name == "typer": raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
from {module} import {function}
{function}()
"""


def test_ctrl_c_while_libraries_are_imported_is_silent() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, function = project["scripts"]["srx"].partition(":")
    done = finished(STOPPED.format(module=module, function=function), "--version")
    assert (done.code, done.out, done.err) == (130, "", "")
    bare = finished(STOPPED.format(module="sr_cli.cli.app", function="main"), "--version")
    assert "KeyboardInterrupt" in bare.err


def test_a_hint_at_verbose_is_for_commands_that_have_it(
    srx: Srx, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(terminal, "verbose", None)
    monkeypatch.setattr(registry, "names", broken)
    assert srx("weights", "list").err == "error: ZeroDivisionError: oops\n"
    monkeypatch.setattr(command, "make_upscaler", broken)
    assert "--verbose" in srx("upscale", photos, "out").err


def test_names_with_control_characters_stay_in_their_line(srx: Srx) -> None:
    paint(Path("in/a\nb\x1b[31m.png"))
    Path("in/c\nd.png").write_text("no image")
    run = srx("upscale", "in", "out")
    assert run.err.count(r"a\nb\x1b[31m.png") == 3  # input and output, then the table
    assert run.err.count(r"c\nd.png") >= 2
    assert "\x1b" not in run.err
    assert not [line for line in run.err.splitlines() if line.startswith(("b", "d"))]
    assert Path("out/a\nb\x1b[31m.png").exists()


def test_torch_tells_nobody_that_there_is_no_cuda(srx: Srx, photos: Path) -> None:
    logger = logging.getLogger("torch.utils.cpp_extension")
    logger.setLevel(logging.NOTSET)
    srx("upscale", photos, "out", "--verbose")
    assert logger.level == logging.NOTSET
    srx("upscale", photos, "out")
    assert not logger.isEnabledFor(logging.WARNING)
