"""What chooses among draws of a picture, beside their agreement with the input: NIQE."""

import torch
from torch import Tensor

from sr_cli.engine.choice import Judge
from sr_cli.engine.upscaler import Upscaler
from sr_cli.evaluation.iqa import SPECS, absent
from sr_cli.evaluation.metrics import load

NAME = "niqe"


def with_judge(upscaler: Upscaler) -> str | None:
    """Let NIQE choose among the upscaler's draws; why it cannot, in a sentence, or None.

    Results are judged as 8-bit files would be.
    """
    if reason := absent(NAME, download=None):
        return reason
    metrics = load((NAME,), torch.device(upscaler.device))

    def score(image: Tensor) -> float | None:
        levels = (image * 255).round() / 255
        return metrics.score(levels, levels)[NAME]

    upscaler.judge = Judge(NAME, SPECS[NAME].better, score)
    return None
