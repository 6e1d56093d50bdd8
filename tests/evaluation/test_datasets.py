"""Pairs: matched by name in the layouts of published sets, whatever the order; made if alone."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torch.nn.functional import interpolate

from sr_cli.errors import UsageError
from sr_cli.evaluation.datasets import Pair, fitting, pairs
from sr_cli.evaluation.matching import Named, flat, partners


def save(path: Path, level: int, side: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(path)
    return path


def levels(pair: Pair) -> tuple[int, int]:
    return tuple(round(255 * float(image.mean())) for image in (pair.lr, pair.hr))  # type: ignore[return-value]


LAYOUTS = {
    "HR and LR": ("HR/{}.png", "LR/{}.png"),
    "lower case": ("hr/{}.png", "lr/{}.png"),
    "GT and LQ": ("GT/{}.png", "LQ/{}.png"),
    "BasicSR": ("GTmod12/{}.png", "LRbicx4/{}.png"),
    "EDSR's Set5": ("HR/{}.png", "LR_bicubic/X4/{}x4.png"),
    "DIV2K": ("DIV2K_valid_HR/{}.png", "DIV2K_valid_LR_bicubic/X4/{}x4.png"),
    "StableSR's DRealSR": ("test_HR/{}.png", "test_LR/{}.png"),
    "DRealSR": ("test_HR/{}_x1.png", "test_LR/{}_x4.png"),
    "RealSR": ("{}_HR.png", "{}_LR4.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts_are_understood(layout: str, tmp_path: Path) -> None:
    hr, lr = LAYOUTS[layout]
    for level, name in ((40, "0802"), (80, "0801"), (120, "0810")):
        save(tmp_path / hr.format(name), level, 8)
        save(tmp_path / lr.format(name), level + 1, 2)
    found = pairs(tmp_path)
    assert len(found) == 3
    assert [levels(pair) for pair in found] == [(81, 80), (41, 40), (121, 120)]
    assert found.made_by == "given LR"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_degradation_makes_lr_of_hr_even_so(layout: str, tmp_path: Path) -> None:
    for place, level, side in zip(LAYOUTS[layout], (40, 90), (8, 2), strict=True):
        save(tmp_path / place.format("a"), level, side)
    found = pairs(tmp_path, degradation="bicubic")
    assert [levels(pair) for pair in found] == [(40, 40)]
    assert found.made_by == "LR by bicubic x1/4"


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Set5/HR", "Set5"), ("Set5/GTmod12", "Set5"), ("DIV2K_valid_HR", "DIV2K_valid_HR")],
)
def test_sets_are_called_by_a_name_of_their_own(folder: str, name: str, tmp_path: Path) -> None:
    save(tmp_path / folder / "a.png", 50, 8)
    assert pairs(tmp_path / folder).name == name
    assert pairs(tmp_path / folder, lr=tmp_path / folder).name == name


def test_other_scales_lie_beside(tmp_path: Path) -> None:
    save(tmp_path / "DIV2K_valid_HR" / "0801.png", 50, 12)
    for scale in (2, 3, 4):
        folder = tmp_path / "DIV2K_valid_LR_bicubic" / f"X{scale}"
        save(folder / f"0801x{scale}.png", 50 + scale, 12 // scale)
    assert levels(pairs(tmp_path, scale=3)[0]) == (53, 50)
    assert levels(pairs(tmp_path / "DIV2K_valid_HR", scale=2)[0]) == (52, 50)
    assert pairs(tmp_path, scale=2.5).made_by == "LR by bicubic x1/2.5"  # there are none of it


def test_several_sets_are_not_mixed(tmp_path: Path) -> None:
    for name in ("DIV2K_train_HR", "DIV2K_valid_HR"):
        save(tmp_path / name / "a.png", 1, 8)
    with pytest.raises(UsageError, match="several sets"):
        pairs(tmp_path)


def test_two_folders(tmp_path: Path) -> None:
    save(tmp_path / "sharp" / "a.png", 10, 8)
    save(tmp_path / "small" / "a.jpg", 20, 2)
    ((lr, hr),) = (levels(p) for p in pairs(tmp_path / "sharp", lr=tmp_path / "small"))
    assert (lr, hr) == (20, 10)
    with pytest.raises(UsageError, match="choose one"):
        pairs(tmp_path / "sharp", lr=tmp_path / "small", degradation="bicubic")


@pytest.mark.parametrize(("hr", "lr"), [("ab", "a"), ("a", "ab")])
def test_a_file_without_partner_is_named(hr: str, lr: str, tmp_path: Path) -> None:
    for folder, names in (("HR", hr), ("LR", lr)):
        for name in names:
            save(tmp_path / folder / f"{name}.png", 1, 8)
    with pytest.raises(UsageError, match=r"b\.png has no partner"):
        pairs(tmp_path)


def test_lr_images_alone_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a_LR4.png", 1, 2)
    with pytest.raises(UsageError, match="and no HR image"):
        pairs(tmp_path)
    save(tmp_path / "a_HR.png", 1, 8)
    assert len(pairs(tmp_path)) == 1


def test_files_that_only_marks_tell_apart_are_refused(tmp_path: Path) -> None:
    for name in ("a_x2", "a_x3"):
        save(tmp_path / "LR" / f"{name}.png", 1, 2)
    save(tmp_path / "HR" / "a.png", 1, 8)
    with pytest.raises(UsageError, match="same name but for their marks"):
        pairs(tmp_path)


def test_equal_names_need_no_marks(tmp_path: Path) -> None:
    files = [save(tmp_path / "HR" / f"{name}.png", 1, 8) for name in ("max2", "max3")]
    others = [save(tmp_path / "out" / f"{name}.png", 1, 8) for name in ("max3", "max2")]
    assert partners([*map(Named, files)], [*map(Named, others)]) == others[::-1]


def test_flat_names_stay_apart() -> None:
    assert flat(["000/a", "001/a"]) == {"000/a": "000_a", "001/a": "001_a"}
    assert len(set(flat(["a/b_c", "a_b/c"]).values())) == 2


def test_sizes_that_do_not_fit_the_scale_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "HR" / "a.png", 1, 8)
    save(tmp_path / "LR" / "a.png", 1, 4)
    with pytest.raises(UsageError, match=r"is not 4 times as large.*--scale"):
        pairs(tmp_path)[0]
    assert pairs(tmp_path, scale=2)[0].lr.shape == (3, 4, 4)


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (42, 37)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def test_hr_alone_is_reduced_by_pillow(tmp_path: Path) -> None:
    file = photo(tmp_path / "HR" / "a.png")
    pair = pairs(tmp_path)[0]
    assert pair.hr.shape == (3, 36, 40)
    cropped = Image.open(file).crop((0, 0, 40, 36))
    expected = np.asarray(cropped.resize((10, 9), Image.Resampling.BICUBIC))
    assert np.array_equal((pair.lr.permute(1, 2, 0).numpy() * 255).round(), expected)


@given(st.integers(1, 5000), st.integers(10, 90))
@example(240, 27)  # 648 / 2.7 is less than 240 in floating point
def test_what_a_scale_makes_of_whole_pixels_is_undone(side: int, tenths: int) -> None:
    """And one pixel less of HR, one less of LR; everything between as with fractions."""
    exact = Fraction(tenths, 10)
    assert fitting(int(side * exact), tenths / 10) == int(int(side * exact) / exact)
    if side * tenths % 10 == 0:
        assert fitting(side * tenths // 10, tenths / 10) == side
        assert fitting(side * tenths // 10 - 1, tenths / 10) == side - 1


@pytest.mark.parametrize("scale", [1.6, 2.7, 3.5])
def test_any_scale_gives_pairs_that_the_engine_hits(scale: float, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    pair = pairs(tmp_path, scale=scale)[0]
    target = [int(side * scale + 0.5) for side in pair.lr.shape[1:]]
    assert list(pair.hr.shape[1:]) == target
    assert 42 - scale - 1 < pair.hr.shape[2] <= 42


@pytest.mark.parametrize("degradation", ["mild", "realesrgan"])
def test_degradations_are_seeded_and_do_not_depend_on_order(
    degradation: str, tmp_path: Path
) -> None:
    files = [photo(tmp_path / f"{i}.png", seed=i) for i in range(2)]
    forward, backward = (
        {p.name: p.lr for p in pairs(order, degradation=degradation, seed=3)}
        for order in (files, files[::-1])
    )
    assert all(torch.equal(forward[name], backward[name]) for name in ("0", "1"))
    other = pairs(files, degradation=degradation, seed=4)[0].lr
    assert not torch.equal(other, forward["0"])


SEQUENCES = {
    "REDS": ("val_sharp/{}/0000000{}.png", "val_sharp_bicubic/X4/{}/0000000{}.png"),
    "UDM10": ("GT/{}/000{}.png", "BIx4/{}/000{}.png"),
    "Vimeo90K": ("GT/00001/{}/im{}.png", "LR/00001/{}/im{}.png"),
}


@pytest.mark.parametrize("layout", SEQUENCES)
def test_frames_of_sequences_are_matched_by_their_path(layout: str, tmp_path: Path) -> None:
    """Every sequence has frames of the same names, and other pictures in them."""
    for i, sequence in enumerate(("000", "001")):
        for frame in (1, 2):
            for place, side in zip(SEQUENCES[layout], (8, 2), strict=True):
                level = 40 * i + 10 * frame + (side == 2)
                save(tmp_path / place.format(sequence, frame), level, side)
    found = pairs(tmp_path)
    assert [levels(pair) for pair in found] == [(11, 10), (21, 20), (51, 50), (61, 60)]
    assert len(set(found.names)) == 4
    assert all(pair.name.split("/")[-2] in ("000", "001") for pair in found)
    lr = tmp_path / SEQUENCES[layout][1].format("001", 2)
    lr.rename(lr.parents[1] / lr.name)  # the same file in the folder above is another frame
    with pytest.raises(UsageError, match="has no partner"):
        pairs(tmp_path)


def test_sequences_without_lr_are_reduced_and_folders_beside_pictures_are_not(
    tmp_path: Path,
) -> None:
    for name in ("00001/0001/im1", "00001/0002/im1"):
        save(tmp_path / "sequences" / f"{name}.png", 7, 8)
    assert pairs(tmp_path).names == ("sequences/00001/0001/im1", "sequences/00001/0002/im1")
    assert pairs(tmp_path / "sequences").names == ("00001/0001/im1", "00001/0002/im1")
    save(tmp_path / "sequences" / "own.png", 7, 8)
    assert pairs(tmp_path / "sequences").names == ("own",)


def test_sets_below_a_folder_are_not_taken_for_sequences(tmp_path: Path) -> None:
    for name in ("Set5", "Set14"):
        save(tmp_path / name / "HR" / "a.png", 1, 8)
        save(tmp_path / name / "LR" / "a.png", 1, 2)
    with pytest.raises(UsageError, match=r"holds the set .*: name that one"):
        pairs(tmp_path)
    for name in ("unsharp", "charts"):  # no marks
        save(tmp_path / "frames" / name / "a.png", 1, 8)
    assert len(pairs(tmp_path / "frames")) == 2


def test_several_folders_of_lr_are_not_chosen_between(tmp_path: Path) -> None:
    for folder, side in (("GT", 8), ("BIx4", 2), ("BDx4", 2)):
        save(tmp_path / folder / "a" / "0.png", side, side)
    with pytest.raises(UsageError, match=r"several folders of LR.*--lr"):
        pairs(tmp_path)
    assert levels(pairs(tmp_path / "GT", lr=tmp_path / "BDx4")[0]) == (2, 8)
    assert pairs(tmp_path, degradation="bicubic").made_by == "LR by bicubic x1/4"
    assert pairs(tmp_path, scale=2, degradation=None).made_by == "LR by bicubic x1/2"


def sequences(folder: Path, frames: int = 7) -> Path:
    for sequence in "abc":
        for frame in range(1, frames + 1):
            save(folder / sequence / f"im{frame}.png", 10 * frame, 8)
    return folder


def test_of_each_folder_some_are_taken_spread_evenly(tmp_path: Path) -> None:
    folder = sequences(tmp_path / "set")
    assert pairs(folder, per_folder=1).names == ("a/im4", "b/im4", "c/im4")
    assert pairs(folder, per_folder=2).names[:3] == ("a/im2", "a/im6", "b/im2")
    found = pairs(folder, per_folder=99)
    assert found.names == pairs(folder).names
    assert found.title == "set, 99 of each folder"
    assert pairs(folder / "a", per_folder=3).names == ("im2", "im4", "im6")
    with pytest.raises(UsageError, match="per_folder must be at least 1"):
        pairs(folder, per_folder=0)


def test_halves_of_several_sequences_share_none(tmp_path: Path) -> None:
    folder = sequences(tmp_path)
    first, second = (pairs(folder, half=half).names for half in ("first", "second"))
    assert {name[0] for name in first} == {"a", "c"}
    assert {name[0] for name in second} == {"b"}
    assert len(first) + len(second) == len(pairs(folder))


@pytest.mark.parametrize("scale", [2, 2.7, 4])
def test_a_crop_is_the_centre_of_both(scale: float, tmp_path: Path) -> None:
    """Given LR is cut where HR is: what was made of the whole HR says where that was."""
    whole = pairs([photo(tmp_path / "a.png", size=(200, 150))], scale=scale)[0]
    assert min(whole.hr.shape[1:]) > 100
    made = pairs([tmp_path / "a.png"], scale=scale, crop=64)
    top, left = (150 - 64) // 2, (200 - 64) // 2
    hr = made[0].hr
    assert 64 - scale < hr.shape[1] == hr.shape[2] <= 64
    full = np.asarray(Image.open(tmp_path / "a.png"))
    shown = full[top : top + hr.shape[1], left : left + hr.shape[2]]
    assert np.array_equal((hr.permute(1, 2, 0) * 255).round().numpy(), shown)
    assert made.title == "images, crops of 64"
    for folder, image in (("HR", whole.hr), ("LR", whole.lr)):
        levels_ = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        (tmp_path / "given" / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels_).save(tmp_path / "given" / folder / "a.png")
    cut = pairs(tmp_path / "given", scale=scale, crop=64)[0]
    small = (cut.hr.shape[1] // scale, cut.hr.shape[2] // scale)
    assert max(abs(a - b) for a, b in zip(cut.lr.shape[1:], small, strict=True)) <= 1
    near = interpolate(cut.lr[None], cut.hr.shape[1:], mode="bilinear")[0]
    shifted = torch.roll(near, 8, 2)
    assert (near - cut.hr).abs().mean() < 0.5 * (shifted - cut.hr).abs().mean()
    for crop in (0, 31):
        with pytest.raises(UsageError, match="crop must be at least 32"):
            pairs([tmp_path / "a.png"], crop=crop)


def test_a_crop_larger_than_the_image_is_the_image(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    assert torch.equal(pairs(tmp_path, crop=64)[0].hr, pairs(tmp_path)[0].hr)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        pairs(tmp_path / "gone")
    with pytest.raises(UsageError, match="no image"):
        pairs(tmp_path)
    photo(tmp_path / "a.png")
    with pytest.raises(UsageError, match="degradation is one of"):
        pairs(tmp_path, degradation="rain")


def test_halves_are_every_other_image_by_name_whatever_the_order(tmp_path: Path) -> None:
    names = ("img1", "img10", "img11", "img2", "img20")
    files = [save(tmp_path / "HR" / f"{name}.png", 1, 8) for name in names]
    for source in (files, files[::-1], tmp_path):
        halves = [pairs(source, half=half) for half in ("first", "second")]
        assert [half.names for half in halves] == [names[::2], names[1::2]]
    assert [half.title for half in halves] == [
        f"{tmp_path.name}, {h} half" for h in ("first", "second")
    ]
    whole = pairs(files[::-1])
    assert (whole.names, whole.title) == (names[::-1], "images")
    assert halves[0][1:].called("S").large_enough()[0].title == "S, first half"


def test_halves_of_pairs_keep_their_partners(tmp_path: Path) -> None:
    for level, name in enumerate("abc"):
        save(tmp_path / "HR" / f"{name}.png", 10 * level, 8)
        save(tmp_path / "LR" / f"{name}x4.png", 10 * level + 1, 2)
    assert [levels(pair) for pair in pairs(tmp_path, half="second")] == [(11, 10)]


def test_a_half_that_is_none_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1, 8)
    assert pairs(tmp_path, half="first").names == ("a",)
    with pytest.raises(UsageError, match="no second half"):
        pairs(tmp_path, half="second")
    with pytest.raises(UsageError, match="half must be one of"):
        pairs(tmp_path, half="third")  # type: ignore[arg-type]


def test_a_slice_is_read_no_sooner_than_asked(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / f"{name}.png", 1, 8)
    found = pairs(tmp_path)[1:]
    (tmp_path / "c.png").write_bytes(b"")
    assert found.names == ("b", "c")
    assert found[0].name == "b"
