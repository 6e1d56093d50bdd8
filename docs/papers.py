"""The experiments of docs/papers.md and docs/prf.md that a CPU can do, and their tables.

    python docs/papers.py EVAL [--only NAME,...] [--results FOLDER] [--again]

EVAL holds Set5/HR, Set14/HR, drealsr20/LR and drealsr20/HR. Every experiment is one line of `srx`
or several; what they give as JSON is kept in the folder of results, and their table is written
between the marks of its name into the page. A line whose result is there is not run again.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
DOCS = Path(__file__).parent
DECIMALS = {"psnr": 2, "ssim": 3, "lpips": 4, "niqe": 2}
DRAWN = "--no-baselines --metrics psnr,ssim,lpips,niqe --warmup 0"
CAMERA = "drealsr20/HR --lr drealsr20/LR"
ORDERS = "--half first --t1 T,T/2 --order 1,3 --sampler plain --last-step mean,x0 --seeds 0,1,2"
RIVALS = "--sampler plain,ddpm,ddim,edm,dpmsolver++ --last-step mean,x0 --seeds 0,1,2"


@dataclass(frozen=True)
class Experiment:
    """Lines of srx, whose words that begin with a set's name are paths in EVAL; the page; and what
    makes a table of what the lines gave."""

    lines: tuple[str, ...]
    page: str
    table: Callable[[Sequence[Record]], str]


def swept(documents: Sequence[Record]) -> str:
    """A row for each walk of `srx sweep-t1`: mean ± standard deviation over the seeds."""
    rows = documents[0]["rows"]
    names = [name for name in DECIMALS if any(row.get(name) is not None for row in rows)]
    best = {name: _best(name, rows) for name in names}
    lines = [["walk", "t1", "order", "ends on", *names]]
    lines += [
        [
            "domain shift" if row["sampler"] == "dos" else row["sampler"],
            _shown(row["t1"]),
            _shown(row["order"]),
            _shown(row.get("last step")),
            *(_cell(row, name, row is best[name]) for name in names),
        ]
        for row in rows
    ]
    return _markdown(lines, text=1)


def benched(documents: Sequence[Record]) -> str:
    """A row for each method of one `srx bench`."""
    rows = [row["scores"] | {"method": row["method"]} for row in documents[0]["rows"]]
    names = [name for name in DECIMALS if any(row.get(name) is not None for row in rows)]
    best = {name: _best(name, rows) for name in names}
    lines = [["method", *names]]
    lines += [
        [f"`{row['method']}`", *(_cell(row, name, row is best[name]) for name in names)]
        for row in rows
    ]
    return _markdown(lines, text=1)


def scaled(documents: Sequence[Record]) -> str:
    """A row for each method, LPIPS / PSNR at each scale of several `srx bench`."""
    scales = [f"{document['options']['scale']:g}×" for document in documents]
    found = [{row["method"]: row["scores"] for row in document["rows"]} for document in documents]
    least = [min(scores["lpips"] for scores in by_method.values()) for by_method in found]
    lines = [["LPIPS / PSNR", *scales]]
    for method in found[0]:
        cells = []
        for by_method, best in zip(found, least, strict=True):
            lpips, psnr = by_method[method]["lpips"], by_method[method]["psnr"]
            shown = f"**{lpips:.3f}**" if lpips == best else f"{lpips:.3f}"
            cells.append(f"{shown} / {psnr:.2f}")
        lines.append([method, *cells])
    return _markdown(lines, text=1)


def _best(name: str, rows: Sequence[Record]) -> Record:
    choose = max if name in {"psnr", "ssim"} else min
    return choose(rows, key=lambda row: row[name])


def _cell(row: Record, name: str, best: bool) -> str:
    digits = DECIMALS[name]
    text = f"{row[name]:.{digits}f}"
    text = f"**{text}**" if best else text
    deviation = row.get(f"{name} sd")
    return text if deviation is None else f"{text} ± {deviation:.{digits}f}"


def _shown(value: object) -> str:
    return "–" if value is None else str(value)


def _markdown(lines: Sequence[Sequence[str]], text: int) -> str:
    """The first line is the head; the first `text` columns stand on the left."""
    head, *body = lines
    ruler = ["---" if i < text else "---:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *body))


EXPERIMENTS = {
    "table-6-clean-mse": Experiment(
        (f"sweep-t1 Set14/HR --model clean-mse --t1 T,2T/3,T/2,T/3 {RIVALS}",), "papers.md", swept
    ),
    "table-6-clean": Experiment(
        (f"sweep-t1 Set14/HR --model clean --t1 T,T/2 {RIVALS}",), "papers.md", swept
    ),
    "table-6-default": Experiment((f"sweep-t1 {CAMERA} {ORDERS}",), "papers.md", swept),
    "best-of-set14": Experiment(
        (
            f"bench Set14/HR {DRAWN} --row '--model clean-mse' "
            "--row '--model clean-mse --best-of 4' "
            "--row '--model clean' --row '--model clean --best-of 4'",
        ),
        "papers.md",
        benched,
    ),
    "best-of-camera": Experiment(
        (f"bench drealsr20 {DRAWN} --row '--steps 3' --row '--steps 3 --best-of 4'",),
        "papers.md",
        benched,
    ),
    "diffsr-scales": Experiment(
        tuple(
            f"bench Set5/HR --scale {scale} --metrics psnr,ssim,lpips --row '--method diffsr' "
            "--row '' --row '--model clean' --warmup 0"
            for scale in (2, 2.7, 3.5, 4)
        ),
        "prf.md",
        scaled,
    ),
}


def placed(line: str, folder: Path) -> list[str]:
    """The words of a line, those that name a set as paths in the folder."""
    sets = re.compile(r"(Set5|Set14|drealsr20)(/|$)")
    return [str(folder / word) if sets.match(word) else word for word in shlex.split(line)]


def measured(name: str, folder: Path, results: Path, *, again: bool) -> list[Record]:
    """What the experiment's lines gave, run where there is no result."""
    found = []
    for number, line in enumerate(EXPERIMENTS[name].lines, 1):
        file = results / f"{name}-{number}.json"
        if again or not file.exists():
            words = [sys.executable, "-m", "sr_cli", *placed(line, folder), "--json"]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
            results.mkdir(parents=True, exist_ok=True)
            file.write_bytes(done.stdout)
        found.append(json.loads(file.read_text("utf-8")))
    return found


def written(page: str, name: str, documents: Sequence[Record]) -> str:
    """The page with the experiment's lines and table between its marks. Raises SystemExit."""
    experiment = EXPERIMENTS[name]
    lines = "\n".join(f"    srx {line}" for line in experiment.lines)
    block = f"\n{lines}\n\n{experiment.table(documents)}\n"
    pattern = re.compile(f"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
    found, count = pattern.subn(lambda m: f"{m[1]}{block}{m[2]}", page)
    if not count:
        raise SystemExit(f"{experiment.page} has no marks <!-- {name} --> and <!-- end -->.")
    return found


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("eval", type=Path)
    parser.add_argument("--only", default=",".join(EXPERIMENTS))
    parser.add_argument("--results", type=Path, default=Path("out/papers"))
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args()
    for name in given.only.split(","):
        page = DOCS / EXPERIMENTS[name].page
        documents = measured(name, given.eval, given.results, again=given.again)
        page.write_text(written(page.read_text("utf-8"), name, documents), "utf-8")


if __name__ == "__main__":
    main()
