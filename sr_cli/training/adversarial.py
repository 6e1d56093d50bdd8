"""A discriminator that looks at every pixel: Real-ESRGAN's U-Net with spectral norm, which is shown
what an image was made of too.

Wang et al. 2021, §3.4; conditional as in Isola et al., *Image-to-Image Translation with Conditional
Adversarial Networks*, CVPR 2017, so that an outline is judged by where it ought to be. Its losses
are the non-saturating ones, log(1 + e^−x).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """Images and their sources, both (N, 3, H, W) in [−1, 1] → a logit a pixel, (N, 1, H, W): large
    where an image looks real, and like one of this source.

    H, W: multiples of 8. It never changes by being asked: the spectral norms go on in `renew`.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False)
            return spectral_norm(layer)

        self.head = nn.Conv2d(6, width, 3, padding=1)
        self.down = nn.ModuleList(
            convolution(width << level, width << level + 1, kernel=4, stride=2)
            for level in range(3)
        )
        self.up = nn.ModuleList(
            convolution(width << level + 1, width << level) for level in reversed(range(3))
        )
        self.last = nn.ModuleList(convolution(width, width) for _ in range(2))
        self.tail = nn.Conv2d(width, 1, 3, padding=1)
        self.eval()

    def forward(self, image: Tensor, source: Tensor) -> Tensor:
        x, skips = _bent(self.head(torch.cat((image, source), dim=1))), []
        for down in self.down:
            skips.append(x)
            x = _bent(down(x))
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = _bent(up(F.interpolate(x, scale_factor=2, mode="bilinear"))) + skip
        for layer in self.last:
            x = _bent(layer(x))
        logits: Tensor = self.tail(x)
        return logits

    def renew(self) -> None:
        """A power iteration of each spectral norm, after the weights have changed."""
        self.train()
        for module in self.modules():
            if parametrize.is_parametrized(module):
                _ = module.weight
        self.eval()


def real(logits: Tensor) -> Tensor:
    """Scalar: how far the logits are from saying that all is real."""
    return F.softplus(-logits.float()).mean()


def _bent(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)
