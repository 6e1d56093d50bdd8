"""The training loop: resumable, seeded, by wall clock or by iterations."""

import csv
import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sr_cli.degradation.degrade import Randomness
from sr_cli.engine.images import probe
from sr_cli.errors import ModelError, UsageError, is_out_of_memory
from sr_cli.files import whole
from sr_cli.models.resampling import resize
from sr_cli.training.data import crop_loader, image_files, read_rgb
from sr_cli.training.interrupts import held_back
from sr_cli.training.objectives import Objective

CHECKPOINT = "checkpoint.pt"
PARTS = {"data", "iteration", "elapsed", "model", "ema", "discriminator", "optimisers"}
"""Of a checkpoint."""
DISCRIMINATOR_RATE = 2e-4
"""Learning rate of a discriminator, from the first iteration to the last."""


@dataclass(frozen=True)
class TrainOptions:
    """A training run. It ends after `minutes` of wall clock or `iterations`, as given.

    data: folder of photographs. run: folder for checkpoint.pt and log.csv; a run that is there
    continues. crop: HR pixels, a multiple of 16. ema: decay of the weights that are kept.
    textures: a second folder, for a quarter of the crops. graphics: share of the crops in which
    something is drawn, 0 to 0.5. epoch: after how many crops (rounded up to whole batches) the same
    ones come again; None: never. Raises UsageError.
    """

    data: Path
    run: Path
    minutes: float | None = None
    iterations: int | None = None
    batch: int = 16
    crop: int = 128
    lr: float = 2e-3
    seed: int = 0
    workers: int = 1
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    ema: float = 0.999
    val: Path | None = None
    save_every: float = 120.0
    textures: Path | None = None
    graphics: float = 0.16
    epoch: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.iterations is None):
            raise UsageError("A training run needs --minutes or --iterations, one of them.")
        for name in ("minutes", "iterations", "batch", "crop", "lr", "epoch"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"--{name} must be more than 0, not {value}.")
        if self.crop % 16:
            raise UsageError(f"--crop {self.crop} is no multiple of 16.")
        if self.seed < 0 or self.workers < 0:
            raise UsageError("--seed and --workers must not be negative.")
        if not 0 <= self.graphics <= 0.5:
            raise UsageError(f"--graphics must be 0 to 0.5, not {self.graphics}.")

    @property
    def folders(self) -> str:
        """The names of the folders of photographs."""
        return " and ".join(p.resolve().name for p in (self.data, self.textures) if p)


@dataclass(frozen=True)
class Progress:
    """State of a run after an iteration.

    done: share of the budget, 0 to 1. elapsed: seconds. saved: there is a new checkpoint; psnr: of
    its averaged weights on the held-out folder, in dB.
    """

    iteration: int
    loss: float
    done: float
    elapsed: float
    saved: bool = False
    psnr: float | None = None


class Trainer:
    """One run: a model, its moving average, Muon for its matrices and AdamW for the rest, and for
    a discriminator where the objective has one.

    Raises UsageError when the crop or a held-out picture does not fit the network, or the run in
    the folder had a folder of photographs with another name; ModelError when the checkpoint in the
    run's folder is damaged or another network's.
    """

    def __init__(self, objective: Objective, options: TrainOptions) -> None:
        self.objective, self.options = objective, options
        self.unit = math.lcm(16, objective.limits.multiple_of)
        if options.crop % self.unit:
            raise UsageError(
                f"--crop {options.crop} is no multiple of {self.unit}, as this network needs."
            )
        if options.crop < objective.least_crop:
            raise UsageError(
                f"--crop {options.crop} is too small for --feature-loss or --window: "
                f"{objective.least_crop} is the least."
            )
        self.held_out = image_files(options.val) if options.val else []
        for file in self.held_out:
            if min(probe(file)) < self.unit:
                raise UsageError(f"{file} is too small for --val: the least is {self.unit} pixels.")
        self.device = torch.device(options.device)
        self.model = objective.model.to(self.device).to(memory_format=torch.channels_last)
        self.ema: AveragedModel = AveragedModel(
            self.model,
            multi_avg_fn=get_ema_multi_avg_fn(options.ema),  # type: ignore[no-untyped-call]
        )
        self.matrices = Matrices(self.model)
        rest = [p for p in self.model.parameters() if id(p) not in self.matrices.ids]
        self.optimisers: list[Optimizer] = [
            Muon(
                self.matrices.views,
                lr=options.lr,
                weight_decay=0.01,
                adjust_lr_fn="match_rms_adamw",
            ),
            AdamW(rest, lr=options.lr, weight_decay=0, betas=(0.9, 0.98)),
        ]
        self.rival: Optimizer | None = None
        if objective.discriminator is not None:
            parameters = objective.discriminator.parameters()
            self.rival = AdamW(parameters, DISCRIMINATOR_RATE, weight_decay=0, betas=(0.0, 0.99))
        self.iteration, self.elapsed, self.loss = 0, 0.0, math.nan
        options.run.mkdir(parents=True, exist_ok=True)
        self.checkpoint = options.run / CHECKPOINT
        if self.checkpoint.exists():
            self._resume()
        self._saved = self.iteration

    def run(self) -> Generator[Progress, None, None]:
        """Train to the end of the budget; yields after each iteration, saves as it goes.

        A run whose budget is spent (`done` is 1) stays as it is. Interrupted (KeyboardInterrupt)
        or closed, it saves the iterations that are complete.
        """
        try:
            yield from self._iterate()
        except (KeyboardInterrupt, GeneratorExit):
            if self.iteration > self._saved:
                self._save(None)
            raise

    def _iterate(self) -> Generator[Progress, None, None]:
        options = self.options
        started, saved = time.monotonic() - self.elapsed, time.monotonic()
        last = options.iterations or 10**7
        loader = crop_loader(
            options.data,
            crop=options.crop,
            batch=options.batch,
            seed=options.seed,
            iterations=range(self.iteration, last),
            workers=options.workers,
            device=self.device,
            textures=options.textures,
            graphics=options.graphics,
            epoch=options.epoch and -(-options.epoch // options.batch),
        )
        batches = iter(loader)
        for _ in range(self.iteration, last):
            if self.done >= 1:
                return
            with held_back():  # a worker whose delivery is cut short prints a traceback
                batch = next(batches)
            self._step(batch)
            self.elapsed = time.monotonic() - started
            due = time.monotonic() - saved > options.save_every or self.done >= 1
            psnr = None
            if due:
                saved = time.monotonic()
                psnr = self.validate()
                self._save(psnr)
            yield Progress(self.iteration, self.loss, self.done, self.elapsed, due, psnr)

    @property
    def done(self) -> float:
        """Share of the budget that is spent."""
        if self.options.iterations:
            return self.iteration / self.options.iterations
        return self.elapsed / (60 * (self.options.minutes or 1))

    def _step(self, batch: Tensor) -> None:
        hr = batch.to(self.device, non_blocking=True).float() / 255
        rng = Randomness.keyed(self.device, self.options.seed, self.iteration, 1)
        warmup = min(1.0, (self.iteration + 1) / 100)
        rate = self.options.lr * warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, self.done)))
        low = self.options.dtype != torch.float32
        if self.rival:
            self.rival.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.options.dtype, enabled=low):
            loss = self.objective.loss(hr, rng)
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.matrices.collect()
        value = loss.item()
        if not math.isfinite(value):
            raise ModelError(f"the loss is {value} at iteration {self.iteration + 1}: lower --lr")
        with held_back():  # all that a checkpoint keeps moves here and nowhere else
            for optimiser in self.optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = rate
                optimiser.step()
            if self.rival and self.objective.discriminator:
                self.rival.step()
                self.objective.discriminator.renew()
            self.ema.update_parameters(self.model)
            self.iteration, self.loss = self.iteration + 1, value

    @torch.no_grad()
    def validate(self) -> float | None:
        """Mean PSNR in dB of the averaged weights' regression of bicubic LR ×4, over RGB; at most
        100 of a picture."""
        if not self.held_out:
            return None
        kept, self.objective.model = self.objective.model, self.ema.module
        scores = []
        for file in self.held_out:
            image = read_rgb(file)
            height, width = (side // self.unit * self.unit for side in image.shape[:2])
            hr = torch.from_numpy(image[:height, :width].transpose(2, 0, 1).copy())[None]
            hr = hr.to(self.device).float() / 255
            lr = (resize(hr, (height // 4, width // 4)).clamp(0, 1) * 255).round() / 255
            error = self.objective.regress(lr, (height, width)).clamp(0, 1) - hr
            scores.append(-10 * math.log10(max(float(error.square().mean()), 1e-10)))
        self.objective.model = kept
        return float(np.mean(scores))

    def _save(self, psnr: float | None) -> None:
        discriminator = self.objective.discriminator
        state = {
            "data": self.options.folders,
            "iteration": self.iteration,
            "elapsed": self.elapsed,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "discriminator": discriminator.state_dict() if discriminator else {},
            "optimisers": [o.state_dict() for o in self._all_optimisers()],
        }
        row = {"iteration": str(self.iteration), "seconds": f"{self.elapsed:.1f}"}
        row |= {"loss": f"{self.loss:.6f}", "val_psnr": "" if psnr is None else f"{psnr:.4f}"}
        with held_back():
            with whole(self.checkpoint) as partial:
                torch.save(state, partial)
            append_row(self.options.run / "log.csv", row)
            self._saved = self.iteration

    def _all_optimisers(self) -> list[Optimizer]:
        return [*self.optimisers, self.rival] if self.rival else self.optimisers

    def _resume(self) -> None:
        state = read_checkpoint(self.checkpoint)
        if state["data"] != self.options.folders:
            raise UsageError(
                f"{self.checkpoint} is of a run on {state['data']}: name another --run folder "
                "(--init goes on from weights with other photographs)."
            )
        try:
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            if self.objective.discriminator is not None:
                self.objective.discriminator.load_state_dict(state["discriminator"])
            for optimiser, saved in zip(self._all_optimisers(), state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
        except (RuntimeError, KeyError, ValueError) as error:
            raise ModelError(
                f"{self.checkpoint} does not continue this run ({error}): name another --run folder"
            ) from error
        self.iteration, self.elapsed = state["iteration"], state["elapsed"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """PARTS of a run, on the CPU. Raises ModelError when the file is damaged or no checkpoint."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state.keys() != PARTS:
            raise ValueError("it is of another program")
    except Exception as error:  # a damaged pickle can make the unpickler raise anything
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{path} cannot be read, so that its run cannot go on: name another --run folder."
        ) from error
    return state


class Matrices:
    """Convolution weights as the matrices (out, k·k·in) that Muon orthogonalises.

    The views share memory with the (channels-last) weights: stepping them steps the network. Raises
    ValueError for weights of another layout, whose matrices would be copies.
    """

    def __init__(self, model: nn.Module) -> None:
        weights = [p for p in model.parameters() if p.ndim == 4]
        self.weights = weights
        self.ids = {id(p) for p in weights}
        self.views = [_matrix(w.detach()).requires_grad_() for w in weights]
        for view, weight in zip(self.views, weights, strict=True):
            if view.data_ptr() != weight.data_ptr():
                raise ValueError(f"weights {tuple(weight.shape)} are not in channels-last layout")

    def collect(self) -> None:
        """Hand the weights' gradients to the views."""
        for view, weight in zip(self.views, self.weights, strict=True):
            view.grad = None if weight.grad is None else _matrix(weight.grad)


def _matrix(weight: Tensor) -> Tensor:
    return weight.permute(0, 2, 3, 1).flatten(1)


def append_row(file: Path, row: Mapping[str, str]) -> None:
    """Add a line to a CSV file; a new one begins with the names of the columns."""
    new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
