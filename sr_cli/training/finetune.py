"""The fine-tuning of DoSSR: accumulated batches on one or several GPUs by `accelerate`, resumable.

Crops, degradations and noise are keyed by a part's number in the run, so that a resumed run equals
an uninterrupted one, and several GPUs compute what one does.
"""

from __future__ import annotations

import math
import pickle
import shutil
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import AdamW

from sr_cli.degradation.degrade import Randomness
from sr_cli.errors import ModelError, UsageError
from sr_cli.files import require_space, writing
from sr_cli.models.checkpoints import narrowed, read_state_dict
from sr_cli.models.registry import Card, write_card
from sr_cli.models.store import Staging
from sr_cli.training.data import crop_loader
from sr_cli.training.export import hardware
from sr_cli.training.interrupts import held_back
from sr_cli.training.objectives_dossr import PREFIX, DossrObjective
from sr_cli.training.train import Progress, append_row

if TYPE_CHECKING:
    from accelerate import Accelerator

CHECKPOINT = "checkpoint-"
"""Begins the name of a checkpoint's folder; the iteration follows."""


@dataclass(frozen=True)
class FinetuneOptions:
    """A fine-tuning; the defaults are the paper's.

    data: folder of photographs. run: folder for the checkpoint and log.csv; a run that is there
    continues. batch: crops an iteration, over all GPUs. micro: crops that a GPU computes at once.
    crop: HR pixels. lr: constant. save_every: iterations. Raises UsageError.
    """

    data: Path
    run: Path
    iterations: int = 50_000
    batch: int = 32
    micro: int = 4
    crop: int = 512
    lr: float = 5e-5
    seed: int = 0
    workers: int = 1
    save_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("iterations", "batch", "micro", "crop", "lr", "save_every"):
            if not getattr(self, name) > 0:
                raise UsageError(f"--{name.replace('_', '-')} must be more than 0.")
        if self.seed < 0 or self.workers < 0:
            raise UsageError("--seed and --workers must not be negative.")


def accelerator(*, cpu: bool) -> Accelerator:
    """This process's share of the run: what `accelerate launch` says, else the one device."""
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise UsageError("Fine-tuning needs accelerate: run pip install 'srx[train]'.") from error
    return Accelerator(cpu=cpu, mixed_precision="no")  # the objective casts, for frozen parts too


class Finetuner:
    """One run: AdamW on the ControlNet of an objective.

    Raises UsageError when the batch cannot be dealt out or the crop does not fit the model;
    ModelError when the checkpoint in the run's folder is damaged or another network's.
    """

    def __init__(
        self, objective: DossrObjective, options: FinetuneOptions, accelerator: Accelerator
    ) -> None:
        self.objective, self.options, self.accelerator = objective, options, accelerator
        share = options.micro * accelerator.num_processes
        if options.batch % share:
            raise UsageError(
                f"--batch {options.batch} is no multiple of {share}, which --micro "
                f"{options.micro} on {accelerator.num_processes} device(s) makes: change one."
            )
        if options.crop % objective.unit:
            raise UsageError(f"--crop {options.crop} is no multiple of {objective.unit}.")
        accelerator.gradient_accumulation_steps = options.batch // share
        control = objective.denoiser.control
        optimiser = AdamW(control.parameters(), options.lr)
        objective.denoiser.control, self.optimiser = accelerator.prepare(control, optimiser)
        self.iteration, self.loss = 0, math.nan
        found = sorted(p for p in options.run.glob(f"{CHECKPOINT}*") if p.suffix != ".partial")
        if found:
            self._resume(found[-1])
        self._saved = self.iteration

    @property
    def control(self) -> Mapping[str, Tensor]:
        """The ControlNet's weights, float32."""
        net: Any = self.accelerator.unwrap_model(self.objective.denoiser.control)
        state: Mapping[str, Tensor] = net.state_dict()
        return state

    def run(self) -> Generator[Progress, None, None]:
        """Train to the end; yields after each iteration, saves as it goes.

        An interrupt waits for the end of a part; then all processes save the iterations that are
        complete, and KeyboardInterrupt is raised.
        """
        started = time.monotonic()
        losses: list[Tensor] = []
        with held_back() as interrupts:
            for number, batch in self._parts():
                with self.accelerator.accumulate(self.objective.denoiser.control):
                    losses.append(self._backward(number, batch))
                    self.optimiser.step()
                    self.optimiser.zero_grad()
                if self.accelerator.sync_gradients:
                    yield self._completed(losses, time.monotonic() - started)
                    losses.clear()
                if interrupts:
                    self.accelerator.set_trigger()
                if self.accelerator.check_trigger():  # in any process
                    self._save()
                    raise KeyboardInterrupt

    def _completed(self, losses: list[Tensor], elapsed: float) -> Progress:
        """Count an iteration, and save it where that is due."""
        self.iteration += 1
        self.loss = self._mean(losses)
        done = self.iteration / self.options.iterations
        due = done == 1 or self.iteration % self.options.save_every == 0
        if due:
            self._save()
        return Progress(self.iteration, self.loss, done, elapsed, due)

    def _parts(self) -> Iterator[tuple[int, Tensor]]:
        """This process's parts of the batches, numbered over all processes and iterations."""
        options, processes = self.options, self.accelerator.num_processes
        parts = options.batch // options.micro
        first = self.iteration * parts
        loader = crop_loader(
            options.data,
            crop=options.crop,
            batch=options.micro,
            seed=options.seed,
            iterations=range(first, options.iterations * parts),
            workers=options.workers,
            device=self.accelerator.device,
        )
        batches = self.accelerator.prepare(loader)
        for turn, batch in enumerate(batches):
            yield first + turn * processes + self.accelerator.process_index, batch

    def _backward(self, number: int, batch: Tensor) -> Tensor:
        rng = Randomness.keyed(self.accelerator.device, self.options.seed, number, 1)
        loss = self.objective.loss(batch.float() / 255, rng)
        self.accelerator.backward(loss)
        return loss.detach()

    def _mean(self, losses: list[Tensor]) -> float:
        mean = self.accelerator.reduce(torch.stack(losses).mean(), "mean")
        value = float(mean)
        if not math.isfinite(value):
            raise ModelError(f"the loss is {value} at iteration {self.iteration}: lower --lr")
        return value

    def _save(self) -> None:
        """A new checkpoint takes the old one's place when it is whole."""
        if self.iteration == self._saved:
            return
        folder = self.options.run / f"{CHECKPOINT}{self.iteration:08d}"
        unfinished = folder.with_suffix(".partial")
        self.accelerator.save_state(str(unfinished))
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            unfinished.rename(folder)
            for other in self.options.run.glob(f"{CHECKPOINT}*"):
                if other != folder:
                    shutil.rmtree(other)
            row = {"iteration": str(self.iteration), "loss": f"{self.loss:.6f}"}
            append_row(self.options.run / "log.csv", row)
        self.accelerator.wait_for_everyone()
        self._saved = self.iteration

    def _resume(self, folder: Path) -> None:
        try:
            self.accelerator.load_state(str(folder))
            self.accelerator.step = 0  # saved between iterations; it counts the last one's parts
            self.iteration = int(folder.name.removeprefix(CHECKPOINT))
        except (
            OSError,
            RuntimeError,
            KeyError,
            ValueError,
            pickle.UnpicklingError,
            SafetensorError,
        ) as error:
            raise ModelError(
                f"{folder} does not continue this run ({error}): name another --run folder"
            ) from error


def export(tuner: Finetuner, name: str, describe: str) -> Card:
    """Install the base model with the ControlNet of the run; its card.

    describe: the photographs and their licences. The stored precision is the base's. Raises
    ModelError when it cannot hold the weights or the disk is full.
    """
    base, options = tuner.objective.base, tuner.options
    device, processes = str(tuner.accelerator.device), tuner.accelerator.num_processes
    origin = {"base": base.identity, "run": str(options.run.absolute()), "at": tuner.iteration}
    staging = Staging(name, origin)
    require_space(staging.folder, sum(file.stat().st_size for file in base.files))
    for file in base.files:
        staging.add(file.name, partial(_replace, file, tuner.control))
    training = {
        "fine-tuned from": base.name,
        "training of that": base.training,
        "data": describe,
        "objective": tuner.objective.describe(),
        "iterations": tuner.iteration,
        "batch": options.batch,
        "crop": options.crop,
        "learning rate": options.lr,
        "hardware": f"{processes} × {hardware(device)}",
    }
    with writing(staging.folder):
        card = Card(
            name=name,
            kind=base.kind,
            file="",
            architecture=base.architecture,
            licence=base.licence,
            training=training,
            limits=replace(base.limits, predicts=tuner.objective.predicts),
            scores={},
            shards=staging.shards,
            folder=staging.folder,
        )
        write_card(card)
    return replace(card, folder=staging.install())


def _replace(source: Path, control: Mapping[str, Tensor], target: Path) -> None:
    """Copy a file of weights, with the ControlNet's in the place of those that it has."""
    tensors = read_state_dict(source)
    names = [name for name in tensors if name.startswith(PREFIX)]
    if not names:
        shutil.copyfile(source, target)
        return
    for name in names:
        new, dtype = control[name.removeprefix(PREFIX)], tensors[name].dtype
        tensors[name] = narrowed(name, new, dtype, "import the base with --dtype float32")
    save_file(tensors, target)
