"""What an answer should not have, patterns and moved edges, and what it aims at, sharper ones."""

import numpy as np
import torch
from torch import Tensor

from sr_cli.training.differences import differences
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


EDGE = torch.zeros(1, 3, 32, 32)
EDGE[..., 16:] = 1
ONE = torch.ones(1)


def test_an_even_shift_costs_nothing_and_a_moved_edge_more_than_its_error() -> None:
    """Of a straight edge of height 1 the mean absolute error is a column of 1 in 32."""
    moved = EDGE.roll(1, -1)
    moved[..., 0] = 0
    error = moved - EDGE
    assert differences(torch.full_like(EDGE, 0.3), ONE) < 1e-7
    assert differences(error, ONE) > 1.9 * error.abs().mean()
    spread = torch.full_like(EDGE, float(error.abs().mean()))  # as much error, evenly
    assert differences(spread, ONE) < 1e-7


def test_turning_the_picture_turns_nothing() -> None:
    """Nor does mirroring; along one side only, it would."""
    error = noise(1, 3, 24, 40).cumsum(-1)
    whole = differences(error, ONE)
    for other in (torch.rot90(error, 1, (-2, -1)), error.flip(-1), error.flip(-2), -error):
        torch.testing.assert_close(differences(other, ONE), whole)
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    assert abs(across / down - 1) > 0.1


def test_differences_are_weighed_by_image_and_have_a_gradient() -> None:
    error = noise(2, 3, 16, 16).requires_grad_()
    each = torch.stack([differences(one[None], ONE) for one in error])
    weights = torch.tensor([0.25, 1.0])
    charge = differences(error, weights)
    torch.testing.assert_close(charge, (weights * each).mean())
    charge.backward()  # type: ignore[no-untyped-call]
    assert error.grad is not None
    assert error.grad.isfinite().all()
    assert error.grad.any()
    nothing = torch.zeros(1, 3, 16, 16, requires_grad=True)
    differences(nothing, ONE).backward()  # type: ignore[no-untyped-call]
    assert nothing.grad is not None
    assert not nothing.grad.any()
