"""Files ↔ pictures: photographs in, photographs out, with everything they carry.

EXIF, XMP, IPTC, ICC profile, resolution, texts, alpha, greyness and 16-bit depth survive wherever
the output format has a place for them; what has none is noted. Pixels stay in the colour space of
their profile; only CMYK, which no model knows, becomes sRGB.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from sr_cli.engine import reading
from sr_cli.engine.formats import check_size, encode, format_of, unheld
from sr_cli.engine.metadata import Metadata
from sr_cli.engine.reading import MAX_PIXELS, probe
from sr_cli.engine.signatures import SUFFIXES, resembles_picture
from sr_cli.engine.writers import Samples
from sr_cli.errors import FullDiskError, InputError, UsageError, is_full_disk, is_out_of_memory
from sr_cli.files import Committing, whole

__all__ = [
    "MAX_PIXELS", "SUFFIXES", "Filed", "Floats", "Picture", "bits_of", "filed", "load", "losses",
    "probe", "resembles_picture", "samples_for", "save", "with_metadata", "write", "writing",
]  # fmt: skip

Floats = npt.NDArray[np.float32]
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded photograph, upright.

    rgb: float32 (H, W, 3) in [0, 1], in the colour space of `metadata.icc`.
    alpha: float32 (H, W) in [0, 1], not multiplied into rgb, or None.
    depth: bits of a sample, 8 or 16; PNG and TIFF are written with it (a TIFF of grey with alpha
        and other formats with 8).
    gray: the file is greyscale; rgb repeats it three times, and greyscale is written.
    format: the source's, in lower case ("jpeg", "png", …).
    notes: what of the file could not be taken as it is, a phrase each.
    """

    rgb: Floats
    alpha: Floats | None = None
    depth: int = 8
    gray: bool = False
    metadata: Metadata = field(default_factory=Metadata)
    format: str = "png"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        height, width, channels = self.rgb.shape
        if channels != 3 or (self.alpha is not None and self.alpha.shape != (height, width)):
            raise ValueError("rgb must be (H, W, 3) and alpha (H, W)")
        if self.depth not in (8, 16):
            raise ValueError("depth must be 8 or 16")

    @classmethod
    def of_samples(cls, samples: Floats, depth: int) -> "Picture":
        """From (H, W, C) float32 in [0, 1]: C = 1 grey, 2 grey with alpha, 3 RGB, 4 with alpha."""
        gray = samples.shape[2] <= 2
        rgb = np.repeat(samples[..., :1], 3, axis=2) if gray else samples[..., :3]
        alpha = np.ascontiguousarray(samples[..., -1]) if samples.shape[2] in (2, 4) else None
        return cls(rgb=np.ascontiguousarray(rgb), alpha=alpha, depth=depth, gray=gray)

    @property
    def samples(self) -> Floats:
        """(H, W, C) float32, what `of_samples` takes: grey once, and alpha where there is some."""
        samples = self.rgb.mean(axis=2, keepdims=True) if self.gray else self.rgb
        if self.alpha is None:
            return samples
        return np.concatenate([samples, self.alpha[..., None]], axis=2)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


def load(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read one still picture; the content decides the format, whatever the extension says.

    Raises InputError, one sentence that names the file: it is missing, a folder, empty, no image,
    animated or of several pages, damaged or cut short, larger than `max_pixels` by its header or
    than the memory that is free, or of a kind that cannot be read. Damage beside the pixels costs
    nothing but a note.
    """
    found = reading.read(Path(path), max_pixels)
    picture = Picture.of_samples(found.samples, found.depth)
    return replace(picture, metadata=found.metadata, format=found.format, notes=tuple(found.notes))


def save(
    picture: Picture,
    path: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    quality: int = 95,
    overwrite: bool = True,
    committing: Committing | None = None,
) -> None:
    """Write a picture, all of it or nothing: a hidden file beside `path` takes its name at the end.

    format: one of FORMATS (None: by the extension). quality: 1…100 for JPEG, WebP and AVIF; from
    90 on JPEG and AVIF keep colour at full resolution, at 100 WebP is lossless. Samples are clipped
    to [0, 1] and rounded to the nearest level. JPEG has no alpha: the picture is laid on white.
    What the format has no room for is left out, as `losses` tells. The folder must exist; an
    existing file is replaced if `overwrite`. committing: told of the whole file under its hidden
    name, before it takes its own.

    Raises UsageError for what is no Picture and for an unknown format or quality, InputError where
    the format cannot hold the picture or the file cannot be written, FullDiskError where it has no
    room.
    """
    if not isinstance(picture, Picture):
        raise UsageError(
            "save takes what load gives, or what an Upscaler made of that, not "
            f"{type(picture).__name__}: images of Pillow have a save of their own."
        )
    path = Path(path)
    chosen = format_of(format or path)
    if not 1 <= quality <= 100:
        raise UsageError(f"The quality is {quality}; it must be from 1 to 100.")
    check_size(*picture.size, chosen)
    write(filed(picture, chosen), path, quality=quality, overwrite=overwrite, committing=committing)


@dataclass(frozen=True, eq=False)
class Filed:
    """A picture as a file of its format holds it.

    samples: what `formats.encode` takes. metadata: with the sizes in them true.
    """

    samples: Samples
    metadata: Metadata
    format: str

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.samples.shape[1], self.samples.shape[0]


def filed(picture: Picture, format: str) -> Filed:  # noqa: A002
    """A picture as a file of this format, one of FORMATS, holds it: rounded to its levels."""
    samples = np.concatenate([samples_for(band, format) for band in _bands(picture)])
    return Filed(samples, picture.metadata.sized(*picture.size), format)


def write(
    picture: Filed,
    path: Path,
    *,
    quality: int = 95,
    overwrite: bool = True,
    committing: Committing | None = None,
) -> None:
    """As `save`, of what is ready for its file."""
    samples, metadata, chosen = picture.samples, picture.metadata, picture.format
    with writing(path, overwrite=overwrite, committing=committing) as file:
        with_metadata(file, metadata, lambda held: encode(samples, held, file, chosen, quality))


@contextmanager
def writing(
    path: Path,
    *,
    overwrite: bool = True,
    committing: Committing | None = None,
    passing: tuple[type[Exception], ...] = (InputError,),
) -> Iterator[IO[bytes]]:
    """A file that takes its name when `with` ends well, as `save` says, which raises the same.

    passing: what is raised inside and tells of something else than of writing, as want of memory
    does.
    """
    try:
        with (
            whole(path, replace=overwrite, committing=committing) as partial,
            partial.open("r+b") as file,
        ):
            yield file
    except passing:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        kind = FullDiskError if is_full_disk(error) else InputError
        raise kind(f"{path} cannot be written: {reason}.") from error


def with_metadata(
    file: IO[bytes], metadata: Metadata, write: Callable[[Metadata], Result]
) -> Result:
    """What `write` gives, which writes to the file from its start; metadata that it cannot write
    are left out but for the profile: they cost no picture."""
    try:
        return write(metadata)
    except (ValueError, TypeError, SyntaxError, struct.error, OverflowError, KeyError):
        file.seek(0)
        file.truncate()
        return write(Metadata(icc=metadata.icc))


def _bands(picture: Picture, rows: int = 256) -> Iterator[Picture]:
    """The picture in strips, so that working on one takes little memory."""
    for top in range(0, picture.rgb.shape[0], rows):
        alpha = None if picture.alpha is None else picture.alpha[top : top + rows]
        yield replace(picture, rgb=picture.rgb[top : top + rows], alpha=alpha)


def samples_for(picture: Picture, format: str) -> Samples:  # noqa: A002
    """The samples that `encode` takes for a format."""
    samples = picture.samples
    if format == "jpeg" and picture.alpha is not None:
        colours, alpha = samples[..., :-1], samples[..., -1:]
        samples = colours * alpha + (1 - alpha)
    white, dtype = (65_535, np.uint16) if bits_of(picture, format) == 16 else (255, np.uint8)
    levels: Samples = np.rint(np.clip(samples, 0, 1) * white).astype(dtype)
    return levels[..., 0] if levels.shape[2] == 1 else levels


def bits_of(picture: Picture, format: str) -> Literal[8, 16]:  # noqa: A002
    """Bits of a sample in a file of this format."""
    gray_with_alpha = picture.gray and picture.alpha is not None
    wide = format == "png" or (format == "tiff" and not gray_with_alpha)
    return 16 if picture.depth == 16 and wide else 8


def losses(picture: Picture, path: Path) -> list[str]:
    """What `save` cannot keep of a picture in a file of this name, a phrase each."""
    chosen = format_of(path)
    on_white = picture.alpha is not None and chosen == "jpeg"
    cut = bits_of(picture, chosen) < picture.depth
    lost = ["transparency became white"] * on_white + ["16 bits became 8"] * cut
    return lost + unheld(picture.metadata, chosen)
