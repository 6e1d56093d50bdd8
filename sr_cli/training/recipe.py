"""From what a user wants trained to its objective."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from sr_cli.errors import UsageError
from sr_cli.files import digest
from sr_cli.models.network import EmbeddedConfig
from sr_cli.models.preprocess import load_preprocessor
from sr_cli.models.registry import card, names
from sr_cli.training.criterion import LATTICE, Criterion
from sr_cli.training.export import begin_with
from sr_cli.training.objectives import (
    CompactObjective,
    EmbeddedObjective,
    Mix,
    Objective,
    PriorObjective,
)
from sr_cli.training.objectives_walk import WalkObjective
from sr_cli.training.perceptual import LEAST
from sr_cli.training.teacher import Teacher
from sr_cli.training.widening import config_of, widened

Network = Literal["compact", "embedded", "prior"]
MIXES = {"compact": Mix(0.3, 0.5, 0.2), "embedded": Mix(0.17, 0.65, 0.18)}
WIDTHS, BLOCKS = (64, 96, 128), (2, 2, 3)
CAP, DETAIL, REFINE = 4.0, 13, 1
PRIOR_DEVIATION = 0.5
"""Standard deviation of photographs in [−1, 1], about."""


@dataclass(frozen=True)
class Recipe:
    """A network and what it is trained for; None is the default, or what the first weights have.

    widths, blocks, cap, detail, refine, dial: as in `EmbeddedConfig`, of `embedded` and (the first
    two) `prior`. init: a card to begin with; widen_from: one whose network is made larger first.
    preprocess: "none" means clean input alone. mix: shares of degradations. feature_loss: weight of
    LPIPS on VGG16, 0 for none; adversarial: share of a discriminator's gradient; lattice, edges:
    weights of what `lattice` and `differences` charge; sharpen: amount of the unsharp mask on the
    target; later: see `WalkObjective`. teacher: a preprocessor whose answers are the target in
    `teacher_share` of the parts, `window`: at windows of this side. Raises UsageError.
    """

    network: Network
    widths: tuple[int, ...] | None = None
    blocks: tuple[int, ...] | None = None
    cap: float | None = None
    detail: int | None = None
    refine: int | None = None
    dial: bool | None = None
    init: str | None = None
    widen_from: str | None = None
    preprocess: str = "compact"
    mix: Mix | None = None
    feature_loss: float = 0.0
    adversarial: float = 0.0
    lattice: float | None = None
    edges: float = 0.0
    sharpen: float = 0.0
    later: float | None = None
    teacher: str | None = None
    teacher_share: float = 1.0
    window: int | None = None

    def __post_init__(self) -> None:
        charged: dict[str, Any] = {"--adversarial": self.adversarial}
        charged |= {"--lattice": self.lattice, "--edges": self.edges}
        walked: dict[str, Any] = {"--sharpen": self.sharpen, "--later": self.later}
        shaped: dict[str, Any] = {"--cap": self.cap, "--detail": self.detail, "--dial": self.dial}
        shaped |= {"--refine": self.refine, "--widen-from": self.widen_from}
        taught = {"--teacher": self.teacher, "--window": self.window}
        seen = {"--feature-loss": self.feature_loss, **charged, **walked}
        for name, value in {**seen, **shaped}.items():
            if isinstance(value, int | float) and not value >= 0:
                raise UsageError(f"{name} must not be negative.")
        unfit = {"compact": walked | shaped, "embedded": {}, "prior": seen | shaped | taught}
        if given := _given(unfit[self.network]):
            raise UsageError(f"{given} is of no use to {self.network}: leave it out.")
        if self.init and self.widen_from:
            raise UsageError("--init and --widen-from both say what to begin with: give one.")
        if not self.feature_loss and (given := _given(charged | walked | {"--dial": self.dial})):
            raise UsageError(f"{given} needs --feature-loss, for example 2.")
        self._check_window()

    def _check_window(self) -> None:
        if self.window is None:
            return
        if self.teacher is None:
            raise UsageError("--window needs --teacher: without one choose a smaller --crop.")
        if self.window < LEAST or self.window % 16:
            raise UsageError(
                f"--window must be a multiple of 16, {LEAST} at least, not {self.window}."
            )

    @property
    def shares(self) -> Mix:
        """Of the degradations."""
        return self.mix or MIXES[self.network]

    @property
    def config(self) -> EmbeddedConfig:
        """Of a denoiser. Raises ModelError when the first weights are not of its kind."""
        first = self.init or self.widen_from
        if first:
            config = config_of(first, self.network)
        elif self.network == "prior":
            config = EmbeddedConfig(WIDTHS, BLOCKS, s=PRIOR_DEVIATION, conditional=False)
        else:
            dial = self.feature_loss > 0
            config = EmbeddedConfig(
                WIDTHS, BLOCKS, cap=CAP, detail=DETAIL, refine=REFINE, dial=dial
            )
        if self.widen_from:
            detail, dial = max(config.detail, DETAIL), config.dial or self.feature_loss > 0
            refine = max(config.refine, REFINE)
            config = replace(config, cap=config.cap or CAP, detail=detail, refine=refine, dial=dial)
        names = ("widths", "blocks", "cap", "detail", "refine", "dial")
        given = {name: getattr(self, name) for name in names}
        return replace(
            config, **{name: value for name, value in given.items() if value is not None}
        )

    def describe(self) -> Mapping[str, Any]:
        """What a card says of the beginning."""
        if self.widen_from:
            return {"begun with": f"{self.widen_from}, widened without a change of its function"}
        return {"begun with": self.init} if self.init else {}

    def objective(self, run: Path, device: str) -> Objective:
        """The network and its loss; `run` is where a teacher's answers are kept.

        Raises UsageError, or ModelError when a model or VGG16's weights are missing or do not fit.
        """
        objective = self._objective(run, device)
        if self.window:
            unit = objective.limits.multiple_of
            if self.window % unit:
                raise UsageError(f"--window {self.window} is no multiple of {unit}.")
            objective.least_crop = max(objective.least_crop, self.window)
        if self.init:
            begin_with(objective, self.init)
        if self.widen_from:
            objective.model = widened(self.widen_from, self.config)
        return objective

    def _objective(self, run: Path, device: str) -> Objective:
        if self.network == "prior":
            return PriorObjective(self.config)
        criterion = None
        if self.feature_loss:
            criterion = Criterion(
                self.feature_loss,
                adversarial=self.adversarial,
                lattice=LATTICE if self.lattice is None else self.lattice,
                edges=self.edges,
                device=device,
            )
        teacher = self._teacher(run, device)
        if self.network == "compact":
            return CompactObjective(mix=self.shares, criterion=criterion, teacher=teacher)
        source = None if self.preprocess == "none" else load_preprocessor(self.preprocess, device)
        if criterion is None:
            return EmbeddedObjective(
                self.config, preprocess=source, mix=self.shares, teacher=teacher
            )
        return WalkObjective(
            self.config,
            preprocess=source,
            mix=self.shares,
            criterion=criterion,
            teacher=teacher,
            sharpen=self.sharpen,
            later=self.later,
        )

    def _teacher(self, run: Path, device: str) -> Teacher | None:
        if self.teacher is None:
            return None
        network, name = load_preprocessor(self.teacher, device), Path(self.teacher).name
        decides = (_identity(self.teacher), _identity(self.preprocess), repr(self.shares))
        folder = run / "teacher" / sha256("\n".join(decides).encode()).hexdigest()[:16]
        return Teacher(network, name, folder, share=self.teacher_share, side=self.window)


def _given(options: Mapping[str, Any]) -> str | None:
    """The first of them that is given."""
    return next((name for name, value in options.items() if value), None)


def _identity(preprocessor: str) -> str:
    """What is another when the network is."""
    path = Path(preprocessor)
    if path.is_file():
        return digest(path)
    return card(preprocessor).identity if preprocessor in names() else preprocessor
