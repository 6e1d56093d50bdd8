"""Colour fixes: give a result the colours of the low-resolution picture it was made from.

Both are those of the released DoSSR code, which took them from StableSR (Wang et al.,
*Exploiting Diffusion Prior for Real-World Image Super-Resolution*, 2023, §3.4).
Images are float tensors (N, C, H, W) or (C, H, W) in [0, 1]; results may leave [0, 1] a little.
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from sr_cli.engine.between import extended
from sr_cli.errors import UsageError

WAVELET_LEVELS: Final = 5
#: A pixel of the wavelet fix depends on the pixels at most this far from it, so tiles with this
#: margin give what the whole image gives.
WAVELET_MARGIN: Final = sum(2**level for level in range(WAVELET_LEVELS))
COLOR_TILE: Final = 512
#: Pixels: what the wavelet fix works on stays in a processor's cache, or fits any GPU.


def _blur(x: Tensor, radius: int, dim: int) -> Tensor:
    """Convolve with [1, 2, 1] / 4 along a side, the taps `radius` pixels apart."""
    if radius == 0:
        return x
    wider = extended(x, radius, dim)
    before, after = (wider.narrow(dim, start, x.shape[dim]) for start in (0, 2 * radius))
    return (before + after).add_(x, alpha=2).div_(4)


def radii(factor: float) -> list[int]:
    """Of the wavelet's levels, in whole cells of which one is `factor` output pixels."""
    return [round(2**level / factor) for level in range(WAVELET_LEVELS)]


def low_frequencies(x: Tensor, scale: Sequence[float] = (1, 1)) -> Tensor:
    """What the wavelet fix takes for the low frequencies of an image.

    scale: output pixels in each of x's, down and right. Radii are rounded to whole pixels of x;
    scales finer than these are left to whatever made x of the output.
    """
    for both in zip(*map(radii, scale), strict=True):
        for dim, radius in zip((-2, -1), both, strict=True):
            x = _blur(x, radius, dim)
    return x


def wavelet_color_fix(content: Tensor, style: Tensor) -> Tensor:
    """Detail of `content` on the low frequencies of `style` (same shape).

    The released code splits both images, content = high + low, and adds content's high to
    style's low. The split is linear, so that is content + low(style − content).
    """
    return content + low_frequencies(style - content)


def adain_color_fix(content: Tensor, style: Tensor) -> Tensor:
    """`content` with the mean and standard deviation of `style`, channel by channel.

    The statistics are of the whole image: unlike the wavelet fix this cannot work on tiles.
    """

    def mean_std(x: Tensor) -> tuple[Tensor, Tensor]:
        pixels = x.shape[-2] * x.shape[-1]
        var, mean = torch.var_mean(x, dim=(-2, -1), correction=min(1, pixels - 1), keepdim=True)
        return mean, (var + 1e-5).sqrt()

    content_mean, content_std = mean_std(content)
    style_mean, style_std = mean_std(style)
    return (content - content_mean) / content_std * style_std + style_mean


def no_color_fix(content: Tensor, style: Tensor) -> Tensor:
    """`content` as it is."""
    del style
    return content


COLOR_FIXES: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "wavelet": wavelet_color_fix,
    "adain": adain_color_fix,
    "none": no_color_fix,
}


def color_fix(name: str, content: Tensor, style: Tensor) -> Tensor:
    """Apply the colour fix of that name; UsageError where there is none."""
    if name not in COLOR_FIXES:
        raise UsageError(f"There is no colour fix {name!r}; choose from {', '.join(COLOR_FIXES)}.")
    return COLOR_FIXES[name](content, style)
