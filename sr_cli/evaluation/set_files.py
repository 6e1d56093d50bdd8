"""Results and HR images as files, which metrics of whole sets (FID) read."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from torch import Tensor

from sr_cli.engine.arrays import to_rgb
from sr_cli.engine.images import Picture, save
from sr_cli.evaluation.metrics import Metrics


class SetFiles:
    """A context with two folders, of results and of HR images, and what they score.

    wanted: whether there is a metric of whole sets; without any, nothing is written.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.wanted = bool(metrics.of_sets)
        self._metrics = metrics
        self._scratch = TemporaryDirectory(prefix="srx-")
        self._folders = [Path(self._scratch.name, name) for name in ("results", "hr")]
        self._count = 0

    def __enter__(self) -> SetFiles:
        for folder in self._folders:
            folder.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._scratch.cleanup()

    def add(self, result: Tensor, hr: Tensor) -> None:
        """One result and its HR image, (3, H, W) in [0, 1]."""
        if self.wanted:
            for image, folder in zip((result, hr), self._folders, strict=True):
                save(Picture(to_rgb(image)), folder / f"{self._count}.png")
        self._count += 1

    def scores(self) -> dict[str, float | None]:
        """Each metric of whole sets of all that was added."""
        return self._metrics.score_sets(*self._folders)
