"""SamplerName JPEG (4:2:0) as libjpeg computes it, on any device and for a whole batch at once.

What is lossy is computed, rounding by rounding: colours, chroma at half the size, 8×8 cosine
transforms, quantisation, and the way back with libjpeg's triangle filter for chroma. Entropy coding
loses nothing and is left out. Decoded pixels differ from libjpeg's by a rounding here and there,
since its transforms are in whole numbers: by 0.1 to 0.5 levels on average, at any quality.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMA = np.full((8, 8), 99)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
"""Steps of quantisation at quality 50 (ITU-T T.81, Annex K)."""


def compressed(image: Tensor, quality: NDArray[np.int64]) -> Tensor:
    """What a decoder makes of the images' JPEG files, each of its own quality.

    image: (N, 3, H, W) float32 in [0, 1], rounded to 8 bit first; the result is of that shape, in
    [0, 1] and of 8 bit. quality: (N,), 1 to 100, as libjpeg means it.
    """
    height, width = image.shape[-2:]
    levels = (image.clamp(0, 1) * 255).round()
    full = F.pad(levels, (0, -width % 16, 0, -height % 16), mode="replicate")
    red, green, blue = full.unbind(1)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).round()
    blueness = (-0.168735892 * red - 0.331264108 * green + 0.5 * blue).round()
    redness = (0.5 * red - 0.418687589 * green - 0.081312411 * blue).round()
    bias = torch.arange(full.shape[-1] // 2, device=image.device) % 2 / 4 - 0.25
    half = (F.avg_pool2d(torch.stack((blueness, redness), 1), 2) + bias).round()

    luma = _quantised(luma[:, None] - 128, steps(LUMA, quality)) + 128
    chroma = _quantised(half, steps(CHROMA, quality))
    rows, columns = -(-height // 2), -(-width // 2)  # libjpeg enlarges nothing of the padding
    chroma = F.interpolate(chroma[..., :rows, :columns], scale_factor=2, mode="bilinear").round()

    blueness, redness = chroma[..., :height, :width].unbind(1)
    luma = luma[:, 0, :height, :width]
    rgb = (
        luma + 1.402 * redness,
        luma - 0.344136286 * blueness - 0.714136286 * redness,
        luma + 1.772 * blueness,
    )
    return torch.stack(rgb, 1).round().clamp(0, 255) / 255


def steps(table: NDArray[np.int64], quality: NDArray[np.int64]) -> NDArray[np.int64]:
    """A table of quality 50 as libjpeg scales it for each quality: (N, 8, 8), 1 to 255."""
    scale = np.where(quality < 50, 5000 // np.maximum(quality, 1), 200 - 2 * quality)
    return np.asarray((table * scale[:, None, None] + 50) // 100).clip(1, 255)


def _quantised(planes: Tensor, table: NDArray[np.int64]) -> Tensor:
    """(N, C, H, W) in −128…127, sides multiples of 8, through the transform and back, rounded."""
    count, channels, height, width = planes.shape
    step = torch.from_numpy(table.astype(np.float32)).to(planes.device)[:, None, None, None]
    cosines = _cosines().to(planes.device)
    blocks = planes.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    found = ((cosines @ blocks @ cosines.T) * 8).round() / 8  # libjpeg's has three bits more
    kept = found.sign() * (found.abs() / step + 0.5).floor() * step
    decoded = (cosines.T @ kept @ cosines).round().clamp(-128, 127)
    return decoded.transpose(3, 4).reshape(planes.shape)


def _cosines() -> Tensor:
    """The orthonormal cosine transform of length 8: (frequency, place)."""
    index = torch.arange(8, dtype=torch.float64)
    rows = torch.cos((2 * index[None] + 1) * index[:, None] * math.pi / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows.float()
