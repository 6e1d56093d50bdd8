"""Files ↔ pictures: photographs in, photographs out, with everything they carry.

EXIF, XMP, ICC profile, resolution, alpha, greyness and 16-bit depth survive wherever the output
format has a place for them, and PNG's texts in PNG; IPTC blocks and EXIF thumbnails do not. Pixels
stay in the colour space of their profile; only CMYK, which no model knows, becomes sRGB.
"""

import contextlib
import errno
import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from sr_cli.engine import metadata
from sr_cli.engine.formats import Samples, check_size, encode, format_of, to_srgb
from sr_cli.engine.metadata import Metadata
from sr_cli.errors import FullDiskError, InputError, UsageError

Floats = npt.NDArray[np.float32]

#: Extensions that count as images when a folder is walked. What a file is, its content decides.
SUFFIXES: Final = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".avif", ".heic"),
        *(".heif", ".bmp", ".gif", ".jp2", ".ppm", ".pgm", ".pnm"),
    }
)
MAX_PIXELS: Final = 400_000_000

_READABLE = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF", "PPM", "JPEG2000")

Image.MAX_IMAGE_PIXELS = None  # Pillow's global limit; `max_pixels` is ours, checked for each file
TiffImagePlugin.READ_LIBTIFF = True  # Pillow's own reader mistakes 16-bit samples in planes
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # Pillow has read it already


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded photograph, upright.

    rgb: float32 (H, W, 3) in [0, 1], in the colour space of `metadata.icc`.
    alpha: float32 (H, W) in [0, 1], not multiplied into rgb, or None.
    depth: bits of a sample, 8 or 16; PNG and TIFF are written with it (grey with alpha and other
        formats with 8).
    gray: the file is greyscale; rgb repeats it three times, and greyscale is written.
    format: the source's, in lower case ("jpeg", "png", …).
    """

    rgb: Floats
    alpha: Floats | None = None
    depth: int = 8
    gray: bool = False
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "png"

    def __post_init__(self) -> None:
        height, width, channels = self.rgb.shape
        if channels != 3 or (self.alpha is not None and self.alpha.shape != (height, width)):
            raise ValueError("rgb must be (H, W, 3) and alpha (H, W)")
        if self.depth not in (8, 16):
            raise ValueError("depth must be 8 or 16")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


def probe(path: Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of the upright picture, from the file's header alone.

    Raises InputError as `load` does, but damage beyond the header stays unseen.
    """
    with _opened(path, max_pixels) as image:
        # Pillow turns TIFF sizes itself.
        turned = image.format != "TIFF" and metadata.orientation(image) >= 5
        return (image.height, image.width) if turned else image.size


def load(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read one still picture; the content decides the format, whatever the extension says.

    Raises InputError, one sentence that names the file: it is missing, a folder, empty, no image,
    animated or of several pages, damaged or cut short, larger than `max_pixels`, or of a kind
    that cannot be read.
    """
    with _opened(path, max_pixels) as image:
        # Pillow's raw mode is one such as RGB;16B then; its JPEG 2000 files do not tell
        cut_to_8_bits = ";16" in str(image.tile) or image.format == "JPEG2000"
        image.load()
        info, orientation = metadata.read(image)
        if image.mode[0] in "IF":
            samples, depth = _wide_gray(image, path), 16
        else:
            samples, depth = _samples(image, info.icc, path if cut_to_8_bits else None)
        samples = _upright(samples, orientation)
        gray = samples.shape[2] <= 2
        rgb = np.repeat(samples[..., :1], 3, axis=2) if gray else samples[..., :3]
        alpha = samples[..., -1] if samples.shape[2] in (2, 4) else None
        return Picture(
            rgb=np.ascontiguousarray(rgb),
            alpha=None if alpha is None else np.ascontiguousarray(alpha),
            depth=depth,
            gray=gray,
            metadata=replace(info, icc=_fitting(info.icc, gray)),
            format="jpeg" if image.format == "MPO" else str(image.format).lower(),
        )


@functools.cache
def _formats() -> tuple[str, ...]:
    """What this installation reads: no format without a signature, none that runs a program."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    Image.init()
    return tuple(name for name in _READABLE if name in Image.OPEN)


@contextlib.contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[ImageFile.ImageFile]:
    """The file's picture, its header read; whatever goes wrong inside is an InputError."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an image file.")
    if path.exists() and not path.is_file():  # opening a pipe would wait for its other end
        raise InputError(f"{path} is a pipe or a device, not an image file.")
    try:
        with path.open("rb") as file, Image.open(file, formats=_formats()) as image:
            _check_still(image, path, max_pixels)
            yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{path} {_why_unidentified(path)}") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit in memory.") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error
        raise InputError(f"{path} is damaged and cannot be decoded: {error}.") from error


def _check_still(image: ImageFile.ImageFile, path: Path, max_pixels: int) -> None:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        frames, kind = _seek_full_size(image), "full-size pages"
    else:  # the further pictures of an MPO or HEIF file are previews, depth and gain maps
        frames = 1 if image.format in ("MPO", "HEIF") else getattr(image, "n_frames", 1)
        kind = "frames of an animation"
    if frames != 1:
        raise InputError(
            f"{path} holds {frames} {kind}, not a single picture; save each on its own first."
        )
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(
            f"{path} has {width}×{height} pixels, {width * height / 1e6:.0f} megapixels; "
            f"the limit is {max_pixels / 1e6:g} megapixels; reduce it first."
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


def _why_unidentified(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        return "is empty (0 bytes)."
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "is a HEIC image; to read it, install the package pillow-heif."
    if head[:4] in (b"II*\0", b"MM\0*"):
        return (
            "is a TIFF of a kind that srx cannot read, such as floating-point colour, or its "
            "header is damaged; convert it to 8 or 16 bits first."
        )
    return "is no image that can be read: its format is unknown or its header is damaged."


def _samples(
    image: Image.Image, icc: bytes | None, sixteen_bit_file: Path | None
) -> tuple[Floats, int]:
    """Samples (H, W, C) in [0, 1] and their depth; C is 1 or 3, and one more with alpha."""
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        mode += "A"
    if image.mode == "CMYK" and icc and icc[16:20] == b"CMYK":
        image = to_srgb(image, icc)
    samples = np.atleast_3d(np.asarray(image.convert(mode)))
    if sixteen_bit_file and (wide := _sixteen_bit(sixteen_bit_file, samples)) is not None:
        return np.divide(wide, 65_535, dtype=np.float32), 16
    return np.divide(samples, 255, dtype=np.float32), 8


def _sixteen_bit(path: Path, samples: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16] | None:
    """The 16-bit samples that Pillow has cut to 8 bits, or None.

    OpenCV decodes them, but is mistaken about separate planes and premultiplied alpha, so its
    array counts only where its high bytes are Pillow's samples, which are rounded in JPEG 2000,
    and there so that white overflows to 0.
    """
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    order = {1: [0], 2: [0, 3], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[samples.shape[2]]  # of B, G, R, A
    if decoded is None or decoded.dtype != np.uint16:
        return None
    decoded = np.atleast_3d(decoded)
    if decoded.shape[2] <= max(order):
        return None
    wide = decoded[..., order].astype(np.uint16, copy=False)
    alike = any(np.array_equal((wide + half) >> 8, samples) for half in (0, 128))
    return wide if alike else None


def _wide_gray(image: Image.Image, path: Path) -> Floats:
    """Greys (H, W, 1) of over 8 bits: integers are 16-bit, floats go from 0, black, to 1, white."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white = 1 if image.mode == "F" else 4095 if tags.get(258) == (12,) else 65_535
    gray = np.asarray(image, dtype=np.float32)
    low, high = gray.min(), gray.max()
    if not (low >= 0 and high <= white):  # NaN too
        raise InputError(
            f"{path} has grey levels from {low:g} to {high:g}; bring them to 0…{white} first."
        )
    white_is_zero = tags.get(262) == 0
    return ((white - gray if white_is_zero else gray) / np.float32(white))[..., None]


def _upright(samples: Floats, orientation: int) -> Floats:
    """Turn an array (H, W, C) the way its EXIF orientation asks for."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples


def _fitting(icc: bytes | None, gray: bool) -> bytes | None:
    """The ICC profile if it is one of such pixels (ICC.1:2022, §7.2.8: byte 16 of its header)."""
    return icc if icc and icc[16:20] == (b"GRAY" if gray else b"RGB ") else None


def save(
    picture: Picture,
    path: Path,
    *,
    format: str | None = None,  # noqa: A002
    quality: int = 95,
) -> None:
    """Write a picture, all of it or nothing: a hidden file beside `path` takes its name at the end.

    format: one of FORMATS (None: by the extension). quality: 1…100 for JPEG, WebP and AVIF; from
    90 on JPEG and AVIF keep colour at full resolution. Samples are clipped to [0, 1] and rounded
    to the nearest level. JPEG has no alpha: the picture is laid on white; and no room for EXIF or
    XMP above 64 KB, which are left out. The folder must exist; an existing file is replaced.

    Raises UsageError for an unknown format or quality, InputError where the format cannot hold
    the picture or the file cannot be written, FullDiskError where it has no room.
    """
    chosen = format_of(format or path)
    if not 1 <= quality <= 100:
        raise UsageError(f"The quality is {quality}; it must be from 1 to 100.")
    check_size(*picture.size, chosen)
    samples = np.concatenate([_levels(band, chosen) for band in _bands(picture)])
    try:
        with _replacing(path) as file:
            encode(samples, picture.metadata.sized(*picture.size), file, chosen, quality)
    except Exception as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        kind = FullDiskError if full else InputError
        raise kind(f"{path} cannot be written: {reason}.") from error


def _bands(picture: Picture, rows: int = 256) -> Iterator[Picture]:
    """The picture in strips, so that working on one takes little memory."""
    for top in range(0, picture.rgb.shape[0], rows):
        alpha = None if picture.alpha is None else picture.alpha[top : top + rows]
        yield replace(picture, rgb=picture.rgb[top : top + rows], alpha=alpha)


def _levels(picture: Picture, format: str) -> Samples:  # noqa: A002
    """The samples that `encode` takes for a format."""
    samples = picture.rgb.mean(axis=2, keepdims=True) if picture.gray else picture.rgb
    if picture.alpha is not None:
        alpha = picture.alpha[..., None]
        on_white = samples * alpha + (1 - alpha)
        samples = on_white if format == "jpeg" else np.concatenate([samples, alpha], axis=2)
    wide = picture.depth == 16 and _keeps_depth(picture, format)
    white, dtype = (65_535, np.uint16) if wide else (255, np.uint8)
    levels: Samples = np.rint(np.clip(samples, 0, 1) * white).astype(dtype)
    return levels[..., 0] if levels.shape[2] == 1 else levels


def _keeps_depth(picture: Picture, format: str) -> bool:  # noqa: A002
    gray_with_alpha = picture.gray and picture.alpha is not None
    return picture.depth == 8 or (format in ("png", "tiff") and not gray_with_alpha)


def losses(picture: Picture, path: Path) -> list[str]:
    """What `save` cannot keep of a picture in a file of this name, a phrase each."""
    chosen = format_of(path)
    on_white = picture.alpha is not None and chosen == "jpeg"
    cut = not _keeps_depth(picture, chosen)
    return ["transparency became white"] * on_white + ["16 bits became 8"] * cut


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    partial = path.with_name(f".srx-{uuid4().hex}.partial")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
