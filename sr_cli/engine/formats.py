"""The output formats: their names, what each can hold, and how samples become a file."""

import math
import zlib
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, TiffImagePlugin

from sr_cli.engine import png_pixels
from sr_cli.engine.metadata import Metadata, exif_tags, iptc_block, raw_iptc
from sr_cli.engine.png import MAX_SIDE_DATA, SIGNATURE
from sr_cli.engine.profiles import to_srgb
from sr_cli.errors import InputError, UsageError

#: Formats that can be written, and the extension each gets.
FORMATS: Final = {
    "png": ".png",
    "jpeg": ".jpg",
    "webp": ".webp",
    "tiff": ".tiff",
    "avif": ".avif",
}

_MAX_SIDE = {"jpeg": 65_500, "webp": 16_383, "avif": 32_768}  # of libjpeg, libwebp, libavif
_MAX_JPEG_BLOCK = 65_504  # bytes of XMP or EXIF in a JPEG segment
_STRIP_BYTES = 1 << 18  # of a TIFF, before compression

Samples = npt.NDArray[np.uint8 | np.uint16]


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
            f"{limit}; write PNG or TIFF instead."
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
    if format == "tiff":
        _write_tiff(samples, metadata, file)
    elif format == "png":
        _write_png(samples, metadata, file)
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
    held = {"png": len(metadata.texts), "jpeg": len(_comment(metadata.texts))}
    if held.get(format, 0) < len(metadata.texts):
        lost.append("texts")
    if any(len(text) > long for _, text in metadata.texts) and "texts" not in lost:
        lost.append("texts")
    return [f"{name} has no room in {format.upper()} and was left out" for name in lost]


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


def _write_png(samples: Samples, metadata: Metadata, file: IO[bytes]) -> None:
    """Metadata are in the chunks that Pillow makes, which has no 16-bit colour and is slow."""
    height, width, channels = samples.reshape(*samples.shape[:2], -1).shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    kind = bytes([8 * samples.itemsize, colour, 0, 0, 0])
    file.write(SIGNATURE + _chunk(b"IHDR", head + kind))
    chunks = PngImagePlugin.getchunks(Image.new("L", (1, 1)), **_pillow_options(metadata, "png"))
    for name, data, _ in chunks:
        if name not in (b"IHDR", b"IDAT", b"IEND"):
            file.write(_chunk(name, data))
    for data in png_pixels.stream(samples):
        file.write(_chunk(b"IDAT", data))
    file.write(_chunk(b"IEND", b""))


def _chunk(name: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(name + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + name + data + crc


def _write_tiff(samples: Samples, metadata: Metadata, file: IO[bytes]) -> None:
    """A little-endian TIFF, deflated with the horizontal predictor (TIFF 6.0, §14).

    Pillow writes neither 16-bit colour nor, compressed, the EXIF directory; OpenCV no metadata.
    """
    height, width, channels = samples.reshape(*samples.shape[:2], -1).shape
    bits = samples.itemsize * 8
    rows = max(1, _STRIP_BYTES // samples[0].nbytes)
    strips = [_strip(samples[top : top + rows]) for top in range(0, height, rows)]
    tags: dict[int, Any] = {
        **_tiff_metadata(metadata),
        256: width, 257: height, 258: (bits,) * channels, 277: channels,
        259: 8, 317: 2,  # Adobe deflate, horizontal differencing
        262: 2 if channels >= 3 else 1,  # RGB or black is zero
        278: rows,
        273: tuple(accumulate(map(len, strips[:-1]), initial=0)),  # save() adds the start
        279: tuple(map(len, strips)),
    }  # fmt: skip
    if channels in (2, 4):
        tags[338] = 2  # alpha, not premultiplied
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        ifd[tag] = value
    ifd.save(file)
    file.writelines(strips)


def _strip(samples: Samples) -> bytes:
    differences = samples.copy()
    differences[:, 1:] -= samples[:, :-1]
    return zlib.compress(differences.astype(samples.dtype.newbyteorder("<")).tobytes())


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
