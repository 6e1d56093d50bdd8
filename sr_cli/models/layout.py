"""How the weights of convolutions lie in memory."""

import torch


def layout(device: torch.device) -> torch.memory_format:
    """Channels last where that is faster; not on MPS, where PyTorch's results were wrong in it.

    See its issues 174345 and 180984.
    """
    return torch.preserve_format if device.type == "mps" else torch.channels_last
