"""Memory that a process may have: of the machine, or less by a container or `ulimit -v`."""

import ctypes
import platform
import subprocess
import sys
from pathlib import Path
from threading import Event
from threading import enumerate as enumerate_threads
from types import SimpleNamespace

import psutil
import pytest

from sr_cli import memory

GIB = 1 << 30


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system with nothing but /proc and /sys, without groups."""
    (tmp_path / "proc/self").mkdir(parents=True)
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    return tmp_path


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_without_limits_it_is_the_machines(groups: Path) -> None:
    assert memory.total() == psutil.virtual_memory().total + psutil.swap_memory().total
    assert memory.free() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    (groups / "proc/self/cgroup").write_text("0::/a/b\n4:cpu:/x\n")
    write(groups / "sys/fs/cgroup/a/b", memory__max="max", memory__current=5, memory__stat="a 1")
    assert not [limit for limit in memory.limits() if limit.total < memory.UNLIMITED]


def test_the_strictest_group_above_a_process_counts(groups: Path) -> None:
    (groups / "proc/self/cgroup").write_text("0::/a/b\n")
    top = groups / "sys/fs/cgroup"
    stat = f"anon 7\ninactive_file {GIB // 4}"
    write(top / "a/b", memory__max="max", memory__current=GIB, memory__stat=stat)
    write(top / "a", memory__max=2 * GIB, memory__current=GIB, memory__stat=stat)
    write(top, memory__max=4 * GIB, memory__current=GIB, memory__stat=stat)
    assert memory.total() == 2 * GIB
    assert memory.free() == GIB + GIB // 4


@pytest.mark.parametrize("path", ["/docker/abc", "/"])
def test_groups_of_version_1_and_their_names_inside_a_container(groups: Path, path: str) -> None:
    (groups / "proc/self/cgroup").write_text(f"9:memory,hugetlb:{path}\n0::/\n")
    write(
        groups / "sys/fs/cgroup/memory",
        memory__limit_in_bytes=GIB,
        memory__usage_in_bytes=GIB // 2,
        memory__stat="total_inactive_file 0",
    )
    assert (memory.total(), memory.free()) == (GIB, GIB // 2)
    write(groups / "sys/fs/cgroup/memory", memory__limit_in_bytes=2**63 - 4096)
    assert memory.total() > GIB


@pytest.mark.skipif(sys.platform == "win32", reason="there is no ulimit")
def test_the_address_space_is_a_limit_too() -> None:
    code = (
        "import resource; from sr_cli import memory\n"
        "before = memory.total()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({8 * GIB}, {8 * GIB}))\n"
        f"assert memory.total() == min(before, {8 * GIB})\n"
        f"assert memory.free() < {8 * GIB}"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


KEPT = f"""
import resource, torch
from sr_cli import memory
memory.keep_freed()
torch.empty(1 << 20)
resource.setrlimit(resource.RLIMIT_AS, ({8 * GIB}, {8 * GIB}))
before = memory.free()
blocks = [torch.zeros(1 << 20) for _ in range(64)]  # 4 MiB each
wall = torch.zeros(1 << 10)  # above them, so that they cannot be given back
held = memory.free()
del blocks
print(before - held >> 20, before - memory.free() >> 20)
"""


@pytest.mark.skipif(platform.libc_ver() < ("glibc", "2.33"), reason="nothing tells what is kept")
def test_freed_memory_is_free_though_it_keeps_its_addresses() -> None:
    run = subprocess.run(
        [sys.executable, "-c", KEPT], check=True, capture_output=True, text=True
    ).stdout
    held, kept = map(int, run.split())
    assert held > 200
    assert kept < 50


FAULTS = """
import resource, sys, torch
from sr_cli.memory import keep_freed
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.zeros(1 << 24).add_(1)  # 64 MiB, more than the C library keeps
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what the GNU C library does")
def test_freed_memory_is_used_again() -> None:
    def faults(how: str) -> int:
        call = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)

    assert faults("kept") < faults("given back") / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what the GNU C library does")
@pytest.mark.parametrize(("call", "said"), [("memory.keep_freed()", "handed back\n"), ("", "")])
def test_what_is_kept_is_handed_back_in_the_end(call: str, said: str) -> None:
    code = f"from sr_cli import memory\nmemory.hand_back = lambda: print('handed back')\n{call}"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == said


@pytest.mark.parametrize(("largest", "kept"), [(2**62, 2**29), (32 << 20, 32 << 20)])
def test_an_older_c_library_keeps_what_it_can(
    monkeypatch: pytest.MonkeyPatch, largest: int, kept: int
) -> None:
    """mallopt(3) lets libraries refuse a threshold above 32 MiB; that for trimming alone would make
    every block above 128 KiB new memory."""
    settings: dict[int, int] = {}

    def mallopt(parameter: int, value: int) -> int:
        if parameter == memory._M_MMAP_THRESHOLD and value > largest:
            return 0
        settings[parameter] = value
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))
    monkeypatch.setattr(memory, "total", lambda: 2**32)
    memory.keep_freed()
    assert settings == {
        memory._M_MMAP_THRESHOLD: kept,
        memory._M_TRIM_THRESHOLD: 2**29,
        memory._M_ARENA_MAX: 1,
    }


def test_what_is_freed_is_handed_back_above_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """And seldom where that does not help: then more must be held than before."""
    held, left = 1000, 1000
    handed = list[int]()

    def hand_back() -> None:
        nonlocal held
        handed.append(held)
        held = left

    monkeypatch.setattr(memory, "held", lambda: held)
    monkeypatch.setattr(memory, "hand_back", hand_back)
    bound = memory.Bound(800)
    for now, then in ((1800, 0), (1801, 1300), (1900, 1900), (1999, 0), (2001, 1100), (1801, 0)):
        held, left = now, then
        bound.keep()
    assert handed == [1000, 1801, 1900, 2001, 1801]


def test_a_thread_keeps_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """While something is done, and no longer."""
    handed, held = Event(), 0
    monkeypatch.setattr(memory, "held", lambda: held)
    monkeypatch.setattr(memory, "hand_back", handed.set)
    bound = memory.Bound(800)
    handed.clear()
    with bound.watched():
        held = 801
        assert handed.wait(60)
    assert "srx memory" not in {thread.name for thread in enumerate_threads()}


PIECES = """
import psutil, sys, torch
from sr_cli.memory import hand_back, keep_freed
keep_freed()
held = lambda: psutil.Process().memory_info().rss >> 20
kept = [torch.ones(1 << 18) for _ in range(200)]  # 1 MiB each
before = held()
del kept[::2]
if sys.argv[1] == "handed back":
    hand_back()
print(before - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what the GNU C library does")
def test_what_is_freed_between_blocks_in_use_is_handed_back() -> None:
    def less(how: str) -> int:
        call = [sys.executable, "-c", PIECES, how]
        return int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)

    assert less("kept") < 10
    assert less("handed back") > 90
