"""From what a user wants trained to its objective."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sr_cli.errors import UsageError
from sr_cli.files import digest
from sr_cli.models.network import EmbeddedConfig
from sr_cli.models.preprocess import load_preprocessor
from sr_cli.training.criterion import Criterion
from sr_cli.training.export import begin_with
from sr_cli.training.objectives import (
    CompactObjective,
    EmbeddedObjective,
    Mix,
    Objective,
    PriorObjective,
)
from sr_cli.training.objectives_walk import WalkObjective
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
    LPIPS on VGG16, 0 for none; adversarial: share of a discriminator's gradient; sharpen: amount of
    the unsharp mask on the target. teacher: a
    preprocessor whose answers are the target in `teacher_share` of the parts. Raises UsageError.
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
    sharpen: float = 0.0
    teacher: str | None = None
    teacher_share: float = 1.0

    def __post_init__(self) -> None:
        pictured: dict[str, Any] = {"--feature-loss": self.feature_loss}
        pictured |= {"--adversarial": self.adversarial, "--sharpen": self.sharpen}
        shaped: dict[str, Any] = {"--cap": self.cap, "--detail": self.detail, "--dial": self.dial}
        shaped["--refine"] = self.refine
        shaped["--widen-from"] = self.widen_from
        for name, value in {**pictured, **shaped}.items():
            if isinstance(value, int | float) and not value >= 0:
                raise UsageError(f"{name} must not be negative.")
        unfit = shaped if self.network == "compact" else {}
        if self.network == "prior":
            unfit = {**pictured, **shaped, "--teacher": self.teacher}
        if given := [name for name, value in unfit.items() if value]:
            raise UsageError(f"{given[0]} is of no use to {self.network}: leave it out.")
        if self.init and self.widen_from:
            raise UsageError("--init and --widen-from both say what to begin with: give one.")
        seen = {"--adversarial": self.adversarial, "--sharpen": self.sharpen, "--dial": self.dial}
        if not self.feature_loss and (given := [name for name, value in seen.items() if value]):
            raise UsageError(f"{given[0]} needs --feature-loss, for example 2.")

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
            criterion = Criterion(self.feature_loss, adversarial=self.adversarial, device=device)
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
        )

    def _teacher(self, run: Path, device: str) -> Teacher | None:
        if self.teacher is None:
            return None
        network = load_preprocessor(self.teacher, device)
        path = Path(self.teacher)
        own = digest(path)[:16] if path.is_file() else self.teacher
        return Teacher(network, path.name, run / "teacher" / own, share=self.teacher_share)
