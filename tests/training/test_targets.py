"""What an answer should not have, a pattern of cells, and what it aims at, sharper edges."""

import numpy as np
import torch
from torch import Tensor

from sr_cli.training.lattice import lattice
from sr_cli.training.sharpening import sharpened


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_pattern_that_recurs_is_seen_and_nothing_else() -> None:
    """Of the same strength: the pattern counts in full, noise by what 16 and 256 draws leave, and
    what is the same at all places of a cell not at all."""
    pattern = noise(1, 3, 4, 4).tile(2, 1, 16, 16)
    strength = pattern.abs().mean()
    irregular = noise(2, 3, 64, 64)
    irregular *= strength / irregular.abs().mean()
    assert lattice(pattern) > 5 * lattice(irregular) > 0
    moved = pattern.roll((1, 2), (-2, -1))  # wherever cells begin
    torch.testing.assert_close(lattice(moved), lattice(pattern))
    flat = noise(2, 3, 16, 16).repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert lattice(flat) < 1e-6
    other = noise(1, 3, 6, 6).tile(2, 1, 16, 16)[..., :64, :64]  # of another period
    assert lattice(other) < lattice(pattern) / 3


def test_sharpening_raises_edges_and_leaves_plain_and_grain_alone() -> None:
    ramp = torch.linspace(-20, 20, 48).sigmoid() - 0.5
    edge = ramp.expand(2, 3, 48, 48).contiguous()
    sharp = sharpened(edge, torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(sharp[0], edge[0])
    steepest = [float(np.abs(np.diff(x[0, 0].numpy())).max()) for x in (edge, sharp[1:])]
    assert steepest[1] > 1.03 * steepest[0]
    for calm in (torch.full((1, 3, 32, 32), 0.4), 0.4 + 0.005 * noise(1, 3, 32, 32).clamp(-1, 1)):
        torch.testing.assert_close(sharpened(calm, torch.ones(1)), calm)
    assert sharpened(3 * edge, torch.full((2,), 9.0)).abs().max() <= 1
