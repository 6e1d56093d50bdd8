"""Which files of a folder become jobs, and when: complete ones, once, and again after a change."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_cli.engine.arrivals import Arrivals
from sr_cli.engine.jobs import Plan
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import InputError


def paint(path: Path, width: int = 6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    return Path("in")


def arrivals(output: str = "out", name: str = "{stem}", **how: Any) -> Arrivals:
    files = OutputOptions(name=name)
    return Arrivals([Path("in")], Path(output), UpscaleOptions(), files, recursive=False, **how)


def names(plan: Plan) -> list[str]:
    return [job.input.name for job in plan.jobs]


def test_a_file_arrives_once_it_has_not_changed_for_a_while(place: Path) -> None:
    folder = arrivals()
    assert not folder.waiting
    data = paint(place / "a.png").read_bytes()
    (place / "a.png").write_bytes(data[:40])
    assert names(folder.look(0)) == []
    assert folder.waiting
    assert names(folder.look(0.9)) == []
    (place / "a.png").write_bytes(data)
    assert names(folder.look(1.1)) == []  # the control: by its first sight it would be complete
    assert names(folder.look(2.0)) == []
    assert names(folder.look(2.2)) == ["a.png"]
    assert not folder.waiting
    assert names(folder.look(99)) == []


def test_a_file_that_changes_arrives_again(place: Path) -> None:
    folder = arrivals()
    paint(place / "a.png")
    folder.look(0)
    assert names(folder.look(1)) == ["a.png"]
    paint(place / "a.png", 9)
    assert names(folder.look(2)) == []
    assert names(folder.look(3)) == ["a.png"]
    paint(Path("b.png"), 9).rename(place / "a.png")  # as long, perhaps as old
    os.utime(place / "a.png", ns=(0, 0))
    folder.look(4)
    assert names(folder.look(5)) == ["a.png"]


def test_a_file_that_went_and_came_is_another_one(place: Path) -> None:
    folder = arrivals()
    paint(place / "a.png")
    folder.look(0)
    folder.look(1)
    (place / "a.png").rename("a.png")
    folder.look(2)
    assert not folder.waiting
    shutil.copy2("a.png", place)
    folder.look(3)
    assert names(folder.look(4)) == ["a.png"]


def test_names_of_unfinished_downloads_are_none(place: Path) -> None:
    folder = arrivals()
    paint(place / "a.png").rename(place / "a.png.part")
    folder.look(0)
    assert names(folder.look(9)) == []
    assert not folder.waiting
    (place / "a.png.part").rename(place / "a.png")
    folder.look(10)
    assert names(folder.look(11)) == ["a.png"]


def test_who_comes_second_to_a_stem_keeps_its_suffix(place: Path) -> None:
    folder = arrivals()
    paint(place / "b.avif")
    folder.look(0)
    assert [str(job.output) for job in folder.look(1).jobs] == ["out/b.png"]
    paint(place / "b.jpg")
    folder.look(2)
    assert [str(job.output) for job in folder.look(3).jobs] == ["out/b.jpg.png"]


def test_a_change_beside_a_result_in_the_same_folder_is_done_again(place: Path) -> None:
    folder = arrivals("in")
    paint(place / "a.jpg")
    folder.look(0)
    assert names(folder.look(1)) == ["a.jpg"]
    paint(place / "a.png")  # its result
    paint(place / "a.jpg", 9)
    folder.look(2)
    plan = folder.look(3)
    assert (names(plan), plan.failures) == (["a.jpg"], ())


def test_who_comes_second_to_a_name_fails_alone(place: Path) -> None:
    folder = arrivals(name="{stem:.1}")
    paint(place / "b.png")
    folder.look(0)
    assert names(folder.look(1)) == ["b.png"]
    paint(place / "b0.jpg")
    paint(place / "c.png")
    folder.look(2)
    plan = folder.look(3)
    assert names(plan) == ["c.png"]
    assert [failed.job.input.name for failed in plan.failures] == ["b0.jpg"]
    assert "would both become out/b.png" in plan.failures[0].reason
    (place / "b.png").unlink()
    folder.look(4)
    paint(place / "b0.jpg", 9)
    folder.look(5)
    assert names(folder.look(6)) == ["b0.jpg"]


def test_results_in_the_same_folder_are_no_arrivals(place: Path) -> None:
    folder = arrivals("in", "{stem}_x4")
    paint(place / "a.png")
    folder.look(0)
    assert names(folder.look(1)) == ["a.png"]
    paint(place / "a_x4.png")
    folder.look(2)
    assert names(folder.look(3)) == []
    assert not folder.waiting


def test_an_input_that_would_be_overwritten_fails_alone(place: Path) -> None:
    folder = arrivals("in")
    paint(place / "a.png")
    folder.look(0)
    assert "would overwrite an input" in folder.look(1).failures[0].reason


def test_a_folder_that_is_gone_ends_it(place: Path) -> None:
    folder = arrivals()
    folder.look(0)
    place.rmdir()
    with pytest.raises(InputError, match="in was removed"):
        folder.look(1)
