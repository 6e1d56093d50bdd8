"""Real-ESRGAN's compact family, SRVGGNetCompact: 3×3 convolutions at the input's resolution.

The layers and the names of their weights are those of the released code (Wang et al.,
*Real-ESRGAN*, ICCVW 2021, its animevideov3 and general-x4v3), so its checkpoints fit.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Self, cast

from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle

from sr_cli.models import fused
from sr_cli.models.rows import Room, Rows, convolved
from sr_cli.models.winograd import Convolution


class CompactNet(nn.Module):
    """(N, 3, H, W) in [0, 1] → (N, 3, upscale·H, upscale·W), which may leave [0, 1] a little."""

    def __init__(self, num_feat: int = 64, num_conv: int = 16, upscale: int = 4) -> None:
        super().__init__()
        self.upscale = upscale
        self.margin = num_conv + 2
        """Pixels around one that its result depends on: one for each convolution."""
        widths = [3, *[num_feat] * (num_conv + 1), 3 * upscale**2]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [Convolution(before, after), nn.PReLU(after)]
        self.body = nn.ModuleList(layers[:-1])

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """The network that these weights are of.

        Raises KeyError, ValueError or RuntimeError where they are of none.
        """
        layers = 1 + max(int(name.split(".")[1]) for name in state)
        upscale = math.isqrt(len(state[f"body.{layers - 1}.weight"]) // 3)
        net = cls(len(state["body.0.weight"]), (layers - 3) // 2, upscale)
        net.load_state_dict(state)
        return net

    def residual(self, x: Tensor) -> Tensor:
        """What is added to the nearest-neighbour enlargement, in the dtype of the weights."""
        if fused.serves(x):
            return self._fused(x)
        for layer in self.body:
            x = layer(x)
        return pixel_shuffle(x, self.upscale)

    def _fused(self, x: Tensor) -> Tensor:
        *pairs, last = self.body
        for layer, prelu in zip(pairs[::2], pairs[1::2], strict=True):
            x = fused.through_prelu(x, cast(Convolution, layer), cast(nn.PReLU, prelu))
        return pixel_shuffle(last(x), self.upscale)

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, scale_factor=self.upscale, mode="nearest") + self.residual(x)

    def by_rows(self, rows: Rows, height: int) -> Rows:
        """The residual of a picture of that height whose rows come from above to below."""
        room = Room()
        for layer in self.body:
            if isinstance(layer, Convolution):
                rows = convolved(rows, layer, height, room)
            else:
                rows = map(layer, rows)
        return map(nn.PixelShuffle(self.upscale), rows)
