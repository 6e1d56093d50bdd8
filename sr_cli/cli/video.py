"""`srx upscale - - --frames WxH`: raw frames from stdin to stdout, for ffmpeg on both sides."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from sr_cli.cli.parsing import exact_size
from sr_cli.cli.streams import STREAM, sending
from sr_cli.cli.text import size
from sr_cli.cli.ui import terminal
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.errors import ExitCode, InputError, UsageError

if TYPE_CHECKING:
    from sr_cli.engine.upscaler import Upscaler

OF_FILES: Final = (
    *("format", "quality", "name", "overwrite", "trust_existing", "recursive", "only_enlarge"),
    *("strip", "tag", "keep_times"),
)
"""Options that mean nothing for frames, but in srx.toml and in variables wait for files."""


def frame_size(
    text: str, arguments: Sequence[Path], output: Path, *, others: Iterable[str]
) -> tuple[int, int]:
    """(width, height) of --frames. Raises UsageError where it cannot be meant; others: options that
    mean nothing for frames."""
    if [*arguments, output] != [STREAM, STREAM]:
        raise UsageError(f"--frames goes from stdin to stdout: srx upscale - - --frames {text}")
    if flags := " and ".join(others):
        raise UsageError(f"--frames gives raw frames alone: leave {flags} out.")
    if sys.stdin.isatty():
        raise UsageError("stdin is a terminal: send frames through a pipe, as of ffmpeg.")
    exact = exact_size("--frames", text)
    return exact.width, exact.height


def pipe_frames(
    given: tuple[int, int],
    options: UpscaleOptions,
    files: OutputOptions,
    make: Callable[[], Upscaler],
) -> None:
    """Every frame of stdin to stdout, and a line on stderr at the end.

    Raises:
        UsageError, InputError, DeviceError: frames of this size cannot be enlarged.
        InputError: there is none, or the last one is cut.
        typer.Exit: interrupted, or nobody reads stdout any more.
    """
    from sr_cli.engine.events import Job
    from sr_cli.engine.jobs import target_size

    if given[0] * given[1] > files.max_pixels:
        raise UsageError(f"Frames of {size(given)} are more than --max-megapixels allows.")
    target = target_size(Job(Path("stdin"), Path("stdout.png")), given, options)
    count, begin = 0, time.perf_counter()
    try:
        from sr_cli.engine.frames import enlarged, frames

        upscaler = make()
        terminal.note(f"frames of {size(given)} → {size(target)}, rgb24")
        with sending() as stdout, _counting() as show:
            for frame in enlarged(frames(sys.stdin.buffer, *given), upscaler):
                stdout.write(frame.tobytes())
                count += 1
                show(count)
        if not count:
            raise InputError("There is no frame on stdin.")
    except KeyboardInterrupt:
        terminal.line("interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    finally:
        seconds = time.perf_counter() - begin
        rate = f", {count / seconds:.2f} frames/s" if count else ""
        terminal.note(f"{count} frames {size(target)} in {seconds:.1f} s{rate}")


@contextmanager
def _counting() -> Iterator[Callable[[int], None]]:
    """A function that shows how many frames are done, on a terminal."""
    if not terminal.animated:
        yield lambda count: None
        return
    with terminal.counting(None) as show:
        yield lambda count: show(count, "frames")
