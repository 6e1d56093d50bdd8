"""Files to samples: every reader, checked before and after.

The size comes from the header of the very reader that decodes, and is agreed to before it does.
"""

import contextlib
import functools
import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from sr_cli import memory
from sr_cli.engine import damage, deep, metadata, png, profiles
from sr_cli.engine.library_settings import settings_for_reading
from sr_cli.engine.metadata import Metadata
from sr_cli.engine.samples import (
    code_points,
    deepened,
    fitting,
    samples_of,
    uncut,
    upright,
    wide_gray,
)
from sr_cli.engine.signatures import unidentified
from sr_cli.errors import DamagedError, InputError, NoRoomError

Floats = npt.NDArray[np.float32]

MAX_PIXELS: Final = 400_000_000
BYTES_PER_PIXEL: Final = 28
"""While a picture is read: float32 and integer samples, twice for a moment."""

_READABLE = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF", "PPM", "JPEG2000")
_PLUGINS = {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"


@dataclass
class Decoded:
    """What a file holds: samples (H, W, C) in [0, 1], upright; C is 1 or 3, one more with alpha."""

    samples: Floats
    depth: int
    metadata: Metadata
    format: str
    notes: list[str] = field(default_factory=list)


def probe(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of the upright picture, from the file's header alone.

    Raises InputError as `load` does, but damage beyond the header stays unseen.
    """
    with _errors(path), settings_for_reading:
        if png.is_png(path):
            found = _png_header(path, max_pixels)
            exif = Image.Exif()
            with contextlib.suppress(Exception):
                exif.load(found.exif)
            size, turn = (found.width, found.height), exif.get(274, 1)
        else:
            try:
                with _opened(path, max_pixels) as (image, _):
                    size, turn = image.size, metadata.orientation(image)
                    if image.format == "TIFF":  # Pillow turns its sizes itself
                        turn = 1
            except UnidentifiedImageError:
                if (tiff := _tiff_header(path, max_pixels)) is None:
                    raise
                size, turn = tiff
    return size[::-1] if turn in (5, 6, 7, 8) else size


def read(path: Path, max_pixels: int) -> Decoded:
    """Decode one still picture. Raises InputError as `images.load` says."""
    with _errors(path), settings_for_reading:
        if png.is_png(path):
            return _read_png(path, max_pixels)
        try:
            with _opened(path, max_pixels) as (image, notes):
                _check_memory(path, image.size)
                return _decoded(path, image, notes, max_pixels)
        except UnidentifiedImageError:
            if (found := _read_tiff(path, max_pixels)) is None:
                raise
            return found


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside is an InputError that names the file."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, not an image file.")
        if path.exists() and not path.is_file():  # opening a pipe would wait for its other end
            raise InputError(f"{path} is a pipe or a device, not an image file.")
        yield
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise unidentified(path) from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit in memory.") from error
    except Exception as error:  # decoders raise nearly anything on a damaged file
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error
        reason = " ".join(str(error).split())
        raise DamagedError(f"{path} is damaged and cannot be decoded: {reason}.") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """What this installation reads: no format without a signature, none that runs a program."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_jxl")
    Image.init()
    return tuple(name for name in (*_READABLE, "JXL") if name in Image.OPEN)


@contextlib.contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[tuple[ImageFile.ImageFile, list[str]]]:
    """The file's picture, its header read and its size agreed to, and notes on it."""
    notes: list[str] = []
    formats = _formats()
    with path.open("rb") as file:
        head = file.read(3)
        file.seek(-min(file.seek(0, 2), 18), 2)
        if path.suffix.lower() == ".tga" or file.read() == _TGA_FOOTER:
            formats = (*formats, "TGA")
        file.seek(0)
        try:
            image = Image.open(file, formats=formats)
        except Exception:
            if head != b"\xff\xd8\xff":
                raise
            file.seek(0)
            image = Image.open(io.BytesIO(damage.bare_jpeg(file.read())), formats=("JPEG",))
            notes.append("damaged metadata were left out")
        with image:
            _check_still(image, path)
            _check_pixels(path, image.size, max_pixels)
            yield image, notes


def _check_still(image: ImageFile.ImageFile, path: Path) -> None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        frames, kind = _seek_full_size(image), "full-size pages"
    else:  # the further pictures of an MPO or HEIF file are previews, depth and gain maps
        frames = 1 if image.format in ("MPO", "HEIF") else getattr(image, "n_frames", 1)
        kind = "frames of an animation"
    _refuse_frames(path, frames, kind)


def _refuse_frames(path: Path, frames: int, kind: str) -> None:
    if frames != 1:
        raise InputError(
            f"{path} holds {frames} {kind}, not a single picture; save each on its own first."
        )


def _check_pixels(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise InputError(
            f"{path} has {width}×{height} pixels, {width * height / 1e6:.0f} megapixels; "
            f"the limit is {max_pixels / 1e6:g} megapixels; reduce it first, or raise "
            "--max-megapixels."
        )


def _check_memory(path: Path, size: tuple[int, int]) -> None:
    need = BYTES_PER_PIXEL * size[0] * size[1]
    free = memory.free(swap=True)
    if need > free:
        raise NoRoomError(
            f"{path} has {size[0]}×{size[1]} pixels and needs {-(-need >> 20)} MiB to be read, "
            f"but {free >> 20} MiB of memory are free: close other programs, raise the limit "
            "(ulimit -v), or reduce it."
        )


def _seek_full_size(image: TiffImagePlugin.TiffImageFile) -> int:
    """Count a TIFF's pages without thumbnails, which GIMP adds, and turn to the first of them."""
    full_size = []
    for page in range(image.n_frames):
        image.seek(page)
        if not image.tag_v2.get(254, 0) & 1:
            full_size.append(page)
    image.seek(full_size[0] if full_size else 0)
    return len(full_size)


# ------------------------------------------------------------------------------------------- PNG


def _png_header(path: Path, max_pixels: int) -> png.Header:
    found = png.header(path)
    _refuse_frames(path, found.frames, "frames of an animation")
    _check_pixels(path, (found.width, found.height), max_pixels)
    return found


def _read_png(path: Path, max_pixels: int) -> Decoded:
    found = _png_header(path, max_pixels)
    _check_memory(path, (found.width, found.height))
    cleaned = png.clean(path, found)
    notes = list(cleaned.notes)
    with Image.open(io.BytesIO(cleaned.data), formats=("PNG",)) as image:
        image.load()
        info, turn = metadata.read(image)
        if image.mode[0] in "IF":
            samples, depth = wide_gray(image, path), 16
        else:
            shown = image.convert("LA") if found.colour == 4 else image  # Pillow makes it RGBA
            samples, depth, info = samples_of(shown, info, notes)
            if found.bits == 16:
                samples, depth = deepened(cleaned.data, samples, notes)
    if cleaned.key is not None:
        samples = _keyed(samples, cleaned.key, found.bits)
    gray = samples.shape[2] <= 2
    if not cleaned.profile:
        icc, note = profiles.of_png(cleaned.ancillary, gray=gray)
        info = replace(info, icc=icc)
        notes += [note] * bool(note)
    info = replace(info, icc=fitting(info.icc, gray, notes))
    return Decoded(upright(samples, turn), depth, info, "png", notes)


def _keyed(samples: Floats, key: tuple[int, ...], bits: int) -> Floats:
    """With alpha 0 where the samples are the key (PNG, §11.3.1.1), else 1."""
    levels = np.rint(samples * ((1 << bits) - 1))
    alpha = (levels != np.array(key, np.float32)).any(axis=2, keepdims=True)
    return np.concatenate([samples, alpha.astype(np.float32)], axis=2)


# ---------------------------------------------------------------------------------- other formats


def _decoded(path: Path, image: ImageFile.ImageFile, notes: list[str], max_pixels: int) -> Decoded:
    kind = str(image.format)
    size = image.size
    if kind == "JPEG2000" and (wrong := damage.check_jpeg2000(path.read_bytes(), size)):
        raise DamagedError(f"{path} is damaged: {wrong}.")
    page = image.tell() if kind == "TIFF" else 0
    cut = ";16" in str(image.tile) or kind in ("JPEG2000", "AVIF", "PPM")
    image = _loaded(path, image, notes)
    info, turn = metadata.read(image)
    if image.mode[0] in "IF":
        samples, depth = wide_gray(image, path), 16
    else:
        samples, depth, info = samples_of(image, info, notes)
        if cut:
            samples, lost = uncut(path, kind, page, samples, max_pixels)
            depth = 8 if lost else 16
            notes += [f"{lost} bits became 8"] * (lost > 8)
    if kind in {"AVIF", "HEIF"}:
        info = replace(info, icc=info.icc or code_points(path, samples.shape[2] <= 2, notes))
    if kind == "HEIF" and image.info.get("bit_depth", 8) > 8:
        notes.append(f"{image.info['bit_depth']} bits became 8")
    info = replace(info, icc=fitting(info.icc, samples.shape[2] <= 2, notes))
    return Decoded(
        upright(samples, turn), depth, info, "jpeg" if kind == "MPO" else kind.lower(), notes
    )


def _loaded(path: Path, image: ImageFile.ImageFile, notes: list[str]) -> ImageFile.ImageFile:
    """The picture with its pixels; a JPEG that lacks nothing but its end is completed."""
    try:
        image.load()
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        whole = damage.completed_jpeg(path.read_bytes())
        if whole is None:
            raise
        notes.append("the end of the file is missing, but no pixel is")
        image = Image.open(io.BytesIO(whole), formats=("JPEG", "MPO"))
        image.load()
    return image


# ------------------------------------------------------------------------------------------ TIFF


def _tiff_header(path: Path, max_pixels: int) -> tuple[tuple[int, int], int] | None:
    """Size and orientation of a TIFF that Pillow does not know, or None."""
    with contextlib.suppress(Exception):
        size, turn, pages = deep.tiff_header(path)
        _refuse_frames(path, pages, "full-size pages")
        _check_pixels(path, size, max_pixels)
        return size, turn
    return None


def _read_tiff(path: Path, max_pixels: int) -> Decoded | None:
    """A TIFF that Pillow does not know, or None."""
    if (header := _tiff_header(path, max_pixels)) is None:
        return None
    _check_memory(path, header[0])
    with contextlib.suppress(Exception):  # of a compression that tifffile has no codec for
        samples, depth = deep.tiff(path, max_pixels)
        notes: list[str] = []
        gray = samples.shape[2] <= 2
        shell = Image.new("L", header[0][::-1] if header[1] >= 5 else header[0])
        shell.info.update(deep.tiff_tags(path))
        info = replace(metadata.read(shell)[0], exif=metadata.of_tiff(path))
        info = replace(info, icc=fitting(info.icc, gray, notes))
        return Decoded(upright(samples, header[1]), depth, info, "tiff", notes)
    return None
