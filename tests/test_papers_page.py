"""The script that measures the papers' experiments: its marks, its tables, its words."""

import subprocess
from contextlib import nullcontext
from importlib import util
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def papers() -> Any:
    spec = util.spec_from_file_location("papers_script", DOCS / "papers.py")
    assert spec
    assert spec.loader
    module = util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "papers_script", module)
        spec.loader.exec_module(module)
    return module


DOCUMENT = {
    "rows": [
        {"sampler": "dos", "t1": 500, "order": 3, "last step": "x0"}
        | {"psnr": 26.5, "psnr sd": 0.02, "lpips": 0.25, "lpips sd": 0.001},
        {"sampler": "ddim", "t1": None, "order": None, "last step": "x0"}
        | {"psnr": 26.25, "psnr sd": 0.01, "lpips": 0.24, "lpips sd": 0.002},
    ]
}


def test_every_experiment_has_its_place_and_its_line_there(papers: Any) -> None:
    for name, experiment in papers.EXPERIMENTS.items():
        page = (DOCS / experiment.page).read_text("utf-8")
        assert f"<!-- {name} -->\n\n    srx {experiment.line}\n\n| " in page


def test_a_table_is_written_between_its_marks_alone(papers: Any) -> None:
    name = "table-6-clean-mse"
    page = f"before\n<!-- {name} -->\nold\n<!-- end -->\nafter"
    found = papers.written(page, name, DOCUMENT)
    head, _, line, _, *table, _, tail, after = found.splitlines()[1:]
    assert (head, tail, after) == (f"<!-- {name} -->", "<!-- end -->", "after")
    assert line == f"    srx {papers.EXPERIMENTS[name].line}"
    assert table[0] == "| walk | t1 | order | psnr | lpips |"  # both end on the same
    assert table[2:] == [
        "| domain shift | 500 | 3 | **26.50** ± 0.02 | 0.2500 ± 0.0010 |",
        "| ddim | – | – | 26.25 ± 0.01 | **0.2400** ± 0.0020 |",
    ]
    with pytest.raises(SystemExit, match="no marks"):
        papers.written("a page", name, DOCUMENT)


def test_scales_stand_beside_each_other(papers: Any) -> None:
    values = {("bicubic", 2.0): 0.4, ("srx", 2.0): 0.2, ("bicubic", 2.7): 0.4, ("srx", 2.7): 0.5}
    rows = [
        {"method": method, "scale": scale, "scores": {"lpips": lpips, "psnr": 25.0}}
        for (method, scale), lpips in values.items()
    ]
    assert papers.scaled({"rows": rows}).splitlines() == [
        "| LPIPS / PSNR | 2× | 2.7× |",
        "| --- | ---: | ---: |",
        "| bicubic | 0.400 / 25.00 | **0.400** / 25.00 |",
        "| srx | **0.200** / 25.00 | 0.500 / 25.00 |",
    ]
    assert papers.benched({"rows": rows[:2]}).splitlines()[-1] == "| `srx` | 25.00 | **0.2000** |"


def test_a_search_shows_its_start_beside_others(papers: Any) -> None:
    def document(method: str, star: int) -> dict[str, Any]:
        points = [{"t": t, "lpips": t / 1000, "psnr": 20 + t} for t in (0, 7, 100, 400, 500, 600)]
        scales = [{"scale": 2.7, "t": star, "points": points, "prf": {"best": 10}}]
        scales.append(scales[0] | {"scale": 8, "prf": None})
        found = {"any": {"T": 1000, "scales": scales}}
        return {"options": {"method": method}, "schedules": found}

    assert papers.searched(document("diffsr", 7)).splitlines()[:3:2] == [
        r"| scale | t\* / T | LPIPS at t\* | at 0 | at .1 / .4 / .6 | PSNR at t\* / at 0 "
        r"| analytic t\* / T |",
        "| 2.7 | .007 | 0.007 | 0.000 | 0.100 / 0.400 / 0.600 | 27.00 / 20.00 | .01 |",
    ]
    assert papers.searched(document("diffsr", 7)).splitlines()[-1].endswith("| none |")
    assert papers.searched(document("dossr", 600)).splitlines()[:3:2] == [
        r"| scale | t\* / T | LPIPS at t\* | at T/2 | PSNR at t\* / at T/2 |",
        "| 2.7 | .6 | 0.600 | 0.500 | 620.00 / 520.00 |",
    ]


def test_what_is_measured_is_kept_and_what_fails_is_not(
    papers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that ends badly leaves no result behind, so that it is run again."""
    answers = iter([(1, b"{"), (0, b'{"rows": []}')])
    lines: list[list[str]] = []

    def run(words: list[str], **_: Any) -> Any:
        lines.append(words)
        code, out = next(answers)
        return subprocess.CompletedProcess(words, code, out)

    monkeypatch.setattr(papers.subprocess, "run", run)
    for _ in range(2):
        with pytest.raises(SystemExit) if not lines else nullcontext():
            papers.measured("t1-clean", tmp_path, tmp_path / "out", again=False)
    assert len(lines) == 2
    assert papers.measured("t1-clean", tmp_path, tmp_path / "out", again=False) == {"rows": []}
    assert lines[0][-3:-1] == ["--cache", str(tmp_path / "out" / "prf-search.jsonl")]
    assert str(tmp_path / "Set14" / "HR") in lines[0]
    with pytest.raises(StopIteration):
        papers.measured("t1-clean", tmp_path, tmp_path / "out", again=True)


def test_what_was_measured_of_other_weights_is_measured_again(
    papers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter([b'{"rows": []}', b'{"rows": [1]}'])

    def run(words: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(words, 0, next(found))

    monkeypatch.setattr(papers.subprocess, "run", run)
    monkeypatch.setattr(papers, "WEIGHTS", tmp_path)
    for weights, rows in ((b"1", []), (b"1", []), (b"2", [1]), (b"1", [])):
        (tmp_path / "any.safetensors").write_bytes(weights)
        known = papers.measured("best-of-set14", tmp_path, tmp_path / "out", again=False)
        assert known == {"rows": rows}


def test_sets_become_paths_and_nothing_else(papers: Any) -> None:
    words = papers.placed("bench Set14 --lr drealsr20/LR --row '--steps 3 Set5'", Path("data"))
    assert words == ["bench", "data/Set14", "--lr", "data/drealsr20/LR", "--row", "--steps 3 Set5"]
