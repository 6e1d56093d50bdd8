"""What a user of the library writes: pictures of every kind in and out, and whole folders."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import sr_cli
from sr_cli import (
    Exact,
    Failed,
    Finished,
    OutputOptions,
    Picture,
    Skipped,
    Started,
    Stepped,
    UpscaleOptions,
    Upscaler,
    UsageError,
    load,
    save,
)


def levels(*shape: int, dtype: type = np.uint8, seed: int = 0) -> NDArray[Any]:
    """Smooth noise over all of a dtype's range."""
    high = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    coarse = np.random.default_rng(seed).random(
        (*(-(-side // 4) for side in shape[:2]), *shape[2:])
    )
    full = coarse.repeat(4, 0).repeat(4, 1)[: shape[0], : shape[1]]
    return (full * high).astype(dtype)


@pytest.fixture
def up(tiny: Path) -> Upscaler:
    assert tiny
    return Upscaler(UpscaleOptions(scale=2.5), device="cpu", dtype="float32")


def test_importing_changes_and_loads_nothing() -> None:
    code = (
        "import sys, sr_cli; from sr_cli import UpscaleOptions, UsageError, Exact\n"
        "assert set(sr_cli.__all__) <= set(dir(sr_cli))\n"
        "UpscaleOptions(scale=Exact(3, 4))\n"
        "heavy = {'torch', 'PIL', 'diffusers', 'cv2', 'rich', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there_and_described() -> None:
    for name in sr_cli.__all__:
        found = getattr(sr_cli, name)
        assert found is not None
        if isinstance(found, type) or callable(found):
            assert found.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sr_cli.nothing  # noqa: B018


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [(), (1,), (2,), (3,), (4,)])
def test_arrays_come_back_as_they_came(
    up: Upscaler, dtype: type, channels: tuple[int, ...]
) -> None:
    array = levels(12, 10, *channels, dtype=dtype)
    result = up(array)
    assert (result.shape, result.dtype) == ((30, 25, *channels), array.dtype)
    white = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    assert abs(float(result.mean()) - float(array.mean())) < 0.05 * white


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 4), np.int64),
        np.full((4, 4), 1.5, np.float32),
        np.full((4, 4), np.nan, np.float32),
    ],
    ids=str,
)
def test_arrays_of_no_use_are_refused(up: Upscaler, array: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="An array"):
        up(array)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1, 3, 4, 4),
        torch.zeros(1, 4, 4),
        torch.zeros(3, 0, 4),
        torch.zeros(3, 4, 4, dtype=torch.int64),
        torch.full((3, 4, 4), 255.0),
        torch.full((3, 4, 4), torch.nan),
    ],
    ids=lambda tensor: f"{tuple(tensor.shape)} {tensor.dtype}",
)
def test_tensors_of_no_use_are_refused(up: Upscaler, tensor: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="A tensor"):
        up(tensor)


@pytest.mark.parametrize("picture", ["in.png", Path("in.png"), b"", [[0, 1]], None], ids=repr)
def test_what_is_no_picture_is_refused(up: Upscaler, tmp_path: Path, picture: Any) -> None:
    with pytest.raises(UsageError, match=f"not {type(picture).__name__}"):
        up(picture)
    others: list[Any] = [picture, Image.new("RGB", (4, 4)), np.zeros((4, 4, 3), np.uint8)]
    for other in others:
        with pytest.raises(UsageError, match=f"not {type(other).__name__}"):
            save(other, tmp_path / "a.png")
    assert list(tmp_path.glob("a*")) == []


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "CMYK", "1"])
def test_pillow_images_come_back_as_images(up: Upscaler, mode: str) -> None:
    image = Image.fromarray(levels(12, 10, 3)).convert(mode)
    image.info["dpi"] = (72, 72)
    result = up(image)
    assert isinstance(result, Image.Image)
    assert result.size == (25, 30)
    assert result.mode == {"P": "RGB", "CMYK": "RGB", "1": "L"}.get(mode, mode)


def test_sixteen_bits_stay_in_grey_pillow_images(up: Upscaler) -> None:
    image = Image.fromarray(levels(12, 10, dtype=np.uint16))
    result = up(image)
    assert result.mode == "I;16"
    assert len(np.unique(np.asarray(result))) > 256


def test_a_picture_keeps_what_it_carries(up: Upscaler, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    Image.fromarray(levels(12, 10, 4)).save(tmp_path / "a.png", exif=exif)
    picture = load(tmp_path / "a.png")
    result = up(picture)
    assert isinstance(result, Picture)
    assert result.size == (25, 30)
    assert result.alpha is not None
    save(result, str(tmp_path / "b.webp"), quality=90)
    with Image.open(tmp_path / "b.webp") as back:
        assert back.getexif()[0x010F] == "maker"
        assert back.mode == "RGBA"


def test_a_picture_is_what_the_command_makes(up: Upscaler, tmp_path: Path) -> None:
    Image.fromarray(levels(12, 10, 4)).save(tmp_path / "a.png")
    save(up(load(tmp_path / "a.png")), tmp_path / "api.png")
    files = [str(tmp_path / name) for name in ("a.png", "command.png")]
    options = ("--scale", "2.5", "--device", "cpu", "--dtype", "float32")
    command = [sys.executable, "-m", "sr_cli", "upscale", *files, *options]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert (tmp_path / "api.png").read_bytes() == (tmp_path / "command.png").read_bytes()


def test_progress_is_told(up: Upscaler) -> None:
    seen: list[tuple[int, int]] = []
    up.using(steps=3, t1=500)(levels(12, 10, 3), on_step=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_other_networks_need_another_upscaler(up: Upscaler) -> None:
    lr = levels(12, 10, 3)
    assert not np.array_equal(up.using(seed=1, steps=5)(lr), up.using(steps=5)(lr))
    assert up.using(scale=Exact(7, 9))(lr).shape == (9, 7, 3)
    assert np.array_equal(up.using(model="embedded")(lr), up(lr))
    for change in (
        {"model": "clean"},
        {"method": "diffsr"},
        {"prior": "x"},
        {"preprocess": "none"},
    ):
        with pytest.raises(UsageError, match="needs other networks"):
            up.using(**change)


def test_options_are_checked_when_they_are_made() -> None:
    for wrong in (
        {"format": "gif"},
        {"format": ""},
        {"quality": 0},
        {"strip": "x"},
        {"name": "{a}"},
    ):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            OutputOptions(**wrong)


def test_options_are_what_they_were_made_of() -> None:
    assert replace(UpscaleOptions(), scale=Exact(3, 4)).size.of(9, 9) == (3, 4)
    assert UpscaleOptions() == UpscaleOptions(scale=4.0)


def test_threads_share_an_upscaler_and_what_a_listener_raises_ends_one_picture(
    up: Upscaler,
) -> None:
    pictures = [levels(12 + 4 * i, 10, 3, seed=i) for i in range(4)]
    alone = [up(picture) for picture in pictures]

    def stop(done: int, total: int) -> None:
        raise InterruptedError(f"{done}/{total}")

    with ThreadPoolExecutor(5) as pool:
        stopped = pool.submit(up, pictures[0], on_step=stop)
        together = list(pool.map(up, pictures * 2))
    with pytest.raises(InterruptedError, match="1/"):
        stopped.result()
    for result, expected in zip(together, alone * 2, strict=True):
        assert abs(result.astype(int) - expected).max() <= 1


def test_a_folder_is_told_of_as_it_is_done(up: Upscaler, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in "ab":
        Image.fromarray(levels(12, 10, 3)).save(folder / f"{name}.png")
    (folder / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    events = list(up.files(folder, out, files=OutputOptions(format="webp")))
    kinds = [type(event) for event in events]
    assert kinds.count(Started) == 3
    assert kinds.count(Finished) == 2
    assert kinds.count(Failed) == 1
    assert kinds.count(Stepped) == 2 * up.steps
    assert {path.name for path in out.glob("[!.]*")} == {"a.webp", "b.webp"}
    again = list(up.files([str(folder)], str(out), files=OutputOptions(format="webp")))
    assert [type(event) for event in again] == [Skipped, Skipped, Started, Failed]


def test_a_closed_run_leaves_whole_files_and_goes_on(up: Upscaler, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(levels(12, 10, 3, seed=i)).save(folder / f"{i}.png")
    running = up.files(folder, out)
    for event in running:
        if isinstance(event, Finished):
            break
    running.close()
    done = {path.name for path in out.glob("*")}
    assert "0.png" in done
    assert not [name for name in done if name.endswith(".partial")]
    rest = list(up.files(folder, out))
    assert [e.job.input.name for e in rest if isinstance(e, Skipped)] == sorted(
        name for name in done if not name.startswith(".")
    )
    assert {path.name for path in out.glob("[!.]*")} == {f"{i}.png" for i in range(4)}


def test_an_end_of_the_run_reaches_the_caller(up: Upscaler, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        list(up.files(tmp_path / "nothing", tmp_path / "out"))
