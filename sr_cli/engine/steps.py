"""What is walked: which path, which steps along it, and where they start."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.samplers import SamplerName, sample
from sr_cli.diffusion.schedules import Array, alpha_bar
from sr_cli.diffusion.solvers import MAX_ORDER, Step, plan
from sr_cli.engine.options import UpscaleOptions
from sr_cli.errors import UsageError
from sr_cli.models.calibration import Calibration, Setting, find
from sr_cli.models.model import Model
from sr_cli.models.registry import Card, card, names


def course(options: UpscaleOptions, model: Model, t1: int) -> tuple[Path, tuple[Step, ...]]:
    """The path and the solver's steps from t1 for these options, whatever their own t1 is.

    The walk starts at x = α y + σ z of the first step's time; without a step y is the answer.
    Raises UsageError when the steps do not fit between t1 and 0.
    """
    bar = alpha_bar(options.schedule) if options.schedule else model.alpha_bar
    if options.method == "diffsr":
        return Path.plain(bar), sampler_steps(
            options.sampler, bar, t1, min(model.steps_of(options.steps), t1)
        )
    path = Path.domain_shift(bar, t1)
    times = time_grid(t1, model.steps_of(options.steps))
    last_step = options.last_step or model.last_step
    return path, plan(path, times, order=options.order, variant=options.solver, last_step=last_step)


def sampler_steps(name: SamplerName, bar: Array, t1: int, steps: int) -> tuple[Step, ...]:
    """A sampler of diffusers as a table: it is linear, so its answers to unit impulses tell all.

    bar: ᾱ, (T,). From time t1 down to a clean x0; none from t1 = 0. Not for "edm", whose times are
    not those of `bar`. Raises UsageError unless t1 < T and steps ≤ t1.
    """
    if t1 == 0:
        return ()
    impulses = torch.eye(1 + 2 * steps, dtype=torch.float64)  # the start, then x0 and z by step
    states: list[Tensor] = []

    def predicted(x: Tensor, alpha: float, sigma: float, t: int) -> Tensor:
        states.append(x)
        return impulses[2 * len(states) - 1]

    last = sample(name, bar, t1, steps, impulses[0], predicted, lambda i: impulses[2 * i])
    rows = torch.stack([*states, last]).numpy()
    table = []
    times = time_grid(t1 + 1, steps)
    for i, (s, t) in enumerate(pairwise(times)):
        kept = float(rows[i + 1, 0] / rows[i, 0])
        added = rows[i + 1] - kept * rows[i]
        history = added[1 : 2 * i + 2 : 2][::-1][: MAX_ORDER if name == "dpmsolver++" else 1]
        table.append(Step(s, t, kept, 0.0, tuple(history.tolist()), float(added[2 * i + 2])))
    return tuple(table)


def setting(options: UpscaleOptions, model: Model | Card) -> Setting:
    """What a calibration of these options depends on."""
    own = model.schedule if isinstance(model.schedule, str) else "own"
    sampler = options.sampler if options.method == "diffsr" else "dossr"
    return Setting(model.identity, options.schedule or own, sampler, options.degradation)


def conditions(options: UpscaleOptions, model: Model) -> dict[str, Any]:
    """What a start was found with beside its `setting`; with others it may not be the best one."""
    chosen = options.preprocess or model.preprocess
    own: dict[str, Any] = {
        "steps": model.steps_of(options.steps),
        "preprocess": chosen if isinstance(chosen, str) else "the model's own",
    }
    if options.method == "diffsr":
        return own
    solver = {"order": options.order, "solver": options.solver}
    texture = {} if model.dial is None else {"texture": model.texture_of(options.texture)}
    return {**own, **solver, "last_step": options.last_step or model.last_step, **texture}


def check_texture(options: UpscaleOptions, model: Model | Card) -> None:
    """Raise UsageError where a texture is asked for of a model that has no dial for it."""
    if options.texture is None or model.dial:
        return
    name = options.prior if options.method == "diffsr" else options.model
    able = [other for other in names() if card(other).dial]
    others = f"or choose --model {' or '.join(able)}" if able else "since no model here has one"
    raise UsageError(f"{name} has no dial for --texture: leave it out, {others}.")


def calibration(options: UpscaleOptions, model: Model | Card) -> Calibration:
    """Where these options start best. Raises UsageError where nobody has measured that."""
    found = find(setting(options, model))
    if found is None:
        chosen = (
            f"--prior {options.prior}"
            if options.method == "diffsr"
            else f"--method dossr --model {options.model}"
        )
        raise UsageError(
            f"No calibration says where to start with these options: run srx prf-search {chosen} "
            "with the same sampler, schedule and degradation, or choose --t1 yourself."
        )
    return found
