"""LPIPS on VGG16, to train with; what results are measured with is LPIPS on AlexNet.

Zhang et al. 2018: features after five blocks of VGG16, each of unit length over its channels, their
squared differences weighted by learned heads and averaged over places.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.training import vgg

BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions before each tap; between blocks the size is halved."""
SHIFT = 8
"""Pixels by which the compared window moves at most."""
LEAST = 32
"""Least side of a crop: its window has to outlast four halvings."""
_MEAN, _DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """LPIPS on VGG16 with the weights of `vgg.read`; raises ModelError without them.

    Images are (N, 3, H, W) in [−1, 1], of 16 pixels or more.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        weights = vgg.read()
        self.convolutions = nn.ModuleList()
        for number in vgg.CONVOLUTIONS:
            weight, bias = (weights[f"features.{number}.{part}"] for part in ("weight", "bias"))
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.weight.data, layer.bias.data = weight, bias  # type: ignore[union-attr]
            self.convolutions.append(layer)
        for index in range(vgg.HEADS):
            self.register_buffer(f"head{index}", weights[f"lin{index}.weight"])
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None])
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def features(self, image: Tensor) -> list[Tensor]:
        """Of every tap: (N, C, h, w) float32, of unit length over C."""
        x, taps = (image - self.mean) / self.deviation, []
        layers = iter(self.convolutions)
        for block, convolutions in enumerate(BLOCKS):
            x = F.max_pool2d(x, 2) if block else x
            for _ in range(convolutions):
                x = F.relu(next(layers)(x))
            full = x.float()
            taps.append(full * (full.square().sum(1, keepdim=True) + 1e-10).rsqrt())
        return taps

    def forward(self, image: Tensor, truth: Sequence[Tensor]) -> Tensor:
        """The distance of each image, (N,), from the one whose features are given."""
        total = torch.zeros(len(image), device=image.device)
        for index, (found, wanted) in enumerate(zip(self.features(image), truth, strict=True)):
            head: Tensor = self.get_buffer(f"head{index}")
            total = total + ((found - wanted).square() * head).sum(1).mean((1, 2))
        return total


def window(image: Tensor, offset: tuple[int, int]) -> Tensor:
    """The image without SHIFT of its rows and columns, of which `offset` are taken before it.

    So the grids on which VGG16 pools do not always meet the cells of the network in training,
    which otherwise learns a faint grid of their size.
    """
    (top, left), (height, width) = offset, image.shape[-2:]
    return image[..., top : top + height - SHIFT, left : left + width - SHIFT]


def any_offset(numbers: np.random.Generator) -> tuple[int, int]:
    """Of a window: 0 to SHIFT pixels each way."""
    top, left = numbers.integers(0, SHIFT + 1, 2)
    return int(top), int(left)
