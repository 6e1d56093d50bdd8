"""What `sr_cli.models.fused` and the networks on it make, beside torch; a program, because Triton
decides at its import whether it interprets kernels. Prints JSON: relative errors by name, and those
of controls, which leave out a part of what is computed."""

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_cli.diffusion.noise import add_noise, noise_key, noise_keys
from sr_cli.models import fused

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FORMATS = {"last": torch.channels_last, "first": torch.contiguous_format}
SHAPES = ((2, 64, 9, 12), (1, 16, 33, 7), (3, 80, 5, 3), (1, 320, 1, 1))

errors: dict[str, float] = {}
controls: dict[str, float] = {}
launched: Counter[str] = Counter()


def apart(one: Tensor, other: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return float((one.float() - other.float()).abs().max() / other.float().abs().max())


def last(x: Tensor) -> Tensor:
    """As it is; raises AssertionError unless it is channels last."""
    assert x.is_contiguous(memory_format=torch.channels_last)
    return x


def plane(vector: Tensor) -> Tensor:
    """(C,) or (N, C) for all positions, float32."""
    return vector.float()[..., None, None]


def functions(name: str, x: Tensor, h: Tensor) -> None:
    """Each against what it is in torch, in float32."""
    number, channels = x.shape[:2]
    layer, more = (nn.Conv2d(channels, channels, 1).to(x.dtype) for _ in range(2))
    layer.bias, more.bias = (nn.Parameter(torch.randn(channels).to(x.dtype)) for _ in range(2))
    bias, slope = plane(layer.bias.detach()), nn.PReLU(channels).to(x.dtype)
    nn.init.normal_(slope.weight)
    told = torch.randn(number, 2 * channels).to(x.dtype).chunk(2, dim=1)
    scale, shift = map(plane, told)
    wide, high = x.float(), h.float()
    sums = wide + high
    errors[f"added, {name}"] = apart(
        last(fused.added(x, h, layer, more)), sums + bias + plane(more.bias.detach())
    )
    controls[f"added without a bias, {name}"] = apart(fused.added(x, h, layer), sums)
    found = last(fused.modulated(x, layer, *told))
    errors[f"modulated, {name}"] = apart(found, F.silu((wide + bias) * (1 + scale) + shift))
    controls[f"modulated by nothing, {name}"] = apart(found, F.silu(wide + bias))
    cap = 0.7
    most = cap * channels**0.5
    norms = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    errors[f"capped, {name}"] = apart(
        last(fused.capped(x, cap)), wide * (most / norms).clamp(max=1)
    )
    controls[f"not capped, {name}"] = apart(fused.capped(x, cap), wide)
    both = fused.added_and_capped(x, h, layer, cap)
    norms = torch.linalg.vector_norm(sums + bias, dim=1, keepdim=True)
    errors[f"added and capped, {name}"] = max(
        apart(last(both[0]), sums + bias),
        apart(last(both[1]), (sums + bias) * (most / norms).clamp(max=1)),
    )
    errors[f"prelu, {name}"] = apart(
        last(fused.through_prelu(x, layer, slope)),
        F.prelu(F.conv2d(wide, layer.weight.float(), layer.bias.float()), slope.weight.float()),
    )
    norm = nn.GroupNorm(8, channels).to(x.dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    for form, given in {"no": None, "one": layer.bias.detach(), "own": told[0]}.items():
        shifted = wide if given is None else wide + plane(given)
        wanted = F.group_norm(shifted, 8, norm.weight.float(), norm.bias.float())
        errors[f"normed, {form} bias, {name}"] = apart(
            last(fused.normed(x, norm, given, silu=False)), wanted
        )
        errors[f"normed, {form} bias, silu, {name}"] = apart(
            last(fused.normed(x, norm, given, silu=True)), F.silu(wanted)
        )
        if form == "own" and x.shape[2] > 1:
            plain = fused.normed(x, norm, silu=False)
            controls[f"normed without its bias, {name}"] = apart(plain, wanted)
    cells = torch.randn(2, 32, 3, 5).contiguous(memory_format=torch.channels_last)
    errors["shuffled"] = apart(last(fused.shuffled(cells, 4)), F.pixel_shuffle(cells, 4))


def noise(shape: tuple[int, int, int, int]) -> None:
    """Its levels are those of torch's operations, to the last bit."""
    keys = noise_keys([noise_key(7, bytes([i]), 3) for i in range(shape[0])])
    found, wanted = torch.zeros(shape), add_noise(torch.zeros(shape), keys, 1.0)
    fused.add_noise(found, keys, 1.0)
    errors[f"noise, {shape}"] = float((found != wanted).sum())
    fused.add_noise(found, keys, -0.5)
    errors[f"noise that is added, {shape}"] = apart(found, wanted / 2)
    other = torch.zeros(shape)
    fused.add_noise(other, keys + 2, 1.0)
    controls[f"noise of other keys, {shape}"] = apart(other, wanted)


def networks() -> None:
    """The shipped ones and a small DoSSR with random weights, whole."""
    from sr_cli.evaluation.suite.networks import MOMENT, SMALL, write_dossr
    from sr_cli.models.dossr.model import load as load_dossr
    from sr_cli.models.embedded import load
    from sr_cli.models.preprocess import load_preprocessor
    from sr_cli.models.registry import card

    cpu, x, small = torch.device("cpu"), torch.randn(2, 3, 32, 48), torch.rand(2, 3, 9, 8)
    embedded = load(card("embedded"), cpu, torch.float32).denoiser
    compact = load_preprocessor("compact", cpu, torch.float32)
    y = torch.rand(2, 3, 32, 48) * 2 - 1
    both("embedded", lambda: embedded.predict_x0(x, y=y, hint=y, **MOMENT))
    both("compact", lambda: compact(small))
    with tempfile.TemporaryDirectory() as folder:
        write_dossr(Path(folder), "random", SMALL, half=False)
        os.environ["SRX_WEIGHTS"] = folder
        dossr = load_dossr(card("random"), cpu, torch.float32)
    state, image = torch.randn(2, 4, 16, 8), torch.rand(2, 3, 64, 32)
    both("UNet", lambda: dossr.denoiser.predict_x0(state, y=state, hint=state, **MOMENT))
    both("encoder", lambda: dossr.codec.encode(image, torch.zeros(2, 4, 8, 4))[0])
    both("decoder", lambda: dossr.codec.decode(state))


def both(name: str, work: Callable[[], Tensor]) -> None:
    """By torch and by kernels."""
    module: Any = fused
    serves = module.serves
    plain = work()
    before = launched.total()
    module.serves = lambda _: True
    try:
        errors[name] = apart(work(), plain)
    finally:
        module.serves = serves
    assert launched.total() > before, name


def main() -> None:
    torch.manual_seed(0)
    module: Any = fused
    launch = module.launch

    def counting(x: Tensor, name: str, *given: Any, **sizes: Any) -> None:
        launched[name] += 1
        launch(x, name, *given, **sizes)

    module.launch = counting
    with torch.inference_mode():
        for dtype, (form, layout), shape in product(DTYPES.items(), FORMATS.items(), SHAPES):
            x, h = (torch.randn(shape).to(dtype[1]) for _ in range(2))
            name = f"{dtype[0]}, channels {form}, {shape}"
            functions(name, x.contiguous(memory_format=layout), h)
        for planes in ((2, 3, 9, 13), (3, 4, 17, 8), (1, 1, 5, 1), (1, 3, 40, 66)):
            noise(planes)
        networks()
    json.dump({"errors": errors, "controls": controls, "launched": launched}, sys.stdout)


if __name__ == "__main__":
    main()
