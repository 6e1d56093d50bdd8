"""The experiments of docs/papers.md and docs/prf.md that a CPU can do, and their tables.

    python docs/papers.py EVAL [--only NAME,...] [--results FOLDER] [--again]

EVAL holds Set5/HR, Set14/HR, drealsr20/LR and drealsr20/HR. Every experiment is a line of `srx`;
what it gives as JSON is kept in the folder of results, and its table is written between the marks
of its name into the page. An experiment whose result is there is only written again.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
DOCS = Path(__file__).parent
DECIMALS = {"psnr": 2, "ssim": 3, "lpips": 4, "niqe": 2}
RIVALS = "--sampler plain,ddpm,ddim,edm,dpmsolver++ --last-step mean,x0 --seeds 0,1,2"


@dataclass(frozen=True)
class Experiment:
    """A line of srx, whose words that begin with a set's name are paths in EVAL; its page."""

    line: str
    page: str
    table: Callable[[Record], str]


def swept(document: Record) -> str:
    """A row for each walk of `srx sweep-t1`: mean ± standard deviation over the seeds."""
    rows = document["rows"]
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
        f"sweep-t1 Set14/HR --model clean-mse --t1 T,2T/3,T/2,T/3 {RIVALS}", "papers.md", swept
    ),
}


def placed(line: str, folder: Path) -> list[str]:
    """The words of a line, those that name a set as paths in the folder."""
    sets = re.compile(r"(Set5|Set14|drealsr20)(/|$)")
    return [str(folder / word) if sets.match(word) else word for word in line.split()]


def measured(name: str, folder: Path, results: Path, *, again: bool) -> Record:
    """What the experiment gave, run if there is no result."""
    file = results / f"{name}.json"
    if again or not file.exists():
        words = [sys.executable, "-m", "sr_cli", *placed(EXPERIMENTS[name].line, folder), "--json"]
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
        results.mkdir(parents=True, exist_ok=True)
        file.write_bytes(done.stdout)
    document: Record = json.loads(file.read_text("utf-8"))
    return document


def written(page: str, name: str, document: Record) -> str:
    """The page with the experiment's line and table between its marks. Raises SystemExit."""
    experiment = EXPERIMENTS[name]
    block = f"`srx {experiment.line}`\n\n{experiment.table(document)}"
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
        document = measured(name, given.eval, given.results, again=given.again)
        page.write_text(written(page.read_text("utf-8"), name, document), "utf-8")


if __name__ == "__main__":
    main()
