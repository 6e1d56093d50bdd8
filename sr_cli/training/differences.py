"""Outlines that are crooked or doubled: errors of the differences between neighbouring pixels.

Mean absolute error hardly sees an edge that is a pixel off, and a feature loss forgives it; in the
differences it counts twice, where it should be and where it is. An even shift of the colour, which
the eye forgives, counts nothing.
"""

import torch
from torch import Tensor

DISTANCES = (1, 2)
"""Pixels between what is subtracted, along both sides."""


def differences(error: Tensor, weights: Tensor) -> Tensor:
    """Mean absolute differences of the error (N, 3, H, W) between places: a scalar.

    Those down and those across are added, and averaged over the distances. weights: (N,), of the
    images. H and W are more than 2.
    """
    found = []
    for d in DISTANCES:
        down, across = error[..., d:, :] - error[..., :-d, :], error[..., d:] - error[..., :-d]
        found.append(down.abs().mean((1, 2, 3)) + across.abs().mean((1, 2, 3)))
    charge: Tensor = (weights * torch.stack(found)).mean()
    return charge
