"""Shards of a run: shares of the files, locks, manifests, and the report that joins them."""

import json
import threading
from collections import Counter
from pathlib import Path, PurePath

import pytest
from calls import Run, Srx, paint
from filelock import FileLock

from sr_cli.engine import output_folder
from sr_cli.engine.manifest import name_of
from sr_cli.engine.output_folder import LOCK, working
from sr_cli.engine.shards import Shard
from sr_cli.errors import InputError

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")


@pytest.fixture
def twelve() -> None:
    for number in range(12):
        paint(Path("in") / ("sub" * (number % 2)) / f"{number}.png", (4 + number % 2, 4))


def pictures(folder: str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*.png")}


def test_each_name_is_in_one_shard_of_any_number() -> None:
    names = [PurePath(f"sub/{number}.png") for number in range(999)]
    for count in (1, 2, 7):
        shares = [sum(Shard(k, count).holds(n) for k in range(1, count + 1)) for n in names]
        assert set(shares) == {1}
        sizes = [sum(map(Shard(k, count).holds, names)) for k in range(1, count + 1)]
        assert min(sizes) > 0.8 * 999 / count


def test_a_share_is_the_same_everywhere_and_for_ever() -> None:
    """So that job arrays of old and new versions, here and there, agree."""
    names = [PurePath(name) for name in ("a.png", "b.jpg", "sub/c.png", "d.png")]
    assert [next(k for k in (1, 2, 3) if Shard(k, 3).holds(name)) for name in names] == [3, 1, 1, 1]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "1", "a/b", "1/2/3", "-1/3", "1/3000000"])
def test_a_shard_that_there_is_not_is_wrong_usage(srx: Srx, photos: Path, text: str) -> None:
    run = srx("upscale", photos, "out", "--shard", text)
    assert run.code == 2
    assert "shard must be" in run.err
    assert not Path("out").exists()


def test_a_single_file_has_no_shards(srx: Srx, photos: Path) -> None:
    run = srx("upscale", photos / "a.png", "a.png", "--shard", "1/2")
    assert (run.code, "folder of results" in run.err) == (2, True)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_all_shards_give_what_one_run_gives(srx: Srx, twelve: None, order: tuple[int, ...]) -> None:
    srx("upscale", "in", "whole", "-r")
    for number in order:
        assert srx("upscale", "in", "out", "-r", "--shard", f"{number}/3").code == 0
    assert pictures("out") == pictures("whole")
    assert len(pictures("out")) == 12
    assert not list(Path("out").glob(f"{LOCK}*"))
    run = srx("report", "out", "--json")
    found = json.loads(run.out)
    assert (run.code, found["complete"], len(found["results"])) == (0, True, 12)
    assert {entry["shard"] for entry in found["results"]} == {"1/3", "2/3", "3/3"}
    assert {tuple(entry["size_out"]) for entry in found["results"]} == {(16, 16), (20, 16)}


@pytest.mark.parametrize("again", [("--shard", "1/2"), ("--shard", "2/2"), ()])
def test_what_other_shards_did_is_known(srx: Srx, twelve: None, again: tuple[str, ...]) -> None:
    for number in (1, 2, 3):
        srx("upscale", "in", "out", "-r", "--shard", f"{number}/3")
    run = srx("upscale", "in", "out", "-r", "--json", *again)
    found = json.loads(run.out)
    assert (run.code, found["results"], found["failures"]) == (0, [], [])
    assert {skipped["reason"] for skipped in found["skipped"]} == {"done already"}


def test_without_the_manifests_of_the_others_nothing_is_known(srx: Srx, twelve: None) -> None:
    srx("upscale", "in", "out", "-r", "--shard", "1/1")
    (Path("out") / name_of(Shard(1, 1).label)).unlink()
    assert srx("upscale", "in", "out", "-r", "--shard", "1/2").code == 1


def test_shards_work_side_by_side_and_keep_off_all_others() -> None:
    here, output_folder.PATIENCE = output_folder.PATIENCE, 0.2
    try:
        with working(Path("out"), [], single=False, shard=Shard(1, 3)):
            with working(Path("out"), [], single=False, shard=Shard(2, 3)):
                pass
            for other in (Shard(1, 3), Shard(1, 2), None):
                with (
                    pytest.raises(InputError, match="Another run"),
                    working(Path("out"), [], single=False, shard=other),
                ):
                    pass
        with (
            working(Path("out"), [], single=False),
            pytest.raises(InputError, match="Another run"),
            working(Path("out"), [], single=False, shard=Shard(1, 3)),
        ):
            pass
    finally:
        output_folder.PATIENCE = here


def test_a_lock_of_a_killed_shard_locks_nobody_out(srx: Srx, photos: Path) -> None:
    Path("out").mkdir()
    (Path("out") / f"{LOCK}.1-of-2").touch()
    assert srx("upscale", photos, "out").code == 0


def test_shards_that_begin_at_once_wait_for_each_other(srx: Srx, photos: Path) -> None:
    Path("out").mkdir()
    lock = FileLock(Path("out") / LOCK, thread_local=False)
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    assert srx("upscale", photos, "out", "--shard", "1/1").code == 0


def test_a_shard_tidies_what_is_its_own(srx: Srx, photos: Path) -> None:
    from sr_cli.files import _prefix

    Path("out").mkdir()
    mine, other = (Path("out") / f"{_prefix(n)}0.partial" for n in ("a.png", "z.png"))
    for path in (mine, other):
        path.touch()
    srx("upscale", photos, "out", "--shard", "1/1")
    assert (mine.exists(), other.exists()) == (False, True)


# ------------------------------------------------------------------------ the report


def states(run: Run) -> Counter[str]:
    return Counter(entry["state"] for entry in json.loads(run.out)["results"])


def test_a_report_tells_what_is_not_done(srx: Srx, twelve: None, failure: list[Exception]) -> None:
    Path("in/0.png").write_bytes(b"no picture")
    for number in (1, 3):
        srx("upscale", "in", "out", "-r", "--shard", f"{number}/3")
    run = srx("report", "out")
    assert run.code == 1
    assert "No word of 1 shards: 2/3" in run.err
    srx("upscale", "in", "out", "-r", "--shard", "2/3")
    Path("out/2.png").unlink()
    Path("out/4.png").write_bytes(b"another")
    run = srx("report", "out", "--json")
    assert (run.code, states(run)) == (1, {"done": 9, "failed": 1, "missing": 1, "changed": 1})
    failed = next(e for e in json.loads(run.out)["results"] if e["state"] == "failed")
    assert failed["input"] == "in/0.png"
    assert failed["reason"]
    shown = srx("report", "out")
    assert all(word in shown.out for word in ("0.png", "missing", "changed", "failed: in/0.png"))
    assert "9 done" in shown.err


def test_a_report_knows_what_a_killed_run_has_not_come_to(srx: Srx, twelve: None) -> None:
    srx("upscale", "in", "out", "-r")
    file = Path("out") / name_of()
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:8]) + "\n" + lines[8][:20])
    run = srx("report", "out", "--json")
    left = json.loads(run.out)["left"]
    told = states(run)
    assert run.code == 1
    assert told["done"] + told["unfinished"] + left == 12
    assert left
    srx("upscale", "in", "out", "-r", "--overwrite")
    assert srx("report", "out").code == 0


def test_the_last_word_counts_whoever_said_it(srx: Srx, twelve: None) -> None:
    for number in (1, 2):
        srx("upscale", "in", "out", "-r", "--shard", f"{number}/2")
    srx("upscale", "in", "out", "-r", "--scale", 2)
    run = srx("report", "out", "--json")
    sizes = {tuple(entry["size_out"]) for entry in json.loads(run.out)["results"]}
    assert (run.code, sizes) == (0, {(8, 8), (10, 8)})


@pytest.mark.parametrize("place", ["in", "nowhere"])
def test_a_report_on_nothing_is_wrong_usage(srx: Srx, photos: Path, place: str) -> None:
    run = srx("report", place)
    assert run.code == 2
    assert place in run.err


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"{",
        b'{"status": "done", "output": "a", "input": 3}',
        b'{"status": ["done"], "output": "a", "input": "b"}',
        b'{"status": "done", "output": "a\\u0000", "input": "b", "size_out": [1, "x"]}',
        b'{"status": "run", "pictures": "many"}',
        b'{"status": "run", "pictures": -3, "time": 4}',
    ],
)
def test_any_line_is_read(srx: Srx, photos: Path, line: bytes) -> None:
    srx("upscale", photos, "out")
    with (Path("out") / name_of()).open("ab") as file:
        file.write(line + b"\n")
    run = srx("report", "out", "--json")
    assert states(run)["done"] == 2


def test_a_long_report_shows_what_needs_a_look(srx: Srx) -> None:
    for number in range(120):
        paint(Path("in") / f"{number}.png", (2, 2))
    Path("in/7.png").write_bytes(b"no picture")
    srx("upscale", "in", "out", "--scale", 1)
    run = srx("report", "out")
    assert "7.png" in run.out
    assert "8.png" not in run.out
    assert "119 done" in run.err
