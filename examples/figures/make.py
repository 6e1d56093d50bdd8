"""README's picture: crops of the examples and of rendered text, bicubic beside both models."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from sr_cli.engine.images import load
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.evaluation.peers import bicubic

HERE = Path(__file__).parent
CROPS = {"astronaut": (38, 12), "cat": (24, 14), "coffee": (60, 38), "text": (4, 4)}
"""Left and top of each crop, in LR pixels."""
SIDE, HEAD = 60, 24


def text() -> torch.Tensor:
    """Two sizes of rendered text at a quarter of their size, (3, 68, 68) in [0, 1]."""
    page = Image.new("RGB", (272, 272), (246, 244, 238))
    draw = ImageDraw.Draw(page)
    for line, (y, size) in enumerate([(10, 44), (66, 44), (128, 28), (166, 28), (204, 28)]):
        words = (
            "Domain shift",
            "5 steps, x4",
            "starts at the low-",
            "resolution image,",
            "not at noise",
        )
        draw.text((12, y), words[line], fill=(25, 30, 45), font=ImageFont.load_default(size))
    small = np.asarray(page.resize((68, 68), Image.Resampling.BICUBIC), np.float32) / 255
    return torch.from_numpy(small).permute(2, 0, 1).contiguous()


def main() -> None:
    """Write figure.png."""
    methods: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "bicubic": lambda lr: bicubic(lr, (4 * lr.shape[1], 4 * lr.shape[2])),
        "1 step": Upscaler(UpscaleOptions(steps=1), device="cpu"),
        "srx (5 steps)": Upscaler(UpscaleOptions(), device="cpu"),
        "clean, 1 step": Upscaler(UpscaleOptions(model="clean", steps=1), device="cpu"),
        "clean, 5 steps": Upscaler(UpscaleOptions(model="clean"), device="cpu"),
    }
    cell = 4 * SIDE
    size = ((cell + 6) * len(methods) - 6, HEAD + (cell + 6) * len(CROPS) - 6)
    figure = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(figure)
    for row, (name, (left, top)) in enumerate(CROPS.items()):
        path = HERE.parent / f"{name}.png"
        lr = torch.from_numpy(load(path).rgb).permute(2, 0, 1) if path.exists() else text()
        box = (4 * left, 4 * top, 4 * left + cell, 4 * top + cell)
        for column, (label, method) in enumerate(methods.items()):
            pixels = (method(lr.contiguous()).permute(1, 2, 0).numpy() * 255).round()
            crop = Image.fromarray(pixels.astype(np.uint8)).crop(box)
            figure.paste(crop, (column * (cell + 6), HEAD + row * (cell + 6)))
            draw.text((column * (cell + 6) + 4, 4), label, "black", ImageFont.load_default(15))
    figure.save(HERE / "figure.png", optimize=True)


if __name__ == "__main__":
    main()
