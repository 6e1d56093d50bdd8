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
from torch.utils.data import DataLoader, Dataset

from sr_cli.engine.images import SUFFIXES, load, probe
from sr_cli.errors import InputError, UsageError

CACHE_BYTES = 2**30


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
    """The images below `folder`, sorted. Raises UsageError when it or they do not exist."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}: name a folder of photographs.")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise UsageError(f"{folder} holds no images: name a folder of photographs.")
    return files


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Decoded image, upright, (H, W, 3) uint8 RGB. Raises BadPhotographError."""
    with _readable():
        return np.rint(load(path).rgb * 255).astype(np.uint8)


class Crops(Dataset[Tensor]):
    """Crop i of a run: image, place, flips and quarter turns drawn from the key (seed, i).

    Of two random places the one with more detail is taken, since flat sky teaches little.
    Items are uint8 (3, crop, crop). Decoded images are kept up to 1 GiB a process. Raises
    BadPhotographError, at once where a file's header tells it, else when it is drawn.
    """

    def __init__(self, folder: Path, *, crop: int, seed: int, length: int) -> None:
        self.files = image_files(folder)
        with _readable():
            for file in self.files:
                probe(file)
        self.crop, self.seed, self.length = crop, seed, length
        self._cache: OrderedDict[Path, NDArray[np.uint8]] = OrderedDict()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        pick = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, index))))
        image = self._decoded(self.files[int(pick.integers(len(self.files)))])
        places = [self._place(image, pick) for _ in range(2)]
        crop = max(places, key=lambda c: float(cv2.Laplacian(c, cv2.CV_32F).std()))
        crop = np.rot90(crop, int(pick.integers(4)))
        if pick.random() < 0.5:
            crop = crop[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1)))

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
) -> DataLoader[Tensor]:
    """Batches (batch, 3, crop, crop) uint8 of the given iterations, the same after a resume."""
    data = Crops(folder, crop=crop, seed=seed, length=iterations.stop * batch)
    order = range(iterations.start * batch, iterations.stop * batch)
    return DataLoader(
        data,
        batch_size=batch,
        sampler=order,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_set_up_worker,
    )


def _set_up_worker(_: int) -> None:
    """One thread, in a process group of its own: Ctrl-C is for the run, which then ends it."""
    if os.name == "posix":
        os.setpgid(0, 0)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
