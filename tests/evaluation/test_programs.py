"""Other programs as peers: small ones made on the spot, most of which do one thing wrong."""

import shlex
import sys
import textwrap
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from sr_cli.errors import ExitCode, UsageError
from sr_cli.evaluation import programs
from sr_cli.evaluation.bench import BenchOptions, Row, measure, table
from sr_cli.evaluation.datasets import Pairs, pairs
from sr_cli.evaluation.metrics import load
from sr_cli.evaluation.peers import interpolation
from sr_cli.evaluation.programs import Command, program

CPU = torch.device("cpu")
METRICS = load(("psnr",), CPU)
ENLARGE = """
    for file in sorted(source.iterdir()):
        image = Image.open(file)
        size = [side * factor for side in image.size]
        image.resize(size, Image.Resampling.NEAREST).save(target / (file.stem + mark + ".png"))
"""


@pytest.fixture
def data(tmp_path: Path) -> Pairs:
    """Three HR images of different sizes."""
    folder = tmp_path / "Set" / "HR"
    folder.mkdir(parents=True)
    for seed, size in enumerate(((24, 32, 3), (32, 24, 3), (48, 40, 3))):
        levels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"im{seed}.png")
    return pairs(folder)


def script(folder: Path, body: str = ENLARGE, *, factor: int = 4, mark: str = "") -> Command:
    """A program of Python that is called with two folders."""
    head = f"""
    import sys, time
    from pathlib import Path
    from PIL import Image
    source, target = map(Path, sys.argv[1:3])
    factor, mark = {factor}, {mark!r}
    """
    file = folder / "program.py"
    file.write_text(textwrap.dedent(head) + textwrap.dedent(body))
    return Command.parsed(
        f"{shlex.quote(sys.executable)} {shlex.quote(str(file))} {{input}} {{output}}"
    )


def row_of(command: Command, data: Pairs) -> Row:
    return measure(program("it", command), data, METRICS, BenchOptions(), device=CPU)


@pytest.mark.parametrize("mark", ["", "_out"])
def test_a_program_is_scored_as_if_it_were_our_own(data: Pairs, tmp_path: Path, mark: str) -> None:
    row = row_of(script(tmp_path, mark=mark), data)
    own = measure(interpolation("nearest"), data, METRICS, BenchOptions(), device=CPU)
    assert row.failure is None
    assert row.scores["psnr"] == pytest.approx(own.scores["psnr"], abs=1e-6)
    assert len(row.seconds) == len(data)
    assert row.memory
    assert row.memory > 2**20


def test_a_program_gets_sequences_as_one_folder(data: Pairs, tmp_path: Path) -> None:
    """Whose frames have the same names, by which results would be mixed up."""
    for i, file in enumerate(data.hr_files):
        folder = tmp_path / "nested" / str(i)
        folder.mkdir(parents=True)
        file.rename(folder / "im1.png")
    nested = pairs(tmp_path / "nested")
    assert nested.names == ("0/im1", "1/im1", "2/im1")
    row = row_of(script(tmp_path), nested)
    own = measure(interpolation("nearest"), nested, METRICS, BenchOptions(), device=CPU)
    assert row.scores["psnr"] == pytest.approx(own.scores["psnr"], abs=1e-6)


def test_a_slow_start_is_in_the_start_up_and_in_the_table(data: Pairs, tmp_path: Path) -> None:
    row = row_of(script(tmp_path, "\n    time.sleep(0.3)\n" + ENLARGE), data)
    assert row.startup is not None
    assert row.startup + row.seconds[0] >= 0.3
    assert "start-up (s)" in [column.name for column in table([row], METRICS).columns]
    plain = measure(interpolation("nearest"), data, METRICS, BenchOptions(), device=CPU)
    assert "start-up (s)" not in [column.name for column in table([plain], METRICS).columns]


def test_start_up_and_work_are_told_apart_by_pixels() -> None:
    """3 s to begin and 2 s for each of 100 pixels."""
    first, whole = programs._Ran(5.0, 7), programs._Ran(3 + 2 * 4.5, 9)
    spent = programs._spent(first, whole, (100, 200, 150))
    assert spent.seconds == pytest.approx((2, 4, 3))
    assert spent.startup == pytest.approx(3)
    assert spent.memory == 9
    alone = programs._spent(first, first, (100,))
    assert (alone.seconds, alone.startup) == ((5.0,), None)


@pytest.mark.parametrize(
    ("body", "factor", "said"),
    [
        ("\n    sys.exit('no weights here')\n", 4, "code 1 and said: no weights here"),
        (ENLARGE, 3, "The im0.png that it made has 24x18 pixels, the HR image 32x24"),
        ("\n    pass\n", 4, "no result for im0"),
        (ENLARGE.replace('mark + ".png"', 'mark + ".png.txt"'), 4, "code 1 and said"),
    ],
)
def test_what_goes_wrong_is_a_row_that_says_so(
    data: Pairs, tmp_path: Path, body: str, factor: int, said: str
) -> None:
    row = row_of(script(tmp_path, body, factor=factor), data)
    assert row.exit_code != ExitCode.DONE
    assert row.failure
    assert said in row.failure
    assert not row.scores


def test_results_of_one_name_twice_are_refused(data: Pairs, tmp_path: Path) -> None:
    both = ENLARGE + "        image.save(target / (file.stem + '_b.png'))\n"
    row = row_of(script(tmp_path, both, mark="_a"), data)
    assert row.failure
    assert "2 results for im0" in row.failure
    assert row_of(script(tmp_path, both), data).failure is None  # the name itself comes first


def test_an_interrupted_program_is_ended(
    data: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def interrupt(pid: int) -> int:
        seen.append(pid)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr(programs, "_held", interrupt)
    with pytest.raises(KeyboardInterrupt):
        row_of(script(tmp_path, "\n    time.sleep(600)\n"), data)
    assert not psutil.pid_exists(seen[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cp {input} out", "lacks {output}"),
        ("cp {output} out", "lacks {input}"),
        ("no-such-program-here {input} {output}", "no program no-such-program-here"),
        ("cp '{input} {output}", "cannot be read"),
    ],
)
def test_a_command_that_cannot_run_is_refused_at_once(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Command.parsed(text)


def test_the_scale_can_be_a_word() -> None:
    command = Command.parsed("cp -s={scale} {input}/a {output}")
    words = command.filled(Path("in put"), Path("out"), 2.5)
    assert words == ["cp", "-s=2.5", "in put/a", "out"]
