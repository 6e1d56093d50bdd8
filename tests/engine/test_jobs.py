"""Which files become which: order, trees, names, and what is refused."""

import glob
import os
from pathlib import Path

import pytest
from PIL import Image

from sr_cli.engine import jobs
from sr_cli.engine.images import probe
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import InputError, UsageError

OPTIONS = UpscaleOptions(scale=2, steps=3)
IN, OUT = Path("in"), Path("out")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def paint(path: Path, size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def found_by(*arguments: Path, recursive: bool = False, **files: object) -> jobs.Plan:
    return jobs.plan(
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
            assert found.notes == ("Results of an earlier run, which are no inputs: 1.",)
    with pytest.raises(UsageError, match=r"in/a_x2.png would overwrite an input"):
        plan(IN, IN / "a_x2.png", IN, name=name)
    assert len(plan(IN, OUT, name=name)) == 3  # the control


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


def test_two_inputs_never_share_an_output() -> None:
    paint(IN / "a.jpg")
    paint(IN / "a.png")
    with pytest.raises(UsageError, match=r"in/a.jpg and in/a.png would both become out/a.png"):
        plan(IN, OUT)
    assert len(set(plan(IN, OUT, name="{stem}_{ext}").values())) == 2
    paint(Path("in2/b.png"))
    paint(Path("in2/a.png"))
    with pytest.raises(UsageError, match=r"both become .*--recursive"):
        plan(IN / "a.png", Path("in2"), OUT)
    assert len(plan(Path(), OUT, recursive=True, name="{stem}_{ext}")) == 4  # as it advises


def test_names_that_differ_in_case_alone_are_one_on_some_disks() -> None:
    paint(IN / "A.jpg")
    paint(IN / "a.png")
    with pytest.raises(UsageError, match=r"in/A.jpg and in/a.png would both become out/a.png"):
        plan(IN, OUT)
    assert len(plan(IN, OUT, name="{stem}_{ext}")) == 2
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_named() -> None:
    paint(IN / "locked/a.png")
    (IN / "locked").chmod(0)
    try:
        with pytest.raises(InputError, match="in/locked cannot be read"):
            plan(IN, OUT, recursive=True)
    finally:
        (IN / "locked").chmod(0o700)
