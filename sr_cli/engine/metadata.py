"""What a photograph's file says beside its pixels, and which of it stays true after upscaling."""

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

TAG = "srx"
"""The text of a PNG that says what was done; EXIF's ProcessingSoftware says it too."""
_EXIF, _GPS, _INTEROP = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop
_Tag = ExifTags.Base
# These describe the photograph; the other tags of IFD 0 say how the old file stored its pixels.
_KEPT_TAGS = {
    *(_Tag.ImageDescription, _Tag.Make, _Tag.Model, _Tag.Software, _Tag.DateTime, _Tag.Artist),
    *(_Tag.HostComputer, _Tag.Copyright, _Tag.XResolution, _Tag.YResolution, _Tag.ResolutionUnit),
    *(_Tag.Rating, _Tag.RatingPercent, _Tag.XPTitle, _Tag.XPComment, _Tag.XPAuthor),
    *(_Tag.XPKeywords, _Tag.XPSubject, _Tag.ProcessingSoftware, _EXIF, _GPS),
}
# Texts that describe the old pixels, or hold other metadata in hexadecimal.
_DROPPED_TEXTS = re.compile(r"(?i)raw profile type|exif:|png:|thumb::|xml:com.adobe.xmp|date:")
_RAW_IPTC: Final = "Raw profile type iptc"
_IPTC_RESOURCE, _IPTC_TAG = 0x0404, 33723  # of Photoshop's blocks (8BIM); of TIFF
_PLACES: tuple[int, ...] = (
    0x9214,
    _Tag.SubjectLocation,
)  # SubjectArea, which Pillow has no name for
_DENSITIES: tuple[int, ...] = (_Tag.FocalPlaneXResolution, _Tag.FocalPlaneYResolution)
_GPANO = rb"(GPano:(?:CroppedAreaImage|FullPano|CroppedArea)%sPixels\s*(?:=\s*[\"']|>))(\d{1,9})"
_SCALED_X, _SCALED_Y = _GPANO % b"(?:Width|Left)", _GPANO % b"(?:Height|Top)"
_STATED = rb"((?:%s)\s*(?:=\s*[\"']|>))\d{1,9}"
_WIDTH = _STATED % rb"tiff:ImageWidth|exif:PixelXDimension"
_HEIGHT = _STATED % rb"tiff:ImageLength|exif:PixelYDimension"
_GPS_XMP = rb"""<(exif:GPS\w+)\b[^>]*?(?:/>|>.*?</\1>)|\s+exif:GPS\w+\s*=\s*(?:"[^"]*"|'[^']*')"""


@dataclass(frozen=True)
class Metadata:
    """Metadata of an upright picture as Pillow takes it; None for what there is not.

    icc: the profile of the pixels' colour space (None: sRGB). exif: with orientation 1 and
    without thumbnail. xmp: likewise. dpi: (x, y). texts: (keyword, text) of a PNG, and a JPEG's
    comment as "Comment". iptc: IIM records. size: (width, height) of the picture that all this was
    of.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()
    iptc: bytes | None = None
    size: tuple[int, int] | None = field(default=None, compare=False)

    def sized(self, width: int, height: int) -> "Metadata":
        """The same for a picture of another size, which EXIF and XMP may state or count in."""
        tags = exif_tags(self.exif)
        wide, high = self.size or (width, height)
        x, y = width / wide, height / high
        details = tags.get(_EXIF, {})
        for tag, pixels in ((_Tag.ExifImageWidth, width), (_Tag.ExifImageHeight, height)):
            if tag in details:
                details[tag] = pixels
        for number in _PLACES:  # x and y, and then a width and perhaps a height
            if isinstance(place := details.get(number), tuple):
                details[number] = tuple(round(v * (y, x)[i % 2 == 0]) for i, v in enumerate(place))
        for number, ratio in zip(_DENSITIES, (x, y), strict=True):
            if number in details:
                details[number] = float(details[number]) * ratio
        return replace(self, exif=_block(tags), xmp=_sized_xmp(self.xmp, width, height, x, y))

    def stripped(self, what: str) -> "Metadata":
        """Without "all", but for the colour space; or without "gps", where it was taken, and what
        may tell of that in words that nobody else reads (a maker's note)."""
        if what == "all":
            return Metadata(icc=self.icc, size=self.size)
        tags = exif_tags(self.exif)
        tags.pop(_GPS, None)
        tags.get(_EXIF, {}).pop(_Tag.MakerNote, None)
        xmp = re.sub(_GPS_XMP, b"", self.xmp, flags=re.DOTALL) if self.xmp else None
        if xmp and re.search(rb"(?i)gps|latitude|longitude", xmp):
            xmp = None
        texts = tuple(t for t in self.texts if not re.search(r"(?i)gps|latitude|location", t[0]))
        return replace(self, exif=_block(tags), xmp=xmp, texts=texts)

    def tagged(self, text: str) -> "Metadata":
        """With a word on what was done: EXIF's ProcessingSoftware, whose type is ASCII (what is not
        becomes a question mark), and a text of PNG."""
        tags = exif_tags(self.exif) | {_Tag.ProcessingSoftware: text}
        texts = tuple(entry for entry in self.texts if entry[0] != TAG)
        return replace(self, exif=_block(tags), texts=(*texts, (TAG, text)))


def read(image: Image.Image) -> tuple[Metadata, int]:
    """Metadata for the picture once it is upright, and the EXIF orientation (1…8) it has now.

    What is damaged counts as absent: the photograph matters more.
    """
    exif = xmp = dpi = iptc = None
    texts: tuple[tuple[str, str], ...] = ()
    turn = orientation(image)
    with suppress(Exception):  # Pillow raises nearly anything here
        exif = _block(_tags(Image.Image.getexif(image), turned=turn != 1))
        exif_tags(exif)
    with suppress(Exception):
        xmp = _upright_xmp(image.info.get("xmp"))
    with suppress(Exception):
        dpi = _dpi(image.info.get("dpi"))
    with suppress(Exception):
        texts = _texts(image)
    with suppress(Exception):
        iptc = _iptc(image)
    icc = image.info.get("icc_profile")
    size = image.size if turn < 5 or image.format == "TIFF" else image.size[::-1]
    return Metadata(icc, exif, xmp, dpi, texts, iptc, size), turn


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


def of_tiff(path: Path) -> bytes | None:
    """The EXIF of a TIFF that Pillow knows no pixels of, as `Metadata` has it."""
    with suppress(Exception), path.open("rb") as file:
        exif = Image.Exif()
        exif.load_from_fp(file)
        return _block(_tags(exif))
    return None


def _tags(exif: Image.Exif, *, turned: bool = False) -> dict[int, Any]:
    tags = {tag: exif[tag] for tag in exif if tag in _KEPT_TAGS}
    for directory in {_EXIF, _GPS} & set(tags):
        tags[directory] = _raw_strings(exif.get_ifd(directory))
    if turned:  # these count in the pixels as they were stored
        for tag in (*_PLACES, *_DENSITIES):
            tags.get(_EXIF, {}).pop(tag, None)
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


def _sized_xmp(xmp: bytes | None, width: int, height: int, x: float, y: float) -> bytes | None:
    if xmp is None:
        return None

    def scaled(ratio: float) -> Any:
        return lambda found: found[1] + str(round(int(found[2]) * ratio)).encode()

    xmp = re.sub(_SCALED_X, scaled(x), xmp)
    xmp = re.sub(_SCALED_Y, scaled(y), xmp)
    xmp = re.sub(_WIDTH, rb"\g<1>%d" % width, xmp)
    return re.sub(_HEIGHT, rb"\g<1>%d" % height, xmp)


def _texts(image: Image.Image) -> tuple[tuple[str, str], ...]:
    if isinstance(image, PngImageFile):
        texts = [(key, str(text)) for key, text in image.text.items()]
        return tuple(text for text in texts if not _DROPPED_TEXTS.match(text[0]))
    comment = image.info.get("comment")
    if not isinstance(comment, bytes) or not comment:
        return ()
    try:
        text = comment.decode()
    except UnicodeDecodeError:
        text = comment.decode("latin-1")
    return (("Comment", text.rstrip("\0")),)


def _iptc(image: Image.Image) -> bytes | None:
    """IIM records out of a JPEG's Photoshop block, a TIFF's tag or a PNG's raw profile."""
    found = image.info.get("photoshop", {}).get(_IPTC_RESOURCE)
    if isinstance(image, PngImageFile) and _RAW_IPTC in image.text:
        words = str(image.text[_RAW_IPTC]).split()
        found = bytes.fromhex("".join(words[2:]))
        if found[:6] == b"8BIM" + _IPTC_RESOURCE.to_bytes(2, "big"):
            found = found[12:]
    elif isinstance(image, TiffImageFile):
        found = image.tag_v2.get(_IPTC_TAG)
    return found if isinstance(found, bytes) and found[:1] == b"\x1c" else None


def iptc_block(iptc: bytes) -> bytes:
    """The records as a Photoshop resource, which JPEG and PNG hold."""
    head = b"8BIM" + _IPTC_RESOURCE.to_bytes(2, "big") + b"\0\0" + len(iptc).to_bytes(4, "big")
    return head + iptc + b"\0" * (len(iptc) % 2)


def raw_iptc(iptc: bytes) -> tuple[str, str]:
    """Keyword and text of a PNG, in the layout of ImageMagick and ExifTool."""
    block = iptc_block(iptc)
    digits = block.hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return _RAW_IPTC, f"\niptc\n{len(block):8}\n{lines}\n"


def _dpi(dpi: Any) -> tuple[float, float] | None:
    """Pillow's dpi, unless it is a TIFF's default of 1 or no format could hold it."""
    if dpi is None:
        return None
    x, y = map(float, dpi)  # NaN compares as neither
    return (x, y) if 1 < x < 65_536 and 1 < y < 65_536 else None
