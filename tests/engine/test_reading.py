"""Odd, damaged and hostile files: the picture as it is, or a sentence; a note for what is lost."""

import contextlib
import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from sr_cli.engine import damage, png, reading
from sr_cli.engine.images import load, losses, probe, save
from sr_cli.errors import DamagedError, ExitCode, InputError, NoRoomError

W, H = 60, 40
Y, X = np.mgrid[0:H, 0:W]
RGB = np.dstack([X * 4, Y * 6, (X + Y) * 2]).astype(np.uint8)
GREY = RGB[..., 0]
DEEP = RGB.astype(np.uint16) * 257
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()

FUZZ = settings(
    max_examples=int(os.environ.get("SRX_FUZZ_EXAMPLES", "60")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def chunk(kind: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def png_of(
    bits: int,
    colour: int,
    rows: list[bytes],
    extra: bytes = b"",
    *,
    size: tuple[int, int] = (W, H),
    end: bytes = chunk(b"IEND", b""),
) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, 0))
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return png.SIGNATURE + head + extra + chunk(b"IDAT", data) + end


def rows(values: npt.NDArray[Any]) -> list[bytes]:
    return [row.tobytes() for row in values]


def packed(values: npt.NDArray[np.uint8], bits: int) -> list[bytes]:
    unpacked = (np.unpackbits(row[:, None], axis=1)[:, 8 - bits :] for row in values)
    return [np.packbits(row.ravel()).tobytes() for row in unpacked]


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def levels(values: npt.NDArray[np.float32], depth: int) -> npt.NDArray[np.int64]:
    rounded: npt.NDArray[np.int64] = np.rint(values * (2**depth - 1)).astype(np.int64)
    return rounded


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        load(path, **options)
    assert str(path) in str(error.value)
    return str(error.value)


# -------------------------------------------------------------------------------- colour keys


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_key_is_transparent_in_every_depth(tmp_path: Path, bits: int) -> None:
    grey = (GREY.astype(np.uint16) * 257) >> (16 - bits)
    key = int(grey[3, 7])
    data = rows(grey.astype(">u2")) if bits == 16 else packed(grey.astype(np.uint8), bits)
    path = put(tmp_path / "a.png", png_of(bits, 0, data, chunk(b"tRNS", struct.pack(">H", key))))
    picture = load(path)
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, grey == key)
    assert 0 < (picture.alpha == 0).mean() < 1
    assert (picture.gray, picture.depth) == (True, 16 if bits == 16 else 8)
    assert np.array_equal(levels(picture.rgb[..., 0], bits), grey)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_colour_key_is_transparent_where_all_three_agree(tmp_path: Path, bits: int) -> None:
    rgb = RGB if bits == 8 else DEEP
    key = struct.pack(">3H", *rgb[3, 7].tolist())
    data = rows(rgb.astype(">u2") if bits == 16 else rgb)
    picture = load(put(tmp_path / "a.png", png_of(bits, 2, data, chunk(b"tRNS", key))))
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, (rgb == rgb[3, 7]).all(axis=2))
    assert picture.depth == bits
    assert np.array_equal(levels(picture.rgb, bits), rgb)


# ------------------------------------------------------------------------------ bits and colour


def test_grey_with_alpha_in_16_bits_stays_grey_and_deep(tmp_path: Path) -> None:
    both = np.dstack([DEEP[..., 0], np.full((H, W), 40_000, np.uint16)])
    picture = load(put(tmp_path / "a.png", png_of(16, 4, rows(both.astype(">u2")))))
    assert (picture.gray, picture.depth, picture.notes) == (True, 16, ())
    save(picture, tmp_path / "b.png")
    assert losses(picture, tmp_path / "b.png") == []
    again = load(tmp_path / "b.png")
    assert again.alpha is not None
    assert np.array_equal(levels(again.rgb[..., 0], 16), both[..., 0])
    assert np.array_equal(levels(again.alpha, 16), both[..., 1])
    with Image.open(tmp_path / "b.png") as image:
        image.load()  # and Pillow reads it
    assert losses(picture, tmp_path / "b.tiff") == ["16 bits became 8"]


@pytest.mark.parametrize("white", [65_535, 1023])
def test_deep_ppm_and_pgm(tmp_path: Path, white: int) -> None:
    samples = (DEEP.astype(np.uint32) * white // 65_535).astype(np.uint16)
    for kind, part in ((6, samples), (5, samples[..., 0])):
        head = b"P%d\n# a comment\n%d %d\n%d\n" % (kind, W, H, white)
        picture = load(put(tmp_path / "a.ppm", head + part.astype(">u2").tobytes()))
        assert picture.depth == 16
        assert np.abs(picture.rgb[..., 0] - samples[..., 0] / white).max() < 1 / 65_535
    plain = "P3 1 1 65535 1 2 3\n"
    assert load(put(tmp_path / "a.ppm", plain.encode())).notes == ("16 bits became 8",)


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif(tmp_path: Path, bits: int) -> None:
    samples = DEEP[..., ::-1] >> (16 - bits)
    quality = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    if not cv2.imwrite(str(tmp_path / "a.avif"), samples, quality):
        pytest.skip("this OpenCV writes no AVIF")
    picture = load(tmp_path / "a.avif")
    assert picture.depth == 16
    assert np.abs(picture.rgb - RGB / 255).max() < 0.02


def kinds_of_tiff() -> dict[str, tuple[Any, dict[str, Any]]]:
    alpha = np.full((H, W), 40_000, np.uint16)
    straight = np.dstack([DEEP, alpha])
    return {
        "planar": (np.moveaxis(DEEP, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        "grey_alpha": (
            straight[..., [0, 3]], {"photometric": "minisblack", "extrasamples": ["unassalpha"]}
        ),
        "rgba": (straight, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        "planar_alpha": (
            np.moveaxis(straight, 2, 0),
            {"photometric": "rgb", "planarconfig": "separate", "extrasamples": ["unassalpha"]},
        ),
        "tiled": (DEEP, {"photometric": "rgb", "tile": (16, 16)}),
        "deflated": (DEEP, {"photometric": "rgb", "compression": "zlib", "predictor": True}),
        "big": (DEEP, {"photometric": "rgb", "bigtiff": True}),
        "motorola": (DEEP, {"photometric": "rgb", "byteorder": ">"}),
        "premultiplied": (
            np.dstack([DEEP * np.float64(40_000 / 65_535), alpha]).astype(np.uint16),
            {"photometric": "rgb", "extrasamples": ["assocalpha"]},
        ),
        "float": ((DEEP / 65_535).astype(np.float32), {"photometric": "rgb"}),
        "32 bits": (DEEP.astype(np.uint32) * 65_537, {"photometric": "rgb"}),
    }  # fmt: skip


@pytest.mark.parametrize("kind", kinds_of_tiff())
def test_every_layout_of_a_deep_tiff(tmp_path: Path, kind: str) -> None:
    samples, options = kinds_of_tiff()[kind]
    tifffile.imwrite(tmp_path / "a.tif", samples.copy(), **options)
    picture = load(tmp_path / "a.tif")
    assert (picture.depth, picture.notes, probe(tmp_path / "a.tif")) == (16, (), (W, H))
    expected = DEEP[..., :1].repeat(3, 2) if kind == "grey_alpha" else DEEP
    assert np.abs(levels(picture.rgb, 16) - expected).max() <= (2 if "pre" in kind else 0)
    assert picture.gray == (kind == "grey_alpha")
    has_alpha = "alpha" in kind or kind in ("rgba", "premultiplied")
    assert (picture.alpha is not None) == has_alpha
    if picture.alpha is not None:
        assert (levels(picture.alpha, 16) == 40_000).all()


def test_a_tiff_that_pillow_does_not_know_keeps_its_metadata(tmp_path: Path) -> None:
    samples, options = kinds_of_tiff()["grey_alpha"]
    tags = [(274, 3, 1, 6, True), (271, 2, 6, "Maker", True)]
    tifffile.imwrite(tmp_path / "a.tif", samples.copy(), extratags=tags, **options)
    picture = load(tmp_path / "a.tif")
    assert picture.size == probe(tmp_path / "a.tif") == (H, W)
    exif = Image.Exif()
    exif.load(picture.metadata.exif or b"")
    assert exif[271].strip("\0") == "Maker"
    assert np.array_equal(levels(picture.rgb[..., 0], 16), np.rot90(samples[..., 0], -1))


def shown(path: Path) -> npt.NDArray[np.uint8]:
    """What a colour-managed viewer shows, in sRGB."""
    with Image.open(path) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        srgb = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    assert srgb is not None
    return np.asarray(srgb)


P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
BT709 = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def test_gamma_and_primaries_become_a_profile(tmp_path: Path) -> None:
    grey = [bytes([128] * 3 * W)] * H
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    save(load(put(tmp_path / "a.png", png_of(8, 2, grey, linear))), tmp_path / "b.png")
    assert np.abs(shown(tmp_path / "b.png").astype(int) - 188).max() <= 1  # 0.5 as sRGB
    red = [bytes([255, 0, 0] * W)] * H
    extra = chunk(b"gAMA", struct.pack(">I", 45_455)) + chunk(b"cHRM", P3)
    picture = load(put(tmp_path / "a.png", png_of(8, 2, red, extra)))
    for name in ("b.png", "b.jpg", "b.tiff", "b.webp"):
        save(picture, tmp_path / name, quality=100)
    # Outside of sRGB, so its profile, and not the pixels, must tell it from sRGB's red.
    icc = picture.metadata.icc
    assert icc is not None
    other = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    made = ImageCms.profileToProfile(
        Image.new("RGB", (1, 1), (255, 0, 0)), other, ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )  # fmt: skip
    assert made is not None
    lab = np.asarray(made).astype(np.int8)[0, 0]
    assert lab[1] > 85  # Display P3's red; that of sRGB has a* = 80
    for name in ("b.png", "b.jpg", "b.tiff", "b.webp"):
        assert load(tmp_path / name).metadata.icc == icc


@pytest.mark.parametrize(
    "extra",
    [
        b"",
        chunk(b"gAMA", struct.pack(">I", 45_455)) + chunk(b"cHRM", BT709),
        chunk(b"sRGB", b"\0") + chunk(b"gAMA", struct.pack(">I", 100_000)),
        chunk(b"cICP", bytes([1, 13, 0, 1])) + chunk(b"gAMA", struct.pack(">I", 100_000)),
    ],
)
def test_srgb_stays_without_a_profile(tmp_path: Path, extra: bytes) -> None:
    picture = load(put(tmp_path / "a.png", png_of(8, 2, rows(RGB), extra)))
    assert (picture.metadata.icc, picture.notes) == (None, ())


def test_code_points_are_a_profile_or_a_note(tmp_path: Path) -> None:
    def with_cicp(*values: int) -> Any:
        return load(put(tmp_path / "a.png", png_of(8, 2, rows(RGB), chunk(b"cICP", bytes(values)))))

    assert with_cicp(12, 13, 0, 1).metadata.icc
    assert "PQ" in with_cicp(9, 16, 0, 1).notes[0]
    assert "HLG" in with_cicp(9, 18, 0, 1).notes[0]
    assert "taken for sRGB" in with_cicp(22, 13, 0, 1).notes[0]
    data = io.BytesIO()
    Image.fromarray(RGB).save(data, "AVIF")
    box = data.getvalue()
    at = box.index(b"colrnclx")
    box = box[: at + 8] + bytes([0, 12, 0, 13]) + box[at + 12 :]
    assert load(put(tmp_path / "a.avif", box)).metadata.icc


def test_odd_gammas_and_primaries_cost_a_note(tmp_path: Path) -> None:
    gamma = chunk(b"gAMA", struct.pack(">I", 45_455))
    for extra in (
        chunk(b"gAMA", struct.pack(">I", 0)),
        gamma + chunk(b"cHRM", bytes(32)),
        gamma + chunk(b"cHRM", struct.pack(">8I", *[31270] * 8)),
        gamma + chunk(b"cHRM", b"\xff" * 32),
    ):
        picture = load(put(tmp_path / "a.png", png_of(8, 2, rows(RGB), extra)))
        assert len(picture.notes) == 1
        assert np.array_equal(levels(picture.rgb, 8), RGB)


# ----------------------------------------------------------------------------------- side data

BROKEN = {
    "a huge text": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"a" * (2 << 20))),
    "a wrong checksum": chunk(b"tEXt", b"Title\0abc").replace(b"\0abc", b"\0abd"),
    "a damaged profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")),
    "a huge profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB + bytes(2 << 20))),
    "an odd gamma": chunk(b"gAMA", b"\0"),
    "an odd resolution": chunk(b"pHYs", b"\0"),
    "an odd key": chunk(b"tRNS", b"\0"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_side_data_cost_a_note_and_no_picture(tmp_path: Path, kind: str) -> None:
    path = put(tmp_path / "a.png", png_of(8, 2, rows(RGB), BROKEN[kind]))
    picture = load(path)
    assert np.array_equal(levels(picture.rgb, 8), RGB)
    assert len(picture.notes) == 1
    assert probe(path) == (W, H)
    save(picture, tmp_path / "b.png")
    assert np.array_equal(load(tmp_path / "b.png").rgb, picture.rgb)
    with Image.open(tmp_path / "b.png") as image:
        image.load()


def test_a_huge_text_costs_pillow_alone_the_picture(tmp_path: Path) -> None:
    """The control of the test above."""
    path = put(tmp_path / "a.png", png_of(8, 2, rows(RGB), BROKEN["a huge text"]))
    with pytest.raises(ValueError, match="too large"):
        Image.open(path)


def test_what_srx_writes_both_read(tmp_path: Path) -> None:
    """A profile of over a megabyte, which fits into a JPEG but not into a PNG that Pillow reads."""
    icc = struct.pack(">I", 1_200_000) + SRGB[4:] + bytes(1_200_000 - len(SRGB))
    Image.fromarray(RGB).save(tmp_path / "a.jpg", icc_profile=icc)
    picture = load(tmp_path / "a.jpg")
    picture = replace(picture, metadata=replace(picture.metadata, xmp=b"x" * (3 << 20)))
    for name in ("b.png", "b.jpg", "b.tiff", "b.webp"):
        said = losses(picture, tmp_path / name)
        save(picture, tmp_path / name)
        assert load(tmp_path / name).size == picture.size
        with Image.open(tmp_path / name) as image:
            image.load()
            assert (image.info.get("icc_profile") == icc) == (name != "b.png")
        assert any("profile has no room in PNG" in loss for loss in said) == (name == "b.png")


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "L"])
def test_a_damaged_profile_costs_a_note(tmp_path: Path, mode: str) -> None:
    space = {"CMYK": b"CMYK", "RGB": b"RGB ", "L": b"GRAY"}[mode]
    icc = SRGB[:16] + space + SRGB[20:300]
    Image.fromarray(RGB).convert(mode).save(tmp_path / "a.jpg", icc_profile=icc, quality=95)
    picture = load(tmp_path / "a.jpg")
    assert picture.metadata.icc is None
    assert picture.notes == ("its colour profile is damaged and was left out",)


def test_damaged_segments_of_a_jpeg_cost_a_note(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(RGB).save(data, "JPEG", quality=95)
    whole = load(put(tmp_path / "a.jpg", data.getvalue()))
    for body in (b"\xff\xee\0\2", b"\xff\xe2\0\x10MPF\0II*\0\xff\xff\xff\xff\0\0"):
        broken = data.getvalue()[:2] + body + data.getvalue()[2:]
        assert np.array_equal(load(put(tmp_path / "b.jpg", broken)).rgb, whole.rgb)


# -------------------------------------------------------------------------------------- damage


def encoded(kind: str, **options: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(RGB).save(data, kind, **options)
    return data.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_without_its_end_is_a_picture_with_a_note(
    tmp_path: Path, missing: int, *, progressive: bool
) -> None:
    data = encoded("JPEG", progressive=progressive)
    whole = load(put(tmp_path / "a.jpg", data))
    picture = load(put(tmp_path / "a.jpg", data[:-missing]))
    assert np.array_equal(picture.rgb, whole.rgb)
    assert "end of the file is missing" in picture.notes[0]
    assert whole.notes == ()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_more_is_refused(tmp_path: Path, *, progressive: bool) -> None:
    data = encoded("JPEG", progressive=progressive)
    for cut in [*range(3, 40), len(data) // 2]:
        refused(put(tmp_path / "a.jpg", data[:-cut]))
    if progressive:  # exactly between two scans, where every bit that is asked for is there
        last = data.rfind(b"\xff\xda")
        refused(put(tmp_path / "a.jpg", data[:last]))
        assert damage.completed_jpeg(data[:-2]) is not None


def test_a_png_that_ends_early_is_refused(tmp_path: Path) -> None:
    """Its compressed stream ends well, after 5 of 40 rows, which decoders complete with black."""
    for bits, values in ((8, RGB), (16, DEEP.astype(">u2"))):
        said = refused(put(tmp_path / "a.png", png_of(bits, 2, rows(values)[:5])))
        assert "only 12 % of its pixels" in said
    with Image.open(put(tmp_path / "a.png", png_of(8, 2, rows(RGB)[:5]))) as image:
        assert image.convert("RGB").getpixel((5, 30)) == (0, 0, 0)  # the control


@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_without_its_last_bytes_keeps_its_depth_or_is_refused(
    tmp_path: Path, bits: int
) -> None:
    values = RGB if bits == 8 else DEEP
    data = png_of(bits, 2, rows(values.astype(">u2") if bits == 16 else values))
    for cut in (4, 12, 13, 16, 17, 18, 30, len(data) // 2):
        path = put(tmp_path / "a.png", data[:-cut])
        if cut > 20:
            refused(path)
            continue
        picture = load(path)
        assert picture.depth == bits
        assert np.array_equal(levels(picture.rgb, bits), values)
        assert picture.notes


@settings(FUZZ)
@given(at=st.integers(8, 400), byte=st.integers(0, 255), cut=st.integers(0, 40))
def test_no_damaged_png_is_half_a_picture(tmp_path: Path, at: int, byte: int, cut: int) -> None:
    """A wrong byte, or the end missing."""
    data = bytearray(png_of(8, 2, rows(RGB), chunk(b"tEXt", b"Title\0abc")))
    if cut < 20:
        data[min(at, len(data) - 1)] = byte
    path = put(tmp_path / "a.png", bytes(data if cut < 20 else data[: 20 - cut]))
    try:
        picture = load(path)
    except InputError:
        return
    assert np.array_equal(levels(picture.rgb, 8), RGB)


@pytest.mark.parametrize("plain", [False, True])
def test_a_cut_jpeg_2000_is_refused(tmp_path: Path, *, plain: bool) -> None:
    data = encoded("JPEG2000", no_jp2=plain, tile_size=(32, 32))
    whole = load(put(tmp_path / "a.jp2", data)).rgb
    assert np.array_equal(load(put(tmp_path / "a.jp2", data)).rgb, whole)
    for share in (0.17, 0.5, 0.9):
        refused(put(tmp_path / "a.jp2", data[: int(len(data) * share)]))
    refused(put(tmp_path / "a.jp2", data[:-20]))


def test_a_jpeg_2000_whose_stream_is_larger_than_its_header_is_refused(tmp_path: Path) -> None:
    data = encoded("JPEG2000")
    at = data.index(b"\xff\x4f\xff\x51") + 8
    huge = data[:at] + struct.pack(">2I", 60_000, 60_000) + data[at + 8 :]
    assert "60000×60000" in refused(put(tmp_path / "a.jp2", huge))


# --------------------------------------------------------------------------------------- bombs


def bomb(size: int, bits: int = 16, zeros: int = 1 << 22) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, bits, 2, 0, 0, 0))
    data = zlib.compress(bytes(zeros), 9)
    return png.SIGNATURE + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def peak_of(call: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_small_file_takes_little_memory_whatever_its_header_says(tmp_path: Path) -> None:
    path = put(tmp_path / "a.png", bomb(20_000))
    message = []
    assert peak_of(lambda: message.append(refused(path, max_pixels=10**9))) < 64 << 20
    assert "pixels" in message[0]
    long = png_of(8, 2, rows(RGB)).replace(chunk(b"IEND", b""), b"\xff\xff\xff\xfetEXtabc")
    assert peak_of(lambda: load(put(path, long))) < 64 << 20
    # a second header, which another decoder would believe
    small = png_of(8, 2, rows(RGB))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    refused(put(path, small[:33] + head + small[33:]))
    refused(put(path, png.SIGNATURE + head + small[8:]))


def test_the_limit_is_asked_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", kinds_of_tiff()["grey_alpha"][0], photometric="minisblack",
                     extrasamples=["unassalpha"])  # fmt: skip
    put(tmp_path / "a.ppm", b"P6 60 40 65535\n" + DEEP.astype(">u2").tobytes())
    put(tmp_path / "a.png", png_of(16, 2, rows(DEEP.astype(">u2"))))
    put(tmp_path / "a.jpg", encoded("JPEG"))
    put(tmp_path / "a.jp2", encoded("JPEG2000"))
    for module, name in ((cv2, "imdecode"), (tifffile.TiffPage, "asarray"), (Image.Image, "load")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("decoded"))
    for name in ("a.tif", "a.ppm", "a.png", "a.jpg", "a.jp2"):
        for read in (probe, load):
            with pytest.raises(InputError) as error:
                read(tmp_path / name, max_pixels=2000)
            assert name in str(error.value)


def test_a_picture_larger_than_free_memory_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.png", png_of(8, 2, rows(RGB)))
    load(path)
    monkeypatch.setattr(reading, "BYTES_PER_PIXEL", 1 << 50)
    with pytest.raises(
        NoRoomError, match=r"a\.png has 60×40 pixels .* MiB of memory are free"
    ) as error:
        load(path)
    assert error.value.exit_code == ExitCode.DEVICE


# ------------------------------------------------------------------------------------ metadata

PARAMETERS = "a cat, steps: 20"


def test_texts_that_programs_need_are_kept(tmp_path: Path) -> None:
    texts = {"parameters": PARAMETERS, "workflow": '{"nodes": []}', "prompt": "Zoë", "png:x": "no"}
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.fromarray(RGB).save(tmp_path / "a.png", pnginfo=info)
    picture = load(tmp_path / "a.png")
    save(picture, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert dict(image.text) == {k: v for k, v in texts.items() if k != "png:x"}
    assert losses(picture, tmp_path / "b.jpg") == ["texts have no room in JPEG and were left out"]


def test_comments_go_between_jpeg_and_png(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg", comment="mine: Zoë".encode())
    for name in ("b.jpg", "b.png", "c.jpg"):
        source = tmp_path / ("b.png" if name == "c.jpg" else "a.jpg")
        save(load(source), tmp_path / name)
        with Image.open(tmp_path / name) as image:
            found = image.info.get("comment", b"") or image.info["Comment"]
            assert found in ("mine: Zoë", "mine: Zoë".encode())


IPTC = b"\x1c\x02\x78\x00\x07caption\x1c\x02\x19\x00\x03cat"


def test_iptc_is_carried(tmp_path: Path) -> None:
    block = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC
    extra = b"\xff\xed" + struct.pack(">H", len(block) + 2) + block
    Image.fromarray(RGB).save(tmp_path / "a.jpg", extra=extra)
    picture = load(tmp_path / "a.jpg")
    for name in ("b.jpg", "b.tiff", "b.png", "c.jpg"):
        save(picture, tmp_path / name)
        picture = load(tmp_path / name)
        assert picture.metadata.iptc == IPTC, name
    assert losses(picture, tmp_path / "b.webp") == ["IPTC has no room in WEBP and was left out"]


PANORAMA = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:ImageWidth="60"
 exif:PixelXDimension='60' GPano:FullPanoWidthPixels="120" GPano:CroppedAreaTopPixels="7"
 exif:GPSLatitude="52,30N"><tiff:ImageLength>40</tiff:ImageLength>
 <GPano:FullPanoHeightPixels>60</GPano:FullPanoHeightPixels>
 <GPano:CroppedAreaImageWidthPixels>60</GPano:CroppedAreaImageWidthPixels>
 <exif:GPSLongitude>13,24E</exif:GPSLongitude>
 </rdf:Description></x:xmpmeta>"""


def test_sizes_in_xmp_and_exif_follow_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    details = {0xA002: 60, 0xA003: 40, 0xA214: (30, 20), 0xA20E: 100.0}
    exif.get_ifd(0x8769).update(details)
    Image.fromarray(RGB).save(tmp_path / "a.jpg", xmp=PANORAMA, exif=exif)
    picture = load(tmp_path / "a.jpg")
    larger = replace(picture, rgb=picture.rgb.repeat(4, 0).repeat(4, 1))
    save(larger, tmp_path / "b.png")
    after = load(tmp_path / "b.png").metadata
    xmp = after.xmp or b""
    for said in (b'tiff:ImageWidth="240"', b"exif:PixelXDimension='240'", b"<tiff:ImageLength>160<",
                 b'FullPanoWidthPixels="480"', b'CroppedAreaTopPixels="28"',
                 b"FullPanoHeightPixels>240<", b"CroppedAreaImageWidthPixels>240<"):  # fmt: skip
        assert said in xmp, said
    found = Image.Exif()
    found.load(after.exif or b"")
    assert found.get_ifd(0x8769)[0xA214] == (120, 80)
    assert found.get_ifd(0x8769)[0xA20E] == 400


def located(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 1.5)})
    Image.fromarray(RGB).save(path, exif=exif, xmp=PANORAMA, comment=b"mine", icc_profile=SRGB)
    return path


def test_what_is_stripped_is_gone(tmp_path: Path) -> None:
    picture = load(located(tmp_path / "a.jpg"))
    for what in ("gps", "all"):
        stripped = replace(picture, metadata=picture.metadata.stripped(what))
        for name in ("b.jpg", "b.png", "b.tiff", "b.webp"):
            save(stripped, tmp_path / name)
            data = (tmp_path / name).read_bytes()
            assert b"GPS" not in data.replace(b"GPano", b"")
            back = load(tmp_path / name).metadata
            found = Image.Exif()
            found.load(back.exif or b"")
            assert not found.get_ifd(0x8825)
            assert (found.get(0x010F) == "Maker") == (what == "gps")
            assert (b"FullPano" in (back.xmp or b"")) == (what == "gps")
            assert back.icc == SRGB
            assert bool(back.texts) == (what == "gps" and name in ("b.jpg", "b.png"))


def test_words_on_places_that_are_not_understood_cost_all_of_the_xmp(tmp_path: Path) -> None:
    odd = PANORAMA.replace(b"<exif:GPSLongitude>", b"<drone:GpsLongitude>1</drone:GpsLongitude>"
                           b"<exif:GPSLongitude>")  # fmt: skip
    Image.fromarray(RGB).save(tmp_path / "a.jpg", xmp=odd)
    assert load(tmp_path / "a.jpg").metadata.stripped("gps").xmp is None


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.tiff", "b.webp", "b.avif"])
def test_a_tag_says_how(tmp_path: Path, name: str) -> None:
    picture = load(located(tmp_path / "a.jpg"))
    tagged = replace(picture, metadata=picture.metadata.tagged("srx: ×4"))
    assert losses(tagged, tmp_path / name) == losses(picture, tmp_path / name)  # EXIF has it
    save(tagged, tmp_path / name)
    with Image.open(tmp_path / name) as image:
        exif = Image.Image.getexif(image)
        assert exif[11] == "srx: ?4"  # text, as programs expect it there, not an array of bytes
        assert image.info.get("srx") == ("srx: ×4" if name == "b.png" else None)


def test_quality_100_is_lossless_in_webp(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    picture = load(tmp_path / "a.png")
    for quality, same in ((100, True), (99, False)):
        save(picture, tmp_path / "b.webp", quality=quality)
        assert np.array_equal(load(tmp_path / "b.webp").rgb, picture.rgb) == same


# ------------------------------------------------------------------------------------- fuzzing

SEEDS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0", "comment": b"x", "icc_profile": SRGB}),
    ("WEBP", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("GIF", {}),
    ("BMP", {}),
    ("PPM", {}),
    ("JPEG2000", {}),
    ("TGA", {}),
    ("AVIF", {}),
]


def seeds() -> list[bytes]:
    found = [encoded(kind, **options) for kind, options in SEEDS]
    found.append(png_of(16, 4, rows(np.dstack([DEEP[..., 0]] * 2).astype(">u2"))))
    extra = b"".join(chunk(kind, body) for kind, body in ((b"cHRM", P3), (b"cICP", b"\1\r\0\1")))
    found.append(png_of(8, 2, rows(RGB), extra + chunk(b"gAMA", struct.pack(">I", 90_000))))
    for samples, options in kinds_of_tiff().values():
        data = io.BytesIO()
        tifffile.imwrite(data, samples.copy(), **options)
        found.append(data.getvalue())
    return found


SEED_FILES = seeds()


@pytest.mark.filterwarnings("ignore")
@settings(FUZZ, max_examples=4 * FUZZ.max_examples)
@given(data=st.data())
def test_readers_give_a_picture_or_a_sentence(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SEED_FILES)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(
            st.integers(0, min(len(content) - 1, 700)) | st.integers(0, len(content) - 1)
        )
        garbage = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(garbage)] = garbage
    cut = data.draw(st.integers(0, len(content) // 2) | st.just(0))
    path = put(tmp_path / "a", bytes(content[: len(content) - cut]))
    for read in (probe, load):
        with contextlib.suppress(InputError):
            read(path, max_pixels=1_000_000)


@pytest.mark.parametrize(
    ("content", "damaged"),
    [
        (b"RIFF....WEBPVP8 ", True),
        (b"II*\0\x08\0\0\0", True),
        (b"MM\0*" + bytes(507), True),
        (b"MM\0*" + bytes(508), False),
        (b"GIF89a", True),
        (b"GIF89a" + bytes(600), False),
        (b"", False),
        (b"text", False),
        (b"\0\0\0\x18ftypheic", False),
        (b"\xff\x0a", False),
    ],
)
def test_a_cut_header_is_damage_by_its_type(tmp_path: Path, content: bytes, damaged: bool) -> None:
    """Of a file that begins as a picture and is too short to be one. The rest may be somebody's."""
    if content.startswith((b"\0\0\0\x18", b"\xff\x0a")) and {"HEIF", "JXL"} & set(
        reading._formats()
    ):
        pytest.skip("a reader of it is installed")
    (tmp_path / "a").write_bytes(content)
    for read in (load, probe):
        with pytest.raises(InputError) as raised:
            read(tmp_path / "a")
        assert isinstance(raised.value, DamagedError) == damaged
