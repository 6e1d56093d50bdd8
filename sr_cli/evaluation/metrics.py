"""Image quality through pyiqa, as the literature computes it: PSNR and SSIM on the Y channel
(ITU-R BT.601), no border crop; LPIPS v0.1 with AlexNet; NIQE.
"""

import contextlib
import io
from collections.abc import Callable

import torch
from torch import Tensor

from sr_cli.errors import ModelError, UsageError

Metric = Callable[[Tensor, Tensor], float]

SETTINGS: dict[str, dict[str, object]] = {
    "psnr": {"test_y_channel": True, "color_space": "ycbcr"},
    "ssim": {"test_y_channel": True, "color_space": "ycbcr"},
    "lpips": {},
    "niqe": {},
}
NO_REFERENCE = ("niqe",)


def load_metric(name: str) -> Metric:
    """metric(result, hr): both (1, 3, H, W) in [0, 1], float32.

    Raises UsageError for a name that is not in SETTINGS, ModelError when pyiqa is not installed or
    the metric's weights cannot be had.
    """
    if name not in SETTINGS:
        raise UsageError(f"There is no metric {name!r}; choose of {', '.join(SETTINGS)}.")
    try:
        import pyiqa
    except ImportError as error:
        raise ModelError("Metrics need pyiqa: run pip install 'srx[iqa]'.") from error
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it announces what it loads
            metric = pyiqa.create_metric(name, device=torch.device("cpu"), **SETTINGS[name])
    except Exception as error:  # its downloads fail in many ways
        raise ModelError(
            f"The weights of {name} cannot be downloaded ({error}): "
            "put them into $TORCH_HOME/hub where pyiqa looks for them."
        ) from error

    @torch.inference_mode()
    def measure(result: Tensor, hr: Tensor) -> float:
        images = (result,) if name in NO_REFERENCE else (result, hr)
        return float(metric(*images))

    return measure
