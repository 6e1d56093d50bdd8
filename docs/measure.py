"""What the engine takes on a device, as a table of Markdown on stdout and JSON beside it.

    python docs/measure.py --device cuda --json benchmarks.json >> BENCHMARKS.md

Seconds are the best of some repetitions of whole calls, from the LR's bytes in memory to the result
in memory, with the results of the first call compared: with the CPU's, with tiles, with batches.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import torch
from torch import Tensor

from sr_cli.diffusion.noise import add_noise, noise_keys
from sr_cli.engine.arrays import to_tensor
from sr_cli.engine.images import load
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.models.resampling import resize

PHOTO = Path(__file__).parents[1] / "examples" / "coffee.png"
Rows = dict[str, float]


def photo(height: int, width: int) -> Tensor:
    """The example in that size: (3, H, W) uint8."""
    image = resize(to_tensor(load(PHOTO).rgb)[None], (height, width))[0]
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def best(work: Callable[[], object], repeat: int, *, cpu: bool) -> float:
    """Seconds of one call: of the clock, or of the processor, which others may share."""
    clock = process_time if cpu else perf_counter
    work()
    times = []
    for _ in range(repeat):
        begin = clock()
        work()
        times.append(clock() - begin)
    return min(times)


def levels_apart(one: Tensor, other: Tensor) -> float:
    """Largest difference of two results in 8 bits."""
    return float(((one * 255).round() - (other * 255).round()).abs().max())


def noise(device: torch.device, repeat: int) -> Rows:
    """Values drawn a second, and how far apart two devices draw them."""
    keys, shape = noise_keys([0x548C9DECBCE65297] * 4, device), (4, 3, 512, 512)
    x = torch.zeros(shape, device=device)

    def draw() -> None:
        add_noise(x, keys, 1.0)
        if x.is_cuda:
            torch.cuda.synchronize()

    seconds = best(draw, repeat, cpu=device.type == "cpu")
    there = add_noise(torch.zeros(shape, device=device), keys, 1.0).cpu()
    here = add_noise(torch.zeros(shape), keys.cpu(), 1.0)
    return {
        "noise: ns a value": 1e9 * seconds / x.numel(),
        "noise: largest difference from the CPU's": float((there - here).abs().max()),
    }


def engine(device: str, sides: list[tuple[int, int]], batches: list[int], repeat: int) -> Rows:
    """Seconds an image, and agreement in levels."""
    rows: Rows = {}
    upscaler = Upscaler(UpscaleOptions(), device=device)
    for batch in batches:
        lrs, together = [photo(128, 128)] * batch, upscaler.using(batch=batch)
        seconds = best(lambda: together.together(lrs), repeat, cpu=device == "cpu")  # noqa: B023
        rows[f"128x128, x4, batch {batch}: s an image"] = seconds / batch
    for height, width in sides:
        lr = photo(height, width)
        rows[f"{width}x{height}, x4: s"] = best(
            lambda: upscaler(lr),  # noqa: B023
            repeat,
            cpu=device == "cpu",
        )
    lr = photo(96, 128)
    whole = upscaler(lr)
    rows["levels: tiles of 64 and the whole"] = levels_apart(upscaler.using(tile=64)(lr), whole)
    other = upscaler.using(batch=4).together([lr] * 4)[3]
    rows["levels: batch 4 and alone"] = levels_apart(other, whole)
    if device != "cpu":
        exact = Upscaler(UpscaleOptions(), device=device, dtype="float32")(lr)
        on_cpu = Upscaler(UpscaleOptions(), device="cpu", dtype="float32")(lr)
        rows["levels: this device and the CPU, float32"] = levels_apart(exact, on_cpu)
        rows["levels: automatic precision and float32"] = levels_apart(whole, exact)
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    cuda = device.type == "cuda"
    sides = [(512, 512), (1080, 1920)] if cuda else []
    rows = noise(device, chosen.repeat)
    rows |= engine(chosen.device, sides, [1, 16] if cuda else [1], chosen.repeat)
    name = torch.cuda.get_device_name(device) if cuda else platform.processor()
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    lines = [f"| {name or 'CPU'}, {threads} | |", "|---|---|"]
    lines += [f"| {row} | {value:.4g} |" for row, value in rows.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    if chosen.json:
        text = json.dumps({"device": name, "torch": torch.__version__, "rows": rows}, indent=2)
        chosen.json.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
