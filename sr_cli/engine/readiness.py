"""What would stop a run before its first picture, found without loading the model."""

from sr_cli.device import resolve_device, resolve_dtype
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.steps import calibration, check_texture
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
        UsageError: an automatic t1 has no calibration; the model has no dial for a texture; an
            unknown device.
        DeviceError: the device is missing, or does not compute in this dtype.
    """
    resolve_dtype(dtype, resolve_device(device))
    if options.preprocess is not None:
        load_preprocessor(options.preprocess)
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
    return ()
