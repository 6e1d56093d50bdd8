"""The output formats: their names, what each can hold, and how samples become a file."""

import math
from pathlib import Path
from typing import IO, Any, Final

import numpy.typing as npt
from PIL import Image, PngImagePlugin

from sr_cli.engine.metadata import TAG, Metadata, exif_tags, iptc_block, raw_iptc
from sr_cli.engine.png import MAX_SIDE_DATA
from sr_cli.engine.profiles import to_srgb
from sr_cli.engine.writers import BY_ROWS, PngWriter, Samples, Shape, TiffWriter, Writer
from sr_cli.errors import InputError, UsageError

#: Formats that can be written, and the extension each gets.
FORMATS: Final = {
    "png": ".png",
    "jpeg": ".jpg",
    "webp": ".webp",
    "tiff": ".tiff",
    "avif": ".avif",
}

_MAX_SIDE = {"jpeg": 65_500, "webp": 16_383, "avif": 32_768, "png": 1_000_000}
"""Of libjpeg, libwebp and libavif; and what readers by libpng take."""
_MAX_JPEG_BLOCK = 65_504  # bytes of XMP or EXIF in a JPEG segment


def format_of(name: str | Path) -> str:
    """The output format of a path ("a.jpg"), an extension (".jpg") or a name ("jpg", "jpeg").

    Raises UsageError where it is none of FORMATS, or one that this Pillow was built without.
    """
    extension = "." + str(name).rpartition(".")[2].lower()
    found = Image.registered_extensions().get(extension, "").lower()
    if found not in FORMATS:
        raise UsageError(
            f"{name} names no format that can be written; use one of {', '.join(FORMATS.values())}."
        )
    return found


def check_size(width: int, height: int, format: str) -> None:  # noqa: A002
    """Raise InputError if the format cannot hold so large a picture; ask before computing it."""
    limit = _MAX_SIDE.get(format, math.inf)
    if max(width, height) > limit:
        raise InputError(
            f"{width}×{height} pixels are too many for {format.upper()}, whose sides end at "
            f"{limit}; write {'' if format == 'png' else 'PNG or '}TIFF instead."
        )


def encode(
    samples: Samples,
    metadata: Metadata,
    file: IO[bytes],
    format: str,  # noqa: A002
    quality: int,
) -> None:
    """Write samples (H, W), (H, W, 2), (H, W, 3) or (H, W, 4): grey, +alpha, RGB, +alpha.

    uint8, or uint16 for PNG and TIFF; but not grey + alpha as TIFF, which hardly anything reads in
    16 bits. quality: 1…100, for JPEG, WebP and AVIF; 100 is lossless for WebP.
    """
    if format in BY_ROWS:
        channels = 1 if samples.ndim == 2 else samples.shape[2]
        shape = samples.shape[0], samples.shape[1], channels
        rows = writer(shape, samples.dtype, metadata, file, format)
        rows.write(samples)
        rows.close()
    else:
        image = Image.fromarray(samples)
        options: dict[str, Any] = {"quality": quality, **_pillow_options(metadata, format)}
        if image.mode in ("L", "LA") and metadata.icc and format in ("webp", "avif"):
            image = _ungrayed(image, options.pop("icc_profile"))
        if quality >= 90 and image.mode in ("RGB", "RGBA") and format in ("jpeg", "avif"):
            options["subsampling"] = "4:4:4"
        if format == "webp" and quality == 100:
            options |= {"lossless": True, "exact": True}
        image.save(file, format, **options)


def unheld(metadata: Metadata, format: str) -> list[str]:  # noqa: A002
    """What a format has no room for, a phrase each."""
    long = _too_long(format)
    blocks = {"EXIF": metadata.exif, "XMP": metadata.xmp, "IPTC": metadata.iptc}
    blocks["the colour profile"] = metadata.icc if format == "png" else None
    lost = [name for name, block in blocks.items() if block and len(block) > long]
    if metadata.iptc and format in ("webp", "avif"):
        lost.append("IPTC")
    texts = [entry for entry in metadata.texts if entry[0] != TAG]  # which EXIF has too
    held = {"png": len(texts), "jpeg": len(_comment(metadata.texts))}
    said = [f"{name} has no room in {format.upper()} and was left out" for name in lost]
    if held.get(format, 0) < len(texts) or any(len(text) > long for _, text in texts):
        said.append(f"texts have no room in {format.upper()} and were left out")
    return said


def _too_long(format: str) -> float:  # noqa: A002
    return {"jpeg": _MAX_JPEG_BLOCK, "png": MAX_SIDE_DATA}.get(format, math.inf)


def _comment(texts: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(entry for entry in texts if entry[0] == "Comment")[:1]


def _pillow_options(metadata: Metadata, format: str) -> dict[str, Any]:  # noqa: A002
    """The metadata as arguments of Image.save, without what is too long for the format, or for what
    reads it: a text or profile of over a megabyte makes Pillow refuse a PNG."""
    longest = _too_long(format)
    options: dict[str, Any] = {"icc_profile": metadata.icc, "dpi": metadata.dpi}
    if format == "png" and len(metadata.icc or b"") > longest:
        del options["icc_profile"]
    if metadata.exif and len(metadata.exif) <= longest:
        options["exif"] = metadata.exif
    xmp = metadata.xmp if metadata.xmp and len(metadata.xmp) <= longest else None
    iptc = metadata.iptc if metadata.iptc and len(metadata.iptc) <= longest else None
    if format == "png":
        options["pnginfo"] = _png_texts(metadata, xmp, iptc)
        return {name: value for name, value in options.items() if value}
    options["xmp"] = xmp
    if format == "jpeg":
        for _, text in _comment(metadata.texts):
            options["comment"] = text.encode()[:_MAX_JPEG_BLOCK]
        if iptc:
            body = b"Photoshop 3.0\0" + iptc_block(iptc)
            options["extra"] = b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body
    return {name: value for name, value in options.items() if value}


def _png_texts(metadata: Metadata, xmp: bytes | None, iptc: bytes | None) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for keyword, text in metadata.texts:
        if len(text.encode(errors="replace")) <= MAX_SIDE_DATA:
            info.add_text(keyword, text)
    if iptc:
        info.add_text(*raw_iptc(iptc), zip=True)
    if xmp:
        info.add_itxt("XML:com.adobe.xmp", xmp)
    return info


def _ungrayed(image: Image.Image, icc: bytes) -> Image.Image:
    """A grey image with its profile as sRGB, for formats that may store grey as colours."""
    rgb = to_srgb(image.getchannel("L"), icc)
    if image.mode == "LA":
        rgb.putalpha(image.getchannel("A"))
    return rgb


def writer(
    shape: Shape,
    dtype: npt.DTypeLike,
    metadata: Metadata,
    file: IO[bytes],
    format: str,  # noqa: A002
) -> Writer:
    """What writes a PNG or TIFF of samples (H, W, C) row by row, its beginning written.

    The metadata of a PNG are in the chunks that Pillow makes, which has no 16-bit colour and is
    slow. Raises what libraries do where they cannot be written.
    """
    if format == "tiff":
        return TiffWriter(file, shape, dtype, _tiff_metadata(metadata))
    chunks = PngImagePlugin.getchunks(Image.new("L", (1, 1)), **_pillow_options(metadata, "png"))
    kept = [(name, body) for name, body, _ in chunks if name not in (b"IHDR", b"IDAT", b"IEND")]
    return PngWriter(file, shape, dtype, kept)


def _tiff_metadata(metadata: Metadata) -> dict[int, Any]:
    tags = exif_tags(metadata.exif)
    if metadata.dpi:
        tags |= {282: metadata.dpi[0], 283: metadata.dpi[1], 296: 2}
    if metadata.icc:
        tags[34675] = metadata.icc
    if metadata.xmp:
        tags[700] = metadata.xmp
    if metadata.iptc:
        tags[33723] = metadata.iptc
    return tags
