"""The comparison: what is run, counted, scored and shown; a failing method is a row."""

import csv
import io
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.steps import setting
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import UsageError
from sr_cli.evaluation import metrics
from sr_cli.evaluation.bench import BenchOptions, Row, measure, one_level_margin, table
from sr_cli.evaluation.datasets import Pair, Pairs, pairs
from sr_cli.evaluation.memory import MemoryMeter
from sr_cli.evaluation.metrics import Metrics
from sr_cli.evaluation.peers import (
    Method,
    Peer,
    engine,
    interpolation,
    network,
    parameters,
    stored,
    through_ncnn,
)
from sr_cli.evaluation.profiling import REST, profile
from sr_cli.models import registry
from sr_cli.models.calibration import Calibration, Start, keep
from sr_cli.models.embedded import EmbeddedDenoiser

CPU = torch.device("cpu")
PSNR = metrics.load(["psnr"], CPU)


def photo(path: Path, seed: int, size: tuple[int, int] = (48, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rough = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Pairs:
    """Three pairs of two sizes."""
    for seed, size in enumerate([(48, 32), (48, 32), (40, 32)]):
        photo(tmp_path / "photos" / f"{seed}.png", seed, size)
    return pairs(tmp_path / "photos")


def row_of(peer: Peer, data: Pairs, options: BenchOptions | None = None) -> Row:
    return measure(peer, data, PSNR, options or BenchOptions(), device=CPU)


def perfect(calls: list[int]) -> Peer:
    """A method that knows the answer and notes how many images it is given."""

    def run(group: Sequence[Pair]) -> list[Tensor]:
        calls.append(len(group))
        return [pair.hr for pair in group]

    return Peer("perfect", lambda _: Method(run, nfe=1, parameters=7))


def test_calls_are_warm_ups_repeats_and_batches(data: Pairs) -> None:
    calls: list[int] = []
    row = row_of(perfect(calls), data, BenchOptions(warmup=2, repeat=3, batch=2))
    assert calls == [1] * (2 + 3 * 3) + [2, 1]
    assert len(row.seconds) == 9
    assert row.images_per_second is not None
    assert row.images_per_second > 0


def test_scores_are_means_over_images(data: Pairs) -> None:
    assert row_of(perfect([]), data).scores["psnr"] == pytest.approx(80)
    one_by_one = [row_of(interpolation("bicubic"), data[i : i + 1]).scores["psnr"] for i in (0, 1)]
    both = row_of(interpolation("bicubic"), data[:2]).scores["psnr"]
    assert both == pytest.approx(sum(value or 0 for value in one_by_one) / 2)


def test_scores_do_not_depend_on_the_order_of_images(data: Pairs) -> None:
    backward = pairs(data.hr_files[::-1])
    forward_row, backward_row = (row_of(interpolation("lanczos"), d) for d in (data, backward))
    assert forward_row.scores["psnr"] == pytest.approx(backward_row.scores["psnr"], abs=1e-9)


def test_percentiles_are_of_the_seconds() -> None:
    row = Row("a", "b", 5, seconds=[5.0, 1.0, 3.0, 2.0, 4.0])
    assert [row.percentile(p) for p in (10, 50, 90)] == pytest.approx([1.4, 3, 4.6])
    assert Row("a", "b", 5).percentile(50) is None


@pytest.mark.usefixtures("tiny")
def test_every_kind_of_method_fits_the_data(data: Pairs) -> None:
    options = UpscaleOptions(steps=2)
    found = [
        interpolation("bicubic"),
        interpolation("lanczos"),
        network("compact alone", "compact", device=CPU, dtype=torch.float32),
        engine("srx", options, device=CPU, dtype="float32"),
    ]
    for scaled in (data, pairs(data.hr_files, scale=2.7)):
        rows = [row_of(peer, scaled) for peer in found]
        assert [row.failure for row in rows] == [None] * 4
        assert [row.nfe for row in rows] == [0, 0, 1, 2]
        counts = [row.parameters or 0 for row in rows]
        assert counts[0] == counts[1] == 0 < counts[2] < counts[3]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(("t1", "calls"), [(0, 0), (2, 2), (40, 5), ("auto", 3)])
def test_calls_of_diff_sr_are_those_that_are_made(
    data: Pairs,
    t1: Any,
    calls: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    options = UpscaleOptions(method="diffsr", steps=5, t1=t1)
    found = Calibration({2.0: Start(0, {}), 4.0: Start(3, {}), 8.0: Start(40, {})})
    keep(setting(options, registry.card("prior")), found)
    made: list[float] = []
    denoise = EmbeddedDenoiser.predict_x0

    def counted(self: EmbeddedDenoiser, x: Tensor, **values: Any) -> Tensor:
        made.append(values["t"])
        return denoise(self, x, **values)

    monkeypatch.setattr(EmbeddedDenoiser, "predict_x0", counted)
    method = engine("srx", options, device=CPU, dtype="float32").make(data)
    method.run([data[0]])
    assert method.nfe == len(made) == calls


@pytest.mark.usefixtures("tiny")
def test_srx_gives_what_srx_upscale_gives(data: Pairs) -> None:
    options = UpscaleOptions(steps=2)
    method = engine("srx", options, device=CPU, dtype="float32").make(data)
    expected = Upscaler(options, device="cpu", dtype="float32")(data[0].lr)
    assert torch.equal(method.run([data[0]])[0], expected)


def test_through_ncnn_the_same_network_gives_the_same_picture(data: Pairs) -> None:
    torch_s, ncnn_s = (
        peer.make(data).run(list(data[:1]))[0]
        for peer in (
            network("torch", "realesrgan", device=CPU, dtype=torch.float32),
            through_ncnn("ncnn"),
        )
    )
    assert (torch_s - ncnn_s).abs().max() < 2 / 255
    assert (torch_s - data[0].hr).abs().max() > 10 / 255  # it is no enlargement of some other kind


def test_stored_results_are_matched_by_name(data: Pairs, tmp_path: Path) -> None:
    for name, pair in zip("201", (data[2], data[0], data[1]), strict=True):
        levels = (pair.hr.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        (tmp_path / "theirs").mkdir(exist_ok=True)
        Image.fromarray(levels).save(tmp_path / "theirs" / f"{name}_x4.png")
    row = row_of(stored("theirs", tmp_path / "theirs"), data)
    assert row.scores["psnr"] == pytest.approx(80)
    assert (row.seconds, row.memory, row.images_per_second) == ((), None, None)
    (tmp_path / "theirs" / "1_x4.png").unlink()
    assert "1.png has no partner" in str(
        row_of(stored("theirs", tmp_path / "theirs"), data).failure
    )


def test_a_failing_method_is_a_row_that_says_why(data: Pairs, tmp_path: Path) -> None:
    broken = network("peer", tmp_path / "gone.pth", device=CPU, dtype=torch.float32)
    assert "gone.pth" in str(row_of(broken, data).failure)

    def explode(_: Sequence[Pair]) -> list[Tensor]:
        raise KeyError("weight")

    row = row_of(Peer("bad", lambda _: Method(explode)), data)
    assert row.failure == "KeyError: 'weight'"
    wrong = photo(tmp_path / "small" / "0.png", 0, (8, 8))
    failure = row_of(stored("small", wrong.parent), data[:1]).failure
    assert failure == f"{wrong} has 8x8 pixels, the HR image 48x32."


def test_the_table_says_what_is_missing(data: Pairs) -> None:
    lacking = Metrics(["psnr", "musiq"], CPU, 0, {"musiq": "musiq has no weights"})
    rows = [
        Row("a", "good", 3, 1, 2_500_000, [0.5], 2.0, 3 << 20, {"psnr": 30.0, "musiq": None}),
        Row("a", "bad", 3, failure="it broke"),
    ]
    assert table(rows, lacking).markdown().splitlines() == [
        "| method | NFE | params (M) | s/image | p10 | p90 | images/s | memory (MiB) | psnr |"
        " musiq | note |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        "| good | 1 | 2.50 | **0.500** | **0.500** | **0.500** | **2.00** | 3 | **30.00** |"
        " – | – |",
        "| bad | – | – | – | – | – | – | – | – | – | it broke |",
    ]
    written = list(csv.DictReader(io.StringIO(table(rows[:1], lacking, data=True).csv())))
    assert written[0]["data"] == "a"
    assert "note" not in written[0]
    assert rows[0].record["median"] == 0.5


def test_sets_are_measured_from_files(data: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[str]]] = []

    def fid(results: str, hrs: str, **_: object) -> float:
        seen.append([sorted(path.name for path in Path(d).iterdir()) for d in (results, hrs)])
        return 12.5

    monkeypatch.setattr(metrics, "create", lambda *_: fid)
    row = measure(perfect([]), data, Metrics(["fid"], CPU, 0, {}), BenchOptions(), device=CPU)
    assert row.scores == {"fid": 12.5}
    assert seen == [[["0.png", "1.png", "2.png"], ["0.png", "1.png", "2.png"]]]


def test_parameters_are_counted_once_at_any_depth() -> None:
    class Adapter:
        def __init__(self, net: nn.Module) -> None:
            self.net = net
            self.again = net
            self.owner = self

    assert parameters(Adapter(nn.Linear(3, 2))) == 8


def test_memory_is_what_is_held_and_what_is_worked_with(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    real = MemoryMeter._now

    def now(self: MemoryMeter) -> int:
        found = real(self)
        looked.set()
        return found

    monkeypatch.setattr(MemoryMeter, "_now", now)
    meter = MemoryMeter(CPU)
    unit = 64 << 20
    with meter.holding():
        kept = torch.ones(unit // 4)
    for _ in range(2):  # the second finds what the first has freed, and still counts
        with meter.working():
            work = kept + 1, kept + 2
            for _ in range(2):  # the second look has begun after the work
                looked.clear()
                assert looked.wait(60)
        del work
    assert 2.9 * unit < meter.bytes < 3.5 * unit


@pytest.mark.parametrize("wrong", [{"warmup": -1}, {"repeat": 0}, {"batch": 0}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        BenchOptions(**wrong)


@pytest.mark.usefixtures("tiny")
def test_a_profile_splits_the_whole_time(data: Pairs) -> None:
    found = profile("srx", data[:2], UpscaleOptions(steps=3), device=CPU, dtype="float32")
    parts = ["read", "preprocess", "encode", *(f"network, step {i}" for i in (1, 2, 3))]
    assert list(found.parts) == [*parts, "decode", "colour", "guard", "write", REST]
    assert all(value >= 0 for value in found.parts.values())
    assert sum(row[2] for row in found.table.rows[:-1]) == pytest.approx(100)  # type: ignore[misc]
    assert found.outside == pytest.approx(1 - found.networks / found.total)
    assert found.networks == pytest.approx(
        sum(found.parts[part] for part in (*parts[1:], "decode"))
    )
    slow = replace(found, parts={**found.parts, "write": 60.0, "network, step 1": 20.0})
    assert slow.verdict.startswith("The bottleneck is write; 7")
    fast = replace(found, parts={**found.parts, "network, step 1": 60.0})
    assert fast.verdict.startswith("The bottleneck is networks; ")


@pytest.mark.usefixtures("tiny")
def test_tiles_of_a_step_count_together(data: Pairs) -> None:
    options = UpscaleOptions(steps=2, tile=16, overlap=0)
    whole = profile("srx", data[:1], options, device=CPU, dtype="float32")
    assert [part for part in whole.parts if part.startswith("network")] == [
        "network, step 1",
        "network, step 2",
    ]


@pytest.mark.usefixtures("tiny")
def test_the_margin_of_one_level_is_enough_and_less_is_not() -> None:
    lr = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    margin = one_level_margin("embedded", lr, exact=180)
    engine = Upscaler(UpscaleOptions(), device="cpu", dtype="float32")

    def apart(overlap: int) -> float:
        one, other = (engine.using(tile=tile, overlap=overlap)(lr) for tile in (0, 32))
        return float(((one * 255).round() - (other * 255).round()).abs().max())

    assert 0 < margin < 180
    assert apart(margin) <= 1 < apart(margin - 16)
