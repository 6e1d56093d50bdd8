"""Crops side by side: what comes back from each noise level (Fig. 2 and 3 of the Diff-SR paper)."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from sr_cli.evaluation.plots import contact_sheet
from sr_cli.evaluation.prf.found import AtScale, SearchResult
from sr_cli.evaluation.prf.search import Search
from sr_cli.evaluation.scene import Scene
from sr_cli.evaluation.sweep_figures import ROWS, busiest_crops
from sr_cli.models.resampling import resize


def sheet(search: Search, result: SearchResult, path: Path) -> None:
    """The busiest crop of the first image at each scale, or of the first images at the only one:
    LR (bicubic), recovered from each time of the grid and from t*, and HR.

    Raises as `contact_sheet`.
    """
    times = [t for t in search.grid if t > 0]
    columns = ["LR, bicubic", *(f"t/T = {t / search.T:g}" for t in times), "t*", "HR"]
    crops, names = [], []
    for name, row, scene in _rows(search, result):
        found = [_recovered(search, scene, t) for t in (*times, row.star.t)]
        size = (scene.hr.shape[1], scene.hr.shape[2])
        bicubic = resize(scene.lr[None], size)[0].clamp(0, 1)
        crops.append(busiest_crops(scene.hr, (bicubic, *found, scene.hr)))
        names.append(f"{name}, t* = {row.star.t}")
    contact_sheet(crops, columns, names, path)


def _rows(search: Search, result: SearchResult) -> Iterator[tuple[str, AtScale, Scene]]:
    if len(result.found) > 1:
        for row in result.found:
            yield f"{row.scale:g}x", row, search.scene(search.images[0], row.scale)
    else:
        (row,) = result.found
        for file, image in list(zip(search.files, search.images, strict=True))[:ROWS]:
            yield file.stem, row, search.scene(image, row.scale)


def _recovered(search: Search, scene: Scene, t: int) -> Tensor:
    found, _ = scene.through(search.engine.using(t1=t))
    return found
