"""Pixel space: what models without an autoencoder diffuse in."""

from torch import Tensor


class PixelCodec:
    """`Codec` of pixel space: [0, 1] ↔ [−1, 1]; the unshuffling is inside the network."""

    def encode(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in [0, 1] → [−1, 1], as y and as hint; without noise."""
        y = (2 * image).sub_(1)
        return y, y

    def decode(self, state: Tensor) -> Tensor:
        """(N, 3, H, W) in [−1, 1] → [0, 1]; not clamped."""
        return (state + 1).div_(2)
