"""What is walked: which path, which steps along it, and where they start."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from sr_cli.device import resolve_dtype
from sr_cli.diffusion.path import Path, time_grid
from sr_cli.diffusion.samplers import table
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.diffusion.solvers import Step, plan, start
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.size import Scale
from sr_cli.errors import UsageError
from sr_cli.models.calibration import Calibration, Setting, find
from sr_cli.models.model import Model
from sr_cli.models.preprocess import without_bfloat16
from sr_cli.models.registry import Card, card, cards

Sizes = tuple[tuple[int, int], tuple[int, int]]
"""(width, height) of a picture, and of its result."""
Said = Callable[[str], None]
"""Told what a user should know."""


@dataclass(frozen=True)
class Course:
    """The steps of a walk along a path; without a step y is the answer.

    start: the weights of y and of z ~ N(0, I) in the state that the first step begins with.
    """

    path: Path
    steps: tuple[Step, ...]
    start: tuple[float, float]


def course(options: UpscaleOptions, model: Model, t1: int) -> Course:
    """What these options walk from t1, whatever their own t1 is: the start is x = α y + σ z.

    Raises UsageError when the steps do not fit between t1 and 0.
    """
    bar = alpha_bar(options.schedule) if options.schedule else model.alpha_bar
    if options.alone:
        return Course(Path.plain(bar), (), (1.0, 0.0))
    if options.method == "diffsr":
        if t1 == 0:
            return Course(Path.plain(bar), (), (1.0, 0.0))
        path, steps = table(options.sampler, bar, t1, min(model.steps_of(options.steps), t1))
    else:
        path = Path.domain_shift(bar, t1)
        steps = plan(
            path,
            time_grid(t1, model.steps_of(options.steps)),
            order=options.order,
            variant=options.variant,
            last_step=options.last_step or model.last_step,
        )
    return Course(path, steps, start(path, steps[0].s))


def dtype_of(options: UpscaleOptions, name: str, device: torch.device) -> torch.dtype:
    """What `resolve_dtype` says for the networks of these options; never bfloat16 for one alone.

    Raises what that does, and ModelError for an unknown model.
    """
    if options.alone:
        return without_bfloat16(resolve_dtype(name, device, pixels=True), device)
    pixels = options.method == "diffsr" or card(options.model).kind != "dossr"
    return resolve_dtype(name, device, pixels=pixels)


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
        "color": options.color_fix,
    }
    if options.method == "diffsr":
        return own
    solver = {"order": options.order, "variant": options.variant}
    texture = {} if model.dial is None else {"texture": model.texture_of(options.texture)}
    return {**own, **solver, "last_step": options.last_step or model.last_step, **texture}


def check_texture(options: UpscaleOptions, model: Model | Card) -> None:
    """Raise UsageError where a texture is asked for of a model that has no dial for it."""
    if options.texture is None or model.dial:
        return
    name = options.prior if options.method == "diffsr" else options.model
    able = [card.name for card in cards() if card.dial]
    others = f"or choose --model {' or '.join(able)}" if able else "since no model here has one"
    raise UsageError(f"{name} has no dial for --texture: leave it out, {others}.")


def check_steps(options: UpscaleOptions, steps: int, t1: int) -> None:
    """Raise the UsageError of a walk with so many steps from t1, whatever t1 the options have."""
    if replace(options, t1=t1).method == "dossr":  # Diff-SR walks at most t1 steps
        time_grid(t1, steps)


def scale_of(options: UpscaleOptions, size: tuple[int, int], target: tuple[int, int]) -> float:
    """The scale for which a calibration is asked: the chosen one, or that of the side that grows
    most, from a picture's (width, height) to those of its result."""
    if isinstance(options.size, Scale):
        return options.size.factor
    return max(after / before for before, after in zip(size, target, strict=True))


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


def calibrated_start(
    known: Calibration,
    options: UpscaleOptions,
    model: Model,
    sizes: Sizes,
    on_note: Said,
) -> int:
    """The t1 of a picture of these sizes; on_note is told of it."""
    scale = scale_of(options, *sizes)
    t1 = known.start(scale)
    on_note(f"t1 = {t1}" if t1 else "t1 = 0: the enlargement as it is, no diffusion")
    if doubt := known.doubt(scale, conditions(options, model)):
        on_note(doubt)
    return t1
