"""Photographs survive the way in and out: pixels, depth, alpha, orientation and metadata."""

import contextlib
import io
import os
import re
import struct
import warnings
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import (
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    features,
)

from sr_cli.engine import images, reading
from sr_cli.engine.formats import FORMATS, check_size, encode, format_of
from sr_cli.engine.images import SUFFIXES, Picture, load, losses, probe, save
from sr_cli.engine.library_settings import settings_for_reading
from sr_cli.engine.metadata import Metadata
from sr_cli.errors import InputError, SrxError, UsageError

Array = npt.NDArray[Any]

WRITABLE = [name for name in FORMATS if name != "avif" or features.check("avif")]
SAME_FOLDER = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def photo(height: int = 40, width: int = 56) -> npt.NDArray[np.uint8]:
    """Smooth enough for JPEG, and unlike any of its own turns and reflections."""
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 6 * y, 2 * (x + y)], axis=-1).astype(np.uint8)


def picture_of(samples: Array, *, alpha: bool = False, depth: int = 8, **fields: Any) -> Picture:
    """A picture of integer samples (H, W, C), the fourth of which are alpha if asked for."""
    scaled = (samples / (2**depth - 1)).astype(np.float32)
    return Picture(scaled[..., :3], scaled[..., 3] if alpha else None, depth=depth, **fields)


def small() -> Picture:
    return picture_of(photo())


def levels(picture: Picture) -> Array:
    """A picture's samples as integers of its depth, alpha last."""
    planes = [picture.rgb] if picture.alpha is None else [picture.rgb, picture.alpha[..., None]]
    samples = np.concatenate(planes, axis=2) * (2**picture.depth - 1)
    assert np.abs(samples - np.rint(samples)).max() < 0.01
    rounded: Array = np.rint(samples).astype(np.int64)
    return rounded


def worst(a: Array, b: Array) -> int:
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())


def write_tiff(path: Path, data: bytes, size: tuple[int, int], tags: dict[int, Any]) -> Path:
    """An uncompressed TIFF of exactly these bytes and tags."""
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    layout = {256: size[0], 257: size[1], 259: 1, 273: 0, 278: size[1], 279: len(data)}
    for tag, value in {**layout, **tags}.items():
        ifd[tag] = value
    with path.open("wb") as file:
        ifd.save(file)
        file.write(data)
    return path


def icc_profile(space: bytes, tag: bytes, element: bytes) -> bytes:
    """The smallest ICC profile: a header, the D50 white point and one tag that says it all."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    start = 128 + 4 + 2 * 12
    table = struct.pack(">I", 2)
    table += b"wtpt" + struct.pack(">II", start, len(white))
    table += tag + struct.pack(">II", start + len(white), len(element))
    kind = b"mntr" if space == b"GRAY" else b"prtr"
    pcs = b"XYZ " if space == b"GRAY" else b"Lab "
    header = struct.pack(">I4sI4s4s4s12x4s", 0, b"\0" * 4, 0x02400000, kind, space, pcs, b"acsp")
    header = header.ljust(68, b"\0") + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    body = header.ljust(128, b"\0") + table + white + element
    return struct.pack(">I", len(body)) + body[4:]


def linear_gray_profile() -> bytes:
    return icc_profile(b"GRAY", b"kTRC", b"curv\0\0\0\0" + struct.pack(">I", 0))


def mid_gray_cmyk_profile() -> bytes:
    """A press whose every ink gives L* = 50 (ICC.1:2001, lut8Type)."""
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", *np.eye(3).ravel().astype(int))
    ramp = bytes(range(256))
    lut += 4 * ramp + 16 * bytes([128, 128, 128]) + 3 * ramp
    return icc_profile(b"CMYK", b"A2B0", lut)


# ------------------------------------------------------------------------------- out and in again


@pytest.mark.parametrize("name", ["png", "tiff"])
@pytest.mark.parametrize(
    ("depth", "gray", "alpha"),
    [(d, g, a) for d in (8, 16) for g in (False, True) for a in (False, True)],
)
@settings(SAME_FOLDER, max_examples=10)
@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 2**32))
def test_lossless_formats_give_back_every_level(
    *,
    tmp_path: Path,
    name: str,
    depth: int,
    gray: bool,
    alpha: bool,
    size: tuple[int, int],
    seed: int,
) -> None:
    if name == "tiff" and depth == 16 and gray and alpha:
        return  # Pillow would not read it: written with 8 bits, which is noted
    samples = np.random.default_rng(seed).integers(0, 2**depth, (*size, 4))
    if gray:
        samples[..., 1:3] = samples[..., :1]
    save(picture_of(samples, alpha=alpha, depth=depth, gray=gray), tmp_path / "a", format=name)
    back = load(tmp_path / "a")
    assert (back.depth, back.gray, back.format) == (depth, gray, name)
    assert back.metadata == Metadata()
    assert np.array_equal(levels(back), samples if alpha else samples[..., :3])


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("name", ["png", "tiff"])
def test_all_65536_levels_survive(tmp_path: Path, name: str, gray: bool) -> None:
    ramp = np.arange(65536).reshape(256, 256, 1).repeat(3, axis=2)
    for depth, distinct in ((16, 65536), (8, 256)):
        picture = replace(picture_of(ramp, depth=16, gray=gray), depth=depth)
        save(picture, tmp_path / "ramp", format=name)
        assert len(np.unique(load(tmp_path / "ramp").rgb)) == distinct
    save(picture_of(ramp, depth=16, gray=gray), tmp_path / "ramp", format=name)
    assert np.array_equal(levels(load(tmp_path / "ramp")), ramp)


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
def test_lossy_formats_come_close(tmp_path: Path, name: str, gray: bool) -> None:
    if name not in WRITABLE:
        pytest.skip("this Pillow has no AVIF")
    samples = photo()[..., :1].repeat(3, axis=2) if gray else photo()
    path = tmp_path / f"a{FORMATS[name]}"
    save(picture_of(samples, gray=gray), path)
    back = load(path)
    assert (back.format, back.depth, back.alpha) == (name, 8, None)
    assert back.gray == gray or name in ("webp", "avif")
    assert worst(levels(back), samples) < 24
    assert worst(levels(back), samples[:, ::-1]) > 100


def test_samples_are_clipped_and_rounded_to_the_nearest_level(tmp_path: Path) -> None:
    values = np.array([-0.5, 0.0, 9.51 / 255, 10.49 / 255, 1.0, 1.5], np.float32)
    save(Picture(np.tile(values[:, None, None], (1, 1, 3))), tmp_path / "a.png")
    assert levels(load(tmp_path / "a.png"))[:, 0, 0].tolist() == [0, 0, 10, 10, 255, 255]


@pytest.mark.parametrize("name", ["webp", "avif"])
def test_lossy_formats_keep_alpha(tmp_path: Path, name: str) -> None:
    if name not in WRITABLE:
        pytest.skip("this Pillow has no AVIF")
    alpha = np.linspace(0, 1, 56, dtype=np.float32)[None].repeat(40, axis=0)
    save(replace(small(), alpha=alpha), tmp_path / "a", format=name)
    back = load(tmp_path / "a").alpha
    assert back is not None
    assert np.abs(back - alpha).max() < 0.05


def test_jpeg_lays_transparent_pictures_on_white(tmp_path: Path) -> None:
    alpha = np.zeros((16, 32), np.float32)
    alpha[:, 16:] = 1
    save(Picture(np.zeros((16, 32, 3), np.float32), alpha), tmp_path / "a.jpg")
    back = load(tmp_path / "a.jpg")
    assert back.alpha is None
    assert back.rgb[:, :12].min() > 0.98
    assert back.rgb[:, 20:].max() < 0.02


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.webp", "a.avif"])
@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_losses_are_what_reading_the_result_misses(
    tmp_path: Path, name: str, gray: bool, alpha: bool, depth: int
) -> None:
    samples = np.random.default_rng(0).integers(0, 2**depth, (24, 24, 4))
    picture = picture_of(samples, alpha=alpha, depth=depth, gray=gray)
    save(picture, tmp_path / name)
    back = load(tmp_path / name)
    missed = ["transparency became white"] * ((picture.alpha is None) != (back.alpha is None))
    missed += ["16 bits became 8"] * (picture.depth != back.depth)
    assert losses(picture, tmp_path / name) == missed


@pytest.mark.parametrize(("quality", "sampling"), [(89, 2), (90, 0)])
def test_jpeg_colour_is_full_resolution_from_quality_90(
    tmp_path: Path, quality: int, sampling: int
) -> None:
    save(small(), tmp_path / "a.jpg", quality=quality)
    with Image.open(tmp_path / "a.jpg") as image:
        assert JpegImagePlugin.get_sampling(image) == sampling


# -------------------------------------------------------------------------------- what files hold


def rgba_photo() -> Image.Image:
    image = Image.fromarray(photo())
    image.putalpha(Image.fromarray(photo()[..., 0]))
    return image


@pytest.mark.parametrize(
    ("mode", "name", "gray", "alpha"),
    [
        ("1", "PNG", True, False),
        ("1", "TIFF", True, False),
        ("L", "PNG", True, False),
        ("L", "BMP", True, False),
        ("LA", "PNG", True, True),
        ("P", "PNG", False, True),
        ("P", "GIF", False, False),
        ("P", "BMP", False, False),
        ("RGB", "PPM", False, False),
        ("RGB", "JPEG2000", False, False),
        ("RGBA", "PNG", False, True),
        ("RGBA", "TIFF", False, True),
        ("CMYK", "TIFF", False, False),
        ("YCbCr", "TIFF", False, False),
    ],
)
def test_every_kind_of_8_bit_file_is_what_pillow_makes_of_it(
    tmp_path: Path, mode: str, name: str, gray: bool, alpha: bool
) -> None:
    rgba_photo().convert(mode).save(tmp_path / "a", name)
    picture = load(tmp_path / "a")
    with settings_for_reading, Image.open(tmp_path / "a") as image:
        expected = np.asarray(image.convert("RGBA"))[..., : 4 if alpha else 3]
    assert np.array_equal(levels(picture), expected)
    assert (picture.gray, picture.depth, picture.format) == (gray, 8, name.lower())
    assert picture.rgb.dtype == np.float32
    assert picture.rgb.flags.c_contiguous


def test_transparent_palettes_become_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(photo()).quantize(64)
    image.save(tmp_path / "a.png")
    assert load(tmp_path / "a.png").alpha is None
    image.save(tmp_path / "a.png", transparency=bytes(range(0, 256, 4)))
    assert len(np.unique(levels(load(tmp_path / "a.png"))[..., 3])) > 10


def test_a_colour_key_becomes_alpha(tmp_path: Path) -> None:
    Image.fromarray(photo()[..., 0]).save(tmp_path / "a.png", transparency=40)
    picture = load(tmp_path / "a.png")
    assert picture.gray
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, photo()[..., 0] == 40)


def test_content_decides_the_format(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png", "JPEG")
    assert load(tmp_path / "a.png").format == "jpeg"


WIDE = np.random.default_rng(5).integers(0, 65536, (9, 7, 4), dtype=np.uint16)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_gray_tiff_in_either_byte_order(tmp_path: Path, order: str) -> None:
    image = Image.frombytes(
        "I;16" if order == "<" else "I;16B", (7, 9), WIDE[..., 0].astype(f"{order}u2").tobytes()
    )
    image.save(tmp_path / "a.tiff")
    picture = load(tmp_path / "a.tiff")
    assert (picture.gray, picture.depth) == (True, 16)
    assert np.array_equal(levels(picture)[..., 0], WIDE[..., 0])


def test_16_bit_pngs_of_other_writers(tmp_path: Path) -> None:
    for channels in (3, 4):
        samples = WIDE[..., :channels]
        cv2.imwrite(str(tmp_path / "a.png"), samples[..., [2, 1, 0, 3][:channels]])
        assert np.array_equal(levels(load(tmp_path / "a.png")), samples)


def test_16_bit_jpeg_2000_keeps_its_depth_and_its_white(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64 * 4).astype(np.uint16).reshape(64, 64, 4)
    for channels in (3, 4):
        samples, path = ramp[..., :channels], tmp_path / "a.jp2"
        lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
        cv2.imwrite(str(path), samples[..., [2, 1, 0, 3][:channels]], lossless)
        assert np.array_equal(levels(load(path)), samples)
        with Image.open(path) as image:
            assert np.asarray(image)[-1, -1, 0] == 0  # Pillow's white, the control


@pytest.mark.parametrize("mode", ["RGB", "LA"])
def test_opencv_does_not_speak(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], mode: str
) -> None:
    """It warns of code streams without a colour space, and cannot read grey with alpha."""
    Image.fromarray(photo()).convert(mode).save(tmp_path / "a.j2k", no_jp2=True)
    assert load(tmp_path / "a.j2k").depth == 8
    assert capfd.readouterr() == ("", "")


def test_white_is_zero_and_12_bits_are_understood(tmp_path: Path) -> None:
    gray = WIDE[..., 0]
    path = write_tiff(tmp_path / "a.tif", gray.tobytes(), (7, 9), {258: (16,), 262: 0, 277: 1})
    assert np.array_equal(levels(load(path))[..., 0], 65535 - gray)
    packed = bytes([0xFF, 0xF0, 0x00, 0x7F, 0xF8, 0x00])  # FFF 000 7FF 800
    path = write_tiff(path, packed, (4, 1), {258: (12,), 262: 1, 277: 1})
    assert load(path).rgb[0, :, 0] == pytest.approx(np.array([4095, 0, 2047, 2048]) / 4095)


def test_planes_and_premultiplied_alpha_that_opencv_mistakes(tmp_path: Path) -> None:
    """16-bit files on which Pillow and OpenCV differ are read by a third decoder."""
    rgb = WIDE[..., :3]
    tags = {258: (16, 16, 16), 262: 2, 277: 3}
    path = write_tiff(tmp_path / "a.tif", rgb.tobytes(), (7, 9), tags)
    assert np.array_equal(levels(load(path)), rgb)
    planes = np.moveaxis(rgb, 2, 0)
    size = planes[0].nbytes
    strips = {273: (0, size, 2 * size), 279: (size, size, size), 284: 2}
    path = write_tiff(path, planes.tobytes(), (7, 9), tags | strips)
    mistaken: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert worst(mistaken[..., ::-1], rgb) > 1000
    assert np.array_equal(levels(load(path)), rgb)
    opaque = np.concatenate([WIDE[..., :3] // 2, np.full_like(WIDE[..., 3:], 32768)], axis=2)
    tags = {258: (16, 16, 16, 16), 262: 2, 277: 4, 338: 1}
    picture = load(write_tiff(path, opaque.tobytes(), (7, 9), tags))
    assert picture.depth == 16
    assert np.abs(picture.rgb - rgb / 65535).max() < 2 / 32767


def test_float_tiff_is_0_to_1_and_nothing_else(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 63, dtype=np.float32).reshape(7, 9)
    Image.fromarray(ramp).save(tmp_path / "a.tiff")
    picture = load(tmp_path / "a.tiff")
    assert (picture.gray, picture.depth) == (True, 16)
    assert np.array_equal(picture.rgb[..., 2], ramp)
    for bad in (ramp * 255, ramp - 0.1, np.full_like(ramp, np.nan)):
        Image.fromarray(bad).save(tmp_path / "a.tiff")
        with pytest.raises(InputError, match="grey levels"):
            load(tmp_path / "a.tiff")


def test_floating_point_colour_is_read_or_says_what_to_do(tmp_path: Path) -> None:
    tags = {258: (32,) * 3, 262: 2, 277: 3, 339: (3,) * 3}
    samples = np.linspace(0, 1, 7 * 9 * 3, dtype=np.float32).reshape(9, 7, 3)
    path = write_tiff(tmp_path / "a.tiff", samples.tobytes(), (7, 9), tags)
    assert np.array_equal(load(path).rgb, samples)
    assert (load(path).depth, probe(path)) == (16, (7, 9))
    path = write_tiff(path, (2 * samples).tobytes(), (7, 9), tags)
    assert "convert it to 8 or 16 bits" in refused(path)


def test_32_bit_integers_are_read_as_16_bits(tmp_path: Path) -> None:
    Image.fromarray(WIDE[..., 0].astype(np.int32)).save(tmp_path / "a.tiff")
    assert np.array_equal(levels(load(tmp_path / "a.tiff"))[..., 0], WIDE[..., 0])


# ------------------------------------------------------------------------ orientation and metadata

_T = Image.Transpose
# How a camera must turn the upright picture so that the tag undoes it.
STORED_AS = {
    2: _T.FLIP_LEFT_RIGHT, 3: _T.ROTATE_180, 4: _T.FLIP_TOP_BOTTOM, 5: _T.TRANSPOSE,
    6: _T.ROTATE_90, 7: _T.TRANSVERSE, 8: _T.ROTATE_270,
}  # fmt: skip


def exif_block(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x8298] = "Maker", orientation, "© Zoë".encode()
    exif.get_ifd(0x8769).update({0x829A: 0.01, 0xA002: 56, 0xA003: 40, 0x927C: b"note\0\1"})
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 30.0, 1.5)})
    return exif.tobytes()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG"])
def test_pictures_come_out_upright(tmp_path: Path, name: str, orientation: int) -> None:
    if name.lower() not in WRITABLE:
        pytest.skip("this Pillow has no AVIF")
    image = Image.fromarray(photo())
    if orientation in STORED_AS:
        image = image.transpose(STORED_AS[orientation])
    options: dict[str, Any] = {"lossless": True} if name == "WEBP" else {}
    image.save(tmp_path / "a", name, exif=exif_block(orientation), **options)
    image.save(tmp_path / "untagged", name, **options)
    picture = load(tmp_path / "a")
    assert picture.size == probe(tmp_path / "a") == (56, 40)
    assert picture.rgb.flags.c_contiguous
    assert worst(levels(picture), photo()) < 32
    untagged = load(tmp_path / "untagged")
    assert (untagged.size == (56, 40) and worst(levels(untagged), photo()) < 32) == (
        orientation == 1
    )


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("name", ["png", "tiff"])
def test_16_bit_pictures_come_out_upright(tmp_path: Path, name: str, orientation: int) -> None:
    turned = np.rot90(WIDE, 2 if orientation == 3 else 1)
    if name == "tiff":
        write_tiff(
            tmp_path / "a", turned.tobytes(), (turned.shape[1], turned.shape[0]),
            {258: (16,) * 4, 262: 2, 277: 4, 338: 2, 274: orientation},
        )  # fmt: skip
    else:
        with (tmp_path / "a").open("wb") as file:
            encode(turned, Metadata(exif=exif_block(orientation)), file, "png", 95)
    assert np.array_equal(levels(load(tmp_path / "a")), WIDE)
    assert probe(tmp_path / "a") == (7, 9)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6" xmp:Rating="5"/></x:xmpmeta>'


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("name", WRITABLE)
def test_metadata_survives(tmp_path: Path, name: str, depth: int) -> None:
    Image.fromarray(photo()).save(
        tmp_path / "a.jpg", exif=exif_block(6), icc_profile=SRGB, xmp=XMP, dpi=(240, 120)
    )
    picture = load(tmp_path / "a.jpg")
    larger = replace(picture, rgb=picture.rgb.repeat(2, axis=0).repeat(3, axis=1), depth=depth)
    save(larger, tmp_path / "b", format=name)
    with Image.open(tmp_path / "b") as image:
        image.load()
        exif = image.getexif()
        assert (exif[0x010F], exif.get(0x0112, 1)) == ("Maker", 1)
        details, gps = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        assert (details[0x829A], details[0x927C]) == (0.01, b"note\0\1")
        assert (details[0xA002], details[0xA003]) == image.size == (120, 112)
        assert gps[2] == (52.0, 30.0, 1.5)
        assert image.info["icc_profile"] == SRGB
    back = load(tmp_path / "b")
    assert back.size == (120, 112)
    assert back.metadata.xmp == XMP.replace(b'"6"', b'"1"')
    if name in ("jpeg", "png", "tiff"):
        assert back.metadata.dpi == pytest.approx((240, 120), abs=0.1)


@pytest.mark.parametrize("depth", [8, 16])
def test_texts_of_a_png_survive_but_not_those_of_its_old_pixels(tmp_path: Path, depth: int) -> None:
    texts = {"Title": "Zoë", "Copyright": "Ω", "Raw profile type exif": "x", "exif:Width": "56"}
    info = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    Image.fromarray(photo()).save(tmp_path / "a.png", pnginfo=info)
    picture = replace(load(tmp_path / "a.png"), depth=depth)
    for name in WRITABLE:
        save(picture, tmp_path / f"b.{name}", format=name)
    assert load(tmp_path / "b.png").metadata.texts == (("Title", "Zoë"), ("Copyright", "Ω"))


def test_metadata_survives_a_second_round(tmp_path: Path) -> None:
    """TIFF, whose metadata share a directory with the layout of its pixels, is the hard one."""
    metadata = Metadata(icc=SRGB, exif=exif_block(), xmp=XMP.replace(b'"6"', b'"1"'))
    picture = replace(small(), metadata=metadata)
    for name in ("tiff", "jpeg", "tiff", "png", "tiff"):
        save(picture, tmp_path / "a", format=name)
        again = load(tmp_path / "a")
        assert again.metadata.xmp == metadata.xmp
        kept = Image.Exif()
        kept.load(again.metadata.exif or b"")
        assert (kept[0x010F], kept.get_ifd(0xA005)[1], kept.get(0x0100)) == ("Maker", "R03", None)
        assert kept[0x8298].encode("latin-1").decode() == "© Zoë"
        picture = again


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    image = Image.fromarray(photo())
    for exif in (b"Exif\0\0garbage", exif_block(6)[:30], b"Exif\0\0II*\0\xff\xff\xff\xff"):
        image.save(tmp_path / "a.webp", exif=exif, lossless=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = load(tmp_path / "a.webp")
        assert worst(levels(picture), photo()) == 0
        save(picture, tmp_path / "b.png")


@settings(SAME_FOLDER, max_examples=40)
@given(at=st.integers(6, len(exif_block()) - 1), byte=st.integers(0, 255))
def test_no_single_wrong_byte_of_exif_costs_the_picture(tmp_path: Path, at: int, byte: int) -> None:
    exif = bytearray(exif_block())
    exif[at] = byte
    Image.fromarray(photo()).save(tmp_path / "a.webp", exif=bytes(exif), lossless=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = load(tmp_path / "a.webp")
        for name in ("png", "tiff", "jpeg"):
            save(picture, tmp_path / "b", format=name)
            load(tmp_path / "b")
    assert sorted(picture.size) == [40, 56]


def test_metadata_too_long_for_jpeg_is_left_out_there(tmp_path: Path) -> None:
    metadata = Metadata(xmp=b"<x>" + 70_000 * b" " + b"</x>")
    picture = replace(small(), metadata=metadata)
    save(picture, tmp_path / "a.jpg")
    assert load(tmp_path / "a.jpg").metadata.xmp is None
    save(picture, tmp_path / "a.png")
    assert load(tmp_path / "a.png").metadata.xmp == metadata.xmp


def test_cmyk_goes_through_its_profile(tmp_path: Path) -> None:
    cmyk = Image.fromarray(photo()).convert("CMYK")
    profile = mid_gray_cmyk_profile()
    cmyk.save(tmp_path / "plain.jpg", quality=95)
    cmyk.save(tmp_path / "a.jpg", quality=95, icc_profile=profile)
    picture = load(tmp_path / "a.jpg")
    assert picture.metadata.icc is None
    assert np.abs(picture.rgb - 119 / 255).max() < 0.02  # L* = 50 in sRGB
    assert worst(levels(load(tmp_path / "plain.jpg")), photo()) < 40


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("alpha", [False, True])
def test_gray_profiles_go_with_gray_samples_only(tmp_path: Path, name: str, alpha: bool) -> None:
    profile = linear_gray_profile()
    half = np.full((16, 16, 3), 0.5, np.float32)
    opaque = np.ones((16, 16), np.float32) if alpha else None
    picture = Picture(half, opaque, gray=True, metadata=Metadata(icc=profile))
    save(picture, tmp_path / "a", format=name)
    back = load(tmp_path / "a")
    if back.gray:
        assert back.metadata.icc == profile
        assert np.abs(back.rgb - 0.5).max() < 0.01
    else:  # linear 0.5 as sRGB
        assert back.metadata.icc is None
        assert np.abs(back.rgb - 188 / 255).max() < 0.01


def test_a_profile_for_other_pixels_is_dropped(tmp_path: Path) -> None:
    image = Image.fromarray(photo())
    image.save(tmp_path / "a.png", icc_profile=linear_gray_profile())
    assert load(tmp_path / "a.png").metadata.icc is None
    image.convert("L").save(tmp_path / "a.png", icc_profile=SRGB)
    assert load(tmp_path / "a.png").metadata.icc is None
    image.save(tmp_path / "a.png", icc_profile=SRGB)
    assert load(tmp_path / "a.png").metadata.icc == SRGB


# -------------------------------------------------------------------------- what is not a picture


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        load(path, **options)
    message = str(error.value)
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_what_is_no_image_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert "No such file" in refused(path)
    path.write_bytes(b"")
    assert "empty" in refused(path)
    path.write_text("Dear diary, " * 100)
    assert "no image" in refused(path)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "no image" in refused(path)
    path.unlink()
    path.mkdir()
    assert "folder" in refused(path)
    with pytest.raises(InputError):
        probe(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_unreadable_files_are_refused_in_words(tmp_path: Path) -> None:
    Image.fromarray(photo()).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    assert "denied" in refused(tmp_path / "a.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_are_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "a pipe or a device" in refused(tmp_path / "a.png")


def test_heic_without_its_package_names_the_package(tmp_path: Path) -> None:
    if "HEIF" in reading._formats():
        pytest.skip("pillow-heif is installed")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert "pip install 'srx[heic]'" in refused(tmp_path / "a.heic")


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_and_documents_are_refused(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(photo() // (i + 1)) for i in range(3)]
    frames[0].save(tmp_path / "a", name, save_all=True, append_images=frames[1:])
    kind = "full-size pages" if name == "TIFF" else "frames of an animation"
    assert f"3 {kind}" in refused(tmp_path / "a")
    frames[0].save(tmp_path / "a", name, save_all=True)
    load(tmp_path / "a")


def test_thumbnails_and_second_views_are_not_pages(tmp_path: Path) -> None:
    image, small = Image.fromarray(photo()), Image.fromarray(photo(10, 14))
    image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[image])
    picture = load(tmp_path / "a.jpg")
    assert (picture.format, picture.size) == ("jpeg", (56, 40))
    path = tmp_path / "a.tiff"

    def write(first: Image.Image, second: Image.Image, *, reduced: tuple[int, int]) -> None:
        first, second = first.copy(), second.copy()
        second.encoderinfo = {"tiffinfo": {254: reduced[1]}}
        first.save(path, save_all=True, append_images=[second], tiffinfo={254: reduced[0]})

    for pages, reduced in (((image, small), (0, 1)), ((small, image), (1, 0))):
        write(*pages, reduced=reduced)
        assert np.array_equal(levels(load(path)), photo())
        assert probe(path) == (56, 40)
    write(image, small, reduced=(0, 0))
    assert "2 full-size pages" in refused(path)
    write(small, small, reduced=(1, 1))  # as camera raw files look to a TIFF reader
    assert "0 full-size pages" in refused(path)


ENCODINGS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("WEBP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("GIF", {}),
    ("BMP", {}),
    ("PPM", {}),
    ("JPEG2000", {}),
]


def encoded(name: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo()).save(buffer, name, **options)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("name", "options"), ENCODINGS)
def test_cut_files_are_refused_or_whole(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    """Wherever a file is cut, it is never half a picture."""
    data = encoded(name, options)
    path = tmp_path / "a"
    path.write_bytes(data)
    whole = load(path).rgb
    refusals = 0
    for length in range(1, len(data), len(data) // 25):
        path.write_bytes(data[:length])
        try:
            assert np.array_equal(load(path).rgb, whole)
        except InputError:
            refusals += 1
    assert refusals >= 23


def test_the_cut_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: a lenient decoder does give half a picture."""
    data = encoded("JPEG", {})
    (tmp_path / "a.jpg").write_bytes(data[: len(data) * 3 // 4])
    refused(tmp_path / "a.jpg")
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert worst(levels(load(tmp_path / "a.jpg")), photo()) > 100


@pytest.mark.parametrize("name", ["png", "tiff"])
def test_cut_16_bit_files_are_refused(tmp_path: Path, name: str) -> None:
    rgb = np.random.default_rng(0).random((60, 60, 3), np.float32)
    save(Picture(rgb, depth=16), tmp_path / "a", format=name)
    data = (tmp_path / "a").read_bytes()
    for fraction in (0.05, 0.3, 0.6, 0.95):
        (tmp_path / "a").write_bytes(data[: int(len(data) * fraction)])
        refused(tmp_path / "a")


@SAME_FOLDER
@given(data=st.data())
def test_garbage_gives_a_picture_or_an_input_error(tmp_path: Path, data: st.DataObject) -> None:
    """Overwritten bytes anywhere: whatever a decoder makes of it, no other exception comes out."""
    content = bytearray(encoded(*data.draw(st.sampled_from(ENCODINGS))))
    at = data.draw(st.integers(0, len(content) - 1))
    garbage = data.draw(st.binary(min_size=1, max_size=8))
    content[at : at + len(garbage)] = garbage
    (tmp_path / "a").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (probe, load):
            with contextlib.suppress(InputError):
                read(tmp_path / "a", max_pixels=10_000_000)


def test_size_limit_is_ours_and_silent(tmp_path: Path) -> None:
    """A header of 200 megapixels: Pillow alone would warn, then refuse; here the option decides."""
    header = b"IHDR" + struct.pack(">II5B", 20_000, 10_000, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(header))
    pixels = struct.pack(">I", 1000) + b"IDAT" + bytes(1000)
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + crc + pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe(path) == (20_000, 10_000)
    for read in (probe, load):
        with pytest.raises(InputError, match=r"200 megapixels; the limit is 100 .*reduce it first"):
            read(path, max_pixels=100_000_000)


# ----------------------------------------------------------------------------------- writing files


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", "jpeg"), ("b/a.b.JPEG", "jpeg"), (".tif", "tiff"), ("png", "png"), ("webp", "webp")],
)
def test_formats_by_name(name: str, expected: str) -> None:
    assert format_of(name) == format_of(Path(name)) == expected


@pytest.mark.parametrize("name", ["a.txt", "a", "a.b/c", "", ".gif", "a.pdf"])
def test_unknown_formats_are_usage_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(".png, .jpg, .webp, .tiff, .avif")):
        format_of(name)
    with pytest.raises(UsageError):
        save(small(), tmp_path / "a.png", format=name or "a.")
    assert not list(tmp_path.iterdir())


def test_every_output_extension_is_found_again_in_a_folder() -> None:
    assert set(FORMATS.values()) <= SUFFIXES
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in SUFFIXES)


@pytest.mark.parametrize("quality", [0, 101])
def test_qualities_out_of_range_are_usage_errors(tmp_path: Path, quality: int) -> None:
    with pytest.raises(UsageError, match="1 to 100"):
        save(small(), tmp_path / "a.jpg", quality=quality)


@pytest.mark.parametrize("name", WRITABLE)
def test_sides_a_format_cannot_hold_are_refused_before_writing(tmp_path: Path, name: str) -> None:
    sides = {"jpeg": 65_500, "webp": 16_383, "avif": 32_768, "png": 1_000_000}
    longest = sides.get(name, 100_000)
    instead = "write TIFF" if name == "png" else "write PNG or TIFF"
    check_size(longest, 1, name)
    save(Picture(np.zeros((1, longest, 3), np.float32)), tmp_path / "a", format=name)
    assert probe(tmp_path / "a") == (longest, 1)
    if name in sides:
        with pytest.raises(InputError, match=instead):
            check_size(1, longest + 1, name)
        with pytest.raises(InputError, match=instead):
            save(Picture(np.zeros((1, longest + 1, 3), np.float32)), tmp_path / "b", format=name)
        assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "failure",
    [OSError(28, "No space left on device"), MemoryError("of an encoder"), KeyboardInterrupt()],
    ids=repr,
)
def test_a_failed_save_leaves_nothing_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "a.png"
    save(small(), path)
    before = path.read_bytes()

    def half(samples: Array, metadata: Metadata, file: Any, *_: Any) -> None:
        file.write(b"half a file")
        raise failure

    monkeypatch.setattr(images, "encode", half)
    with pytest.raises((InputError, MemoryError, KeyboardInterrupt)) as error:
        save(replace(small(), gray=True), path)
    if isinstance(failure, OSError):
        assert str(error.value) == f"{path} cannot be written: No space left on device."
    else:
        assert error.value is failure
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_over_a_folder_or_into_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "none" / "a.png"):
        with pytest.raises(InputError, match="cannot be written"):
            save(small(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_while_writing_only_a_hidden_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def watched(*arguments: Any) -> None:
        encode(*arguments)
        seen.extend(entry.name for entry in tmp_path.iterdir())

    monkeypatch.setattr(images, "encode", watched)
    save(small(), tmp_path / "a.png")
    assert len(seen) == 1
    assert seen[0].startswith(".")
    assert Path(seen[0]).suffix not in SUFFIXES
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        save(small(), tmp_path / "a.png")
    finally:
        os.umask(previous)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def test_pictures_are_checked_at_construction() -> None:
    rgb = np.zeros((4, 5, 3), np.float32)
    assert Picture(rgb).size == (5, 4)
    for bad in ({"rgb": rgb[..., :2]}, {"alpha": rgb[:2, :, 0]}, {"depth": 12}):
        with pytest.raises(ValueError, match="must be"):
            Picture(**{"rgb": rgb, **bad})  # type: ignore[arg-type]


def test_errors_carry_the_exit_codes() -> None:
    assert issubclass(InputError, SrxError)
    assert (InputError.exit_code, UsageError.exit_code) == (1, 2)
