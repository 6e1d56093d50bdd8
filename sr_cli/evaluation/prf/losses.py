"""What the analytic PRF needs of a network and images, and errors of spectra (Appendix F)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sr_cli.diffusion.noise import digest, gaussian_noise, noise_key, noise_keys
from sr_cli.diffusion.prf import squared_norm
from sr_cli.evaluation.metrics import luma
from sr_cli.models.model import Model
from sr_cli.models.resampling import resize

Array = NDArray[np.float64]

RADIUS = 0.125
"""Cycles a pixel between low and high frequencies: what a ×4 reduction can keep."""


def signature_errors(
    model: Model,
    alpha_bar: Array,
    times: Sequence[int],
    scenes: Sequence[tuple[Tensor, Tensor, Tensor]],
    on_time: Callable[[], None] = lambda: None,
) -> list[float]:
    """E_t = ‖ε − ε_θ(x_t, t)‖² at each of `times`, the mean over scenes (x0, y, hint).

    All are (1, C, H, W) states on the model's device, H and W multiples of what it takes; y and the
    hint are for a conditional network. With x_t = α x0 + σ ε and ε_θ = (x_t − α x̂0)/σ it is
    (α/σ)²·‖x0 − x̂0‖². Noise is fixed by image and time.
    """
    errors = []
    for t in times:
        alpha, sigma = float(np.sqrt(alpha_bar[t])), float(np.sqrt(1 - alpha_bar[t]))
        found = [_error(model, *scene, alpha, sigma, t) for scene in scenes]
        errors.append(float(np.mean(found)))
        on_time()
    return errors


def _error(  # noqa: PLR0917
    model: Model, x0: Tensor, y: Tensor, hint: Tensor, alpha: float, sigma: float, t: int
) -> float:
    height, width = x0.shape[-2:]
    keys = noise_keys([noise_key(0, digest(x0.cpu().numpy()), t)], x0.device)
    eps = gaussian_noise(keys, (0, height), (0, width), x0.shape[1])
    x = alpha * x0 + sigma * eps.to(x0)
    found = model.denoiser.predict_x0(
        x, alpha=alpha, sigma=sigma, a=alpha, m=0.0, y=y, hint=hint, t=t
    )
    return (alpha / sigma) ** 2 * squared_norm((x0 - found).cpu().numpy())


def finest_octave(state: Tensor) -> float:
    """The squared norm of what a state (1, C, H, W), H and W even, loses when it is made half as
    large and large again, bicubically: the energy of its texture."""
    height, width = state.shape[-2:]
    coarse = resize(resize(state, (height // 2, width // 2)), (height, width))
    return squared_norm((state - coarse).cpu().numpy())


@dataclass(frozen=True)
class SpectrumErrors:
    """How far a picture's 2-D spectrum is from the original's (Appendix F).

    low, high: relative errors ‖S − S_hr‖ / ‖S_hr‖ inside RADIUS (content) and outside (detail), of
    complex values: what is in the wrong place is wrong, and an error above 1 is worse than nothing.
    amplitude: Σ | |S| − |S_hr| | / Σ |S_hr|, inside plus outside: detail counts for its amount,
    wherever it is. The mean of the picture counts nowhere.
    """

    low: float
    high: float
    amplitude: float

    @classmethod
    def between(cls, result: Tensor, hr: Tensor) -> Self:
        """result, hr: (3, H, W) in [0, 1]; of their luma."""
        (ours, radius), (theirs, _) = spectrum(result), spectrum(hr)
        inside, outside = (radius > 0) & (radius <= RADIUS), radius > RADIUS

        def complex_error(band: NDArray[np.bool_]) -> float:
            error, true = (float(np.linalg.norm(x[band])) for x in (ours - theirs, theirs))
            return error / max(true, 1e-12)

        def amplitude_error(band: NDArray[np.bool_]) -> float:
            mine, true = np.abs(ours[band]), np.abs(theirs[band])
            return float(np.abs(mine - true).sum() / max(true.sum(), 1e-12))

        return cls(
            low=complex_error(inside),
            high=complex_error(outside),
            amplitude=amplitude_error(inside) + amplitude_error(outside),
        )


def spectrum(image: Tensor) -> tuple[NDArray[np.complex128], Array]:
    """Image (3, H, W) in [0, 1] → its luma's 2-D spectrum and frequencies in cycles a pixel.

    Both (H, W//2 + 1); the spectrum is over the number of pixels.
    """
    height, width = image.shape[-2:]
    levels = luma(image[None])[0, 0].double().cpu().numpy() / 255
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    return np.fft.rfft2(levels) / levels.size, radius


def radial(image: Tensor, bins: int = 32) -> tuple[Array, Array]:
    """The mean amplitude in `bins` rings from 0 to 0.5 cycles a pixel: (frequencies, means)."""
    values, radius = spectrum(image)
    amplitude = np.abs(values)
    ring = (radius * 2 * bins).astype(int).ravel()
    inside = ring < bins
    counts = np.bincount(ring[inside], minlength=bins)
    sums = np.bincount(ring[inside], amplitude.ravel()[inside], minlength=bins)
    return (np.arange(bins) + 0.5) / (2 * bins), sums / np.maximum(counts, 1)
