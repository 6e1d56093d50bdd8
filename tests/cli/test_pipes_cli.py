"""Several pictures through pipes: tar streams, and raw frames as ffmpeg has them."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from calls import paint
from PIL import Image

from sr_cli.cli import upscale as command

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")

FAKE = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from calls import Nearest, command, main
class Counted(Nearest):
    made = 0
    def enlarge(self, lr, on_step):
        Counted.made += 1
        if lr.shape[2] == 13:
            time.sleep(60)
        return super().enlarge(lr, on_step)
command.make_upscaler = lambda options, machine: Counted(options)
try:
    main(sys.argv[1:])
finally:
    print("made", Counted.made, file=sys.stderr)
"""


def child(*args: str, stdout: int | IO[bytes] = subprocess.PIPE) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", FAKE, "upscale", *args],
        env=os.environ | {"PYTHONPATH": str(Path(command.__file__).parents[2])},
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def piped(*args: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    """The command with bytes on stdin: exit code, stdout and stderr."""
    with child(*args) as process:
        out, err = process.communicate(stdin)
        return process.returncode, out, err.decode()


def tar(files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.type = len(data), 1_000_000_000, kind
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def untar(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
        return found


def picture(width: int = 6) -> bytes:
    return paint(Path(f"{width}.png"), (width, 4)).read_bytes()


# ------------------------------------------------------------------------------------- tar


def test_a_tar_becomes_a_tar_of_the_same_results(photos: Path) -> None:
    assert piped("in", "expected", "-r", "--format", "webp")[0] == 0
    names = ("a.png", "b.jpg", "sub/c.png")
    code, out, err = piped(
        "-", "-", "--format", "webp", stdin=tar({n: (photos / n).read_bytes() for n in names})
    )
    assert code == 0, err
    found = untar(out)
    assert list(found) == ["a.webp", "b.webp", "sub/c.webp"]
    for name, data in found.items():
        assert data == (Path("expected") / name).read_bytes()
    assert "[3] sub/c.png → sub/c.webp" in err
    assert "3 done\n" in err
    assert "/tmp" not in err
    assert found["a.webp"] != found["b.webp"]


def test_files_become_a_tar(photos: Path) -> None:
    code, out, err = piped("in", "-", "-r", "--name", "{stem}_x4")
    assert (code, list(untar(out))) == (0, ["a_x4.png", "b_x4.png", "sub/c_x4.png"]), err
    assert sorted(path.name for path in photos.rglob("*.*")) == ["a.png", "b.jpg", "c.png"]
    code, out, err = piped("in/a.png", "in/b.jpg", "-")
    assert (code, list(untar(out))) == (0, ["a.png", "b.png"])
    assert piped("in/*.png", "-")[1][257:262] == b"ustar"
    assert piped("in/a.png", "-")[1][1:4] == b"PNG"


def test_a_bad_member_fails_alone() -> None:
    members = {
        "a.png": picture(),
        "text.png": b"no image",
        "notes.txt": b"hello",
        "../up.png": picture(),
        "a.jpg": picture(),
        "A.JPG": picture(),
        "b.png": picture(7),
    }
    code, out, err = piped("-", "-", stdin=tar(members))
    assert (code, list(untar(out))) == (1, ["a.png", "a.jpg.png", "b.png"])
    assert "text.png is no image that can be read" in err
    assert "../up.png names a place outside" in err
    assert "called a.jpg.png, as another input has its stem" in err
    assert "a.jpg and A.JPG would both become A.JPG.png" in err
    assert "Other files in the tar, left out: 1." in err
    assert "3 done, 3 failed\n" in err
    assert "/tmp" not in err
    assert not list(Path().glob("**/up.png"))


def test_links_in_a_tar_are_not_followed() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(paint(Path("secret.png")).resolve())
        archive.addfile(link)
    code, out, err = piped("-", "-", stdin=stream.getvalue())
    assert (code, untar(out)) == (1, {})
    assert "There is no image in the tar on stdin" in err


def test_a_tar_that_is_cut_says_where() -> None:
    first, second = picture(), picture(90)
    whole = tar({"a.png": first, "b.png": second})
    begin = whole.index(second[:40])
    code, out, err = piped("-", "-", stdin=whole[: begin + len(second) // 2])
    assert (code, list(untar(out))) == (1, ["a.png"])
    assert "The tar on stdin is damaged or ends inside b.png" in err
    assert "1 done, 1 failed" in err


def test_times_are_kept_where_asked() -> None:
    for flags, kept in (((), False), (("--keep-times",), True)):
        _, out, _ = piped("-", "-", *flags, stdin=tar({"a.png": picture()}))
        with tarfile.open(fileobj=io.BytesIO(out)) as archive:
            member = archive.getmembers()[0]
            assert (member.mtime == 1_000_000_000) is kept
            assert (member.uid, member.uname, member.mode) == (0, "", 0o644)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("-", "out"), "tar x -C out"),
        (("-", "-", "--json"), "--json and results on stdout"),
        (("-", "-", "--dry-run"), "--dry-run lists files"),
        (("-", "in/a.png", "-"), "stdin (-) is one picture or one tar"),
    ],
)
def test_what_a_tar_is_not_for_is_told(photos: Path, args: tuple[str, ...], word: str) -> None:
    code, out, err = piped(*args, stdin=tar({"a.png": picture()}))
    assert (code, out) == (2, b"")
    assert word in err
    assert "Traceback" not in err


def test_a_reader_of_results_that_goes_ends_it_quietly() -> None:
    many = {f"{number}.png": picture() for number in range(40)}
    frames = bytes(6 * 4 * 3) * 40_000
    for args, stdin in ((("-", "-"), tar(many)), (("-", "-", "--frames", "6x4"), frames)):
        with child(*args) as process:
            assert process.stdin
            assert process.stdout
            assert process.stderr
            process.stdout.close()
            try:
                process.stdin.write(stdin)
                process.stdin.close()
            except BrokenPipeError:
                process.stdin = None
            err = process.stderr.read().decode()
            process.stdin = None
        assert process.returncode == 1
        assert "Nobody reads stdout any more" in err
        assert "Traceback" not in err
        assert "Exception" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is full")
@pytest.mark.parametrize("args", [("in", "-"), ("in/a.png", "-")])
def test_results_without_room_end_it_in_lines(photos: Path, args: tuple[str, ...]) -> None:
    for number in range(40):  # more than a tar keeps before it writes
        paint(photos / f"{number}.png", (number + 20, 20))
    with Path("/dev/full").open("wb") as full, child(*args, stdout=full) as process:
        err = process.communicate()[1].decode()
    assert process.returncode == 1
    assert "error: stdout cannot be written: No space left on device." in err
    assert "Traceback" not in err
    assert "Exception" not in err


# ------------------------------------------------------------------------------------- frames

WIDTH, HEIGHT = 6, 4


def clip(count: int) -> list[np.ndarray]:
    return list(
        np.random.default_rng(1).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize("batch", ["1", "2"])
def test_frames_are_what_their_pictures_are(batch: str) -> None:
    frames = clip(3)
    for number, frame in enumerate(frames):
        Path("in").mkdir(exist_ok=True)
        Image.fromarray(frame).save(f"in/{number}.png")
    assert piped("in", "out")[0] == 0
    data = b"".join(frame.tobytes() for frame in frames)
    code, out, err = piped("-", "-", "--frames", "6x4", "--batch", batch, stdin=data)
    assert code == 0, err
    expected = [np.asarray(Image.open(f"out/{number}.png")) for number in range(3)]
    assert out == b"".join(frame.tobytes() for frame in expected)
    assert "frames of 6x4 → 24x16, rgb24" in err
    assert "3 frames 24x16 in" in err


@pytest.mark.parametrize("batch", ["1", "2", "4"])
def test_a_frame_that_repeats_the_one_before_is_not_made_again(batch: str) -> None:
    a, b = clip(2)
    order = [a, a, a, b, a, a, b, b]
    size = ("--frames", "6x4", "--batch", batch)
    code, out, err = piped("-", "-", *size, stdin=b"".join(f.tobytes() for f in order))
    assert code == 0, err
    assert "made 4" in err
    once = {f.tobytes(): piped("-", "-", *size, stdin=f.tobytes())[1] for f in (a, b)}
    assert out == b"".join(once[f.tobytes()] for f in order)


def test_a_cut_frame_is_named_and_the_others_are_done() -> None:
    data = b"".join(frame.tobytes() for frame in clip(2))
    code, out, err = piped("-", "-", "--frames", "6x4", stdin=data[:-5])
    assert (code, len(out)) == (1, 24 * 16 * 3)
    assert "Frame 2 on stdin is cut: 67 of 72 bytes. Are frames 6x4 pixels (--frames)" in err
    assert piped("-", "-", "--frames", "6x4")[0] == 1


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("in", "out", "--frames", "6x4"), "srx upscale - - --frames 6x4"),
        (("-", "-", "--frames", "6"), "--frames must be WIDTHxHEIGHT like 1920x1080, not '6'"),
        (("-", "-", "--frames", "6x4", "--format", "png"), "--format is for files"),
        (("-", "-", "--frames", "6x4", "--overwrite"), "--overwrite is for files"),
        (("-", "-", "--frames", "6x4", "--json", "--dry-run"), "--dry-run and --json"),
        (("-", "-", "--frames", "30000x30000"), "--max-megapixels"),
    ],
)
def test_what_frames_are_not_for_is_told(args: tuple[str, ...], word: str) -> None:
    code, out, err = piped(*args)
    assert (code, out) == (2, b"")
    assert word in err
    assert "Traceback" not in err


@pytest.mark.parametrize("frames", [True, False])
def test_an_interrupt_ends_it(frames: bool) -> None:
    slow = bytes(13 * 4 * 3) if frames else tar({"a.png": picture(), "slow.png": picture(13)})
    with child("-", "-", *(("--frames", "13x4") if frames else ())) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(slow)
        process.stdin.flush()
        assert process.stderr.readline()  # it has begun
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert b"interrupted" in err
    assert b"Traceback" not in err


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_the_recipe_for_video_works() -> None:
    """As docs/pipes.md has it: a clip of 12 frames, with its rate kept."""
    run = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=size=32x24:rate=12"]
    subprocess.run([*run, "-t", "1", "-pix_fmt", "yuv420p", "a.mp4"], check=True)
    srx = f'"{sys.executable}" -c "$FAKE" upscale - - --frames 32x24'
    line = (
        "ffmpeg -v error -i a.mp4 -f rawvideo -pix_fmt rgb24 - | "
        f"{srx} | ffmpeg -v error -f rawvideo -pix_fmt rgb24 -s 128x96 -r 12 -i - "
        "-i a.mp4 -map 0:v -map '1:a?' -pix_fmt yuv420p b.mp4"
    )
    paths = {"PYTHONPATH": str(Path(command.__file__).parents[2]), "FAKE": FAKE}
    subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], check=True, env=os.environ | paths)
    probe = ["ffprobe", "-v", "error", "-count_frames", "-of", "csv=p=0", "-show_entries"]
    shown = subprocess.run(
        [*probe, "stream=width,height,r_frame_rate,nb_read_frames", "b.mp4"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert shown.stdout.strip() == "128,96,12/1,12"
