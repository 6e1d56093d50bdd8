"""The sweep: each cell what the engine gives, measured once, and the same table after any stop."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sr_cli.diffusion.names import SamplerName, Variant
from sr_cli.diffusion.path import time_grid
from sr_cli.diffusion.solvers import plan
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import InputError, UsageError
from sr_cli.evaluation.datasets import Pairs, pairs
from sr_cli.evaluation.measurements import Measured, Measurements, key
from sr_cli.evaluation.metrics import Metrics, load, psnr
from sr_cli.evaluation.plots import GAP, Panel
from sr_cli.evaluation.scene import Scene
from sr_cli.evaluation.sweep import (
    DOS,
    SweepOptions,
    Trial,
    restored,
    rival,
    sweep,
    table,
)
from sr_cli.evaluation.sweep_figures import SIDE, busiest, panels, sheet
from sr_cli.models.embedded import EmbeddedDenoiser

CPU = torch.device("cpu")
SMALL = SweepOptions(t1=(500, 333), steps=(1, 2), order=(1, 3), sampler=("ddim", "edm"))


@pytest.fixture
def data(tmp_path: Path) -> Pairs:
    """Two HR images, 32×24 and 24×32."""
    folder = tmp_path / "HR"
    folder.mkdir()
    for seed, size in enumerate(((24, 32, 3), (32, 24, 3))):
        levels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{seed}.png")
    return pairs(folder)


@pytest.fixture
def engine(tiny: Path) -> Upscaler:
    assert tiny
    return Upscaler(UpscaleOptions(), device="cpu", dtype="float32")


def scene(engine: Upscaler, data: Pairs) -> Scene:
    return Scene(engine, data[0].lr, data[0].hr)


def measured(
    data: Pairs,
    engine: Upscaler,
    known: Measurements,
    on_image: Callable[[str], None] = lambda _: None,
    metrics: Metrics | None = None,
) -> dict[Trial, list[Measured]]:
    metrics = metrics or load(("psnr",), CPU)
    return sweep(data, SMALL.trials, engine, metrics, known=known, on_image=on_image)


# ------------------------------------------------------------------------------------ what is run


def test_rows_that_would_repeat_another_appear_once() -> None:
    options = SweepOptions(
        t1=(500,), steps=(1, 2, 3), order=(1, 2, 3), variant=("paper", "corrected"), sampler=()
    )
    assert [(s.steps, s.order, s.variant) for s in options.trials] == [
        (1, 1, "paper"),
        (2, 1, "paper"),
        (2, 2, "paper"),
        (3, 1, "paper"),
        (3, 2, "paper"),
        (3, 3, "paper"),
        (3, 3, "corrected"),
    ]


def test_the_simplest_name_is_of_the_same_computation(engine: Upscaler) -> None:
    """What is left out of the table has the steps of the row that stands for it, and no other."""
    assert engine._course
    path = engine._course.path

    def steps(s: Trial) -> Any:
        assert s.t1
        assert s.order
        assert s.variant
        return plan(path, time_grid(s.t1, s.steps), order=s.order, variant=s.variant)

    seen = {}
    for n in (1, 2, 3, 5):
        for order in (1, 2, 3):
            for variant in get_args(Variant):
                setting = Trial(DOS, n, 500, order, variant)
                assert steps(setting) == steps(setting.effective)
                seen[setting.effective] = steps(setting)
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize(
    "wrong",
    [
        {"t1": ()},
        {"t1": (5,)},
        {"t1": (1001,)},
        {"t1": (10,), "steps": (10,)},
        {"steps": (0,)},
        {"order": (4,)},
        {"variant": ("euler",)},
        {"sampler": ("euler",)},
        {"t1": (1000,), "steps": (1000,)},
        {"last_step": ()},
        {"last_step": ("end",)},
        {"last_step": ("step",), "sampler": ("plain", "ddim")},
        {"seeds": (0, -1)},
    ],
)
def test_lists_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SweepOptions(**wrong)


# ------------------------------------------------------------------------------- what is measured


def test_a_cell_is_what_the_engine_gives(data: Pairs, engine: Upscaler) -> None:
    found = measured(data, engine, Measurements(None))
    assert list(found) == list(SMALL.trials)
    for setting in (Trial(DOS, 1, 500, 1, "paper"), Trial(DOS, 2, 333, 2, "paper")):
        alone = UpscaleOptions(t1=setting.t1, steps=setting.steps, order=3)
        upscaler = Upscaler(alone, device="cpu", dtype="float32")
        for pair, cell in zip(data, found[setting], strict=True):
            result = (upscaler(pair.lr) * 255).round() / 255
            expected = float(psnr(result[None], pair.hr[None]))
            assert cell.scores["psnr"] == pytest.approx(expected, abs=1e-9)
            assert cell.seconds > 0


def test_each_setting_has_a_result_of_its_own(data: Pairs, engine: Upscaler) -> None:
    """Of five steps: the first is the same from anywhere, as η = 1 or noise hides all there."""
    settings = SweepOptions(t1=(500, 333), steps=(5,), order=(1, 3)).trials
    found = sweep(
        data,
        settings,
        engine,
        load(("psnr",), CPU),
        known=Measurements(None),
        on_image=lambda _: None,
    )
    values = [cell.scores["psnr"] for cells in found.values() for cell in cells]
    assert len(set(values)) == len(values)


def test_a_picture_is_preprocessed_once(
    data: Pairs, engine: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Tensor] = []
    real = engine._preprocess

    class Counting:
        scale, margin = real.scale, real.margin

        def __call__(self, lr: Tensor) -> Tensor:
            calls.append(lr)
            return real(lr)

    monkeypatch.setattr(engine, "_preprocess", Counting())
    measured(data, engine, Measurements(None))
    assert len(calls) == len(data)


def test_baselines_tell_the_network_that_there_is_no_shift(
    data: Pairs, engine: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float, int]] = []
    real = EmbeddedDenoiser.predict_x0

    def predict(self: EmbeddedDenoiser, x: Tensor, **values: Any) -> Tensor:
        assert values["a"] == values["alpha"]
        seen.append((values["m"], values["sigma"], values["t"]))
        return real(self, x, **values)

    monkeypatch.setattr(EmbeddedDenoiser, "predict_x0", predict)
    result, _ = restored(scene(engine, data), Trial("dpmsolver++", 5))
    assert result.shape == data[0].hr.shape
    assert [m for m, *_ in seen] == [0] * 5
    assert seen[0][2] == 999
    assert seen[0][1] == pytest.approx(float(1 - engine.model.alpha_bar[-1]) ** 0.5)


def test_baselines_do_not_depend_on_tiles(data: Pairs, engine: Upscaler) -> None:
    for name in get_args(SamplerName):
        setting = Trial(name, 3)
        whole, _ = restored(scene(engine.using(tile=0), data), setting)
        tiled, _ = restored(scene(engine.using(tile=16), data), setting)
        assert (whole - tiled).abs().max() <= 1.01 / 255
    once, _ = restored(scene(engine, data), Trial("ddpm", 3))
    other, _ = restored(scene(engine.using(seed=1), data), Trial("ddpm", 3))
    assert not torch.equal(once, other)


def test_plain_is_the_own_solver_on_the_path_without_shift(engine: Upscaler) -> None:
    """So its order 1 is DDPM's walk, with the same ending."""

    def weights(sampler: Any, order: int | None, last_step: Any = "x0") -> Any:
        variant: Variant | None = "paper" if order else None
        course = rival(Trial(sampler, 5, None, order, variant, last_step), engine)
        assert not course.path.eta.any()
        return [[s.x, s.y, *s.x0[:1], s.noise] for s in course.steps], course.start

    for ending in ("x0", "mean"):
        (own, start), (ddpm, other) = weights("plain", 1, ending), weights("ddpm", None, ending)
        np.testing.assert_allclose(own, ddpm, atol=1e-6)
        assert start == other
    assert np.abs(np.subtract(weights("plain", 1)[0], weights("plain", 3)[0])).max() > 0.01


def test_each_seed_is_drawn_and_all_make_one_row(data: Pairs, engine: Upscaler) -> None:
    options = SweepOptions(t1=(500,), steps=(3,), sampler=("ddpm",), seeds=(0, 1))
    metrics = load(("psnr",), CPU)
    known = Measurements(None)
    found = sweep(data, options.trials, engine, metrics, known=known, on_image=lambda _: None)
    for (sampler, seed), cells in {(s.sampler, s.seed): m for s, m in found.items()}.items():
        trial = SweepOptions(t1=(500,), steps=(3,), sampler=("ddpm",)).trials[sampler != DOS]
        alone, _ = restored(scene(engine.using(seed=seed), data), trial)
        assert cells[0].scores["psnr"] == pytest.approx(float(psnr(alone[None], data[0].hr[None])))
    means = [fmean(float(m.scores["psnr"] or 0) for m in found[s]) for s in options.trials if s.t1]
    row, _ = table(found, ("psnr",)).records()
    assert row["psnr"] == pytest.approx(fmean(means))
    assert row["psnr sd"] == pytest.approx(stdev(means))
    assert means[0] != means[1]


def test_what_walks_end_on_is_a_column_where_it_is_chosen(data: Pairs, engine: Upscaler) -> None:
    options = SweepOptions(
        t1=(500,), steps=(5,), sampler=("ddim", "plain"), last_step=("mean", "x0")
    )
    found = sweep(
        data,
        options.trials,
        engine,
        load(("psnr",), CPU),
        known=Measurements(None),
        on_image=lambda _: None,
    )
    rows = table(found, ("psnr",)).records()
    assert [(row["sampler"], row["last step"]) for row in rows] == [
        ("dos", "mean"),
        ("dos", "x0"),
        ("ddim", "x0"),  # its mean is x0
        ("plain", "mean"),
        ("plain", "x0"),
    ]
    assert len({row["psnr"] for row in rows}) == len(rows)


# -------------------------------------------------------------------------- stopping and going on


class Counted(Metrics):
    """PSNR that counts its calls, and stops the process at one of them."""

    def __init__(self, stop_at: int = 0) -> None:
        super().__init__(("psnr",), CPU, 0, {})
        self.calls, self.stop_at = 0, stop_at

    def score(self, result: Tensor, hr: Tensor) -> dict[str, float | None]:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        return super().score(result, hr)


def test_a_stopped_sweep_goes_on_and_ends_the_same(
    data: Pairs, engine: Upscaler, tmp_path: Path
) -> None:
    """Killed half-way, with a line half written: what was done is kept, seconds included."""
    file, total = tmp_path / "cache" / "sweep.jsonl", len(data) * len(SMALL.trials)
    with pytest.raises(KeyboardInterrupt):
        measured(data, engine, Measurements(file), metrics=Counted(stop_at=7))
    lines = file.read_text().splitlines()
    assert len(lines) == 6
    file.write_text("\n".join(lines)[:-20])
    rest = Counted()
    told: list[str] = []
    found = measured(data, engine, Measurements(file), told.append, rest)
    assert rest.calls == total - 5
    assert told == [pair.name for pair in data for _ in SMALL.trials]
    again = Counted()
    assert table(measured(data, engine, Measurements(file), metrics=again), ["psnr"]) == table(
        found, ["psnr"]
    )
    assert again.calls == 0
    kept = [cell.seconds for cells in found.values() for cell in cells]
    assert all(str(seconds) in file.read_text() for seconds in kept)
    fresh = table(measured(data, engine, Measurements(None)), ["psnr"])
    assert [r["psnr"] for r in fresh.records()] == [
        r["psnr"] for r in table(found, ["psnr"]).records()
    ]


@pytest.mark.parametrize("change", ["seed", "color", "metric", "border", "image", "weights"])
def test_what_a_result_depends_on_is_measured_again(
    change: str, data: Pairs, engine: Upscaler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Measurements(tmp_path / "sweep.jsonl")
    measured(data, engine, known)
    metrics: Any = Counted()
    match change:
        case "seed":
            engine = engine.using(seed=1)
        case "color":
            engine = engine.using(color="none")
        case "metric":
            metrics.names = ("psnr", "ssim")
        case "border":
            metrics.border = 2
        case "image":
            Image.new("RGB", (24, 32)).save(data.hr_files[1])
        case "weights":
            monkeypatch.setattr(engine, "_model", replace(engine.model, identity="other"))
    measured(data, engine, known, metrics=metrics)
    images = 1 if change == "image" else len(data)
    assert metrics.calls == images * len(SMALL.trials)


def test_keys_tell_parts_apart() -> None:
    assert key({"a": 1, "b": 2}, "c") == key({"b": 2, "a": 1}, "c")
    assert len({key("a", "b"), key("ab"), key("b", "a"), key(["a", "b"]), key(1), key("1")}) == 6


def test_a_cache_that_cannot_be_kept_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file" / "sweep.jsonl", tmp_path):
        with pytest.raises(UsageError, match="--cache"):
            Measurements(wrong)
    known = Measurements(tmp_path / "folder" / "sweep.jsonl")
    shutil.rmtree(tmp_path / "folder")
    with pytest.raises(InputError, match="--cache"):
        known.put("key", Measured({}, 1.0))


# ----------------------------------------------------------------------------------- how it looks


def cells(values: dict[Trial, float]) -> dict[Trial, list[Measured]]:
    return {s: [Measured({"psnr": v, "niqe": None}, v / 10)] * 2 for s, v in values.items()}


def test_the_table_has_means_and_medians() -> None:
    setting = Trial("ddim", 5)
    shown = table(
        {setting: [Measured({"psnr": p, "niqe": None}, s) for p, s in ((20, 1), (24, 2), (25, 9))]},
        ("psnr", "niqe"),
    )
    assert [c.name for c in shown.columns] == [
        "sampler",
        "t1",
        "steps",
        "order",
        "variant",
        "psnr",
        "niqe",
        "s/image",
    ]
    assert shown.rows == (("ddim", None, 5, None, None, 23.0, None, 2),)


def test_curves_follow_t1_and_steps() -> None:
    options = SweepOptions(t1=(1000, 500), steps=(1, 5), order=(3,), sampler=("ddim",))
    values = {s: 20.0 + i for i, s in enumerate(options.trials)}
    (against_t1, against_steps), *_ = panels(cells(values), options, ("psnr", "niqe"))
    assert isinstance(against_t1, Panel)
    (line,) = against_t1.curves
    assert list(line.points) == [(t, values[Trial(DOS, 5, t, 3, "paper")]) for t in (1000, 500)]
    own, rival = against_steps.curves
    assert list(own.points) == [
        (1, values[Trial(DOS, 1, 500, 1, "paper")]),
        (5, values[Trial(DOS, 5, 500, 3, "paper")]),
    ]
    assert list(rival.points) == [(n, values[Trial("ddim", n)]) for n in (1, 5)]
    assert (own.dashed, rival.dashed) == (False, True)


def test_the_busiest_window_has_the_detail() -> None:
    image = torch.full((3, 50, 70), 0.5)
    image[:, 30:40, 45:55] = torch.rand(3, 10, 10, generator=torch.Generator().manual_seed(0))
    rows, cols = busiest(image, 20)
    assert rows.start <= 30
    assert rows.stop >= 40
    assert cols.start <= 45
    assert cols.stop >= 55
    assert busiest(image, 64) == (slice(0, 50), busiest(image, 64)[1])


def test_the_sheet_has_a_column_for_each_setting(
    data: Pairs, engine: Upscaler, tmp_path: Path
) -> None:
    sheet(data, SMALL, engine, tmp_path / "sheet.png")
    width, height = Image.open(tmp_path / "sheet.png").size
    assert width // SIDE == 2 + len(SMALL.t1) + len(SMALL.sampler)
    assert height // SIDE == len(data)
    seeded = replace(SMALL, seeds=(0, 1, 7))
    for by, columns in (("steps", SMALL.steps), ("order", SMALL.order), ("seed", seeded.seeds)):
        sheet(data, seeded, engine, tmp_path / "sheet.png", by)  # type: ignore[arg-type]
        width, _ = Image.open(tmp_path / "sheet.png").size
        assert width // SIDE == 2 + len(columns)
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    left = picture.shape[1] - 5 * (SIDE + GAP)
    first, second = (picture[:, left + i * (SIDE + GAP) :][:, :SIDE] for i in (1, 2))
    assert not np.array_equal(first, second)  # of other seeds
