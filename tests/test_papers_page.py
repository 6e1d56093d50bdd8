"""The script that measures the papers' experiments: its marks, its tables, its words."""

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
        lines = "\n".join(f"    srx {line}" for line in experiment.lines)
        assert f"<!-- {name} -->\n\n{lines}\n\n| " in page


def test_a_table_is_written_between_its_marks_alone(papers: Any) -> None:
    name = "table-6-clean-mse"
    page = f"before\n<!-- {name} -->\nold\n<!-- end -->\nafter"
    found = papers.written(page, name, [DOCUMENT])
    head, _, line, _, *table, _, tail, after = found.splitlines()[1:]
    assert (head, tail, after) == (f"<!-- {name} -->", "<!-- end -->", "after")
    assert line == f"    srx {papers.EXPERIMENTS[name].lines[0]}"
    assert table[2:] == [
        "| domain shift | 500 | 3 | x0 | **26.50** ± 0.02 | 0.2500 ± 0.0010 |",
        "| ddim | – | – | x0 | 26.25 ± 0.01 | **0.2400** ± 0.0020 |",
    ]
    with pytest.raises(SystemExit, match="no marks"):
        papers.written("a page", name, [DOCUMENT])


def test_scales_stand_beside_each_other(papers: Any) -> None:
    def document(scale: float, lpips: float) -> dict[str, Any]:
        rows = [("bicubic", 0.4, 25.0), ("srx", lpips, 26.0)]
        scored = [{"method": m, "scores": {"lpips": value, "psnr": p}} for m, value, p in rows]
        return {"options": {"scale": scale}, "rows": scored}

    assert papers.scaled([document(2.0, 0.2), document(2.7, 0.5)]).splitlines()[0::2] == [
        "| LPIPS / PSNR | 2× | 2.7× |",
        "| bicubic | 0.400 / 25.00 | **0.400** / 25.00 |",
    ]
    assert (
        papers.benched([document(4, 0.2)]).splitlines()[-1] == "| `srx` | **26.00** | **0.2000** |"
    )


def test_sets_become_paths_and_nothing_else(papers: Any) -> None:
    words = papers.placed("bench Set14 --lr drealsr20/LR --row '--steps 3 Set5'", Path("data"))
    assert words == ["bench", "data/Set14", "--lr", "data/drealsr20/LR", "--row", "--steps 3 Set5"]
