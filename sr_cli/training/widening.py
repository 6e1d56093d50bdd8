"""A larger network of the same function (Chen et al. 2016, Net2Net): training goes on, not back."""

from dataclasses import replace

import torch
from torch import Tensor

from sr_cli.errors import ModelError
from sr_cli.models.network import EmbeddedConfig, EmbeddedNet
from sr_cli.models.registry import card, load_weights


def config_of(name: str, kind: str = "embedded") -> EmbeddedConfig:
    """Of the network of a card. Raises ModelError when there is none, or none of this kind."""
    return EmbeddedConfig.from_json(card(name, (kind,)).architecture)


def widened(name: str, config: EmbeddedConfig) -> EmbeddedNet:
    """A network of `config` that answers as that of the card does, to rounding.

    It may have more channels and blocks at each level, also at full resolution, a dial (which
    changes nothing yet) and a cap, which changes nothing where it is not reached. What is new says
    nothing to what is old: it is read with zeros, or writes them. Raises ModelError when the card
    has more of anything, or differs otherwise.
    """
    old = config_of(name)
    larger = [*zip(old.widths, config.widths, strict=False)]
    larger += [*zip(old.blocks, config.blocks, strict=False)]
    larger += [(old.detail, config.detail), (old.refine, config.refine)]
    same = replace(
        old,
        widths=config.widths,
        blocks=config.blocks,
        cap=config.cap,
        detail=config.detail,
        refine=config.refine,
        dial=config.dial,
    )
    fits = len(old.widths) == len(config.widths) and all(a <= b for a, b in larger)
    fits &= old.dial <= config.dial and old.cap in {0, config.cap}
    if not fits or same != config:
        raise ModelError(
            f"The network of {name} ({_shape(old)}) cannot be widened to {_shape(config)}: "
            "choose at least its widths, blocks, detail, refine and dial, its cap, and as many "
            "levels."
        )
    net = EmbeddedNet(config)
    state = net.state_dict()
    for key, known in load_weights(card(name)).items():
        state[key] = _grown(key, known.float(), state[key])
    net.load_state_dict(state)
    return net


def _grown(key: str, old: Tensor, new: Tensor) -> Tensor:
    """The old values in a corner of the new; old outputs read nothing from new inputs."""
    if old.shape == new.shape:
        return old
    if ".modulation." in key:  # scales, then shifts
        halves = zip(old.chunk(2), new.chunk(2), strict=True)
        return torch.cat([_grown("", one, torch.zeros_like(other)) for one, other in halves])
    grown = new.clone()
    corner = tuple(slice(size) for size in old.shape)
    if old.ndim == 1:
        grown.zero_()
    else:
        outputs = 1 if key.startswith("up.") else 0
        grown.narrow(outputs, 0, old.shape[outputs]).zero_()
        if key.endswith("conv2.weight"):  # a residual branch that is new says nothing
            grown.zero_()
    grown[corner] = old
    return grown


def _shape(config: EmbeddedConfig) -> str:
    widths, blocks = (",".join(map(str, v)) for v in (config.widths, config.blocks))
    dial = "dial" if config.dial else "no dial"
    full = f"detail {config.detail}, refine {config.refine}"
    return f"widths {widths}, blocks {blocks}, cap {config.cap:g}, {full}, {dial}"
