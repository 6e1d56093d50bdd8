"""Pictures of every kind through a network that knows colours alone: arrays, alpha, greys."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sr_cli.engine import metadata
from sr_cli.engine.arrays import FLOATS, Form, to_rgb, to_tensor
from sr_cli.engine.images import Filed, Picture, bits_of, filed
from sr_cli.engine.samples import fitting, samples_of, upright
from sr_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

AnyImage = TypeVar("AnyImage", Picture, Image.Image, NDArray[Any])
"""What is enlarged into one of its own kind."""
AnyPicture = TypeVar("AnyPicture", "Tensor", Picture, Image.Image, NDArray[Any])
"""What an `Upscaler` takes, and gives back larger."""

Integers = NDArray[np.uint8 | np.uint16]
_WHITE: Final = {"uint8": 255, "uint16": 65_535, "float32": 1, "float64": 1}


def as_picture(image: Picture | Image.Image | NDArray[Any]) -> Picture:
    """A picture of what a user has in memory.

    A Pillow image is turned upright by its EXIF orientation and keeps its metadata. An array is
    (H, W), (H, W, 1) grey, (H, W, 2) grey with alpha, (H, W, 3) RGB or (H, W, 4) RGB with alpha:
    uint8, uint16, or float32 or float64 in [0, 1].

    Raises UsageError for arrays of any other shape, dtype or range, and for anything else.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, Image.Image):
        return _of_pillow(image)
    if not isinstance(image, np.ndarray):
        raise UsageError(
            "A picture must be what load gives of a file, a Pillow image or an array, not "
            f"{type(image).__name__}."
        )
    kind = str(image.dtype)
    shape = image.shape if image.ndim != 2 else (*image.shape, 1)
    if len(shape) != 3 or shape[2] not in (1, 2, 3, 4) or 0 in shape:
        raise UsageError(f"An array must be (H, W) or (H, W, 1 to 4), not {image.shape}.")
    if kind not in _WHITE:
        raise UsageError(f"An array must hold {', '.join(_WHITE)}, not {kind}.")
    samples = np.divide(image.reshape(shape), _WHITE[kind], dtype=np.float32)
    if not (samples.min() >= 0 and samples.max() <= 1):  # NaN too
        raise UsageError(f"An array of {kind} must lie in [0, 1].")
    return Picture.of_samples(samples, 8 if kind == "uint8" else 16)


def alike(picture: Picture, model: AnyImage) -> AnyImage:
    """The picture as what `model` is: a Picture, a Pillow image, or an array of its dtype.

    A Pillow image has 8 bits a sample, 16 in grey ("I;16") where the model has more than 8.
    """
    if isinstance(model, Picture):
        return picture
    if isinstance(model, Image.Image):
        return _to_pillow(picture, deep=model.mode[0] in "IF")
    samples = picture.samples
    if model.ndim == 2:
        samples = samples[..., 0]
    white = _WHITE[str(model.dtype)]
    samples = samples if white == 1 else np.rint(np.clip(samples, 0, 1) * white)
    return samples.astype(model.dtype)


def _of_pillow(image: Image.Image) -> Picture:
    info, turn = metadata.read(image)
    notes: list[str] = []
    if image.mode[0] in "IF":
        white = 1 if image.mode == "F" else 65_535
        samples = np.divide(np.asarray(image), white, dtype=np.float32)[..., None]
        if not (samples.min() >= 0 and samples.max() <= 1):
            raise UsageError(f"A Pillow image of mode {image.mode} must lie in 0 to {white}.")
        depth = 16
    else:
        samples, depth, info = samples_of(image, info, notes)
    found = Picture.of_samples(np.ascontiguousarray(upright(samples, turn)), depth)
    info = replace(info, icc=fitting(info.icc, found.gray, notes))
    return replace(found, metadata=info, notes=tuple(notes))


def _to_pillow(picture: Picture, *, deep: bool) -> Image.Image:
    samples = np.clip(picture.samples, 0, 1)
    wide = deep and picture.gray and picture.alpha is None
    white, dtype = (65_535, np.uint16) if wide else (255, np.uint8)
    levels = np.rint(samples * white).astype(dtype)
    image = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    held = picture.metadata.sized(*picture.size)
    known = {"icc_profile": held.icc, "exif": held.exif, "xmp": held.xmp, "dpi": held.dpi}
    image.info.update({name: value for name, value in known.items() if value})
    return image


def colors(picture: Picture) -> Tensor:
    """Its colours, (3, H, W) float32; where nothing is seen of them, those of the nearest seen."""
    rgb, alpha = picture.rgb, picture.alpha
    if alpha is not None and 0 in alpha and alpha.any():
        rgb = _nearest_seen(rgb, alpha > 0)
    return to_tensor(rgb)


def recolored(picture: Picture, hr: Tensor) -> Picture:
    """The picture with the colours `hr`, (3, H', W'), and its alpha by bicubic interpolation.

    Greys in three channels stay neutral to the last bit, which the guard keeps up to rounding.
    """
    rgb = to_rgb(hr)
    if not picture.gray and neutral(picture.rgb):
        rgb = greys(rgb)
    alpha = picture.alpha
    if alpha is not None:
        alpha = _resized(alpha, (rgb.shape[1], rgb.shape[0]))
    return replace(picture, rgb=rgb, alpha=alpha)


def form_of(picture: Picture, format: str, *, grey: bool | None = None) -> Form:  # noqa: A002
    """What the engine gives of a picture's colours for a file of this format.

    grey: whether all colours are greys, where that is known already; these become one channel.
    Floats where transparency becomes white before anything is rounded.
    """
    if format == "jpeg" and picture.alpha is not None:
        return FLOATS
    grey = neutral(picture.rgb) if grey is None else grey
    return Form(bits_of(picture, format), grey=picture.gray or grey)


def enlarged(picture: Picture, format: str, hr: Tensor) -> Filed:  # noqa: A002
    """The picture with the colours `hr`, of `form_of` it, for a file of this format.

    They become floats on the way only where they are.
    """
    if hr.is_floating_point():
        return filed(recolored(picture, hr), format)
    size = hr.shape[2], hr.shape[1]
    alpha = None if picture.alpha is None else _resized(picture.alpha, size)
    samples = merged(hr.numpy(), alpha, gray=picture.gray)
    return Filed(samples, picture.metadata.sized(*size), format)


def merged(planes: Integers, alpha: NDArray[np.float32] | None, *, gray: bool) -> Integers:
    """(H, W, C) or, of one channel, (H, W): levels of colours, (1 or 3, H, W), with an alpha,
    (H, W) in [0, 1]; gray: one channel stays one."""
    each = list(planes)
    if len(each) == 1 and not gray:
        each *= 3
    if alpha is not None:
        each.append(np.rint(alpha * np.iinfo(planes.dtype).max).astype(planes.dtype))
    levels: Integers = each[0] if len(each) == 1 else cv2.merge(each)
    return levels


def greys(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the three channels, in each of them."""
    return np.repeat(rgb.mean(axis=2, keepdims=True, dtype=np.float32), 3, axis=2)


def _nearest_seen(rgb: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The colours without those that `seen` (H, W) hides, which would bleed into visible edges."""
    hidden = (~seen).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(
        hidden, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colors = np.zeros((nearest.max() + 1, 3), np.float32)
    colors[nearest[seen]] = rgb[seen]
    filled: NDArray[np.float32] = colors[nearest]
    return filled


def neutral(rgb: NDArray[np.float32]) -> bool:
    """Whether it is grey everywhere."""
    return all(np.array_equal(rgb[..., 0], rgb[..., channel]) for channel in (1, 2))


def _resized(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    larger = Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(larger, dtype=np.float32), 0, 1)
