"""Random HR crops of a folder of photographs, each keyed by its number in the run."""

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sr_cli.engine.images import load, probe
from sr_cli.engine.inputs import pictures
from sr_cli.errors import InputError, UsageError
from sr_cli.training.graphics import decorate

CACHE_BYTES = 2**30
TEXTURED = 0.25
"""Share of the crops that come from the second folder."""


class BadPhotographError(UsageError):
    """A file of the folder cannot be read.

    Of one that a worker raised torch makes another, with the worker's traceback before the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().rpartition(f"{type(self).__name__}: ")[2])


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise BadPhotographError(f"{error} Remove it from the training folder.") from error


def image_files(folder: Path) -> list[Path]:
    """The picture files below `folder` in natural order, as `inputs.pictures` finds them.

    Raises UsageError when the folder does not exist or has none, InputError when it cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}: name a folder of photographs.")
    files = pictures(folder, recursive=True)
    if not files:
        raise UsageError(f"{folder} holds no images: name a folder of photographs.")
    return files


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Decoded image, upright, (H, W, 3) uint8 RGB. Raises BadPhotographError."""
    with _readable():
        return np.rint(load(path).rgb * 255).astype(np.uint8)


class Crops(Dataset[Tensor]):
    """Crop i of a run: image, place, flips and quarter turns drawn from the key (seed, i).

    Of two random places the one with more detail is taken, since flat sky teaches little. A share
    TEXTURED comes from the folder `textures`, if there is one, and in a share `graphics` something
    is drawn. Items are uint8 (3, crop, crop). Decoded images are kept up to 1 GiB a process. Raises
    BadPhotographError, at once where a file's header tells it, else when it is drawn.
    """

    def __init__(
        self,
        folder: Path,
        *,
        crop: int,
        seed: int,
        length: int,
        textures: Path | None = None,
        graphics: float = 0.0,
    ) -> None:
        self.files = image_files(folder)
        self.textures = image_files(textures) if textures else []
        with _readable():
            for file in (*self.files, *self.textures):
                probe(file)
        self.crop, self.seed, self.length, self.graphics = crop, seed, length, graphics
        self._cache: OrderedDict[Path, NDArray[np.uint8]] = OrderedDict()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        pick = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, index))))
        files = self.textures if self.textures and pick.random() < TEXTURED else self.files
        image = self._decoded(files[int(pick.integers(len(files)))])
        places = [self._place(image, pick) for _ in range(2)]
        crop = max(places, key=lambda c: float(cv2.Laplacian(c, cv2.CV_32F).std()))
        crop = np.rot90(crop, int(pick.integers(4)))
        if pick.random() < 0.5:
            crop = crop[:, ::-1]
        levels = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))
        if not self.graphics:
            return levels
        decorated = decorate(levels[None].float() / 255, pick, self.graphics)[0]
        return (decorated * 255).round().byte()

    def _place(self, image: NDArray[np.uint8], pick: np.random.Generator) -> NDArray[np.uint8]:
        top, left = (int(pick.integers(side - self.crop + 1)) for side in image.shape[:2])
        return image[top : top + self.crop, left : left + self.crop]

    def _decoded(self, path: Path) -> NDArray[np.uint8]:
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        image = read_rgb(path)
        if min(image.shape[:2]) < self.crop:
            scale = self.crop / min(image.shape[:2])
            size = tuple(max(self.crop, round(side * scale)) for side in image.shape[1::-1])
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
        self._cache[path] = image
        while sum(i.nbytes for i in self._cache.values()) > CACHE_BYTES and len(self._cache) > 1:
            self._cache.popitem(last=False)
        return image


def crop_loader(
    folder: Path,
    *,
    crop: int,
    batch: int,
    seed: int,
    iterations: range,
    workers: int,
    device: torch.device,
    textures: Path | None = None,
    graphics: float = 0.0,
    epoch: int | None = None,
) -> DataLoader[Tensor]:
    """Batches (batch, 3, crop, crop) uint8 of the given iterations, the same after a resume.

    epoch: after how many batches the same come again; None: never.
    """
    data = Crops(
        folder,
        crop=crop,
        seed=seed,
        length=(epoch or iterations.stop) * batch,
        textures=textures,
        graphics=graphics,
    )
    return DataLoader(
        data,
        batch_size=batch,
        sampler=Order(iterations, batch, epoch),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_set_up_worker,
    )


class Order(Sampler[int]):
    """The numbers of the crops of some iterations, which begin anew after `epoch` batches."""

    def __init__(self, iterations: range, batch: int, epoch: int | None) -> None:
        self.iterations, self.batch, self.epoch = iterations, batch, epoch

    def __len__(self) -> int:
        return len(self.iterations) * self.batch

    def __iter__(self) -> Iterator[int]:
        for iteration in self.iterations:
            number = iteration % self.epoch if self.epoch else iteration
            yield from range(number * self.batch, (number + 1) * self.batch)


def _set_up_worker(_: int) -> None:
    """One thread, in a process group of its own: Ctrl-C is for the run, which then ends it."""
    if os.name == "posix":
        os.setpgid(0, 0)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
