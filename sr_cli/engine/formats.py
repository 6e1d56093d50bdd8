"""The output formats: their names, what each can hold, and how samples become a file."""

import io
import math
import zlib
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from sr_cli.engine.metadata import Metadata, exif_tags
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

    uint8, or uint16 for PNG and TIFF but for grey + alpha, which hardly anything reads in 16 bits.
    quality: 1…100, for JPEG, WebP and AVIF.
    """
    if format == "tiff":
        _write_tiff(samples, metadata, file)
    elif samples.dtype == np.uint16:
        _write_png16(samples, metadata, file)
    else:
        image = Image.fromarray(samples)
        options: dict[str, Any] = {"quality": quality, **_pillow_options(metadata, format)}
        if image.mode in ("L", "LA") and metadata.icc and format in ("webp", "avif"):
            image = _ungrayed(image, options.pop("icc_profile"))
        if quality >= 90 and image.mode in ("RGB", "RGBA") and format in ("jpeg", "avif"):
            options["subsampling"] = "4:4:4"
        if format == "png":  # photographs: a fifth of the default's time, and smaller files
            options["compress_type"] = zlib.Z_RLE
        image.save(file, format, **options)


def _pillow_options(metadata: Metadata, format: str) -> dict[str, Any]:  # noqa: A002
    """The metadata as arguments of Image.save, without what is too long for a JPEG segment."""
    longest = _MAX_JPEG_BLOCK if format == "jpeg" else math.inf
    options: dict[str, Any] = {"icc_profile": metadata.icc, "dpi": metadata.dpi}
    if metadata.exif and len(metadata.exif) <= longest:
        options["exif"] = metadata.exif
    if format == "png":
        info = options["pnginfo"] = PngImagePlugin.PngInfo()
        for keyword, text in metadata.texts:
            info.add_text(keyword, text)
        if metadata.xmp:
            info.add_itxt("XML:com.adobe.xmp", metadata.xmp)
    elif metadata.xmp and len(metadata.xmp) <= longest:
        options["xmp"] = metadata.xmp
    return {name: value for name, value in options.items() if value}


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """8-bit RGB of an image in the colour space of an ICC profile, relative colorimetric."""
    srgb = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert srgb is not None  # None comes only of a conversion in place
    srgb.info.pop("icc_profile", None)
    return srgb


def _ungrayed(image: Image.Image, icc: bytes) -> Image.Image:
    """A grey image with its profile as sRGB, for formats that may store grey as colours."""
    rgb = to_srgb(image.getchannel("L"), icc)
    if image.mode == "LA":
        rgb.putalpha(image.getchannel("A"))
    return rgb


def _write_png16(samples: Samples, metadata: Metadata, file: IO[bytes]) -> None:
    """Pixels by OpenCV, as Pillow has no 16-bit colour; metadata in the chunks Pillow makes."""
    if samples.ndim == 3:
        samples = samples[..., [2, 1, 0, 3][: samples.shape[2]]]
    done, encoded = cv2.imencode(".png", samples)
    if not done:
        raise ValueError("OpenCV does not encode it")
    png, header = encoded.tobytes(), 8 + 25  # the signature and IHDR
    chunks = PngImagePlugin.getchunks(Image.new("L", (1, 1)), **_pillow_options(metadata, "png"))
    file.write(png[:header])
    for name, data, crc in chunks:
        if name not in (b"IHDR", b"IDAT", b"IEND"):
            file.write(len(data).to_bytes(4, "big") + name + data + crc)
    file.write(png[header:])


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
    return tags
