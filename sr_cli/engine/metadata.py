"""What a photograph's file says beside its pixels, and which of it stays true after upscaling."""

import re
from dataclasses import dataclass, replace
from typing import Any

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_EXIF, _GPS, _INTEROP = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop
_Tag = ExifTags.Base
# These describe the photograph; the other tags of IFD 0 say how the old file stored its pixels.
_KEPT_TAGS = {
    *(_Tag.ImageDescription, _Tag.Make, _Tag.Model, _Tag.Software, _Tag.DateTime, _Tag.Artist),
    *(_Tag.HostComputer, _Tag.Copyright, _Tag.XResolution, _Tag.YResolution, _Tag.ResolutionUnit),
    *(_Tag.Rating, _Tag.RatingPercent, _Tag.XPTitle, _Tag.XPComment, _Tag.XPAuthor),
    *(_Tag.XPKeywords, _Tag.XPSubject, _EXIF, _GPS),
}
# Keywords of PNG (third edition, §11.3.3.2); others may describe the old pixels, or hold EXIF.
_KEPT_TEXTS = {
    *("Title", "Author", "Description", "Copyright", "Creation Time", "Software", "Disclaimer"),
    *("Warning", "Source", "Comment"),
}


@dataclass(frozen=True)
class Metadata:
    """Metadata of an upright picture as Pillow takes it; None for what there is not.

    icc: the profile of the pixels' colour space (None: sRGB). exif: with orientation 1 and
    without thumbnail. xmp: likewise. dpi: (x, y). texts: (keyword, text) of a PNG.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()

    def sized(self, width: int, height: int) -> "Metadata":
        """The same for a picture of another size, which EXIF may state (tags A002 and A003)."""
        tags = exif_tags(self.exif)
        for tag, pixels in ((_Tag.ExifImageWidth, width), (_Tag.ExifImageHeight, height)):
            if tag in tags.get(_EXIF, {}):
                tags[_EXIF][tag] = pixels
        return replace(self, exif=_block(tags))


def read(image: Image.Image) -> tuple[Metadata, int]:
    """Metadata for the picture once it is upright, and the EXIF orientation (1…8) it has now.

    EXIF that is damaged counts as none: the photograph matters more.
    """
    try:
        exif = _block(_tags(Image.Image.getexif(image)))
    except Exception:  # Pillow raises nearly anything here
        exif = None
    metadata = Metadata(
        icc=image.info.get("icc_profile"),
        exif=exif,
        xmp=_upright_xmp(image.info.get("xmp")),
        dpi=_dpi(image.info.get("dpi")),
        texts=_texts(image),
    )
    return metadata, orientation(image)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation (Exif 2.32, tag 274) by which the samples are turned; 1 is upright."""
    try:
        value = Image.Image.getexif(image).get(_Tag.Orientation)  # PNG's own getexif() decodes it
    except Exception:  # as above
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def exif_tags(block: bytes | None) -> dict[int, Any]:
    """The tags of `Metadata.exif`, sub-directories as dicts."""
    exif = Image.Exif()
    exif.load(block or b"")
    return _tags(exif)


def _tags(exif: Image.Exif) -> dict[int, Any]:
    tags = {tag: exif[tag] for tag in exif if tag in _KEPT_TAGS}
    for directory in {_EXIF, _GPS} & set(tags):
        tags[directory] = _raw_strings(exif.get_ifd(directory))
    if _INTEROP in tags.get(_EXIF, {}):
        tags[_EXIF][_INTEROP] = _raw_strings(exif.get_ifd(_INTEROP))
    return _raw_strings({**tags, _Tag.Orientation: 1}) if tags else {}


def _raw_strings(tags: dict[int, Any]) -> dict[int, Any]:
    """Pillow reads strings as Latin-1 but writes them as ASCII; bytes stay what they are."""
    return {
        tag: value.encode("latin-1") if isinstance(value, str) and not value.isascii() else value
        for tag, value in tags.items()
    }


def _block(tags: dict[int, Any]) -> bytes | None:
    ifd = ImageFileDirectory_v2()
    for tag, value in tags.items():
        ifd[tag] = value
    header = b"Exif\0\0II*\0\x08\0\0\0"
    return header + ifd.tobytes(8) if tags else None


def _upright_xmp(xmp: object) -> bytes | None:
    if not isinstance(xmp, bytes):
        return None
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", xmp)


def _texts(image: Image.Image) -> tuple[tuple[str, str], ...]:
    texts = image.text if isinstance(image, PngImageFile) else {}
    return tuple((key, str(text)) for key, text in texts.items() if key in _KEPT_TEXTS)


def _dpi(dpi: Any) -> tuple[float, float] | None:
    """Pillow's dpi, unless it is a TIFF's default of 1 or no format could hold it."""
    if dpi is None:
        return None
    x, y = map(float, dpi)
    return (x, y) if 1 < x < 65_536 and 1 < y < 65_536 else None
