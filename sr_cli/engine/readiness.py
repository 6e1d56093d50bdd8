"""What would stop a run before its first picture, found without loading the model."""

from sr_cli.device import resolve_device, resolve_dtype
from sr_cli.engine.jobs import PictureCheck
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.steps import calibration, check_steps, check_texture, scale_of
from sr_cli.models import registry
from sr_cli.models.loading import DIFFUSION
from sr_cli.models.preprocess import load_preprocessor
from sr_cli.models.prior import check_prior


def check(options: UpscaleOptions, *, device: str = "auto", dtype: str = "auto") -> tuple[str, ...]:
    """Raise what `Upscaler` would, as far as cards and files tell; sentences on what they do not.

    Damage inside large weights stays unseen, and so does what the configuration of a prior without
    a card says, and whether it has a calibration. A preprocessor that was chosen is small, and is
    loaded.

    Raises:
        ModelError: the model, the prior or the preprocessor is missing or of the wrong kind.
        UsageError: an automatic t1 has no calibration; the steps do not fit the model's t1; the
            model has no dial for a texture; an unknown device.
        DeviceError: the device is missing, or does not compute in this dtype.
    """
    resolve_dtype(dtype, resolve_device(device))
    if options.preprocess is not None:
        load_preprocessor(options.preprocess)
    if options.alone:
        load_preprocessor(options.model)
        return ()
    if options.method == "dossr":
        card = registry.card(options.model, DIFFUSION)
    elif options.prior in registry.names():
        card = registry.card(options.prior, ("prior",))
    elif check_prior(options.prior):
        return ()
    else:
        return (f"Not checked: {options.prior} is on the hub, if anywhere; the run fetches it.",)
    registry.check(card, hashing=False)
    check_texture(options, card)
    if options.automatic:
        calibration(options, card)
    else:
        t1 = card.limits.t1 if options.t1 is None else options.t1
        check_steps(options, _steps(options, card), int(t1))
    return ()


def picture_check(options: UpscaleOptions) -> PictureCheck | None:
    """Of a picture, raise what `Upscaler` would: UsageError where the steps do not fit the start
    that an automatic t1 gives it. None where there is nothing to check.

    Raises what `check` does, which should be called before.
    """
    if not options.automatic or options.method == "diffsr":
        return None
    card = registry.card(options.model, DIFFUSION)
    known, steps = calibration(options, card), _steps(options, card)
    return lambda size, target: check_steps(
        options, steps, known.start(scale_of(options, size, target))
    )


def _steps(options: UpscaleOptions, card: registry.Card) -> int:
    return card.limits.steps if options.steps is None else options.steps
