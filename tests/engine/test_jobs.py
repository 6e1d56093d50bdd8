"""Which files become which: order, trees, names, and what is refused."""

import errno
import glob
import os
from pathlib import Path

import pytest
from PIL import Image

from sr_cli.engine import jobs
from sr_cli.engine.events import Failed, Job, Planned
from sr_cli.engine.images import probe
from sr_cli.engine.inputs import pictures
from sr_cli.engine.manifest import Manifest
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import InputError, UsageError
from sr_cli.evaluation import layouts
from sr_cli.training.data import Crops, image_files

OPTIONS = UpscaleOptions(scale=2, steps=3)
RESULTS = "Results of an earlier run, which are no inputs: "
IN, OUT = Path("in"), Path("out")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def paint(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def found_by(*arguments: Path, recursive: bool = False, **files: object) -> jobs.Plan:
    return jobs.collect_jobs(
        arguments[:-1],
        arguments[-1],
        OPTIONS,
        OutputOptions(**files),  # type: ignore[arg-type]
        recursive=recursive,
    )


def plan(*arguments: Path, recursive: bool = False, **files: object) -> dict[str, str]:
    """Names of inputs and outputs, relative to the folder of the test."""
    found = found_by(*arguments, recursive=recursive, **files)
    return {os.path.relpath(job.input): os.path.relpath(job.output) for job in found.jobs}


def test_numbers_in_names_are_ordered_as_numbers() -> None:
    names = ["img1.png", "img2.png", "img10.png", "img10b.png", "IMG11.png", "other.png"]
    for name in reversed(names):
        paint(IN / name)
    assert list(plan(IN, OUT)) == [f"in/{name}" for name in names]
    assert sorted(names) != names  # the control


def test_a_tree_is_mirrored_without_hidden_files_links_and_the_output() -> None:
    for name in ("a.png", "x/b.jpg", "x/y/c.webp", ".hidden/d.png", ".e.png", "out/a.png"):
        paint(IN / name)
    (IN / "notes.txt").write_text("no image")
    (IN / "loop").symlink_to(IN.resolve(), target_is_directory=True)
    assert plan(IN, IN / "out", recursive=True) == {
        "in/a.png": "in/out/a.png",
        "in/x/b.jpg": "in/out/x/b.png",
        "in/x/y/c.webp": "in/out/x/y/c.png",
    }
    assert list(plan(IN, OUT, recursive=True)) == [  # the control: another output is no exception
        "in/a.png", "in/out/a.png", "in/x/b.jpg", "in/x/y/c.webp",
    ]  # fmt: skip
    assert list(plan(IN, OUT)) == ["in/a.png"]


def test_a_file_goes_by_its_own_name_and_not_by_a_links() -> None:
    paint(IN / "z.png")
    (IN / "a.png").symlink_to("z.png")
    paint(Path("elsewhere.png"))
    (IN / "b.png").symlink_to(Path("elsewhere.png").resolve())  # the control: its only name here
    assert list(plan(IN, OUT)) == ["in/z.png", "in/b.png"]
    named = found_by(IN / "a.png", IN, OUT)  # who names the link wants it by that
    assert [str(job.input) for job in named.jobs] == ["in/a.png", "in/b.png"]


def test_commands_agree_on_what_the_pictures_of_a_folder_are() -> None:
    """`upscale`, `bench` and `train` alike: macOS leaves ._NAME beside files on other disks."""
    for name in ("img10.png", "img2.JPG", "img1.tiff"):
        paint(IN / name)
    paint(IN / "d.png").rename(IN / "no suffix")
    shown = [IN / name for name in ("img1.tiff", "img2.JPG", "img10.png", "no suffix")]
    for name in ("._img2.JPG", ".e.png", "notes.txt"):
        (IN / name).write_bytes(b"\0\5\x16\7")
    (IN / "folder.png").mkdir()
    assert [job.input for job in found_by(IN, OUT, recursive=True).jobs] == shown
    assert pictures(IN) == pictures(IN, recursive=True) == shown
    assert layouts.images(IN) == shown
    assert image_files(IN) == shown
    Crops(IN, crop=2, seed=0, length=1)
    for name in ("deeper/f10.png", "deeper/f9.png", ".hidden/g.png"):
        paint(IN / name)
    deeper = [IN / "deeper" / name for name in ("f9.png", "f10.png")]
    assert [job.input for job in found_by(IN, OUT, recursive=True).jobs] == deeper + shown
    assert image_files(IN) == pictures(IN, recursive=True) == deeper + shown
    assert layouts.images(IN) == shown


def test_a_folder_of_pictures_that_cannot_be_read_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paint(IN / "a.png")

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    for find in (pictures, layouts.images, image_files):
        with pytest.raises(InputError, match=r"in cannot be read: Permission denied"):
            find(IN)


def test_patterns_match_where_the_shell_did_not() -> None:
    for name in ("a1.png", "a2.png", "b.png", "x/a3.png"):
        paint(IN / name)
    assert list(plan(IN / "a*.png", OUT)) == ["in/a1.png", "in/a2.png"]
    assert list(plan(IN / "**/a*.png", OUT)) == ["in/a1.png", "in/a2.png", "in/x/a3.png"]
    paint(IN / "[b].png")  # a file of this name is no pattern
    assert list(plan(IN / "[b].png", OUT)) == ["in/[b].png"]


def test_hidden_files_match_patterns_that_ask_for_them_alone() -> None:
    for name in (".a.png", "b.png", ".x/c.png"):
        paint(IN / name)
    assert list(plan(IN / "**/*.png", OUT)) == ["in/b.png"]
    assert list(plan(IN / ".x/*.png", OUT)) == ["in/.x/c.png"]
    assert list(plan(IN / ".*.png", OUT)) == ["in/.a.png"]


def test_patterns_do_not_follow_links_in_circles() -> None:
    paint(IN / "z.png")
    (IN / "a").symlink_to(IN.resolve(), target_is_directory=True)
    (IN / "self.png").symlink_to("self.png")
    assert list(plan(IN / "**/*.png", OUT)) == ["in/self.png", "in/z.png"]
    followed = glob.glob("in/**/*.png", recursive=True)  # noqa: PTH207
    assert any("/a/a/" in path for path in followed)  # the control
    assert list(plan(IN / "*/*.png", OUT)) == ["in/a/self.png", "in/a/z.png"]


@pytest.mark.parametrize("arguments", [["mix/*"], ["mix/a.png", "mix/broken.png", "mix/empty"]])
def test_bad_matches_stop_nothing_else(arguments: list[str]) -> None:
    """Whether the shell matches or we do."""
    paint(Path("mix/a.png"))
    Path("mix/broken.png").symlink_to("nothing")
    Path("mix/empty").mkdir()
    found = found_by(*map(Path, arguments), OUT)
    assert [job.input.name for job in found.jobs] == ["a.png", "broken.png"]
    assert found.notes == ("There is no image in mix/empty.",)
    with pytest.raises(InputError, match=r"mix/broken.png cannot be read"):
        probe(found.jobs[1].input)


def test_folders_named_like_images_are_entered_if_asked_for() -> None:
    paint(IN / "trip.jpg/a.png")
    paint(IN / "b.png")
    assert list(plan(IN, OUT, recursive=True)) == ["in/b.png", "in/trip.jpg/a.png"]
    assert list(plan(IN, OUT)) == ["in/b.png", "in/trip.jpg"]


def test_results_beside_the_originals_are_no_inputs() -> None:
    for name in ("a.png", "b.png", "a_x2.png"):
        paint(IN / name)
    name = "{stem}_x{scale}"
    expected = {"in/a.png": "in/a_x2.png", "in/b.png": "in/b_x2.png"}
    for argument in (IN, IN / "*.png"):
        for overwrite in (False, True):
            found = found_by(argument, IN, name=name, overwrite=overwrite)
            assert plan(argument, IN, name=name, overwrite=overwrite) == expected
            assert found.notes == (f"{RESULTS}in/a_x2.png.",)
    with pytest.raises(UsageError, match=r"in/a_x2.png would overwrite an input"):
        plan(IN, IN / "a_x2.png", IN, name=name)
    assert len(plan(IN, OUT, name=name)) == 3  # the control


@pytest.mark.parametrize(
    ("name", "made", "original"),
    [
        ("{stem}_x{scale}", "a_x2.5", "a_x"),
        ("{stem}_x{scale}.png", "a_x16", "a_x"),
        ("{width}x{height}-{stem}", "640x480-a", "640-a"),
        ("{stem}-{seed:03}-{steps}", "a-007-1", "a-7"),
        ("{stem}_{model}", "a_dossr", "a_2"),
        ("{stem} ({stem}, {ext}) {steps}", "a (a, png) 9", "a (b, png) 9"),
    ],
)
def test_results_of_other_runs_of_the_template_are_no_inputs_either(
    name: str, made: str, original: str
) -> None:
    for stem in ("a", made, original):
        paint(IN / f"{stem}.png")
    inputs = {"in/a.png", f"in/{original}.png"}
    assert set(plan(IN, IN, name=name)) == inputs
    assert set(plan(IN, IN / f"{made}.png", IN, name=name)) == inputs | {f"in/{made}.png"}
    assert len(plan(IN, OUT, name=name)) == 3  # the control
    Path("in/a.png").unlink()
    assert len(plan(IN, IN, name=name)) == 2  # nobody's result


def test_numbers_at_the_end_of_names_are_no_scales() -> None:
    for stem in ("photo_1", "photo_2", "photo_10"):
        paint(IN / f"{stem}.png")
    for name in ("{stem}_{scale}", "{stem}_{model}", "{seed}_{stem}"):
        assert len(plan(IN, IN, name=name)) == 3
    paint(IN / "photo.png")  # but now they may be
    assert found_by(IN, IN, name="{stem}_{scale}").notes == (
        f"{RESULTS}in/photo_1.png, in/photo_2.png, in/photo_10.png.",
    )
    paint(IN / "photo_11.png")
    assert found_by(IN, IN, name="{stem}_{scale}").notes[0].endswith("photo_10.png and 1 more.")


@pytest.mark.parametrize("pattern", ["**/*.png", "*/*.png", "*"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_patterns_do_not_match_results_in_the_output(pattern: str, overwrite: bool) -> None:
    for name in ("in/a.png", "out/a.png", "out/b.png"):
        paint(Path(name))
    assert plan(Path(pattern), OUT, overwrite=overwrite) == {"in/a.png": "out/a.png"}
    assert list(plan(OUT / "*.png", OUT / "x")) == ["out/a.png", "out/b.png"]
    with pytest.raises(UsageError, match="would overwrite an input"):
        plan(OUT / "*.png", OUT, overwrite=True)


def test_an_original_that_may_be_a_result_is_not_overwritten() -> None:
    paint(IN / "a.jpg")
    paint(IN / "a.png")
    assert plan(IN, IN) == {"in/a.jpg": "in/a.png"}
    with pytest.raises(UsageError, match="would overwrite an input"):
        plan(IN, IN, overwrite=True)


def test_what_is_no_image_is_no_name_of_a_result() -> None:
    paint(IN / "a.png")
    for name in ("photo.jxl", "o.txt"):
        with pytest.raises(UsageError, match=rf"{name} .*\.avif; .*make it first"):
            plan(IN / "a.png", Path(name))
        assert list(plan(IN, Path(name)).values()) == [f"{name}/a.png"]
        Path(name).mkdir()
        assert list(plan(IN / "a.png", Path(name)).values()) == [f"{name}/a.png"]
    assert list(plan(IN / "a.png", Path("out_x2.5")).values()) == ["out_x2.5/a.png"]
    for arguments in ([IN, Path("-")], [Path("-"), OUT]):
        with pytest.raises(UsageError, match="stdin and stdout"):
            plan(*arguments)


def test_a_file_named_twice_is_one_job() -> None:
    paint(IN / "a.png")
    assert plan(IN, IN / "a.png", Path("./in/../in/a.png"), OUT) == {"in/a.png": "out/a.png"}


def test_one_file_can_become_one_file() -> None:
    paint(IN / "a.png")
    assert plan(IN / "a.png", Path("b.JPEG")) == {"in/a.png": "b.JPEG"}
    Path("c.png").mkdir()
    assert plan(IN / "a.png", Path("c.png")) == {"in/a.png": "c.png/a.png"}


def test_templates_name_the_results() -> None:
    paint(IN / "a.b.jpg", (6, 4))
    name = "{stem}_{ext}_{width}x{height}_x{scale}_{steps}_{seed}_{model}"
    assert plan(IN, OUT, name=name, format="webp") == {
        "in/a.b.jpg": "out/a.b_jpg_12x8_x2_3_0_embedded.webp"
    }


@pytest.mark.parametrize(
    ("prior", "model"),
    [("prior", "prior"), ("google/ddpm-ema", "ddpm-ema"), ("./mine/", "mine"), (".", "here")],
)
def test_the_model_of_diffsr_is_its_prior(
    monkeypatch: pytest.MonkeyPatch, prior: str, model: str
) -> None:
    Path("here").mkdir()
    monkeypatch.chdir("here")
    options = UpscaleOptions(method="diffsr", prior=prior)
    job = jobs.collect_jobs(
        [paint(Path("a.png"))], OUT, options, OutputOptions(name="{model}")
    ).jobs[0]
    assert job.output.stem == model


def test_paths_that_cannot_be_are_refused() -> None:
    paint(IN / "a.png")
    for output in ("x" * 300, f"{'x' * 300}/y", "x/" * 3000, f"{'x' * 300}.png"):
        with pytest.raises(UsageError, match=r"cannot be used: File name too long"):
            plan(IN / "a.png", Path(output))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_name_that_is_too_long_is_its_own_file_s(overwrite: bool) -> None:
    stem = "ü" * 125
    for name in ("a", stem):
        paint(IN / f"{name}.png")
    for template, count in (("{stem}_", 2), ("{stem}__", 1)):  # 255 and 256 bytes
        files = OutputOptions(name=template, overwrite=overwrite)
        planned = jobs.collect_jobs([IN], OUT, OPTIONS, files).jobs
        todo, skipped = jobs.pending(planned, OPTIONS, files, Manifest(OUT))
        assert not skipped
        outcomes = list(jobs.preview(todo, OPTIONS))
        assert [isinstance(outcome, Planned) for outcome in outcomes].count(True) == count
        reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Failed)]
        assert all(f"{stem}.png would have a name of 256 bytes" in reason for reason in reasons)


def test_a_template_is_for_results_in_a_folder() -> None:
    paint(IN / "a.png")
    for name, count in ((OutputOptions.name, 0), ("{stem}_x4", 1)):
        planned = jobs.collect_jobs(
            [IN / "a.png"], Path("b.png"), OPTIONS, OutputOptions(name=name)
        )
        assert [job.output for job in planned.jobs] == [Path("b.png")]
        assert len(planned.notes) == count


def test_a_folder_in_the_way_is_no_result() -> None:
    job = Job(paint(IN / "a.png"), OUT / "a.png")
    for make, left in ((Path.mkdir, 1), (Path.touch, 0)):
        OUT.mkdir(exist_ok=True)
        make(job.output)
        files = OutputOptions(trust_existing=True)
        todo, skipped = jobs.pending([job], OPTIONS, files, Manifest(OUT))
        assert (len(todo), len(skipped)) == (left, 1 - left)
        if left:
            job.output.rmdir()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.png", "out"], "missing.png does not exist"),
        (["*.bmp", "out"], r"No file matches \*.bmp"),
        (["empty", "out"], "no image in empty.*--recursive"),
        (["in", "out.png"], "out.png names one file"),
        (["in/a.png", "in/b.png", "out.png"], "out.png names one file"),
        (["in/a.png", "out.gif"], "out.gif"),
        (["in", "notes.txt"], "notes.txt is a file"),
        (["in", "in"], "in/a.png would overwrite an input"),
    ],
)
def test_arguments_without_sense_are_refused(arguments: list[str], says: str) -> None:
    paint(IN / "a.png")
    paint(IN / "b.png")
    Path("empty").mkdir()
    Path("notes.txt").touch()
    with pytest.raises(UsageError, match=says):
        plan(*map(Path, arguments))


def test_an_argument_that_is_missing_ends_nothing_unless_all_are() -> None:
    paint(IN / "a.png")
    found = found_by(Path("none.png"), IN / "a.png", Path("*.bmp"), OUT)
    assert [job.input for job in found.jobs] == [IN / "a.png"]
    assert [str(failed.job.input) for failed in found.failures] == ["none.png", "*.bmp"]
    assert all(isinstance(failed.error, InputError) for failed in found.failures)
    with pytest.raises(UsageError, match=r"0 does not .*2 does not exist\. 2 more are missing"):
        plan(*(Path(str(number)) for number in range(5)), OUT)


def test_two_inputs_never_share_an_output() -> None:
    paint(IN / "a.jpg")
    paint(IN / "a.png")
    with pytest.raises(UsageError, match=r"in/a.jpg and in/a.png would both become out/x.png"):
        plan(IN, OUT, name="x")
    assert len(set(plan(IN, OUT, name="{stem}_{ext}").values())) == 2
    paint(Path("in2/b.png"))
    paint(Path("in2/a.png"))
    with pytest.raises(UsageError, match=r"both become .*--recursive"):
        plan(IN / "a.png", Path("in2"), OUT)
    assert len(plan(Path(), OUT, recursive=True, name="{stem}_{ext}")) == 4  # as it advises


TWINS = {
    "{stem}": ["a.avif.png", "a.jpg.png", "b.png"],
    "{stem}_x{scale}": ["a.avif_x2.png", "a.jpg_x2.png", "b_x2.png"],
    "{ext}-{stem}": ["avif-a.png", "jpg-a.png", "jpg-b.png"],  # the control: no twins by this one
}


@pytest.mark.parametrize("name", TWINS)
def test_twins_keep_their_suffix_and_say_so(name: str) -> None:
    for file in ("a.avif", "a.jpg", "b.jpg"):
        paint(IN / file)
    found = found_by(IN, OUT, name=name)
    assert [job.output.name for job in found.jobs] == TWINS[name]
    told = [bool(job.notes) for job in found.jobs]
    assert told == [True, True, False] if name != "{ext}-{stem}" else not any(told)
    assert bool(found.notes) == any(told)
    assert all(job.output.name in job.notes[0] for job in found.jobs if job.notes)


def test_a_result_of_before_there_was_a_twin_is_named() -> None:
    for name in ("a.jpg", "b.jpg"):
        paint(IN / name)
        paint((OUT / name).with_suffix(".png"))
    assert found_by(IN, OUT).notes == ()
    paint(IN / "a.webp")
    (note,) = found_by(IN, OUT).notes
    assert note.endswith("Of before there was another, these stay too: out/a.png.")
    paint(IN / "a.png")  # whose result that is now
    (note,) = found_by(IN, OUT).notes
    assert "stay too" not in note


def test_a_twin_that_has_the_suffix_of_results_keeps_its_name() -> None:
    paint(IN / "A.jpg")
    paint(IN / "a.png")
    assert plan(IN, OUT) == {"in/A.jpg": "out/A.jpg.png", "in/a.png": "out/a.png"}
    paint(Path("two/a.jpg"))
    with pytest.raises(UsageError, match=r"in/A.jpg and two/a.jpg .*two output folders"):
        plan(IN / "A.jpg", Path("two"), OUT)


def test_results_of_twins_in_the_same_folder_are_no_inputs() -> None:
    for file in ("a.avif", "a.jpg"):
        paint(IN / file)
    first = plan(IN, IN)
    for result in first.values():
        paint(Path(result))
    found = found_by(IN, IN)
    assert {str(job.input): str(job.output) for job in found.jobs} == first
    assert found.notes[0] == f"{RESULTS}in/a.avif.png, in/a.jpg.png."
    for gone in ("a.avif", "a.avif.png"):
        (IN / gone).unlink()
    assert plan(IN, IN) == {"in/a.jpg": "in/a.png"}


def test_names_that_differ_in_case_alone_are_one_on_some_disks() -> None:
    paint(IN / "A.jpg")
    paint(IN / "a.png")
    with pytest.raises(UsageError, match=r"in/A.jpg and in/a.png would both become out/x.png"):
        plan(IN, OUT, name="x")
    assert len(plan(IN, OUT, name="{stem}_{ext}")) == 2
    paint(IN / "A.png")
    for name in ("{stem}", "{stem}_{ext}"):
        with pytest.raises(UsageError, match=r"in/A.png and in/a.png .*: rename one of them"):
            plan(IN / "A.png", IN / "a.png", OUT, name=name)
    paint(IN / "B.PNG")
    with pytest.raises(UsageError, match="would overwrite an input"):
        plan(IN / "B.PNG", IN)


def test_an_output_is_never_an_input_even_through_a_link() -> None:
    paint(IN / "a.png")
    Path("link").symlink_to(IN, target_is_directory=True)
    with pytest.raises(UsageError, match="overwrite an input"):
        plan(IN, Path("link"))


def test_formats_contradict_no_file_name() -> None:
    paint(IN / "a.png")
    assert plan(IN / "a.png", Path("b.jpg"), format="jpeg") == {"in/a.png": "b.jpg"}
    with pytest.raises(UsageError, match="contradicts"):
        plan(IN / "a.png", Path("b.jpg"), format="webp")


def test_what_cannot_be_reached_fails_beside_what_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no disk has; a folder, and a pattern in one, that may not be entered."""

    def lstat(path: Path) -> os.stat_result:
        if "closed" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    real = Path.lstat
    monkeypatch.setattr(Path, "lstat", lstat)
    paint(IN / "a.png")
    for path in (Path("x" * 300 + ".png"), IN / "closed/a.png", IN / "closed/*.png"):
        found = found_by(path, IN / "a.png", OUT)
        assert [job.input for job in found.jobs] == [IN / "a.png"]
        (failed,) = found.failures
        assert failed.job.input == path
        assert f"{path} cannot be read: " in str(failed.error)
        with pytest.raises(InputError, match="cannot be read"):
            found_by(path, OUT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("mode", [0o444, 0o333])
def test_a_folder_that_may_be_listed_or_entered_alone_fails_alone(mode: int) -> None:
    paint(IN / "a.png")
    paint(IN / "locked/b.png")
    (IN / "locked").chmod(mode)
    try:
        found = found_by(IN, OUT, recursive=True)
    finally:
        (IN / "locked").chmod(0o700)
    assert [job.input for job in found.jobs] == [IN / "a.png"]
    assert [failed.job.input for failed in found.failures] == [IN / "locked"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_named() -> None:
    paint(IN / "locked/a.png")
    (IN / "locked").chmod(0)
    try:
        with pytest.raises(InputError, match="in/locked cannot be read"):
            plan(IN, OUT, recursive=True)
    finally:
        (IN / "locked").chmod(0o700)
