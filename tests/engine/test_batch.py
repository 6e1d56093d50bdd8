"""One bad picture, or Ctrl-C, costs nothing but itself."""

import errno
import json
import os
import re
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sr_cli.device import peak_memory
from sr_cli.engine import batch, crew
from sr_cli.engine.arrays import Form
from sr_cli.engine.events import (
    Event,
    Failed,
    Finished,
    Job,
    Planned,
    Skipped,
    Started,
    Stepped,
)
from sr_cli.engine.images import Picture
from sr_cli.engine.jobs import pending, preview
from sr_cli.engine.manifest import NAME, Manifest
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.engine.pictures import recolored
from sr_cli.engine.size import Exact, Scale, Side, Size, oddities
from sr_cli.errors import BrokenDeviceError, DeviceError, FullDiskError, InputError, ModelError

OPTIONS = UpscaleOptions(scale=2, steps=3)
BATCH = replace(OPTIONS, batch=3)


class Nearest:
    """An upscaler without weights; `failure` is raised at the picture of this size."""

    device, steps, at_once = "cpu", 3, 1
    model: Any = SimpleNamespace(tiling="blend")

    def __init__(
        self, failure: BaseException | None = None, at: tuple[int, int] = (0, 0), step: int = 0
    ) -> None:
        self.failure, self.at, self.step = failure, at, step
        self.groups: list[list[int]] = []
        self.seen: list[weakref.ref[Tensor]] = []

    @property
    def alive(self) -> list[Tensor]:
        """The pictures that somebody still holds of those it was given."""
        return [lr for lr in (seen() for seen in self.seen) if lr is not None]

    def share(self, width: int, height: int) -> Fraction:
        """Pictures wider than 8 pixels have two tiles."""
        return Fraction(1 + (width > 8), self.at_once)

    def together(
        self,
        lrs: Sequence[Tensor],
        *,
        forms: Sequence[Form],
        on_step: Callable[[int, int, int], None],
        on_note: Callable[[int, str], None],
    ) -> list[Tensor]:
        assert not self.alive
        self.seen += map(weakref.ref, lrs)
        self.groups.append([lr.shape[-1] for lr in lrs])
        on_note(0, "slow")
        hrs = [self.enlarge(lr, partial(on_step, i)) for i, lr in enumerate(lrs)]
        return [form(hr[None])[0] for form, hr in zip(forms, hrs, strict=True)]

    def enlarge(self, lr: Tensor, on_step: Callable[[int, int], None]) -> Tensor:
        assert lr.dtype == torch.float32
        assert 0 <= lr.min() <= lr.max() <= 1
        _, height, width = lr.shape
        for step in range(Nearest.steps):
            if self.failure and self.at == (width, height) and step == self.step:
                raise copy(self.failure)  # which alone holds the frames, as a real one does
            on_step(step + 1, Nearest.steps)
        wide, high = OPTIONS.size.of(width, height)
        return torch.nn.functional.interpolate(lr[None], size=(high, wide))[0]


def paint(path: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], len(mode)), dtype=np.uint8)
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels).save(path)
    return path


def run(jobs: list[Job], upscale: Nearest, options: UpscaleOptions = OPTIONS) -> list[Event]:
    events: list[Event] = []
    upscale.at_once = options.batch if isinstance(options.batch, int) else 1
    batch.run(jobs, options, upscale, events.append, manifest=manifest())
    return events


def manifest() -> Manifest:
    OUT.mkdir(exist_ok=True) if not OUT.exists() else None
    return Manifest(OUT)


def settled(jobs: list[Job], **files: Any) -> tuple[list[Job], list[Skipped | Failed]]:
    return pending(jobs, OPTIONS, OutputOptions(**files), Manifest(OUT))


def results() -> set[Path]:
    """What is in the folder of the results but for their manifest."""
    return {path for path in OUT.iterdir() if path.name != NAME}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


IN, OUT = Path("in"), Path("out")


def jobs_of(*names: str) -> list[Job]:
    """Jobs of pictures 6, 7, 8, … pixels wide."""
    paths = [paint(IN / name, (6 + i, 4)) for i, name in enumerate(names)]
    return [Job(path, OUT / f"{path.stem}.png") for path in paths]


def outcomes(events: list[Event]) -> dict[str, type]:
    return {
        event.job.input.name: type(event)
        for event in events
        if not isinstance(event, Started | Stepped)
    }


def test_every_job_ends_once_with_its_file_written() -> None:
    jobs = jobs_of("a.png", "b.jpg", "c.png")
    written: list[bool] = []

    def notify(event: Event) -> None:
        events.append(event)
        if isinstance(event, Finished):
            written.append(event.job.output.exists())

    events: list[Event] = []
    batch.run(jobs, OPTIONS, Nearest(), notify)
    assert written == [True] * 3
    for job in jobs:
        mine = [event for event in events if event.job == job]
        assert [type(event) for event in mine] == [Started, Stepped, Stepped, Stepped, Finished]
        assert [event.done for event in mine if isinstance(event, Stepped)] == [1, 2, 3]
        done = mine[-1]
        assert isinstance(done, Finished)
        assert done.size_out == OPTIONS.size.of(*done.size_in) == Image.open(job.output).size
        assert done.seconds > 0
        assert done.peak_memory is None  # of a process, whose peak is no file's
    assert peak_memory("cpu") > 1 << 20
    assert [event.job for event in events if isinstance(event, Started)] == jobs


def test_pixels_alpha_and_greyness_survive() -> None:
    colors, gray = paint(IN / "rgba.png"), paint(IN / "gray.png", mode="L")
    sources = {path: np.asarray(Image.open(path)) for path in (colors, gray)}
    half = np.tile(np.array([0, 0, 0, 255, 255, 255], np.uint8), (4, 1))
    Image.fromarray(np.dstack([sources[colors], half])).save(colors)
    run([Job(path, OUT / path.name) for path in (colors, gray)], Nearest())
    results = {path: np.asarray(Image.open(OUT / path.name)) for path in sources}
    assert results[gray].ndim == 2
    for path, source in sources.items():
        # The nearest that is seen, where nothing is.
        seen = source if path == gray else source[:, [3, 3, 3, 3, 4, 5]]
        doubled = seen.repeat(2, 0).repeat(2, 1)
        colours = results[path] if path == gray else results[path][..., :3]
        assert np.array_equal(colours, doubled)
    alpha = results[colors][..., 3].astype(int)
    assert (np.diff(alpha, axis=1) >= 0).all()
    assert (alpha[:, :4] == 0).all()
    assert (alpha[:, -4:] == 255).all()
    assert (alpha[:, 5] > 0).all()  # between them it is not nearest neighbour


def test_greys_in_three_channels_stay_neutral_to_the_last_bit() -> None:
    grey = Picture(rgb=np.full((2, 3, 3), 0.5, np.float32))
    coloured = replace(grey, rgb=grey.rgb * np.array([1, 1, 0.9], np.float32))
    hr = torch.rand(3, 8, 12, generator=torch.Generator().manual_seed(0))
    result = recolored(grey, hr).rgb
    assert np.array_equal(result, np.repeat(result[..., :1], 3, axis=2))
    assert np.array_equal(recolored(coloured, hr).rgb, hr.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("behind", [0, 1])
def test_hidden_colours_do_not_bleed_into_edges(behind: int) -> None:
    """A green square on red, which an alpha of 0 hides and one of 1 does not."""
    rgba = np.tile(np.array([255, 0, 0, behind], np.uint8), (12, 12, 1))
    rgba[4:8, 4:8] = 0, 255, 0, 255
    IN.mkdir()
    Image.fromarray(rgba).save(IN / "a.png")
    run([Job(IN / "a.png", OUT / "a.png")], Nearest())
    result = np.asarray(Image.open(OUT / "a.png"))
    halo = result[(result[..., 3] > 0) & (result[..., 3] < 255)]
    assert len(halo)
    assert (halo[:, 0] == 0).all() == (behind == 0)


def test_what_is_hidden_everywhere_stays() -> None:
    IN.mkdir()
    Image.new("RGBA", (3, 2), (9, 8, 7, 0)).save(IN / "a.png")
    run([Job(IN / "a.png", OUT / "a.png")], Nearest())
    assert (np.asarray(Image.open(OUT / "a.png")) == (9, 8, 7, 0)).all()


def test_bad_inputs_stop_nothing_else() -> None:
    jobs = jobs_of("a.png", "text.png", "cut.jpg", "empty.png", "folder.png", "tiny.png", "z.png")
    (IN / "text.png").write_text("no image")
    (IN / "cut.jpg").write_bytes((IN / "cut.jpg").read_bytes()[:200])
    (IN / "empty.png").write_bytes(b"")
    (IN / "folder.png").unlink()
    (IN / "folder.png").mkdir()
    paint(IN / "tiny.png", (1, 1))
    events = run(jobs, Nearest())
    bad = {"text.png", "cut.jpg", "empty.png", "folder.png"}
    assert outcomes(events) == {
        job.input.name: Failed if job.input.name in bad else Finished for job in jobs
    }
    assert {path.name for path in results()} == {"a.png", "tiny.png", "z.png"}
    for event in events:
        if isinstance(event, Failed):
            assert isinstance(event.error, InputError)
            assert str(event.job.input) in event.reason


@pytest.mark.parametrize(
    "error", [DeviceError("Too large."), MemoryError(), RuntimeError("unforeseen")], ids=repr
)
def test_a_picture_that_cannot_be_enlarged_stops_nothing_else(error: Exception) -> None:
    jobs = jobs_of("a.png", "b.png", "c.png")
    events = run(jobs, Nearest(error, at=(7, 4)))
    assert outcomes(events) == {"a.png": Finished, "b.png": Failed, "c.png": Finished}
    assert not (OUT / "b.png").exists()
    assert all(event.reason for event in events if isinstance(event, Failed))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModelError("Damaged."), ModelError),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), BrokenDeviceError),
    ],
    ids=repr,
)
def test_a_damaged_model_or_a_broken_device_stops_everything(
    error: Exception, told: type[Exception]
) -> None:
    upscale = Nearest(error, at=(6, 4))
    with pytest.raises(told):
        run(jobs_of("a.png", "b.png", "c.png"), upscale)
    assert upscale.groups == [[6]]


@pytest.mark.parametrize("names", [["a.png"], ["a.png", "b.png", "c.png"]], ids=len)
def test_out_of_memory_says_of_which_picture_and_what_to_do(names: list[str]) -> None:
    """Whoever noticed it: here the retry of one picture alone, after the batch."""
    events = run(jobs_of(*names), Nearest(MemoryError(), at=(6, 4)), BATCH)
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert isinstance(failed.error, DeviceError)
    assert re.search(r"memory for in/a.png: .*--scale.*--tile.*--device", failed.reason)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("error", [DeviceError("Large."), RuntimeError("Odd.")], ids=repr)
def test_a_picture_that_failed_holds_no_memory(error: Exception, batch: int) -> None:
    """Neither its repetition nor the next pictures find it there: `Nearest` looks each time."""
    upscale = Nearest(error, at=(7, 4))
    events = run(jobs_of("a.png", "b.png", "c.png"), upscale, replace(OPTIONS, batch=batch))
    assert outcomes(events) == {"a.png": Finished, "b.png": Failed, "c.png": Finished}
    assert len(upscale.seen) == (3 if batch == 1 else 6)
    assert not upscale.alive


def test_a_traceback_is_there_while_it_is_told() -> None:
    told: list[str] = []

    def notify(event: Event) -> None:
        if isinstance(event, Failed):
            told.extend(frame.name for frame in traceback.extract_tb(event.error.__traceback__))

    batch.run(jobs_of("a.png"), OPTIONS, Nearest(RuntimeError("Odd."), at=(6, 4)), notify)
    assert "enlarge" in told


def test_an_output_that_cannot_be_written_fails_before_the_work() -> None:
    OUT.touch()
    events = run(jobs_of("a.png"), Nearest())
    assert [type(event) for event in events] == [Started, Failed]


def test_a_picture_too_large_for_its_format_fails_before_the_work() -> None:
    paint(IN / "a.png", (9000, 1))
    job = Job(IN / "a.png", OUT / "a.webp")
    assert [type(event) for event in run([job], Nearest())] == [Started, Failed]
    assert [type(event) for event in preview([job], OPTIONS)] == [Failed]


@pytest.mark.parametrize("step", range(3))
def test_an_interrupted_run_leaves_no_partial_file_and_is_continued(step: int) -> None:
    jobs = jobs_of("a.png", "b.png", "c.png", "d.png")
    events: list[Event] = []
    upscale = Nearest(KeyboardInterrupt(), (8, 4), step)
    with pytest.raises(KeyboardInterrupt):
        batch.run(jobs, OPTIONS, upscale, events.append, manifest=manifest())
    finished = {event.job.output for event in events if isinstance(event, Finished)}
    assert results() == finished == {OUT / "a.png", OUT / "b.png"}
    for path in finished:
        Image.open(path).load()
    before = {path: path.stat().st_mtime_ns for path in finished}

    todo, skipped = settled(jobs)
    assert [type(event) for event in skipped] == [Skipped, Skipped]
    assert outcomes(run(todo, Nearest())) == {"c.png": Finished, "d.png": Finished}
    assert {path: path.stat().st_mtime_ns for path in finished} == before
    assert settled(jobs)[0] == []
    assert settled(jobs, overwrite=True)[0] == jobs


def test_an_interrupted_write_leaves_no_partial_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sr_cli.engine.images.encode", dies)
    events = run(jobs_of("a.png"), Nearest())
    assert outcomes(events) == {"a.png": Failed}
    assert not results()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_ends_the_run_other_failures_do_not(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def dies(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("sr_cli.engine.images.encode", dies)
    upscale, events = Nearest(), list[Event]()
    jobs = jobs_of("a.png", "b.png", "c.png", "d.png")
    ends = pytest.raises(FullDiskError) if number == errno.ENOSPC else nullcontext()
    with ends:
        batch.run(jobs, OPTIONS, upscale, events.append)
    failed = [job.input.name for job in jobs] if number == errno.EIO else ["a.png"]
    assert outcomes(events) == dict.fromkeys(failed, Failed)
    assert len(upscale.groups) == (4 if number == errno.EIO else 2)
    assert not results()


@pytest.mark.parametrize("size", [(200_000, 200_000), (20, 10)])
def test_a_result_larger_than_all_memory_fails_before_the_work(size: tuple[int, int]) -> None:
    options = UpscaleOptions(scale=Exact(*size), steps=3, color="adain")  # which needs it whole
    jobs, upscale = jobs_of("a.png"), Nearest()
    (planned,) = preview(jobs, options)
    if size == (20, 10):
        assert isinstance(planned, Planned)
        return
    events: list[Event] = []
    batch.run(jobs, options, upscale, events.append)
    assert not upscale.groups
    for failed in (planned, events[-1]):
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, DeviceError)
        assert re.search(r"in/a.png at 200000×200000 .* GiB.*--scale", failed.reason)


def test_results_of_another_size_are_told_of() -> None:
    jobs = jobs_of("a.png", "b.png", "c.png", "bad.png")
    run(jobs[:2], Nearest())
    paint(jobs[1].output, (9, 9))
    for job in jobs[2:]:
        paint(job.output, (16, 8))
    jobs[3].input.write_text("no image")
    _, skipped = settled(jobs, trust_existing=True)
    told = {skip.job.input.name: "another size" in skip.reason for skip in skipped}
    assert told == {"a.png": False, "b.png": True, "c.png": False, "bad.png": False}


def test_a_preview_promises_what_a_run_does() -> None:
    jobs = jobs_of("a.png", "b.png", "bad.png")
    (IN / "bad.png").write_text("no image")
    promised = {
        event.job: event.size_out for event in preview(jobs, OPTIONS) if isinstance(event, Planned)
    }
    done = {e.job: e.size_out for e in run(jobs, Nearest()) if isinstance(e, Finished)}
    assert promised == done


# ------------------------------------------------------------------------------------ batches

NAMES = [f"{letter}.png" for letter in "abcdefg"]


def test_pictures_fill_batches_in_their_order() -> None:
    upscale = Nearest()
    jobs = jobs_of(*NAMES)
    events = run(jobs, upscale, BATCH)
    assert upscale.groups == [[6, 7, 8], [9, 10], [11, 12]]  # of 1, 1, 1, 2, 2, 2 and 2 tiles
    assert outcomes(events) == dict.fromkeys(NAMES, Finished)
    for job in jobs:
        mine = [type(event) for event in events if event.job == job]
        assert mine == [Started, Stepped, Stepped, Stepped, Finished]
    alone = Nearest()
    run(jobs, alone, OPTIONS)
    assert alone.groups == [[6], [7], [8], [9], [10], [11], [12]]


def test_notes_and_seconds_are_of_the_picture() -> None:
    jobs = jobs_of(*NAMES[:3])
    finished = {e.job: e for e in run(jobs, Nearest(), BATCH) if isinstance(e, Finished)}
    assert [finished[job].notes for job in jobs] == [("slow",), (), ()]
    assert all(event.seconds > 0 for event in finished.values())


def test_what_a_result_is_not_is_noted() -> None:
    """16 bits where the format has 8, other proportions, fewer pixels."""
    Image.fromarray(np.full((5, 7), 40_000, np.uint16)).save("deep.png")
    job = Job(Path("deep.png"), Path("deep.jpg"))
    (finished,) = (e for e in run([job], Nearest(), OPTIONS) if isinstance(e, Finished))
    assert finished.notes == ("slow", "16 bits became 8")
    stretched, smaller = ["stretched to other proportions"], ["made smaller"]
    size: Size
    for size, notes in (
        (Scale(2.7), []),
        (Side("long_side", 97), []),
        (Side("long_side", 7), []),
        (Side("short_side", 3), smaller),
        (Exact(14, 10), []),
        (Exact(14, 13), stretched),
        (Exact(2, 3), stretched + smaller),
    ):
        assert list(oddities((7, 5), size.of(7, 5))) == notes, size


@pytest.mark.parametrize("error", [DeviceError("Too large."), MemoryError()], ids=repr)
def test_a_failure_in_a_batch_is_its_own_picture_s(error: Exception) -> None:
    upscale = Nearest(error, at=(7, 4))
    events = run(jobs_of(*NAMES), upscale, BATCH)
    assert outcomes(events) == {name: Failed if name == "b.png" else Finished for name in NAMES}
    assert upscale.groups == [[6, 7, 8], [6], [7], [8], [9, 10], [11, 12]]


def test_a_bad_file_leaves_its_place_in_the_batch_to_the_next() -> None:
    jobs = jobs_of(*NAMES)
    (IN / "b.png").write_text("no image")
    upscale = Nearest()
    events = run(jobs, upscale, BATCH)
    assert outcomes(events)["b.png"] == Failed
    assert upscale.groups == [[6, 8, 9], [10, 11], [12]]


def test_an_interrupted_batch_leaves_no_partial_file() -> None:
    jobs = jobs_of(*NAMES)
    with pytest.raises(KeyboardInterrupt):
        run(jobs, Nearest(KeyboardInterrupt(), (10, 4), step=1), BATCH)
    assert {path.name for path in results()} == set(NAMES[:3])
    todo, _ = settled(jobs)
    assert outcomes(run(todo, Nearest(), BATCH)) == dict.fromkeys(NAMES[3:], Finished)


def test_compiling_pays_on_a_gpu_in_a_long_run_alone() -> None:
    jobs = jobs_of(*NAMES[:2])
    (IN / "a.png").write_text("no image")
    gpu, cpu = Nearest(), Nearest()
    gpu.device = "cuda:0"
    long = jobs * (batch.COMPILE_FROM // Nearest.steps + 1)
    assert batch.worth_compiling(long, gpu)
    assert not batch.worth_compiling(long, cpu)
    assert not batch.worth_compiling(jobs, gpu)
    gpu.model = SimpleNamespace(tiling="exact")  # small networks, which are quick as they are
    assert not batch.worth_compiling(long, gpu)


# ------------------------------------------------------------------------------------ workers


class Beside(Nearest):
    """Is enlarged in several threads at a time; each waits until so many are there."""

    model: Any = SimpleNamespace(tiling="exact", bytes_per_pixel=100)

    def __init__(self, together: int, *failing: Any, **at: Any) -> None:
        super().__init__(*failing, **at)
        self.meeting = threading.Barrier(together, timeout=10)
        self.threads: set[int] = set()

    @property
    def alive(self) -> list[Tensor]:
        return []  # which others may be

    def enlarge(self, lr: Tensor, on_step: Callable[[int, int], None]) -> Tensor:
        if lr.shape[-1] in (6, 7):
            self.meeting.wait()
            self.threads.add(torch.get_num_threads())
        return super().enlarge(lr, on_step)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_small_pictures_are_enlarged_side_by_side() -> None:
    """The first two meet, with a thread for each; results and reports are those of one worker."""
    jobs, upscale = jobs_of(*NAMES), Beside(2)
    events: list[Event] = []
    share = batch.run(jobs, OPTIONS, upscale, events.append, manifest=manifest(), workers=2)
    assert 0 < share <= 1
    assert upscale.threads == {1}
    for job in jobs:
        mine = [type(event) for event in events if event.job == job]
        assert mine == [Started, Stepped, Stepped, Stepped, Finished]
    beside = {job: job.output.read_bytes() for job in jobs}
    for job in jobs:
        job.output.unlink()
    alone = Beside(1)
    run(jobs, alone)
    assert {job: job.output.read_bytes() for job in jobs} == beside
    assert alone.threads == {2}


@pytest.mark.usefixtures("two_threads")
def test_there_are_no_more_lanes_than_threads() -> None:
    """And one picture more waits for one; another is being handed over."""

    class Counting(Beside):
        inside = most = 0

        def enlarge(self, lr: Tensor, on_step: Callable[[int, int], None]) -> Tensor:
            with lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            time.sleep(0.05)
            with lock:
                self.inside -= 1
            return Nearest.enlarge(self, lr, on_step)

    lock, upscale = threading.Lock(), Counting(1)
    begun: list[int] = [0]

    def count(event: Event) -> None:
        begun.append(begun[-1] + isinstance(event, Started) - isinstance(event, Finished))

    batch.run(jobs_of(*NAMES), OPTIONS, upscale, count, manifest=manifest(), workers=6)
    assert upscale.most <= 2
    assert max(begun) <= 4


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("change", ["large", "memory", "blend", "suspect", "cuda", "one job"])
def test_what_is_enlarged_alone(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    jobs, upscale, known = jobs_of("a.png", "b.png"), Beside(1), manifest()
    if change == "large":
        monkeypatch.setattr(batch, "SMALL", 20)
    if change == "memory":
        monkeypatch.setattr(batch, "free", lambda: 30_000)  # of which half is for 48 pixels
    if change == "blend":
        upscale.model = SimpleNamespace(tiling="blend")
    if change == "suspect":
        known.unfinished.update(str(job.input) for job in jobs)
    if change == "cuda":
        upscale.device = "cuda"
        monkeypatch.setattr(batch, "peak_memory", lambda _: 1)
    if change == "one job":
        jobs = jobs[:1]
    batch.run(jobs, OPTIONS, upscale, lambda _: None, manifest=known, workers=2)
    assert upscale.threads == {2}
    assert all(job.output.exists() for job in jobs)


@pytest.mark.usefixtures("two_threads")
def test_an_interrupt_stops_what_goes_on_beside() -> None:
    """Nothing is left half written, and what was not done is done by the next run."""
    jobs = jobs_of(*NAMES)
    upscale = Beside(2, KeyboardInterrupt(), at=(8, 4), step=1)
    with pytest.raises(KeyboardInterrupt):
        batch.run(jobs, OPTIONS, upscale, lambda _: None, manifest=manifest(), workers=2)
    assert {path.suffix for path in results()} == {".png"}
    todo, _ = settled(jobs)
    assert jobs[2] in todo
    assert set(outcomes(run(todo, Nearest())).values()) == {Finished}


@pytest.mark.usefixtures("two_threads")
def test_a_failure_beside_others_is_its_own() -> None:
    jobs = jobs_of(*NAMES)
    events: list[Event] = []
    upscale = Beside(2, DeviceError("Too large."), at=(8, 4))
    batch.run(jobs, OPTIONS, upscale, events.append, manifest=manifest(), workers=2)
    assert outcomes(events) == {name: Failed if name == "c.png" else Finished for name in NAMES}


def test_a_picture_that_may_have_killed_a_run_is_read_when_all_else_has_ended() -> None:
    jobs, known = jobs_of(*NAMES), manifest()
    suspects = jobs[4:]
    known.unfinished.update(str(job.input) for job in suspects)
    batch.run(jobs, OPTIONS, Nearest(), lambda _: None, manifest=known, workers=3)
    begun: set[str] = set()
    together: dict[str, int] = {}
    for line in map(json.loads, (OUT / NAME).read_text().splitlines()):
        if line["status"] == "begun":
            begun.add(line["input"])
            together[line["input"]] = len(begun)
        else:
            begun.discard(line["input"])
    assert [together[str(job.input)] for job in suspects] == [1, 1, 1]
    assert max(together.values()) > 1


@pytest.mark.parametrize("workers", [1, 3])
def test_few_pictures_wait(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """As many as there are workers are read ahead, but one of large files; the rest is unopened."""
    begun: list[int] = []
    monkeypatch.setattr(crew, "WAITING", 1000 if workers == 3 else 0)
    jobs = jobs_of(*NAMES)
    for name in NAMES[4:]:
        (IN / name).write_bytes((IN / name).read_bytes() + bytes(5000))

    class Watching(Nearest):
        def together(self, *lrs: Any, **named: Any) -> list[Tensor]:
            end = time.monotonic() + 10
            while not begun and told() < 1 + workers and time.monotonic() < end:
                time.sleep(0.01)
            begun.append(told())
            return super().together(*lrs, **named)

    def told() -> int:
        return sum('"begun"' in line for line in (OUT / NAME).read_text().splitlines())

    batch.run(jobs, OPTIONS, Watching(), lambda _: None, manifest=manifest(), workers=workers)
    ahead = [count - place for place, count in enumerate(begun, 1)]
    assert ahead[0] == max(ahead) == workers
    assert max(ahead[4:]) <= 1
