"""Large pictures row by row: what the whole gives, and memory that does not grow."""

import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from sr_cli.engine.events import Failed, Finished
from sr_cli.engine.images import load
from sr_cli.engine.manifest import NAME
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.engine.size import Exact
from sr_cli.engine.stream import finishing, job, plan, source
from sr_cli.engine.stream.finishing import Finisher, least
from sr_cli.engine.stream.shelf import Shelf
from sr_cli.engine.tiling import ignore
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import DeviceError
from sr_cli.models.embedded import EmbeddedDenoiser, EmbeddedRows

pytestmark = pytest.mark.usefixtures("tiny", "few_rows")
SIZE = 95, 79


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few enter and are finished at a time that these pictures take several times."""
    monkeypatch.setattr(source, "ENTERING", 1000)
    monkeypatch.setattr(finishing, "least", lambda width: 64)


def paint(path: Path, mode: str = "RGB", bits: int = 8, size: tuple[int, int] = SIZE) -> Path:
    """Smooth structure and some grain; the alpha hides a corner."""
    random = np.random.default_rng(0)
    coarse = random.random((9, 9, len(mode))).astype(np.float32)
    image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC).reshape(*size[::-1], -1)
    image = np.clip(image + 0.05 * random.standard_normal(image.shape), 0, 1)
    if mode == "RGBA":
        image[:20, :30, 3] = 0
    if bits == 16:
        assert cv2.imwrite(str(path), np.rint(image * 65_535).astype(np.uint16))
        return path
    levels = np.rint(image * 255).astype(np.uint8)
    Image.fromarray(levels[..., 0] if mode == "L" else levels).save(path, dpi=(300, 300))
    return path


def enlarged(
    monkeypatch: pytest.MonkeyPatch, path: Path, output: Path, *, rows: bool, **options: Any
) -> Finished | Failed:
    """As `srx upscale` does it; rows: by rows, or whole in one tile."""
    monkeypatch.setattr(plan, "FROM", 1 if rows else 1 << 60)
    if not rows:
        options.pop("tile", None)
    engine = Upscaler(UpscaleOptions(**options), device="cpu", dtype="float32")
    *_, event = engine.files(path, output, files=OutputOptions(overwrite=True))
    assert isinstance(event, Finished | Failed)
    return event


def same(
    monkeypatch: pytest.MonkeyPatch, path: Path, suffix: str = ".tiff", **options: Any
) -> bool:
    """Whether both ways give the same picture, but for a level here and there, since networks may
    add up in another order, and say the same of it."""
    outputs = {rows: path.with_name(f"{rows}{suffix}") for rows in (False, True)}
    whole, streamed = (
        enlarged(monkeypatch, path, output, rows=rows, **options)
        for rows, output in outputs.items()
    )
    assert isinstance(whole, Finished)
    assert isinstance(streamed, Finished)
    assert (whole.size_in, whole.size_out, whole.notes) == (
        streamed.size_in,
        streamed.size_out,
        streamed.notes,
    )
    one, other = (load(output) for output in outputs.values())
    assert (one.depth, one.metadata, one.gray) == (other.depth, other.metadata, other.gray)
    distance = np.abs(one.samples - other.samples) * (2**one.depth - 1)
    if suffix == ".webp":  # whose encoder chooses otherwise everywhere for a level somewhere
        return bool(distance.mean() < 0.1)
    return bool(distance.max() < 1.01 and (distance > 0.5).mean() < 1e-3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 2},
        {"scale": 1},
        {"scale": 2.7},
        {"scale": Exact(300, 411)},
        {"steps": 4},
        {"steps": 3, "order": 2, "last_step": "step", "preprocess": "none", "scale": 3.3},
        {"color": "none"},
        {"method": "diffsr", "t1": 40, "steps": 2},
        {"method": "diffsr", "t1": 0},
    ],
    ids=str,
)
def test_rows_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any]
) -> None:
    assert same(monkeypatch, paint(tmp_path / "in.png"), tile=16, **{"steps": 1, **options})


@pytest.mark.parametrize("size", [(1, 1), (1, 91), (91, 1), (2, 37)], ids=str)
@pytest.mark.parametrize("scale", [1.3, 2.7, 4])
def test_so_they_do_of_thin_pictures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: tuple[int, int], scale: float
) -> None:
    path = paint(tmp_path / "in.png", "RGBA", size=size)
    assert same(monkeypatch, path, tile=16, steps=2, scale=scale)


@pytest.mark.parametrize(
    ("mode", "bits", "suffix"),
    [
        ("RGB", 8, ".png"),
        ("L", 8, ".png"),
        ("RGBA", 8, ".png"),
        ("RGB", 16, ".png"),
        ("RGBA", 16, ".tiff"),
        ("RGBA", 8, ".jpg"),
        ("RGB", 8, ".webp"),
    ],
)
def test_every_kind_of_picture_and_file_is_as_the_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, bits: int, suffix: str
) -> None:
    path = paint(tmp_path / "in.png", mode, bits)
    assert same(monkeypatch, path, suffix, tile=16, steps=1, scale=2.5)


def test_too_small_surroundings_do_show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = paint(tmp_path / "in.png")
    with monkeypatch.context() as patch:
        patch.setattr(finishing, "grown", lambda window, by, size: window)
        assert not same(patch, path, tile=16, steps=1)
    assert same(monkeypatch, path, tile=16, steps=1)


PEAKS = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.stream import finishing, job, plan, source
from sr_cli.engine.tiling import Window, ignore
from sr_cli.engine.upscaler import Upscaler

def status(name):
    line = next(x for x in open("/proc/self/status") if x.startswith(name + ":"))
    return int(line.split()[1]) // 1024

plan.WORK = 32 << 20
source.ENTERING = 1000
finishing.least = lambda width: 64
engine = Upscaler(UpscaleOptions(steps=1), device="cpu", dtype="float32")
for height, least in ((300, 1), (300, 1), (1500, 1), (1500, 1 << 60)):
    plan.FROM = least
    path = Path(sys.argv[1]) / f"{height}.png"
    Image.fromarray(np.full((height, 80, 3), 99, np.uint8)).save(path)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    *_, done = engine.files(path, path.with_name(f"{height}-{least}-{before}.tiff"))
    print(done.size_out[1], status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is reset as Linux does it")
def test_memory_does_not_grow_with_the_picture(tmp_path: Path) -> None:
    """MB; 6000 rows of 320 pixels are 23 in each float32 copy, of which the whole needs several."""
    package = Path(plan.__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", PEAKS, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(package)},
        text=True,
        capture_output=True,
        check=True,
    )
    rows = [[int(word) for word in line.split()] for line in run.stdout.splitlines()]
    assert [height for height, _ in rows] == [1200, 1200, 6000, 6000]
    _, short, tall, whole = (peak for _, peak in rows)  # the first one sets libraries up
    assert tall - short < 15, rows
    assert whole - tall > 60, rows


def test_a_run_that_is_interrupted_leaves_nothing_half_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, output = paint(tmp_path / "in.png"), tmp_path / "out"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Finisher, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            enlarged(patch, path, output, rows=True, tile=16, steps=1)
    assert [file.name for file in output.iterdir()] == [NAME]
    assert isinstance(enlarged(monkeypatch, path, output, rows=True, tile=16, steps=1), Finished)
    assert load(output / "in.png").size == (380, 316)


@pytest.mark.parametrize("wrong", [torch.inf, torch.nan, -2.0], ids=["inf", "nan", "black"])
def test_what_overflows_is_repeated_in_float32(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: float
) -> None:
    """In strips that are lower, as float32 takes more memory."""
    path = paint(tmp_path / "in.png", size=(95, 200))
    x0, call = EmbeddedRows.x0, EmbeddedRows.__call__
    rows: dict[torch.dtype, int] = {}

    def overflowing(self: EmbeddedRows, *read: torch.Tensor) -> torch.Tensor:
        found = x0(self, *read)
        return found if self._denoiser.dtype == torch.float32 else torch.full_like(found, wrong)

    def entered(self: EmbeddedRows, x: torch.Tensor, y: torch.Tensor) -> Iterator[torch.Tensor]:
        rows.setdefault(self._denoiser.dtype, x.shape[-2])
        return call(self, x, y)

    monkeypatch.setattr(EmbeddedRows, "x0", overflowing)
    monkeypatch.setattr(EmbeddedRows, "__call__", entered)
    monkeypatch.setattr(plan, "FROM", 1)
    monkeypatch.setattr(plan, "WORK", 32 << 20)
    engine = Upscaler(UpscaleOptions(steps=1), device="cpu", dtype="bfloat16")
    *_, done = engine.files(path, tmp_path / "low.tiff")
    assert isinstance(done, Finished)
    assert "bfloat16 overflowed: repeated in float32" in done.notes
    enlarged(monkeypatch, path, tmp_path / "exact.tiff", rows=True, steps=1)
    assert (tmp_path / "low.tiff").read_bytes() == (tmp_path / "exact.tiff").read_bytes()
    assert 16 < rows[torch.float32] < rows[torch.bfloat16] < 316


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        cv2.error("OpenCV: error: (-4:Insufficient memory) Failed to allocate 99 bytes"),
    ],
    ids=repr,
)
def test_memory_that_runs_out_makes_the_strips_lower(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    """Before the retry nothing of the failed attempt is held any more, nor what torch keeps."""
    path, real, seen = paint(tmp_path / "in.png"), EmbeddedRows.__call__, list[int]()
    given, released = weakref.WeakSet[torch.Tensor](), list[torch.device]()

    def limited(self: EmbeddedRows, x: torch.Tensor, y: torch.Tensor) -> Iterator[torch.Tensor]:
        seen.append(x.shape[-2])
        if x.shape[-2] > 40:
            given.add(x)
            raise type(error)(*error.args)  # a new one, which is held by nobody
        return real(self, x, y)

    def release(device: torch.device) -> None:
        assert not given
        released.append(device)

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedRows, "__call__", limited)
        patch.setattr(job, "give_back", release)
        assert isinstance(enlarged(patch, path, tmp_path / "a.tiff", rows=True, steps=1), Finished)
    assert released
    assert seen[0] > 40
    enlarged(monkeypatch, path, tmp_path / "b.tiff", rows=True, steps=1)
    assert (tmp_path / "a.tiff").read_bytes() == (tmp_path / "b.tiff").read_bytes()


def test_as_many_states_are_kept_as_the_solver_looks_back_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However many steps there are."""
    path, peaks, open_now = paint(tmp_path / "in.png"), list[int](), set[Shelf]()
    init, close = Shelf.__init__, Shelf.close

    def opening(self: Shelf, shape: tuple[int, ...]) -> None:
        init(self, shape)
        open_now.add(self)
        peaks[-1] = max(peaks[-1], len(open_now))

    def closing(self: Shelf) -> None:
        close(self)
        open_now.discard(self)

    monkeypatch.setattr(Shelf, "__init__", opening)
    monkeypatch.setattr(Shelf, "close", closing)
    for steps, order in ((4, 1), (9, 1), (4, 3), (9, 3)):
        peaks.append(0)
        options: dict[str, Any] = {"steps": steps, "order": order, "scale": 1}
        enlarged(monkeypatch, path, tmp_path / "out.tiff", rows=True, **options)
        assert not open_now
    assert peaks == [2, 2, 5, 5]


def test_where_the_network_strayed_is_told_as_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It inverts the left half."""
    path, x0 = paint(tmp_path / "in.png"), EmbeddedRows.x0

    def straying(self: EmbeddedRows, x: torch.Tensor, y: torch.Tensor, out: Any) -> torch.Tensor:
        return inverted(x0(self, x, y, out))

    def inverted(found: torch.Tensor) -> torch.Tensor:
        return torch.cat((-found[..., :190], found[..., 190:]), dim=-1)

    predict = EmbeddedDenoiser.predict_x0
    monkeypatch.setattr(EmbeddedRows, "x0", straying)
    monkeypatch.setattr(
        EmbeddedDenoiser, "predict_x0", lambda *given, **more: inverted(predict(*given, **more))
    )
    whole, streamed = (
        enlarged(monkeypatch, path, tmp_path / "out.png", rows=rows, steps=1)
        for rows in (False, True)
    )
    assert isinstance(whole, Finished)
    assert isinstance(streamed, Finished)
    assert "strayed" in whole.notes[0]
    assert whole.notes == streamed.notes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("lead", [(), (3,), (1, 3)], ids=str)
def test_a_shelf_keeps_rows(dtype: Any, lead: tuple[int, ...]) -> None:
    values = (255 * np.random.default_rng(0).random((*lead, 20, 30))).astype(dtype)
    with closing(Shelf.of(values)) as shelf:
        shelf.put(slice(3, 17), values[..., 4:18, :])
        assert np.array_equal(shelf.rows(slice(3, 17)), values[..., 4:18, :])
        assert np.array_equal(shelf.rows(slice(0, 3)), values[..., :3, :])
        assert np.array_equal(shelf.rows(slice(17, 20)), values[..., 17:, :])
        assert shelf.rows(slice(5, 7)).dtype == dtype


def test_a_shelf_says_where_the_disk_is_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match="SRX_HOME"):
        Shelf((3, 1 << 22, 1 << 22))
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match="Memory is too small for this picture"):
        Shelf((3, 2, 3))


def test_a_shelf_serves_several_threads() -> None:
    values = np.random.default_rng(0).random((3, 40, 30), np.float32)
    spans = [slice(top, top + 8) for top in range(32)] * 20
    with closing(Shelf.of(values)) as shelf, ThreadPoolExecutor(4) as pool:
        for span, found in zip(spans, pool.map(shelf.rows, spans), strict=True):
            assert np.array_equal(found, values[:, span])


@pytest.mark.parametrize(
    "options",
    [
        {"color": "adain"},
        {"tile": 0},
        {"overlap": 8},
        {"scale": 0.5},
        {"preprocess": "realesrgan"},
        {"best_of": 2},
    ],
    ids=str,
)
def test_what_depends_on_the_whole_picture_is_done_whole(options: dict[str, Any]) -> None:
    chosen = UpscaleOptions(**options)
    large = (6000, 6000), chosen.size.of(6000, 6000)
    assert not plan.streams(chosen, large)
    assert plan.streams(UpscaleOptions(), ((6000, 6000), (24_000, 24_000)))
    assert not plan.streams(UpscaleOptions(), ((300, 300), (1200, 1200)))


def test_the_same_memory_serves_every_width() -> None:
    """What is planned, in bytes."""
    parts = Upscaler(UpscaleOptions(), device="cpu", dtype="bfloat16").parts(
        ((500, 500), (2000, 2000)), ignore
    )
    for width in (2000, 8000, 14_000):
        rows = plan.strip_rows(parts, ((width // 4, 5000), (width, 20_000)))
        assert rows % parts.model.multiple_of == 0
        assert 0.9 * plan.WORK < width * (plan.WIDE + plan.EACH * rows) <= plan.WORK


@pytest.mark.parametrize("width", [1, 4, 16])
def test_a_narrow_picture_takes_what_it_is_padded_to(width: int) -> None:
    """16 columns, so strips are no higher than theirs, and a strip as high holds no more."""
    parts = Upscaler(UpscaleOptions(), device="cpu", dtype="bfloat16").parts(
        ((500, 500), (2000, 2000)), ignore
    )
    rows, padded = plan.strip_rows(parts, ((width, 900_000),) * 2), parts.model.multiple_of
    assert 0.9 * plan.WORK < padded * (plan.WIDE + plan.EACH * rows) <= plan.WORK


def test_the_bound_is_one_up_to_20000_columns_and_higher_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But never all of the free memory."""
    monkeypatch.setattr(plan, "free", lambda: 1 << 40)
    parts = Upscaler(UpscaleOptions(), device="cpu", dtype="bfloat16").parts(
        ((500, 500), (2000, 2000)), ignore
    )
    narrow, wide, wider = (plan.most(parts, width) for width in (20_000, 30_000, 60_000))
    assert plan.MOST == narrow < wide < wider
    monkeypatch.setattr(plan, "free", lambda: 1 << 29)
    assert plan.most(parts, 30_000) < 1 << 29


@pytest.mark.parametrize(("height", "strips"), [(2000, 1), (2001, 1), (3000, 4)])
def test_what_one_strip_holds_is_one_strip(height: int, strips: int) -> None:
    """Also where its height is no multiple of what the model takes."""
    sizes = ((500, height // 4), (2000, height))
    parts = Upscaler(UpscaleOptions(), device="cpu", dtype="bfloat16").parts(sizes, ignore)
    assert -(-height // plan.strip_rows(parts, sizes)) == strips


def test_what_waits_to_be_finished_takes_as_much_of_wide_pictures() -> None:
    """Rows that are finished at a time, in pixels, until they are as few as they may be."""
    widths = (1024, 8192, 16_384, 30_000)
    assert [least(width) for width in widths] == [1024, 128, 64, 48]


def test_how_many_rows_are_finished_at_a_time_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, outputs = paint(tmp_path / "in.png"), [tmp_path / f"{rows}.png" for rows in (64, 128)]
    ready = list[list[int]]()
    for rows, output in zip((64, 128), outputs, strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(finishing, "least", lambda width, rows=rows: rows)
            ready.append(heights(patch))
            enlarged(patch, path, output, rows=True, tile=16, steps=1)
    one, other = (output.read_bytes() for output in outputs)
    assert one == other
    assert sum(ready[0]) == sum(ready[1])
    assert [max(few) for few in ready] == [64, 128]


def heights(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the parts that are finished from now on."""
    found, finish = list[int](), Finisher.__call__

    def noted(self: Finisher, strips: Any) -> Iterator[tuple[slice, torch.Tensor]]:
        for rows, result in finish(self, strips):
            found.append(rows.stop - rows.start)
            yield rows, result

    monkeypatch.setattr(Finisher, "__call__", noted)
    return found


@pytest.mark.parametrize("entering", [1, 1000, 1 << 20])
def test_how_many_rows_enter_at_a_time_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entering: int
) -> None:
    monkeypatch.setattr(source, "ENTERING", entering)
    assert same(monkeypatch, paint(tmp_path / "in.png"), tile=16, steps=1)


@pytest.mark.parametrize("free", [0, 3 << 27, 1 << 40])
def test_strips_are_lower_where_memory_is_short_alone(
    monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    monkeypatch.setattr(plan, "free_memory", lambda device: free)
    parts = Upscaler(UpscaleOptions(), device="cpu", dtype="bfloat16").parts(
        ((500, 500), (2000, 2000)), ignore
    )
    rows = plan.strip_rows(parts, ((2000, 2000), (8000, 8000)))
    multiple = parts.model.multiple_of
    ample = (plan.WORK // 8000 - plan.WIDE) // plan.EACH // multiple * multiple
    assert rows == {0: multiple, 1 << 40: ample}.get(free, rows)
    assert multiple <= rows <= ample
    assert (rows < ample) == (free < 1 << 30)
