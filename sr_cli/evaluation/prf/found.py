"""What a search finds: points by time, scales, and the thresholds that fit them best."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from statistics import median

from sr_cli.diffusion import prf
from sr_cli.evaluation.metrics import BETTER

CRITERIA = ("lpips", "amplitude")
"""What t* is chosen by: the first that can be measured."""


@dataclass(frozen=True)
class Point:
    """Recovered from time t: the mean of each score (None: not measured), the median seconds."""

    t: int
    scores: Mapping[str, float | None]
    seconds: float


@dataclass(frozen=True)
class AtScale:
    """One scale. points: by rising t. field: analytic, None where it is empty or has no thresholds.

    distance: ‖x0 − y‖², mean over the images. reference: the time to compare with: 0, the
    enlargement itself, for Diff-SR; T/2 for DoSSR.
    """

    scale: float
    points: tuple[Point, ...]
    distance: float
    field: prf.Field | None
    reference: int

    def best(self, name: str) -> Point | None:
        """The point with the best score of this name, the earliest of equals; None: unmeasured."""
        known = [point for point in self.points if point.scores.get(name) is not None]
        return min(known, key=lambda point: cost(name, point), default=None)

    @property
    def criterion(self) -> str:
        """What `star` was chosen by."""
        return next(name for name in CRITERIA if self.best(name))

    @property
    def star(self) -> Point:
        """t*, as measured."""
        best = self.best(self.criterion)
        assert best is not None
        return best

    def at(self, t: int) -> Point:
        """The point of a time that was measured."""
        return next(point for point in self.points if point.t == t)


@dataclass(frozen=True)
class SearchResult:
    """All scales under one schedule. alpha_bar: ᾱ; errors: E_t, both (T,). texture: the squared
    norm of the images' finest octave, their mean. thresholds: of the fields; None: there are none.
    """

    found: tuple[AtScale, ...]
    alpha_bar: prf.Array
    errors: prf.Array
    texture: float
    thresholds: prf.Thresholds | None = None

    @property
    def length(self) -> int:
        """T: how many times there are."""
        return len(self.alpha_bar)

    @property
    def restored(self) -> prf.Array:
        """e_t, (T,)."""
        return prf.restoration_error(self.alpha_bar, self.errors)

    @property
    def signature(self) -> prf.Array:
        """L^S, (T,)."""
        return prf.signature_loss(self.alpha_bar, self.errors)

    def fidelity(self, row: AtScale) -> prf.Array:
        """ω L^F of a scale, (T,)."""
        omega = (self.thresholds or prf.Thresholds()).omega
        return omega * prf.fidelity_loss(self.alpha_bar, row.distance)


def cost(name: str, point: Point) -> float:
    """A score as something to make small; ∞ where it was not measured."""
    value = point.scores.get(name)
    if value is None:
        return float("inf")
    return -value if BETTER.get(name) == "higher" else value


def with_fields(measured: SearchResult, thresholds: prf.Thresholds) -> SearchResult:
    """The same with the analytic field of each scale for these thresholds."""
    restored, texture = measured.restored, measured.texture
    found = tuple(
        replace(row, field=prf.find(restored, row.distance, texture, thresholds))
        for row in measured.found
    )
    return replace(measured, found=found, thresholds=thresholds)


def fit_thresholds(measured: SearchResult) -> prf.Thresholds | None:
    """ω and C^F by which the analytic field is nearest the measured one; None: no noise helps.

    ω is the median of e_t / ‖x0 − y‖² at the measured t* of the scales where noise helps. C^F lies
    between the largest e_0 / ‖x0 − y‖² of these and the least of the others (the geometric mean);
    it is the former where noise helps everywhere.
    """
    restored, last = measured.restored, measured.length - 1
    useful = [row for row in measured.found if row.star.t > 0]
    if not useful:
        return None
    others = [row.distance for row in measured.found if row.star.t == 0]
    least = min(row.distance for row in useful)
    between = sqrt(least * max(others, default=least))
    omega = median(restored[min(row.star.t, last)] / row.distance for row in useful)
    return prf.Thresholds(omega=float(omega), fidelity=float(restored[0] / between))
