"""diffusers' blocks, with what lies between their convolutions fused where a GPU has Triton.

Elsewhere, and in training, they compute what diffusers' do, by diffusers' code.
"""

from typing import Any

import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from sr_cli.models import fused


class Norm(nn.GroupNorm):
    """A group norm that takes and gives what is channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), or of any other shape as torch's."""
        if x.ndim == 4 and fused.serves(x):
            return fused.normed(x, self, silu=False)
        return super().forward(x)


class Resnet(ResnetBlock2D):
    """conv2(silu(norm2(conv1(silu(norm1(x))) + time))) + x: five passes beside the convolutions,
    where torch makes 14."""

    def forward(self, input_tensor: Tensor, temb: Any, *args: Any, **given: Any) -> Tensor:
        """input_tensor: (N, C, H, W); temb: (N, T), or None where the block has no time."""
        x: Tensor = input_tensor
        if not fused.serves(x):
            return super().forward(x, temb, *args, **given)
        h = fused.bare(self.conv1, fused.normed(x, self.norm1, silu=True))
        bias: Any = self.conv1.bias
        if self.time_emb_proj is not None:
            bias = bias + self.time_emb_proj(F.silu(temb))
        h = fused.bare(self.conv2, fused.normed(h, self.norm2, bias, silu=True))
        if self.conv_shortcut is None:
            return fused.added(x, h, self.conv2)
        return fused.added(fused.bare(self.conv_shortcut, x), h, self.conv2, self.conv_shortcut)


class Transformer(Transformer2DModel):
    """One whose result stays channels last, as its tokens are."""

    def _get_output_for_continuous_inputs(
        self, hidden_states: Tensor, residual: Tensor, *sizes: Any, **named: Any
    ) -> Any:
        if not (self.use_linear_projection and fused.serves(residual)):
            whole: Any = super()._get_output_for_continuous_inputs
            return whole(hidden_states, residual, *sizes, **named)
        number, channels, height, width = residual.shape
        tokens = self.proj_out(hidden_states).view(number, height, width, channels)
        return tokens.permute(0, 3, 1, 2) + residual


def fuse(net: nn.Module) -> None:
    """Let the network's blocks be those above, as far as they are what these stand for."""
    for module in net.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = Norm
        elif type(module) is Transformer2DModel:
            module.__class__ = Transformer
        elif type(module) is ResnetBlock2D and _plain(module):
            module.__class__ = Resnet


def _plain(block: Any) -> bool:
    return (
        block.time_embedding_norm == "default"
        and isinstance(block.nonlinearity, nn.SiLU)
        and block.output_scale_factor == 1
        and not (block.skip_time_act or block.up or block.down or block.dropout.p)
    )
