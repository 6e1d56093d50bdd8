"""The search: what it measures against closed forms, what it finds, and how it goes on."""

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from sr_cli.diffusion import prf
from sr_cli.diffusion.prf import ELEMENTS, Thresholds
from sr_cli.diffusion.schedules import alpha_bar
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import UsageError
from sr_cli.evaluation import measurements
from sr_cli.evaluation.measurements import Measurements
from sr_cli.evaluation.metrics import Metrics, load, luma
from sr_cli.evaluation.parts import centre
from sr_cli.evaluation.plots import GAP
from sr_cli.evaluation.prf.found import AtScale, Point, SearchResult, fit_thresholds, with_fields
from sr_cli.evaluation.prf.losses import (
    RADIUS,
    SpectrumErrors,
    finest_octave,
    radial,
    signature_errors,
)
from sr_cli.evaluation.prf.plots import draw
from sr_cli.evaluation.prf.report import record, spectra, table
from sr_cli.evaluation.prf.search import Search, SearchOptions, refine
from sr_cli.evaluation.prf.sheets import sheet
from sr_cli.evaluation.sweep_figures import SIDE

BAR = alpha_bar()


# -------------------------------------------------------------------------------- errors of ε
class Off:
    """A network that is `delta` off in x0, or in ε where `of_eps`."""

    def __init__(self, x0: Tensor, delta: float, *, of_eps: bool = False) -> None:
        self.x0, self.delta, self.of_eps = x0, delta, of_eps

    def predict_x0(self, x: Tensor, *, alpha: float, sigma: float, **rest: Any) -> Tensor:
        assert rest["a"] == alpha
        assert rest["m"] == 0
        assert torch.equal(rest["y"], self.x0 + 1)
        off = self.delta * (sigma / alpha if self.of_eps else 1)
        return self.x0 + off


class Stub:
    """What signature_errors needs of a Model."""

    def __init__(self, denoiser: Off) -> None:
        self.denoiser = denoiser


def errors_of(delta: float, side: int, *, of_eps: bool) -> list[float]:
    x0 = torch.linspace(-1, 1, 3 * side * side).reshape(1, 3, side, side)
    model: Any = Stub(Off(x0, delta, of_eps=of_eps))
    return signature_errors(model, BAR, [0, 100, 900], [(x0, x0 + 1, x0)] * 2)


@pytest.mark.parametrize("side", [8, 24])
def test_the_error_of_eps_is_measured_whatever_the_image_size(side: int) -> None:
    np.testing.assert_allclose(errors_of(0.1, side, of_eps=True), 0.01 * ELEMENTS, rtol=1e-3)
    ratio = BAR[[0, 100, 900]] / (1 - BAR[[0, 100, 900]])
    found = errors_of(0.1, side, of_eps=False)
    np.testing.assert_allclose(found, 0.01 * ELEMENTS * ratio, rtol=1e-3)


def test_noise_is_added_at_the_level_of_its_time() -> None:
    """A network that answers x/α is σ/α·ε off, which is ε: E = ‖ε‖², a number by chance."""

    class Lazy:
        def predict_x0(self, x: Tensor, *, alpha: float, **rest: Any) -> Tensor:
            return x / alpha

    x0 = torch.zeros(1, 3, 64, 64)
    model: Any = Stub(Lazy())  # type: ignore[arg-type]
    found = signature_errors(model, BAR, [0, 500], [(x0, x0, x0)])
    np.testing.assert_allclose(found, ELEMENTS, rtol=0.05)  # 12288 draws: 1.3 % is one deviation


def test_the_finest_octave_is_what_halving_loses() -> None:
    low, high = wave(1 / 16)[None], wave(1 / 2)[None]
    amplitude = 0.2**2 * ELEMENTS
    assert finest_octave(high) == pytest.approx(amplitude, rel=0.02)
    assert finest_octave(low) < 0.01 * amplitude
    assert finest_octave(torch.cat((high, high), 3)) == pytest.approx(finest_octave(high), rel=0.02)


# ------------------------------------------------------------------------------------- spectra
def wave(cycles: float, side: int = 64, amplitude: float = 0.2) -> Tensor:
    """A grey wave of `cycles` a pixel."""
    row = 0.5 + amplitude * torch.cos(2 * np.pi * cycles * torch.arange(side))
    return row.expand(3, side, side).clone()


def test_low_and_high_frequencies_are_told_apart() -> None:
    low, high = wave(1 / 16), wave(1 / 4)
    both = low + high - 0.5
    assert SpectrumErrors.between(both, both) == SpectrumErrors(0, 0, 0)
    without_high = SpectrumErrors.between(low, both)
    assert without_high.low < 1e-5
    assert without_high.high == pytest.approx(1, abs=1e-4)
    without_low = SpectrumErrors.between(high, both)
    assert without_low.low == pytest.approx(1, abs=1e-4)
    assert without_low.high < 1e-5


def test_half_the_amplitude_is_half_the_error_and_brightness_is_none() -> None:
    hr = wave(1 / 16) + wave(1 / 4) - 0.5
    half = SpectrumErrors.between((hr + 0.5) / 2, hr)
    assert (half.low, half.high, half.amplitude) == pytest.approx((0.5, 0.5, 1), abs=1e-3)
    assert SpectrumErrors.between(hr - 0.1, hr).high == pytest.approx(0, abs=1e-3)


def test_errors_are_those_of_the_pixels() -> None:
    """Parseval: low² of HR's low energy and high² of its high energy are the squared error."""
    hr, result = torch.rand(2, 1, 33, 46).expand(-1, 3, -1, -1)  # odd and even: the half spectrum
    found = SpectrumErrors.between(result, hr)
    levels = [(luma(x[None])[0, 0].double() / 255).numpy() for x in (hr, result)]
    theirs, error = (np.fft.fft2(x - x.mean()) for x in (levels[0], levels[1] - levels[0]))
    radius = np.hypot(np.fft.fftfreq(33)[:, None], np.fft.fftfreq(46)[None])
    energy = [(np.abs(theirs[band]) ** 2).sum() for band in (radius <= RADIUS, radius > RADIUS)]
    total = found.low**2 * energy[0] + found.high**2 * energy[1]
    assert total == pytest.approx((np.abs(error) ** 2).sum(), rel=0.02)


def test_the_right_amplitude_in_the_wrong_place_is_an_error() -> None:
    """What the amplitude alone cannot see: it is 0 for a picture that was moved."""
    hr = torch.rand(1, 32, 32).expand(3, -1, -1)
    moved = SpectrumErrors.between(torch.roll(hr, (5, 9), (1, 2)), hr)
    assert moved.amplitude == pytest.approx(0, abs=1e-5)
    assert min(moved.low, moved.high) > 1


def test_rings_hold_their_own_frequencies() -> None:
    frequency, amplitude = radial(wave(1 / 4), bins=16)
    assert frequency[np.argmax(amplitude[1:]) + 1] == pytest.approx(1 / 4, abs=1 / 32)


# -------------------------------------------------------------------------------------- search
@pytest.mark.parametrize("best", [0, 3, 37, 80, 330, 480])
def test_golden_section_comes_closer_than_the_grid(best: int) -> None:
    grid, seen = [0, 10, 30, 60, 100, 200, 400, 600], list[int]()

    def function(t: int) -> float:
        if t not in seen:
            seen.append(t)
        return abs(t - best)

    refine(function, grid, 4)
    assert len(seen) <= len(grid) + 4
    on_grid = min(abs(t - best) for t in grid)
    assert min(abs(t - best) for t in seen) <= on_grid
    assert on_grid == 0 or min(abs(t - best) for t in seen) < on_grid
    assert all(0 <= t <= 600 for t in seen)


def test_no_rounds_leave_the_grid_as_it_is() -> None:
    seen: list[int] = []

    def function(t: int) -> float:
        seen.append(t)
        return float(t)

    refine(function, [0, 10, 20], 0)
    assert set(seen) == {0, 10, 20}


def point(t: int, lpips: float | None, amplitude: float = 1.0) -> Point:
    return Point(t, {"lpips": lpips, "psnr": 20 + t, "amplitude": amplitude}, 0.1)


def row(scale: float, *values: tuple[int, float], distance: float = 1000.0) -> AtScale:
    return AtScale(scale, tuple(point(t, v) for t, v in values), distance, None, 0)


def test_the_best_is_by_lpips_or_else_by_the_amplitudes() -> None:
    found = row(2, (0, 0.4), (10, 0.3), (20, 0.3), (30, 0.5))
    assert (found.criterion, found.star.t) == ("lpips", 10)
    psnr = found.best("psnr")
    assert psnr
    assert psnr.t == 30
    without = AtScale(2, (point(0, None, 0.9), point(10, None, 0.8)), 1.0, None, 0)
    assert (without.criterion, without.star.t) == ("amplitude", 10)
    assert without.best("lpips") is None
    for chosen, shown in ((found, False), (without, True)):
        names = [column.name for column in table(measured(chosen)).columns]
        assert ("amplitude" in names) == ("amplitude, t 0" in names) == shown


def measured(*rows: AtScale) -> SearchResult:
    """With e_t = t + 1, and a texture of 100."""
    return SearchResult(rows, BAR, 2 * prf.divergence(BAR) * np.arange(1, 1001), 100.0)


def test_thresholds_are_fitted_to_what_was_measured() -> None:
    rows = (
        row(1.5, (0, 0.1), (10, 0.3), distance=5.0),
        row(2, (0, 0.2), (10, 0.3), distance=10.0),
        row(3, (0, 0.4), (9, 0.3), distance=40.0),
        row(4, (0, 0.5), (49, 0.4), (150, 0.5), distance=100.0),
        row(5, (0, 0.5), (69, 0.4), distance=350.0),
    )
    limits = fit_thresholds(measured(*rows))
    assert limits
    assert limits.omega == pytest.approx(0.25)  # the median of 10/40, 50/100 and 70/350
    assert limits.fidelity == pytest.approx(1 / 20)  # between 1/40, where noise helps, and 1/10
    assert limits.signature == Thresholds().signature
    fields = [r.field for r in with_fields(measured(*rows), limits).found]
    assert fields[:2] == [None, None]
    best = [field.best for field in fields[2:] if field]
    assert best == pytest.approx([9, 24, 86], abs=1)
    everywhere = fit_thresholds(measured(*rows[2:]))
    assert everywhere
    assert everywhere.fidelity == pytest.approx(1 / 40)
    assert all(r.field for r in with_fields(measured(*rows[2:]), everywhere).found)
    assert fit_thresholds(measured(*rows[:2])) is None


def test_no_field_depends_on_how_strong_the_texture_is() -> None:
    """Twice the amplitude of everything: the same times; of the enlargement alone: others."""
    rows = (row(3, (0, 0.4), distance=40.0), row(4, (0, 0.5), distance=300.0))
    plain = measured(*rows)
    strong = tuple(replace(r, distance=4 * r.distance) for r in rows)
    louder = replace(plain, found=strong, errors=4 * plain.errors, texture=4 * plain.texture)
    other = replace(plain, found=strong)
    fields = [
        [r.field for r in with_fields(result, Thresholds()).found]
        for result in (plain, louder, other)
    ]
    assert None not in fields[0]
    assert fields[0] == fields[1] != fields[2]


def test_options_that_make_no_sense_are_refused() -> None:
    bad: list[dict[str, Any]] = [{"scales": ()}, {"scales": (1.0,)}, {"scales": (40.0,)}]
    bad += [{"crop": 8}, {"rounds": -1}, {"limits": {"omega": 0.0}}]
    for changes in bad:
        with pytest.raises(UsageError):
            SearchOptions(**{"scales": (2.0,)} | changes)


def test_the_centre_is_cut_out() -> None:
    image = torch.arange(2 * 7 * 10).reshape(2, 7, 10)
    assert torch.equal(centre(image, 4), image[:, 1:5, 3:7])
    assert torch.equal(centre(image, 8), image[:, :, 1:9])


# ------------------------------------------------------------------------------- all of it, tiny
@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two HR images, 48×40 and 40×52."""
    paths = []
    for seed, shape in enumerate(((40, 48, 3), (52, 40, 3))):
        levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(levels).save(paths[-1])
    return paths


Make = Callable[..., Search]


@pytest.fixture
def search(tiny: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> Make:
    assert tiny
    monkeypatch.setattr(
        "sr_cli.evaluation.prf.search.GRIDS", {"diffsr": (0, 0.02, 0.1), "dossr": (0.1, 0.5, 1)}
    )

    def make(known: Measurements | None = None, **changes: Any) -> Search:
        values: dict[str, Any] = {"method": "diffsr", "t1": 0, "steps": 2} | changes
        engine = Upscaler(UpscaleOptions(**values), device="cpu", dtype="float32")
        wanted = SearchOptions((1.6, 2.7), crop=40, rounds=1)
        metrics = load(("psnr",), torch.device("cpu"))
        return Search(wanted, files, engine, metrics, known or Measurements(None))

    return make


def test_a_search_measures_what_the_engine_gives(search: Make) -> None:
    """The scores at 0 are those of the enlargement; at t of the engine at t1 = t."""
    from sr_cli.evaluation.metrics import psnr

    made = search()
    result = made.run(lambda _: None)
    assert [r.scale for r in result.found] == [1.6, 2.7]
    assert np.all(np.diff(result.signature) >= 0)
    scale = 2.7
    found = result.found[1]
    assert [p.t for p in found.points][:2] == [0, 20]
    assert found.points[-1].t == 100
    scenes = [made.scene(image, scale) for image in made.images]
    for t in (0, 100):
        engine = made.engine.using(scale=scale, t1=t)
        results = [(engine(scene.lr) * 255).round() / 255 for scene in scenes]
        want = [float(psnr(r[None], s.hr[None])) for r, s in zip(results, scenes, strict=True)]
        assert found.at(t).scores["psnr"] == pytest.approx(np.mean(want), abs=1e-6)
    distance = [prf.squared_norm((s.states[0] - s.states[1]).numpy()) for s in scenes]
    assert found.distance == pytest.approx(np.mean(distance))
    assert found.criterion == "amplitude"


def test_what_one_image_has_no_score_of_is_not_compared(
    search: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mean over the other images alone would make its time look better, or worse."""
    real, values = Metrics.score, cycle((1.0, None))

    def score(self: Metrics, *images: Tensor) -> dict[str, float | None]:
        return {"of the first": next(values)} | real(self, *images)

    monkeypatch.setattr(Metrics, "score", score)
    for point in (p for row in search().run(lambda _: None).found for p in row.points):
        assert point.scores["of the first"] is None
        assert point.scores["psnr"] is not None


def test_fid_is_of_all_results_of_a_time_and_measured_once(
    search: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is of files, it is handed those of every image, also of what is known of an
    interrupted search."""
    seen: list[tuple[int, float]] = []

    def fid(results: str, hrs: str, **_: object) -> float:
        pairs = [sorted(Path(folder).iterdir()) for folder in (results, hrs)]
        levels = [[np.asarray(Image.open(file), float) for file in files] for files in pairs]
        error = np.mean([np.abs(a - b).mean() for a, b in zip(*levels, strict=True)])
        seen.append((len(pairs[0]), float(error)))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return float(error)

    monkeypatch.setattr("sr_cli.evaluation.metrics.create", lambda *_: fid)
    path = tmp_path / "known.jsonl"

    def made() -> Search:
        found = search(Measurements(path))
        found.metrics = Metrics(["psnr", "fid"], torch.device("cpu"), 0, {})
        return found

    with pytest.raises(KeyboardInterrupt):
        made().run(lambda _: None)
    result = made().run(lambda _: None)
    points = [point for row in result.found for point in row.points]
    assert [count for count, _ in seen] == [2] * (len(points) + 1)  # one was interrupted
    for point in points:
        assert point.scores["fid"] in [error for _, error in seen]
    assert len({point.scores["fid"] for point in points}) > len(points) // 2
    assert "fid" in table(result).records()[0]
    made().run(lambda _: None)
    assert len(seen) == len(points) + 1


def test_crops_stand_beside_each_other_by_noise(
    search: Make, files: list[Path], tmp_path: Path
) -> None:
    """A row for each scale, or for each image at the only one; the columns of the times differ."""
    sizes = []
    for scales in ((1.6, 2.7), (2.7,)):
        made = search()
        made.options = replace(made.options, scales=scales)
        result = made.run(lambda _: None)
        sheet(made, result, tmp_path / "sheet.png")
        sizes.append(Image.open(tmp_path / "sheet.png").size)
    assert [width // SIDE for width, _ in sizes] == [2 + 2 + 1] * 2  # LR, two times, t*, HR
    assert [height // SIDE for _, height in sizes] == [2, len(files)]
    picture = np.asarray(Image.open(tmp_path / "sheet.png"))
    edge = picture.shape[1] - 5 * (SIDE + GAP)
    columns = [picture[:, edge + i * (SIDE + GAP) :][:, :SIDE] for i in range(5)]
    assert not np.array_equal(columns[1], columns[2])


def test_larger_scales_are_farther_away(search: Make) -> None:
    near, far = search().run(lambda _: None).found
    assert near.distance < far.distance


def test_the_order_of_the_files_does_not_matter(search: Make, files: list[Path]) -> None:
    one = search().run(lambda _: None)
    files.reverse()
    other = search().run(lambda _: None)
    for a, b in zip(one.found, other.found, strict=True):
        for p, q in zip(a.points, b.points, strict=True):
            assert p.t == q.t
            assert p.scores == pytest.approx(q.scores, rel=1e-9)
    np.testing.assert_allclose(one.signature, other.signature)


def test_what_is_known_is_not_computed_again(
    search: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = Metrics.score

    def score(self: Metrics, *images: Tensor) -> dict[str, float | None]:
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return real(self, *images)

    monkeypatch.setattr(Metrics, "score", score)
    path = tmp_path / "known.jsonl"
    with pytest.raises(KeyboardInterrupt):
        search(Measurements(path)).run(lambda _: None)
    whole = search(Measurements(path)).run(lambda _: None)
    needed = 2 * sum(len(r.points) for r in whole.found)
    assert len(calls) == needed + 1  # the one that was interrupted
    again = search(Measurements(path)).run(lambda _: None)
    assert len(calls) == needed + 1
    assert [r.star for r in again.found] == [r.star for r in whole.found]
    search(Measurements(path), sampler="ddpm").run(lambda _: None)
    assert len(calls) > needed + 1


@pytest.mark.parametrize("change", ["nothing", "preprocessor", "last step", "version", "card"])
def test_what_a_result_depends_on_is_measured_again(
    change: str, search: Make, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    real = Metrics.score

    def score(self: Metrics, *images: Tensor) -> dict[str, float | None]:
        calls.append(1)
        return real(self, *images)

    monkeypatch.setattr(Metrics, "score", score)
    network = tmp_path / "network.safetensors"
    state = load_file(tiny / "compact.safetensors")
    save_file(state, network)
    options: dict[str, Any] = {"method": "dossr", "t1": None, "preprocess": str(network)}
    known = Measurements(tmp_path / "known.jsonl")
    search(known, **options).run(lambda _: None)
    before = len(calls)
    match change:
        case "preprocessor":
            save_file({name: value + 0.01 for name, value in state.items()}, network)
        case "last step":
            options["last_step"] = "mean"
        case "version":
            monkeypatch.setattr(measurements, "__version__", "another")
    made = search(known, **options)
    if change == "card":
        made.engine._model = replace(made.engine.model, last_step="step")
    made.run(lambda _: None)
    assert (len(calls) == before) == (change == "nothing")


def test_dossr_is_searched_too(search: Make) -> None:
    result = search(method="dossr", t1=None, degradation="mild").run(lambda _: None)
    for found in result.found:
        assert found.reference == 500
        assert {p.t for p in found.points} >= {100, 500, 1000}
    names = [column.name for column in table(result).columns]
    assert "psnr, T/2" in names
    assert "PRF" not in names  # it is Diff-SR's


def test_reports_say_what_was_found(search: Make, tmp_path: Path) -> None:
    made = search()
    result = made.run(lambda _: None)
    with_limits = with_fields(result, Thresholds(1e9, 1e9, 1e9))
    without = with_fields(result, Thresholds(1e-9, 1e-9, 1e-9))
    rows = table(with_limits).records()
    assert [r["scale"] for r in rows] == ["1.6", "2.7"]
    assert rows[0]["PRF"] == "0–999"
    assert {r["PRF"] for r in table(without).records()} == {"none"}
    assert [r["its t*"] for r in table(without).records()] == [0, 0]
    for r, found in zip(rows, result.found, strict=True):
        assert r["t*/T"] == found.star.t / 1000
        assert r["psnr"] == found.star.scores["psnr"]
        assert r["psnr, t 0"] == found.at(0).scores["psnr"]
    content = record(with_limits)
    assert content["thresholds"] == {"omega": 1e9, "signature": 1e9, "fidelity": 1e9}
    assert content["scales"][1]["best"]["psnr"] == result.found[1].best("psnr").t  # type: ignore[union-attr]
    path = tmp_path / "prf.png"
    draw({"one": with_limits, "two": without}, spectra(made, result), path)
    with Image.open(path) as image:
        assert len(np.unique(np.asarray(image))) > 10


def test_images_that_are_too_small_are_refused(search: Make, files: list[Path]) -> None:
    Image.new("RGB", (8, 8)).save(files[0])
    with pytest.raises(UsageError, match="at least 16 pixels"):
        search().run(lambda _: None)
