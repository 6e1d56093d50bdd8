"""What is compared: the part of a picture, whose results are whose, and what a failure costs."""

import base64
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import InputError, ModelError, UsageError
from sr_cli.evaluation import comparison, datasets
from sr_cli.evaluation.comparison import Result
from sr_cli.evaluation.datasets import Pair, Pairs
from sr_cli.evaluation.metrics import load
from sr_cli.evaluation.peers import Method, Peer, interpolation, stored
from sr_cli.evaluation.programs import Command, program
from sr_cli.evaluation.subjects import BUDGET, CROP, LEAST, Group, Part, levels

CPU = torch.device("cpu")
MEASURED = load(["psnr"], CPU)
BLIND = load([], CPU)


def paint(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def pixels(uri: str | None) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    assert uri is not None
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    return np.asarray(image.convert("RGB"))


def group(pairs: Pairs, part: Part, *, originals: bool) -> Group:
    return comparison.groups([(pairs, originals)], part, 1)[0]


def results(peer: Peer, found: Group) -> list[Result]:
    return comparison.compare(peer, found, MEASURED, BLIND, device=CPU)


def nearest(scale: int) -> Peer:
    """Repeats pixels; refuses pictures 7 pixels wide."""

    def enlarge(pairs: Sequence[Pair]) -> list[Tensor]:
        if any(pair.lr.shape[2] == 7 for pair in pairs):
            raise InputError("seven is too many.")
        return [p.lr.repeat_interleave(scale, 1).repeat_interleave(scale, 2) for p in pairs]

    return Peer("nearest", lambda _: Method(enlarge))


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    at=st.none() | st.tuples(st.integers(0, 400), st.integers(0, 400)),
    crop=st.integers(0, 400),
    scale=st.sampled_from([1.0, 1.5, 2.7, 4.0, 3.14159]),
)
def test_the_part_lies_in_the_picture_and_its_result_in_the_result(
    size: tuple[int, int], at: tuple[int, int] | None, crop: int, scale: float
) -> None:
    left, top, width, height = Part(crop, at).box(size, crop, scale)
    assert left >= 0
    assert top >= 0
    assert left + width <= size[0]
    assert top + height <= size[1]
    assert (width, height) == (min(crop or size[0], size[0]), min(crop or size[1], size[1]))
    if scale in (1.5, 2.7):
        assert (left * scale) == pytest.approx(round(left * scale), abs=1e-9)


def test_the_part_is_about_its_middle() -> None:
    assert Part(10).box((100, 60), 10, 4) == (45, 25, 10, 10)
    assert Part(10, (20, 30)).box((100, 60), 10, 4) == (15, 25, 10, 10)
    assert Part(10, (99, 0)).box((100, 60), 10, 4) == (90, 0, 10, 10)


def test_many_pictures_have_smaller_parts_unless_told() -> None:
    sides = [Part().side(results, 4) for results in (1, 7, 100, 100_000)]
    assert sides[0] == CROP
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] == LEAST
    assert 100 * (4 * sides[2]) ** 2 <= BUDGET
    assert Part(90).side(100_000, 4) == 90


@pytest.mark.parametrize("wrong", [{"crop": -1}, {"at": (3, -1)}])
def test_parts_that_are_none_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Part(**wrong)  # type: ignore[arg-type]


def test_a_page_that_would_be_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = datasets.pairs([paint(tmp_path / "a.png", (40, 30))])
    monkeypatch.setattr(comparison, "LIMIT", 3 * 160 * 120)
    assert comparison.groups([(pairs, False)], Part(0), 3)
    with pytest.raises(UsageError, match="--crop"):
        comparison.groups([(pairs, False)], Part(0), 4)
    assert comparison.groups([(pairs, False)], Part(20), 4)


def test_pictures_without_originals_are_enlarged_as_they_are(tmp_path: Path) -> None:
    file = paint(tmp_path / "a.png", (40, 30))
    found = group(datasets.pairs([file]), Part(8, (10, 20)), originals=False)
    (result,) = results(nearest(4), found)
    part = np.asarray(Image.open(file))[16:24, 6:14]
    assert (pixels(result.image) == part.repeat(4, 0).repeat(4, 1)).all()
    assert not result.scores
    assert result.seconds is not None
    assert "160×120" in found.subjects[0].text
    assert "from (6, 16) on" in found.subjects[0].text


def test_results_on_disk_are_cut_to_the_same_part(tmp_path: Path) -> None:
    """The originals themselves, taken for somebody's results, are what they are compared with."""
    for i, size in enumerate(((40, 28), (36, 36))):
        paint(tmp_path / "hr" / f"{i}.png", size, i)
    found = group(datasets.pairs(tmp_path / "hr"), Part(5, (4, 4)), originals=True)
    own = results(stored("own", tmp_path / "hr"), found)
    for i, result in enumerate(own):
        whole = np.asarray(Image.open(tmp_path / "hr" / f"{i}.png"))
        assert (pixels(result.image) == whole[8:28, 8:28]).all()
        assert result.scores["psnr"] == pytest.approx(80)
        assert result.seconds is None
    other = results(interpolation("bicubic"), found)  # the control
    assert all((result.scores["psnr"] or 0) < 40 for result in other)


@pytest.mark.parametrize("scale", [2.7, 3.14159])
def test_sizes_of_any_scale_fit(tmp_path: Path, scale: float) -> None:
    paint(tmp_path / "hr" / "a.png", (101, 77))
    pairs = datasets.pairs(tmp_path / "hr", scale=scale)
    found = group(pairs, Part(9, (30, 24)), originals=True)
    size = UpscaleOptions(scale=scale).size.of(9, 9)
    (result,) = results(interpolation("lanczos"), found)
    assert pixels(result.image).shape == (*size, 3)
    assert result.scores["psnr"] is not None


def test_a_failure_costs_its_picture_alone(tmp_path: Path) -> None:
    files = [paint(tmp_path / f"{width}.png", (width, 6)) for width in (6, 7, 8)]
    found = group(datasets.pairs(files), Part(), originals=False)
    good, bad, fine = results(nearest(4), found)
    assert (bad.image, bad.failure) == (None, "seven is too many.")
    assert good.image
    assert fine.image
    rows = {"nearest": [good, bad, fine]}
    page = comparison.build([found], rows, BLIND, own=["nearest"], title="", note="")
    assert [bool(shown.images[1]) for shown in page.pictures] == [True, False, True]
    assert page.pictures[1].table.text[1][-1] == "seven is too many."
    assert page.means is not None
    assert page.means.text[1][-1] == "1 of 3 failed"


def test_a_method_that_cannot_be_made_fails_on_each(tmp_path: Path) -> None:
    def make(_: Pairs) -> Method:
        raise ModelError("there are no weights.")

    files = [paint(tmp_path / f"{i}.png", (6, 6)) for i in range(2)]
    found = group(datasets.pairs(files), Part(), originals=False)
    both = results(Peer("none", make), found)
    assert [result.failure for result in both] == ["there are no weights."] * 2
    assert both[0].exit_code == ModelError.exit_code


def test_a_page_begins_with_the_input_and_ends_with_the_original(tmp_path: Path) -> None:
    file = paint(tmp_path / "hr" / "a.png", (40, 24))
    found = group(datasets.pairs(tmp_path / "hr"), Part(), originals=True)
    peers = (interpolation("bicubic"), nearest(4))
    rows = {peer.name: results(peer, found) for peer in peers}
    page = comparison.build([found], rows, MEASURED, own=["nearest"], title="", note="")
    assert page.rows == ["input", "bicubic", "nearest", "original"]
    assert (page.rows[page.left], page.rows[page.right]) == ("bicubic", "nearest")
    (shown,) = page.pictures
    assert (pixels(shown.images[-1]) == np.asarray(Image.open(file))).all()
    assert pixels(shown.images[0]).shape == (6, 10, 3)
    assert [column.name for column in shown.table.columns] == ["method", "seconds", "psnr"]
    assert page.means is None


def test_lr_and_hr_are_matched_by_name_or_stand_alone(tmp_path: Path) -> None:
    low = [paint(tmp_path / "lr" / f"{i}_LR4.png", (10, 6), i) for i in range(2)]
    high = [paint(tmp_path / "hr" / f"{i}.png", (40, 24), i) for i in (1, 0)]
    assert [file.stem for file in datasets.matched(low, high, 4).hr_files] == ["0", "1"]
    other = paint(tmp_path / "other.png", (40, 24))
    assert datasets.matched(low[:1], [other], 4).hr_files == (other,)
    with pytest.raises(UsageError, match="partner"):
        datasets.matched(low, [other], 4)


PROGRAM = """
import sys
from pathlib import Path
from PIL import Image
for file in Path(sys.argv[1]).iterdir():
    image = Image.open(file)
    size = (4 * image.width, 4 * image.height)
    image.resize(size, Image.Resampling.NEAREST).save(Path(sys.argv[2]) / file.name)
"""


@pytest.mark.parametrize("originals", [False, True])
def test_a_program_enlarges_the_parts_of_the_pictures(tmp_path: Path, originals: bool) -> None:
    """Not what would be the LR images if the pictures were originals; and each its own, though
    their files share a name."""
    (tmp_path / "up.py").write_text(PROGRAM)
    words = (sys.executable, str(tmp_path / "up.py"), "{input}", "{output}")
    files = [paint(tmp_path / folder / "x.png", (40, 32), i) for i, folder in enumerate("ab")]
    found = group(datasets.pairs(files), Part(8, (4, 4)), originals=originals)
    both = results(program("prog", Command(words)), found)
    for subject, result in zip(found.subjects, both, strict=True):
        small = levels(subject.pair.lr)
        assert (pixels(result.image) == small.repeat(4, 0).repeat(4, 1)).all()
        assert result.seconds is not None
        assert ("psnr" in result.scores) == originals
    assert both[0].image != both[1].image
