"""What a search finds: points by time, scales, and the thresholds that fit them best."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
class Found:
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

    @property
    def last_useful(self) -> int:
        """The latest measured time that is not worse than the reference."""
        bound = cost(self.criterion, self.at(self.reference))
        return max(p.t for p in self.points if cost(self.criterion, p) <= bound)


@dataclass(frozen=True)
class Result:
    """All scales under one schedule. alpha_bar: ᾱ; signature: L^S, both (T,). thresholds: C^S and
    C^F."""

    found: tuple[Found, ...]
    alpha_bar: prf.Array
    signature: prf.Array
    thresholds: prf.Thresholds | None
    omega: float

    @property
    def length(self) -> int:
        """T: how many times there are."""
        return len(self.alpha_bar)

    def fidelity(self, row: Found) -> prf.Array:
        """ω L^F of a scale, (T,)."""
        return self.omega * prf.fidelity_loss(self.alpha_bar, row.distance)


def cost(name: str, point: Point) -> float:
    """A score as something to make small; ∞ where it was not measured."""
    value = point.scores.get(name)
    if value is None:
        return float("inf")
    return -value if BETTER.get(name) == "higher" else value


def with_fields(measured: Result, thresholds: prf.Thresholds) -> Result:
    """The same with the analytic field of each scale for these thresholds."""
    found = []
    for row in measured.found:
        fidelity = prf.fidelity_loss(measured.alpha_bar, row.distance)
        field = prf.find(measured.signature, fidelity, thresholds, omega=measured.omega)
        found.append(replace(row, field=field))
    return replace(measured, found=tuple(found), thresholds=thresholds)


def fit_thresholds(measured: Result) -> prf.Thresholds | None:
    """C^S and C^F by which the analytic field is nearest the measured one; None: nothing helps.

    Both are medians over the scales where noise helps: C^F of ω L^F at the measured t*, C^S
    of L^S at the latest time from which recovery was not worse than none. So a scale has no field
    where its fidelity asks for more noise than the others' signature bears.
    """
    last = measured.length - 1
    useful = [row for row in measured.found if row.star.t > 0]
    if not useful:
        return None
    signatures = [measured.signature[min(row.last_useful, last)] for row in useful]
    losses = [measured.fidelity(row)[min(row.star.t, last)] for row in useful]
    return prf.Thresholds(median(signatures), median(losses))
