"""Training: it learns, it resumes to the same result, and it ships what it learned."""

import os
import pickle
import shutil
import signal
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from torch import nn

from sr_cli.degradation.degrade import Randomness
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import ModelError, UsageError
from sr_cli.models.network import EmbeddedConfig
from sr_cli.models.preprocess import load_preprocessor
from sr_cli.models.registry import card, load_weights
from sr_cli.training import train
from sr_cli.training.criterion import Criterion
from sr_cli.training.data import Crops, Order, crop_loader, read_rgb
from sr_cli.training.export import begin_with, export
from sr_cli.training.objectives import (
    CompactObjective,
    EmbeddedObjective,
    Mix,
    Objective,
    PriorObjective,
    ratios,
)
from sr_cli.training.objectives_walk import WalkObjective
from sr_cli.training.train import Matrices, Trainer, TrainOptions

CLEAN = Mix(1, 0, 0)


@pytest.fixture(scope="module")
def photos(shapes: Path) -> Path:
    return shapes


def embedded() -> EmbeddedObjective:
    torch.manual_seed(0)
    config = EmbeddedConfig(widths=(8, 8, 8), blocks=(1, 1, 1), embed=8)
    return EmbeddedObjective(config, preprocess=None, mix=CLEAN)


def prior() -> PriorObjective:
    torch.manual_seed(0)
    config = EmbeddedConfig((8, 8, 8), (1, 1, 1), embed=8, s=0.5, conditional=False)
    return PriorObjective(config)


def compact() -> CompactObjective:
    torch.manual_seed(0)
    return CompactObjective(features=8, convolutions=2, mix=CLEAN)


def seeing(adversarial: float = 0.0) -> WalkObjective:
    torch.manual_seed(0)
    config = EmbeddedConfig((8, 8, 8), (1, 1, 1), embed=8, cap=4, detail=2, dial=True)
    criterion = Criterion(2.0, adversarial=adversarial)
    return WalkObjective(config, preprocess=None, mix=CLEAN, criterion=criterion)


def opposed() -> WalkObjective:
    return seeing(adversarial=0.4)


def seeing_compact() -> CompactObjective:
    torch.manual_seed(0)
    criterion = Criterion(2.0, adversarial=0.4)
    return CompactObjective(features=8, convolutions=2, mix=CLEAN, criterion=criterion)


def options(photos: Path, run: Path, iterations: int) -> TrainOptions:
    return TrainOptions(
        photos, run, iterations=iterations, batch=4, crop=32, workers=0, ema=0.9, val=photos
    )


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("make", [embedded, compact, prior])
def test_the_loss_falls(make: Callable[[], Objective], photos: Path, tmp_path: Path) -> None:
    """On one fixed batch with fixed noise, before and after; without steps it stays."""
    objective = make()
    crops = Crops(photos, crop=32, seed=9, length=16)
    hr = torch.stack([crops[i] for i in range(16)]).float() / 255

    def loss() -> float:
        with torch.no_grad():
            return float(objective.loss(hr, Randomness.keyed(torch.device("cpu"), 5)))

    trainer = Trainer(objective, replace(options(photos, tmp_path, 60), lr=2e-2))
    before = loss()
    assert loss() == before
    list(trainer.run())
    assert loss() < 0.97 * before


@pytest.mark.usefixtures("tiny_vgg")
@pytest.mark.parametrize("make", [opposed, seeing_compact])
def test_the_feature_loss_falls(make: Callable[[], Objective], photos: Path) -> None:
    """From random answers, along its own gradient, on one batch with fixed noise; against it, it
    rises."""
    crops = Crops(photos, crop=32, seed=9, length=4)
    hr = torch.stack([crops[i] for i in range(4)]).float() / 255

    def change(sign: float) -> float:
        objective, losses = make(), list[float]()
        for parameter in objective.model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        optimiser = torch.optim.SGD(objective.model.parameters(), 1.0, maximize=sign < 0)
        for _ in range(6):
            loss = objective.loss(hr, Randomness.keyed(torch.device("cpu"), 5))
            losses.append(loss.item())
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(objective.model.parameters(), 0.05)
            optimiser.step()
        return losses[-1] / losses[0]

    assert change(1) < 0.99
    assert change(-1) > 1.02


@pytest.mark.usefixtures("tiny_vgg")
@pytest.mark.parametrize("make", [embedded, opposed])
def test_a_resumed_run_equals_an_uninterrupted_one(
    make: Callable[[], Objective], photos: Path, tmp_path: Path
) -> None:
    whole = Trainer(make(), options(photos, tmp_path / "whole", 8))
    list(whole.run())
    first = Trainer(make(), replace(options(photos, tmp_path / "cut", 8), save_every=0))
    for progress in first.run():
        if progress.iteration == 3:
            break
    resumed = Trainer(make(), options(photos, tmp_path / "cut", 8))
    assert resumed.iteration == 3
    list(resumed.run())
    torch.testing.assert_close(weights(resumed), weights(whole), atol=0, rtol=0)
    other = Trainer(make(), replace(options(photos, tmp_path / "other", 8), seed=1))
    list(other.run())
    assert not torch.equal(weights(other), weights(whole))


@pytest.mark.usefixtures("tiny_vgg")
@pytest.mark.parametrize("forgotten", ["weights", "moments"])
def test_a_discriminator_that_a_checkpoint_forgets_would_be_noticed(
    photos: Path, tmp_path: Path, forgotten: str
) -> None:
    whole = Trainer(opposed(), options(photos, tmp_path / "whole", 6))
    list(whole.run())
    list(Trainer(opposed(), options(photos, tmp_path / "cut", 3)).run())
    resumed = Trainer(opposed(), options(photos, tmp_path / "cut", 6))
    known, new = resumed.objective.discriminator, opposed().discriminator
    assert known is not None
    assert new is not None
    assert resumed.rival is not None
    if forgotten == "weights":
        known.load_state_dict(new.state_dict())
    else:
        resumed.rival.state.clear()
    list(resumed.run())
    assert not torch.equal(weights(resumed), weights(whole))


@pytest.mark.usefixtures("tiny_vgg")
def test_a_run_with_a_discriminator_goes_on_with_one(photos: Path, tmp_path: Path) -> None:
    list(Trainer(seeing(), options(photos, tmp_path / "without", 1)).run())
    list(Trainer(opposed(), options(photos, tmp_path / "with", 1)).run())
    with pytest.raises(ModelError, match="does not continue"):
        Trainer(opposed(), options(photos, tmp_path / "without", 2))
    with pytest.raises(ModelError, match="does not continue"):
        Trainer(seeing(), options(photos, tmp_path / "with", 2))


def interrupting(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    """The function, with Ctrl-C at the end of this call of it, from 1."""
    numbers = count(1)

    def called(*args: Any, **values: Any) -> Any:
        result = function(*args, **values)
        if next(numbers) == call:
            signal.raise_signal(signal.SIGINT)
        return result

    return called


def interrupted(trainer: Trainer, moment: str) -> None:
    """Train until Ctrl-C comes in the third iteration, or between it and the fourth."""
    if moment == "loss":
        trainer.objective.loss = interrupting(trainer.objective.loss, 3)  # type: ignore[method-assign]
    if moment == "update":
        first = trainer.optimisers[0]
        first.step = interrupting(first.step, 3)  # type: ignore[method-assign]
    with closing(trainer.run()) as run:
        for progress in run:
            if moment == "between" and progress.iteration == 3:
                signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("moment", "complete"), [("loss", 2), ("update", 3), ("between", 3)])
def test_an_interrupted_run_loses_no_iteration(
    photos: Path, tmp_path: Path, moment: str, complete: int
) -> None:
    """Long before the next checkpoint is due; and what it saves is no half of an iteration."""
    whole = Trainer(embedded(), options(photos, tmp_path / "whole", 6))
    list(whole.run())
    with pytest.raises(KeyboardInterrupt):
        interrupted(Trainer(embedded(), options(photos, tmp_path / "cut", 6)), moment)
    resumed = Trainer(embedded(), options(photos, tmp_path / "cut", 6))
    assert resumed.iteration == complete
    list(resumed.run())
    torch.testing.assert_close(weights(resumed), weights(whole), atol=0, rtol=0)
    log = (tmp_path / "cut" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log[1:]] == [str(complete), "6"]


def test_an_update_that_an_interrupt_cuts_in_two_would_be_noticed(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Trainer(embedded(), options(photos, tmp_path / "whole", 6))
    list(whole.run())
    with monkeypatch.context() as patch:
        patch.setattr(train, "held_back", nullcontext)
        with pytest.raises(KeyboardInterrupt):
            interrupted(Trainer(embedded(), options(photos, tmp_path / "cut", 6)), "update")
    resumed = Trainer(embedded(), options(photos, tmp_path / "cut", 6))
    list(resumed.run())
    assert not torch.equal(weights(resumed), weights(whole))


def test_a_run_that_is_interrupted_at_once_leaves_no_checkpoint(
    photos: Path, tmp_path: Path
) -> None:
    trainer = Trainer(embedded(), options(photos, tmp_path, 6))
    trainer.objective.loss = interrupting(trainer.objective.loss, 1)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        list(trainer.run())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1000],
        lambda whole: whole[:1000],
        lambda _: b"",
        lambda _: b"not a checkpoint",
        lambda _: pickle.dumps(Path("code"), protocol=2),
        lambda _: pickle.dumps({"iteration": 1}, protocol=2),
    ],
)
def test_a_damaged_checkpoint_is_a_sentence(
    photos: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    settings, file = options(photos, tmp_path, 1), tmp_path / "checkpoint.pt"
    list(Trainer(compact(), settings).run())
    file.write_bytes(damage(file.read_bytes()))
    words = r"checkpoint\.pt cannot be read.* another --run folder"
    with pytest.raises(ModelError, match=words):
        Trainer(compact(), settings)
    with pytest.raises(ModelError, match=words):
        export(compact(), settings, tmp_path, {})


def test_crops_fit_the_network(photos: Path, tmp_path: Path) -> None:
    """Four levels need multiples of 32, also in validation."""
    deep = EmbeddedConfig((8, 8, 8, 8), (1, 1, 1, 1), embed=8)
    objective = EmbeddedObjective(deep, preprocess=None, mix=CLEAN)
    settings = options(photos, tmp_path, 1)
    with pytest.raises(UsageError, match="--crop 48 is no multiple of 32"):
        Trainer(objective, replace(settings, crop=48))
    Trainer(embedded(), replace(settings, crop=48))
    (progress,) = Trainer(objective, replace(settings, crop=64)).run()
    assert progress.psnr is not None


def test_held_out_pictures_are_measured_or_refused_before_the_training(
    photos: Path, tmp_path: Path
) -> None:
    """A white one, which a network that knows nothing gives exactly, has a PSNR."""
    held_out = tmp_path / "val"
    held_out.mkdir()
    settings = replace(options(photos, tmp_path / "run", 1), val=held_out)
    with pytest.raises(UsageError, match="holds no images"):
        Trainer(embedded(), settings)
    Image.new("RGB", (32, 32), "white").save(held_out / "white.png")
    assert 0 < (Trainer(embedded(), settings).validate() or 0) <= 100
    Image.new("RGB", (15, 40)).save(held_out / "small.png")
    with pytest.raises(UsageError, match=r"small\.png is too small for --val: the least is 16"):
        Trainer(embedded(), settings)


@pytest.mark.usefixtures("tiny_vgg")
def test_crops_fit_the_feature_loss(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--crop 16 is too small for .* 32"):
        Trainer(seeing(), replace(options(photos, tmp_path, 1), crop=16))
    Trainer(embedded(), replace(options(photos, tmp_path, 1), crop=16))


def test_a_checkpoint_of_another_network_is_refused(photos: Path, tmp_path: Path) -> None:
    list(Trainer(embedded(), options(photos, tmp_path, 1)).run())
    with pytest.raises(ModelError, match="does not continue"):
        Trainer(compact(), options(photos, tmp_path, 2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0},
        {"iterations": -5},
        {"iterations": None, "minutes": 0},
        {"iterations": None, "minutes": -1.0},
        {"iterations": None},
        {"minutes": 1},
        {"batch": 0},
        {"crop": 0},
        {"crop": 40},
        {"lr": -1.0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"seed": -1},
        {"workers": -1},
        {"epoch": 0},
        {"graphics": -0.1},
        {"graphics": 0.6},
    ],
)
def test_options_that_make_no_sense(photos: Path, tmp_path: Path, wrong: dict[str, Any]) -> None:
    """A run of no iterations would leave untrained weights."""
    right = options(photos, tmp_path, 1)
    assert replace(right, iterations=None, minutes=0.5)
    with pytest.raises(UsageError, match="--"):
        replace(right, **wrong)


def test_exported_weights_work_in_the_engine(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setenv("SRX_WEIGHTS", str(tmp_path / "out"))
    objectives: list[Objective] = [compact(), embedded()]
    for objective in objectives:
        settings = options(photos, tmp_path / objective.name, 2)
        trainer = Trainer(objective, settings)
        list(trainer.run())
        export(objective, settings, tmp_path / "out", {"data": "shapes"})
        averaged = trainer.ema.module.state_dict()
        for key, value in load_weights(card(objective.name)).items():
            torch.testing.assert_close(value.float(), averaged[key], atol=1e-3, rtol=1e-3)
    result = Upscaler(UpscaleOptions(steps=2), device="cpu")(torch.rand(3, 9, 12))
    assert tuple(result.shape) == (3, 36, 48)
    assert load_preprocessor("compact").scale == 4
    assert card("embedded").training["iterations"] == 2


def test_the_card_says_what_enlarges_the_input_of_these_weights(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that saw clean input only start from the bicubic image; the user's choice wins."""
    monkeypatch.setenv("SRX_WEIGHTS", str(tmp_path))
    settings = options(photos, tmp_path, 1)
    config = embedded().config
    both = EmbeddedObjective(config, preprocess=load_preprocessor("compact"), mix=CLEAN)
    for objective, name in ((embedded(), "sharp"), (both, "any")):
        run = replace(settings, run=tmp_path / name)
        list(Trainer(objective, run).run())
        export(objective, run, tmp_path, {}, name)
    lr = torch.rand(3, 9, 12)
    named = {
        (model, preprocess): Upscaler(UpscaleOptions(model=model, preprocess=preprocess)).sources(
            [lr]
        )[0]
        for model in ("sharp", "any")
        for preprocess in (None, "none", "compact")
    }
    assert torch.equal(named["sharp", None], named["sharp", "none"])
    assert torch.equal(named["any", None], named["any", "compact"])
    assert not torch.equal(named["sharp", None], named["sharp", "compact"])


def test_exported_weights_are_whole_and_for_everybody(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted while it writes, an export leaves the weights of the one before."""
    settings, out = options(photos, tmp_path / "run", 1), tmp_path / "out"
    list(Trainer(compact(), settings).run())
    made = export(compact(), settings, out, {})
    assert made.path.stat().st_mode == (out / "compact.json").stat().st_mode
    assert made.path.stat().st_mode & 0o777 == out.stat().st_mode & 0o666
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def interrupt(_: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sr_cli.training.export.save_file", interrupt)
        with pytest.raises(KeyboardInterrupt):
            export(compact(), settings, out, {})
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_weights_that_float16_cannot_hold_are_refused(photos: Path, tmp_path: Path) -> None:
    settings, objective = options(photos, tmp_path / "run", 1), compact()
    trainer = Trainer(objective, settings)
    list(trainer.run())
    with torch.no_grad():
        next(iter(trainer.ema.module.parameters())).fill_(1e6)
    trainer._save(None)
    with pytest.raises(ModelError, match="float16 cannot hold"):
        export(objective, settings, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("tiny")
def test_a_run_can_begin_with_the_weights_of_a_card() -> None:
    objective = EmbeddedObjective(TINY, preprocess=None, mix=CLEAN)
    begin_with(objective, "embedded")
    begun = objective.model.state_dict()
    for key, value in load_weights(card("embedded")).items():
        torch.testing.assert_close(begun[key], value.float())
    with pytest.raises(ModelError, match="another shape"):
        begin_with(embedded(), "embedded")


def test_the_log_has_a_line_for_each_checkpoint(photos: Path, tmp_path: Path) -> None:
    list(Trainer(compact(), replace(options(photos, tmp_path, 3), save_every=0)).run())
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "iteration,seconds,loss,val_psnr"
    assert [line.split(",")[0] for line in lines[1:]] == ["1", "2", "3"]
    assert all(float(line.split(",")[3]) > 0 for line in lines[1:])


def test_crops_are_keyed_by_their_number(photos: Path) -> None:
    one, other = (Crops(photos, crop=32, seed=5, length=20) for _ in range(2))
    assert torch.equal(one[13], other[13])
    assert not torch.equal(one[13], one[14])
    assert not torch.equal(one[13], Crops(photos, crop=32, seed=6, length=20)[13])
    assert one[0].shape == (3, 32, 32)


def test_graphics_are_drawn_in_a_share_of_the_crops_and_keyed_too(photos: Path) -> None:
    settings: Any = {"crop": 32, "seed": 5, "length": 200}
    plain = Crops(photos, **settings)
    drawn, again = (Crops(photos, **settings, graphics=0.2) for _ in range(2))
    assert all(torch.equal(drawn[i], again[i]) for i in range(20))
    changed = sum(not torch.equal(plain[i], drawn[i]) for i in range(200))
    assert 40 < changed < 110  # .2 drawings, .15 colours, stars
    assert drawn[0].dtype == torch.uint8


def test_a_quarter_of_the_crops_has_textures(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "textures").mkdir()
    Image.new("RGB", (64, 64), (1, 2, 3)).save(tmp_path / "textures" / "stone.png")
    crops = Crops(photos, crop=32, seed=5, length=400, textures=tmp_path / "textures")
    stone = torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None]
    found = sum(bool((crops[i] == stone).all()) for i in range(400))
    assert found == pytest.approx(100, abs=4 * (400 * 0.25 * 0.75) ** 0.5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        Crops(photos, crop=32, seed=5, length=1, textures=tmp_path / "empty")


def test_after_an_epoch_the_same_crops_come_again() -> None:
    """Also where a run goes on in the middle of one."""
    order = Order(range(1, 6), batch=2, epoch=3)
    assert list(order) == [2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert len(order) == 10
    assert list(Order(range(1, 4), batch=2, epoch=None)) == [2, 3, 4, 5, 6, 7]


def test_photos_smaller_than_a_crop_are_enlarged(photos: Path) -> None:
    assert Crops(photos, crop=128, seed=0, length=1)[0].shape == (3, 128, 128)


def test_crops_come_from_every_sequence(tmp_path: Path) -> None:
    """Frames that share their names are not one file."""
    levels = {("000", 1): 20, ("000", 2): 60, ("001", 1): 120, ("001", 2): 200}
    for (sequence, frame), level in levels.items():
        file = tmp_path / "train_sharp" / sequence / f"0000000{frame}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (level,) * 3).save(file)
    crops = Crops(tmp_path / "train_sharp", crop=32, seed=0, length=40)
    assert {int(crops[i][0, 0, 0]) for i in range(40)} == set(levels.values())


def test_matrices_share_memory_with_the_weights() -> None:
    objective = embedded()
    model = objective.model.to(memory_format=torch.channels_last)
    matrices = Matrices(model)
    for view, weight in zip(matrices.views, matrices.weights, strict=True):
        before = weight.detach().clone()
        with torch.no_grad():
            view.add_(1)
        torch.testing.assert_close(weight.detach(), before + 1)


def test_matrices_that_would_be_copies_are_refused() -> None:
    with pytest.raises(ValueError, match="channels-last"):
        Matrices(embedded().model.to(memory_format=torch.contiguous_format))


def test_photos_are_read_as_the_engine_reads_them(tmp_path: Path) -> None:
    """Upright, and CMYK as the colours that it means; what cannot be read is a sentence."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise
    upright = Image.new("RGB", (40, 30), "teal")
    upright.save(tmp_path / "turned.jpg", exif=exif)
    assert read_rgb(tmp_path / "turned.jpg").shape == (40, 30, 3)
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    red, green, blue = read_rgb(tmp_path / "print.jpg").reshape(-1, 3).mean(0)
    assert min(red - green, red - blue) > 100
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"bad\.png .* Remove it from the training folder"):
        read_rgb(tmp_path / "bad.png")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_photograph_is_one_sentence(photos: Path, tmp_path: Path, workers: int) -> None:
    """Also when a worker meets it, of which torch tells the traceback."""
    shutil.copytree(photos, tmp_path / "in")
    for file in (tmp_path / "in").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    settings = replace(options(tmp_path / "in", tmp_path / "run", 2), workers=workers, val=None)
    with pytest.raises(UsageError) as caught:
        list(Trainer(compact(), settings).run())
    said = str(caught.value)
    assert said.startswith(str(tmp_path))
    assert said.endswith(". Remove it from the training folder.")
    assert said.count("Remove it") == 1
    assert "\n" not in said
    (tmp_path / "in" / "a.png").touch()
    with pytest.raises(UsageError, match=r"a\.png is empty"):
        Crops(tmp_path / "in", crop=32, seed=0, length=1)


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda:1", True)])
def test_memory_is_pinned_for_a_gpu_that_is_used_alone(
    photos: Path, monkeypatch: pytest.MonkeyPatch, device: str, pinned: bool
) -> None:
    """Pinning makes a CUDA context, whatever the device of the run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    settings: Any = {"crop": 32, "batch": 2, "seed": 0, "workers": 0}
    loader = crop_loader(photos, **settings, iterations=range(1), device=torch.device(device))
    assert loader.pin_memory == pinned


@pytest.mark.skipif(os.name != "posix", reason="there are no process groups")
def test_what_interrupts_the_run_spares_its_workers(photos: Path) -> None:
    """A terminal, `timeout` and others send their signals to the whole process group."""
    settings: Any = {"crop": 32, "batch": 2, "seed": 0, "workers": 1}
    loader = crop_loader(photos, **settings, iterations=range(4), device=torch.device("cpu"))
    batches: Any = iter(loader)
    next(batches)
    (worker,) = batches._workers
    assert os.getpgid(worker.pid) != os.getpgrp()
    assert len(list(batches)) == 3


def test_noise_levels_are_stratified() -> None:
    rng = Randomness.keyed(torch.device("cpu"), 1)
    drawn = ratios(400, rng, 0.12, EmbeddedObjective.LOG_RATIO, EmbeddedObjective.NO_SIGNAL)
    assert int((drawn == 0).sum()) == round(400 * EmbeddedObjective.NO_SIGNAL)
    logs = (drawn[drawn > 0] * 0.12).log()
    assert abs(float(logs.mean()) - np.mean(EmbeddedObjective.LOG_RATIO)) < 0.05


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UsageError, match="one of them"):
        TrainOptions(Path(), Path())
    with pytest.raises(UsageError, match="one of them"):
        TrainOptions(Path(), Path(), iterations=1, minutes=1)
    with pytest.raises(UsageError, match="multiple of 16"):
        TrainOptions(Path(), Path(), minutes=1, crop=30)
    with pytest.raises(UsageError, match="batch"):
        TrainOptions(Path(), Path(), minutes=1, batch=0)


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.5, -0.5, 0)])
def test_shares_sum_to_one(shares: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError):
        Mix(*shares)


def test_a_run_keeps_to_its_photographs(photos: Path, tmp_path: Path) -> None:
    """Wherever they lie: by the name of their folder, which the card tells of."""
    settings = options(photos, tmp_path, 1)
    list(Trainer(compact(), settings).run())
    moved = shutil.copytree(photos, tmp_path / "disk" / photos.name)
    Trainer(compact(), replace(settings, data=moved))
    other = shutil.copytree(photos, photos.with_name("others"))
    with pytest.raises(UsageError, match=f"run on {moved.name}: name another --run"):
        Trainer(compact(), replace(settings, data=other))
    with pytest.raises(UsageError, match=f"run on {moved.name}: name another --run"):
        Trainer(compact(), replace(settings, data=moved, textures=other))
