"""Other people's programs as peers: run on the LR folder, timed, and their results read."""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import psutil

from sr_cli.engine.arrays import to_rgb
from sr_cli.engine.images import Picture, save
from sr_cli.engine.inputs import pictures
from sr_cli.errors import InputError, ModelError, UsageError
from sr_cli.evaluation.datasets import Pairs
from sr_cli.evaluation.matching import flat
from sr_cli.evaluation.peers import Method, Peer, Spent, read

INPUT, OUTPUT, SCALE = "{input}", "{output}", "{scale}"
INTERVAL = 0.05
"""Seconds between two looks at a program: short peaks of its memory escape."""


@dataclass(frozen=True)
class Command:
    """A program's words, in which {input} stands for the folder of LR images, {output} for an empty
    folder, and {scale} for the data's factor. They go to the program itself, not through a shell.

    Raises UsageError where a folder has no place or the program is not installed.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        text = shlex.join(self.words)
        for name in (INPUT, OUTPUT):
            if name not in text:
                raise UsageError(f"The command {text!r} lacks {name}: say where that folder goes.")
        if shutil.which(self.words[0]) is None:
            raise UsageError(
                f"There is no program {self.words[0]} to run: install it, or write its path."
            )

    @classmethod
    def parsed(cls, text: str) -> "Command":
        """From a line as a shell takes it apart. Raises UsageError too where quotes are open."""
        try:
            return cls(tuple(shlex.split(text)))
        except ValueError as error:
            raise UsageError(f"The command {text!r} cannot be read: {error}.") from error

    def filled(self, source: Path, target: Path, scale: float) -> list[str]:
        """The words to run."""
        values = {INPUT: str(source), OUTPUT: str(target), SCALE: f"{scale:g}"}
        words = list(self.words)
        for name, value in values.items():
            words = [word.replace(name, value) for word in words]
        return words


def program(name: str, command: Command) -> Peer:
    """A program, run twice on each data set: on its first image, and on all of them.

    The second run's results are scored. What both took tells the start-up from the time an image,
    which is taken to be proportional to its pixels: seconds = start-up + c · pixels.
    """

    def make(pairs: Pairs) -> Method:
        with TemporaryDirectory(prefix="srx-peer-") as scratch:
            folder = Path(scratch)
            sizes = _write(pairs, folder / "first", folder / "all")
            first = _run(name, command, folder / "first", folder / "first-out", pairs.scale)
            whole = first
            if len(pairs) > 1:
                whole = _run(name, command, folder / "all", folder / "all-out", pairs.scale)
            results = folder / ("all-out" if len(pairs) > 1 else "first-out")
            names = flat(pairs.names)
            files = _results(name, results, list(names.values()))
            images = {}
            for pair in pairs:  # whose files are gone when somebody reads of them
                file = files[names[pair.name]]
                images[pair.name] = read(file, pair, f"The {file.name} that {name} made")
        spent = _spent(first, whole, sizes)
        return Method(lambda group: [images[pair.name] for pair in group], spent=spent)

    return Peer(name, make, timed=False)


@dataclass(frozen=True)
class _Ran:
    """Seconds of one run, and the most bytes of memory that it and what it started held."""

    seconds: float
    memory: int


def _write(pairs: Pairs, first: Path, whole: Path) -> list[int]:
    """LR images as PNG by their pairs' names: the first one, and all; their pixels."""
    names, sizes = flat(pairs.names), []
    for folder in (first, whole):
        folder.mkdir()
    for i, pair in enumerate(pairs):
        picture = Picture(to_rgb(pair.lr))
        for folder in (first, whole) if i == 0 else (whole,):
            save(picture, folder / f"{names[pair.name]}.png")
        sizes.append(pair.lr.shape[1] * pair.lr.shape[2])
    return sizes


def _run(name: str, command: Command, source: Path, target: Path, scale: float) -> _Ran:
    """Raises ModelError, with the program's last words, unless it ends well."""
    target.mkdir()
    words = command.filled(source, target, scale)
    log = target.parent / "log"
    begin, memory = perf_counter(), 0
    with log.open("wb") as file:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            while True:
                memory = max(memory, _held(process.pid))
                try:
                    code = process.wait(INTERVAL)
                    break
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if code:
        said = log.read_text("utf-8", errors="replace").strip().splitlines() or ["nothing"]
        raise ModelError(f"{name} ended with code {code} and said: {said[-1]}")
    return _Ran(perf_counter() - begin, memory)


def _held(pid: int) -> int:
    """Resident bytes of a process and of all that it started."""
    total = 0
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    for each in family:
        try:
            total += each.memory_info().rss
        except psutil.Error:
            continue
    return total


def _results(name: str, folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The file of each image, anywhere below the folder: of its name, or of its name and a mark
    such as `_out`. Raises InputError where one is missing or several would do."""
    found = pictures(folder, recursive=True)
    files: dict[str, Path] = {}
    for image in names:
        exact = [file for file in found if file.stem == image]
        marked = [
            file
            for file in found
            if file.stem.startswith(image) and not file.stem[len(image) : len(image) + 1].isalnum()
        ]
        fitting = exact or marked
        if len(fitting) != 1:
            made = "no result" if not fitting else f"{len(fitting)} results"
            raise InputError(f"{name} made {made} for {image}, where there must be one.")
        files[image] = fitting[0]
    return files


def _spent(first: _Ran, whole: _Ran, pixels: Sequence[int]) -> Spent:
    """Of one image, start-up cannot be told from work: it counts as work."""
    rest = sum(pixels[1:])
    if not rest:
        return Spent((first.seconds,), None, first.memory)
    rate = max(whole.seconds - first.seconds, 0.0) / rest
    startup = max(first.seconds - rate * pixels[0], 0.0)
    memory = max(first.memory, whole.memory)
    return Spent(tuple(rate * size for size in pixels), startup, memory)
