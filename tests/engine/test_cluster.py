"""Runs on a Ray cluster: which worker gets what, and what becomes of pictures whose workers die.

Most laws hold of a Ray that is none; one run is on two nodes of a real one.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from PIL import Image

from sr_cli import memory
from sr_cli.engine.cluster import ATTEMPTS, _Cluster, connected, places
from sr_cli.engine.events import Event, Failed, Finished, Job, Started
from sr_cli.engine.manifest import Manifest, name_of
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.engine.worker import Facts, Place, Work, Worker, _still_to_do
from sr_cli.errors import BrokenDeviceError, DeviceError, ModelError, SrxError, UsageError

ROOT = Path(__file__).parents[2]
PICTURES = 24


def work(**changes: Any) -> Work:
    return Work(UpscaleOptions(), OutputOptions(), Path("out"), **changes)


def node(name: str, cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    return {"NodeID": name, "Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


# ------------------------------------------------------------------------ places


def test_each_gpu_or_group_of_cores_has_a_worker() -> None:
    nodes = [node("a", 16, 2), node("b", 8), node("dead", 8, alive=False), node("head", 0)]
    assert places(nodes, work()) == [Place("a", 8, 1), Place("a", 8, 1), Place("b", 8, 0)]
    assert places(nodes, work(threads=3)) == [*[Place("a", 3, 1)] * 2, *[Place("b", 3, 0)] * 2]
    assert places(nodes, work(device="cuda")) == [Place("a", 8, 1)] * 2
    assert places(nodes, work(device="cpu")) == [Place("a", 16, 0), Place("b", 8, 0)]


@pytest.mark.parametrize("changes", [{"device": "cuda"}, {"threads": 9}])
def test_a_cluster_without_a_place_says_so(changes: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match="No machine of the Ray cluster"):
        places([node("b", 8)], work(**changes))


# ------------------------------------------------------------------------ calls


class RayActorError(Exception):
    pass


class ActorUnavailableError(RayActorError):
    pass


class RayTaskError(Exception):
    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class Actor:
    """What a worker answers; `behave` may raise, in place of an answer."""

    def __init__(self, behave: Callable[[str], None]) -> None:
        self.load = SimpleNamespace(remote=lambda *_: lambda: self.answer("load"))
        self.enlarge = SimpleNamespace(remote=lambda jobs, again: lambda: self.enlarged(jobs))
        self.behave = behave
        self.asked: list[str] = []

    def answer(self, what: str) -> Facts:
        self.behave(what)
        return Facts("machine", "cpu", "float32", 1, None)

    def enlarged(self, jobs: list[Job]) -> tuple[list[Event], SrxError | None]:
        self.asked.append(" ".join(job.input.name for job in jobs))
        try:
            for job in jobs:
                self.behave(job.input.name)
        except SrxError as error:
            return [], error
        return [Finished(job, (1, 1), (2, 2), 1.0, None) for job in jobs], None


class Ray:
    """As much of Ray as is used."""

    exceptions = SimpleNamespace(
        RayActorError=RayActorError,
        ActorUnavailableError=ActorUnavailableError,
        RayTaskError=RayTaskError,
    )

    def __init__(self, behave: Callable[[str], None], workers: int) -> None:
        self.behave, self.workers = behave, workers
        self.actors: list[Actor] = []
        self.killed: list[Actor] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [node(f"{number:056x}", 1) for number in range(self.workers)]

    def remote(self, _: type) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self.made))

    def made(self) -> Actor:
        self.actors.append(Actor(self.behave))
        return self.actors[-1]

    def wait(self, refs: list[Any], timeout: float | None) -> tuple[list[Any], list[Any]]:
        return refs[:1], refs[1:]

    def get(self, ref: Callable[[], Any]) -> Any:
        return ref()

    def kill(self, actor: Actor, *, no_restart: bool = True) -> None:
        self.killed.append(actor)


@pytest.fixture
def enlarge(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Event], Ray]]:
    """Events of pictures by their names, and the Ray on which they were enlarged."""
    pytest.importorskip("ray", reason="Ray is not installed: srx[ray]")

    def run(
        names: str, behave: Callable[[str], None], workers: int = 2, batch: int = 1
    ) -> tuple[list[Event], Ray]:
        ray, events = Ray(behave, workers), list[Event]()
        asked = Work(UpscaleOptions(batch=batch), OutputOptions(), Path("out"))
        cluster = _Cluster(ray, asked, events.append, lambda _: None)
        cluster.run([Job(Path(name), Path("out") / name) for name in names.split()])
        return events, ray

    return run


Enlarge = Callable[..., tuple[list[Event], Ray]]


def ends(events: list[Event]) -> dict[str, str]:
    """How each picture ended, of which each has one end."""
    found = [e for e in events if not isinstance(e, Started)]
    assert len({event.job for event in found}) == len(found)
    return {event.job.input.name: type(event).__name__ for event in found}


def test_every_picture_is_done_once_and_all_workers_end(enlarge: Enlarge) -> None:
    events, ray = enlarge("a b c d e", lambda _: None)
    assert ends(events) == dict.fromkeys("abcde", "Finished")
    assert [e.job.input.name for e in events if isinstance(e, Started)] == list("abcde")
    assert all(actor.asked for actor in ray.actors)
    assert ray.killed == ray.actors


def test_pictures_of_a_batch_go_to_one_worker(enlarge: Enlarge) -> None:
    _, ray = enlarge("a b c d e", lambda _: None, batch=2)
    assert sorted(call for actor in ray.actors for call in actor.asked) == ["a b", "c d", "e"]


def dying(name: str, times: int, error: Exception) -> Callable[[str], None]:
    """A picture, or the loading, that costs so many workers."""
    left = [times]

    def behave(what: str) -> None:
        if what == name and left[0]:
            left[0] -= 1
            raise error

    return behave


LOST = [ActorUnavailableError("restarts"), RayActorError("gone for good")]


@pytest.mark.parametrize("error", LOST, ids=["restarted", "gone"])
def test_what_a_dead_worker_was_at_is_done_by_another(enlarge: Enlarge, error: Exception) -> None:
    events, ray = enlarge("a b c d e", dying("b", 1, error))
    assert ends(events) == dict.fromkeys("abcde", "Finished")
    assert sum(actor.asked.count("b") for actor in ray.actors) == 2


def test_pictures_of_a_dead_worker_are_tried_again_one_by_one(enlarge: Enlarge) -> None:
    events, ray = enlarge("a b c", dying("b", 1, LOST[0]), workers=1, batch=3)
    assert ends(events) == dict.fromkeys("abc", "Finished")
    assert ray.actors[0].asked == ["a b c", "a", "b", "c"]


def test_a_picture_that_kills_every_worker_fails_alone(enlarge: Enlarge) -> None:
    events, _ = enlarge("a b c d", dying("b", 99, LOST[0]))
    assert ends(events) == {**dict.fromkeys("acd", "Finished"), "b": "Failed"}
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert f"{ATTEMPTS} workers died at b" in failed.reason
    assert "DeviceError" in type(failed.error).__name__


def test_a_broken_device_costs_its_worker_a_restart(enlarge: Enlarge) -> None:
    events, ray = enlarge("a b c", dying("b", 1, BrokenDeviceError("The device failed.")))
    assert ends(events) == dict.fromkeys("abc", "Finished")
    assert len(ray.killed) == len(ray.actors) + 1


def test_a_model_that_does_not_work_ends_the_run(enlarge: Enlarge) -> None:
    with pytest.raises(ModelError, match="No model"):
        enlarge("a b c", dying("b", 1, ModelError("No model.")))


def test_one_machine_that_cannot_load_leaves_the_work_to_others(enlarge: Enlarge) -> None:
    refused = RayTaskError(ModelError("No model here."))
    assert ends(enlarge("a b", dying("load", 1, refused))[0]) == dict.fromkeys("ab", "Finished")
    with pytest.raises(ModelError, match="No model here"):
        enlarge("a b", dying("load", 2, refused))


def test_workers_that_always_die_while_they_load_end_the_run(enlarge: Enlarge) -> None:
    with pytest.raises(DeviceError, match="while it loaded"):
        enlarge("a b", dying("load", 99, LOST[0]))


def test_machines_without_srx_are_named(enlarge: Enlarge) -> None:
    error = RayActorError("ModuleNotFoundError: No module named 'sr_cli'")
    with pytest.raises(DeviceError, match="install it on each"):
        enlarge("a", dying("load", 99, error))


def test_a_call_without_an_answer_ends_the_waiting(
    enlarge: Enlarge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ray, "wait", lambda self, refs, timeout: ([], refs))
    with pytest.raises(DeviceError, match="no room for a worker"):
        enlarge("a", lambda _: None)


WITHOUT_TORCH = """
import sys
from pathlib import Path
sys.modules["torch"] = None
from sr_cli.engine.cluster import _Cluster
from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.engine.worker import Place, Work
cluster = _Cluster(None, Work(UpscaleOptions(), OutputOptions(), Path("out")), print, print)
assert cluster._together([Place("a", 1, 1)]) > cluster._together([Place("a", 1, 0)]) == 1
"""


def test_no_worker_waits_while_torch_is_imported_here() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True)


# ------------------------------------------------------------------------ manifests


def test_what_workers_wrote_becomes_the_manifest_in_the_order_of_time(tmp_path: Path) -> None:
    job = Job(tmp_path / "a.png", tmp_path / "a_x4.png")
    died, other = (Manifest(tmp_path, f"worker-{number}") for number in (2, 1))
    died.begin(job)
    time.sleep(0.002)
    other.begin(job)
    time.sleep(0.002)
    other.end(job, "for a reason")
    assert Manifest(tmp_path).unfinished[str(job.input)]
    Manifest(tmp_path).absorb()
    assert [path.name for path in tmp_path.iterdir()] == [name_of()]
    assert not Manifest(tmp_path).unfinished[str(job.input)]
    assert (tmp_path / name_of()).read_text().count("\n") == 3


def test_nothing_to_absorb_makes_no_file(tmp_path: Path) -> None:
    Manifest(tmp_path).absorb()
    assert not list(tmp_path.iterdir())


def test_a_picture_that_a_worker_did_before_it_died_is_not_done_again(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sr_cli.engine.batch import run
    from sr_cli.engine.upscaler import Upscaler

    monkeypatch.setenv("SRX_WEIGHTS", str(tiny_weights))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    out = tmp_path / "out"
    out.mkdir()
    done, left = (Job(tmp_path / name, out / name) for name in ("a.png", "b.png"))
    asked = Work(UpscaleOptions(), OutputOptions(), out)
    upscale = Upscaler(asked.options)
    run([done], asked.options, upscale, lambda _: None, manifest=Manifest(out, "worker-1"))
    todo, told = _still_to_do([done, left], asked)
    assert todo == [left]
    (finished,) = told
    assert isinstance(finished, Finished)
    assert (finished.size_in, finished.size_out) == ((8, 8), (32, 32))
    assert finished.megapixels_per_second > 0


def test_a_worker_keeps_the_memory_that_it_frees(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list[bool]()
    monkeypatch.setattr(memory, "keep_freed", lambda: kept.append(True))
    monkeypatch.setenv("SRX_WEIGHTS", str(tiny_weights))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    Worker().load(work(), Place("a", 1, 0), "worker-1")
    assert kept


# ------------------------------------------------------------------------ a real one


@pytest.mark.parametrize("address", ["localhost", "ray://a:10001", "a:b", ":6379"])
def test_a_wrong_address_is_told_at_once(address: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: srx[ray]")
    with pytest.raises(UsageError, match="HOST:PORT"), connected(address):
        pass


def test_an_address_that_nobody_has_is_told_at_once() -> None:
    pytest.importorskip("ray", reason="Ray is not installed: srx[ray]")
    with (
        pytest.raises(DeviceError, match="Nothing answers at 127"),
        connected("127.0.0.1:1"),
    ):
        pass


def test_without_ray_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'srx\[ray\]'"), connected("auto"):
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two nodes, each with one core."""
    pytest.importorskip("ray", reason="Ray is not installed: srx[ray]")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        head = {"num_cpus": 1, "include_dashboard": False}
        cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=1)
        yield cluster.address
        cluster.shutdown()


@pytest.fixture
def command(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., "subprocess.Popen[str]"]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRX_WEIGHTS", str(tiny_weights))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("in").mkdir()
    for number in range(PICTURES):
        Image.new("RGB", (40 + number, 40), (number, 9, 99)).save(f"in/{number}.png")

    def start(*args: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "sr_cli", "upscale", "in", *args, "--json"],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def workers() -> list[psutil.Process]:
    """Processes of this user's that enlarge."""
    named = psutil.process_iter(["cmdline"])
    return [p for p in named if " ".join(p.info["cmdline"] or ()).startswith("ray::Worker")]


def made() -> int:
    return len(list(Path("out").glob("*.png")))


def test_two_nodes_do_a_folder_though_a_worker_is_killed_half_way(
    address: str, command: Callable[..., "subprocess.Popen[str]"]
) -> None:
    with command("out", "--cluster", address) as child:
        while made() < PICTURES // 3 and child.poll() is None:
            time.sleep(0.01)
        killed = workers()
        assert killed, child.communicate()[1]
        killed[0].kill()
        out, err = child.communicate()
    found = json.loads(out)
    assert child.returncode == 0, err
    assert "raylet" not in err
    assert len(found["results"]) == PICTURES
    assert sorted(p.name for p in Path("out").iterdir() if p.suffix != ".png") == [name_of()]
    assert {worker["device"] for worker in found["environment"]["workers"]} == {"cpu"}
    with command("here", "--threads", "1") as alone:
        assert len(json.loads(alone.communicate()[0])["results"]) == PICTURES
    for path in Path("here").glob("*.png"):
        assert (Path("out") / path.name).read_bytes() == path.read_bytes()
    with command("out") as again:
        skipped = json.loads(again.communicate()[0])["skipped"]
    assert [entry["reason"] for entry in skipped] == ["done already"] * PICTURES


def test_an_interrupted_run_on_a_cluster_is_continued(
    address: str, command: Callable[..., "subprocess.Popen[str]"]
) -> None:
    with command("out", "--cluster", address) as child:
        while made() < 3 and child.poll() is None:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGINT)
        _, err = child.communicate()
    assert (child.returncode, "the same command does the rest" in err) == (130, True), err
    with command("out", "--cluster", address) as again:
        _, err = again.communicate()
    assert (again.returncode, made()) == (0, PICTURES), err
    assert "killed" not in err
