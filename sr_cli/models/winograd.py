"""3×3 convolutions in float32 on a CPU with a fifth of the multiplications.

Winograd's algorithm makes a block of 6×6 results by 8×8 products instead of 36·9 (Lavin and Gray,
*Fast Algorithms for Convolutional Neural Networks*, CVPR 2016). oneDNN, which torch takes on CPUs,
has it no more; NNPACK, which torch brings along except on Windows, has. It rounds more:
results differ from oneDNN's by up to 1e-4 of their standard deviation, and a picture by 5e-6 of
the range of colours.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.device import layout

CHANNELS = 32
"""In and out, from which it is quicker."""
ROWS = 4
"""Of a result, from which it is quicker: blocks that end beyond it are computed whole."""
BLOCK = 6
"""Rows of a block."""
VALUES = 1 << 21
"""Of input and result together that are worked on at a time; NNPACK takes 1.8 times their memory
more, and is no slower than with all at once."""


@cache
def available() -> bool:
    """Whether torch has NNPACK and it is quicker here: with AVX2, not with AVX-512, which oneDNN
    uses and NNPACK does not. On others nobody has measured it."""
    quicker = torch.backends.cpu.get_cpu_capability() == "AVX2"
    known = hasattr(torch, "_nnpack_spatial_convolution")
    return quicker and known and torch.backends.nnpack.is_available()  # type: ignore[no-untyped-call]


def serves(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether networks in this precision are quicker by it there."""
    return device.type == "cpu" and dtype == torch.float32 and available()


def lay_out(part: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Give a part of a network, there already, the layout in which its convolutions are quickest:
    NNPACK takes rows of one channel, all else channels last."""
    here = torch.contiguous_format if serves(device, dtype) else layout(device)
    part.to(memory_format=here)


class Convolution(nn.Conv2d):
    """3×3, with zeros around what it is shown.

    Results have the layout of the weights. In training, in what is compiled or exported and in
    lower precision it is torch's.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C', H, W)."""
        return self.over(x)

    def over(self, x: Tensor, above: int = 1) -> Tensor:
        """above: rows of zeros above and below x, 0 or 1; columns of them are always at both sides.
        (N, C, H, W) → (N, C', H − 2 + 2·above, W)."""
        if not self._by_winograd(x, x.shape[-2] - 2 + 2 * above):
            return F.conv2d(x, self.weight, self.bias, padding=(above, 1))
        results = [self._blocks(picture, above) for picture in torch.split(x, 1)]
        found = torch.cat(results) if len(results) > 1 else results[0]
        last = not self.weight.is_contiguous()
        return found.contiguous(memory_format=torch.channels_last) if last else found

    def _by_winograd(self, x: Tensor, rows: int) -> bool:
        return (
            rows >= ROWS
            and min(self.in_channels, self.out_channels) >= CHANNELS
            and serves(x.device, x.dtype)
            and self.weight.dtype == x.dtype
            and not torch.is_autocast_enabled("cpu")
            and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        )

    def _blocks(self, x: Tensor, above: int) -> Tensor:
        """As `over`, of one picture, by so many rows of blocks at a time that memory is bounded."""
        rows = x.shape[-2] - 2 + 2 * above
        most = VALUES // (x.shape[-1] * (self.in_channels + self.out_channels))
        if rows <= most:
            return nnpack(x, self.weight, self.bias, (above, 1))
        most = max(1, most // BLOCK) * BLOCK
        found = x.new_empty(1, self.out_channels, rows, x.shape[-1])
        for top in range(0, rows, most):
            bottom = min(rows, top + most)
            begin, end = top - above, bottom + 2 - above
            part = x[..., max(0, begin) : end, :]
            edges = (0, 0, max(0, -begin), max(0, end - x.shape[-2]))
            found[..., top:bottom, :] = nnpack(F.pad(part, edges), self.weight, self.bias, (0, 1))
        return found


def nnpack(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """`conv2d` by NNPACK; float32 on a CPU, without gradients, where it is `available`."""
    found: Tensor = torch._nnpack_spatial_convolution(x, weight, bias, padding)
    return found
