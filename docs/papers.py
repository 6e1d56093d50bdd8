"""The experiments of docs/papers.md and docs/prf.md that a CPU can do, and their tables.

    python docs/papers.py EVAL [--only NAME,...] [--results FOLDER] [--again]

EVAL holds Set5/HR, Set14/HR, drealsr20/LR and drealsr20/HR. Every experiment is one line of `srx`;
what it gives as JSON is kept in the folder of results, and its table is written between the marks
of its name into the page. An experiment whose result is there, of the weights that are there, is
not run again, and one that was interrupted goes on with what it had measured. The time that each
took is told.
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

Record = Mapping[str, Any]
DOCS = Path(__file__).parent
WEIGHTS = DOCS.parent / "weights"
DECIMALS = {"psnr": 2, "ssim": 3, "lpips": 4, "niqe": 2}
DRAWN = "--no-baselines --metrics psnr,ssim,lpips,niqe --warmup 0"
CAMERA = "drealsr20/HR --lr drealsr20/LR"
ORDERS = "--half first --t1 T,T/2 --order 1,3 --sampler plain --last-step mean,x0 --seeds 0,1,2"
RIVALS = "--sampler plain,ddpm,ddim,edm,dpmsolver++ --last-step mean,x0 --seeds 0,1,2"
WALK = {"sampler": "walk", "t1": "t1", "steps": "steps", "order": "order", "last step": "ends on"}
"""What tells walks of a sweep apart, by its name in JSON, and how the tables call it."""


@dataclass(frozen=True)
class Experiment:
    """A line of srx, whose words that begin with a set's name are paths in EVAL; the page; and what
    makes a table of what the line gave."""

    line: str
    page: str
    table: Callable[[Record], str]


def swept(document: Record) -> str:
    """A row for each walk of `srx sweep-t1`, told by what differs: each metric's mean, with several
    seeds ± their standard deviation."""
    rows = [
        row | {"sampler": "domain shift" if row["sampler"] == "dos" else row["sampler"]}
        for row in document["rows"]
    ]
    names = [name for name in DECIMALS if any(row.get(name) is not None for row in rows)]
    kinds = [kind for kind in WALK if len({row.get(kind) for row in rows}) > 1]
    best = {name: _best(name, rows) for name in names}
    lines = [[*(WALK[kind] for kind in kinds), *names]]
    lines += [
        [
            *(_shown(row.get(kind)) for kind in kinds),
            *(_cell(row, name, row is best[name]) for name in names),
        ]
        for row in rows
    ]
    return _markdown(lines, text=1)


def benched(document: Record) -> str:
    """A row for each method of `srx bench` at one scale."""
    rows = [row["scores"] | {"method": row["method"]} for row in document["rows"]]
    names = [name for name in DECIMALS if any(row.get(name) is not None for row in rows)]
    best = {name: _best(name, rows) for name in names}
    lines = [["method", *names]]
    lines += [
        [f"`{row['method']}`", *(_cell(row, name, row is best[name]) for name in names)]
        for row in rows
    ]
    return _markdown(lines, text=1)


def scaled(document: Record) -> str:
    """A row for each method of `srx bench`, LPIPS / PSNR at each of several scales."""
    found = {(row["method"], row["scale"]): row["scores"] for row in document["rows"]}
    scales = sorted({scale for _, scale in found})
    least = {s: min(v["lpips"] for (_, other), v in found.items() if other == s) for s in scales}

    def cell(method: str, scale: float) -> str:
        lpips, psnr = (found[method, scale][name] for name in ("lpips", "psnr"))
        shown = f"**{lpips:.3f}**" if lpips == least[scale] else f"{lpips:.3f}"
        return f"{shown} / {psnr:.2f}"

    lines = [["LPIPS / PSNR", *(f"{scale:g}×" for scale in scales)]]
    methods = dict.fromkeys(method for method, _ in found)
    lines += [[method, *(cell(method, scale) for scale in scales)] for method in methods]
    return _markdown(lines, text=1)


def searched(document: Record) -> str:
    """A row for each scale of `srx prf-search`: t*, the scores at it and at other times, and of
    Diff-SR the analytic t*."""
    (found,) = document["schedules"].values()
    diffsr = document["options"]["method"] == "diffsr"
    shares, beside = ((0.1, 0.4, 0.6), "0") if diffsr else ((), "T/2")
    head = ["scale", "t\\* / T", "LPIPS at t\\*", f"at {beside}"]
    head += [f"at {' / '.join(map(_short, shares))}"] if shares else []
    head += [f"PSNR at t\\* / at {beside}", *(["analytic t\\* / T"] if diffsr else [])]
    lines = [head]
    for row in found["scales"]:
        points = {point["t"]: point for point in row["points"]}
        star, other = points[row["t"]], points[0 if diffsr else found["T"] // 2]
        cells = [f"{row['scale']:g}", _short(row["t"] / found["T"])]
        cells += [f"{point['lpips']:.3f}" for point in (star, other)]
        if shares:
            late = [points[round(share * found["T"])]["lpips"] for share in shares]
            cells.append(" / ".join(f"{value:.3f}" for value in late))
        cells.append(f"{star['psnr']:.2f} / {other['psnr']:.2f}")
        if diffsr:
            field = row["prf"]
            cells.append(_short(field["best"] / found["T"]) if field else "none")
        lines.append(cells)
    return _markdown(lines, text=0)


def _short(share: float) -> str:
    """A part of 1 in three decimals, without zeros that say nothing: .4, .007, 0."""
    return f"{share:.3f}".rstrip("0").rstrip(".").removeprefix("0") or "0"


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
    "table-6-clean": Experiment(
        f"sweep-t1 Set14/HR --model clean --t1 T,T/2 {RIVALS}", "papers.md", swept
    ),
    "table-6-default": Experiment(f"sweep-t1 {CAMERA} {ORDERS}", "papers.md", swept),
    "steps-and-orders": Experiment(
        "sweep-t1 Set14/HR --model clean-mse --t1 T/2 --steps 1,2,3,5,7 --order 1,2,3",
        "papers.md",
        swept,
    ),
    "best-of-set14": Experiment(
        f"bench Set14/HR {DRAWN} --row '--model clean-mse' "
        "--row '--model clean-mse --best-of 4' "
        "--row '--model clean' --row '--model clean --best-of 4'",
        "papers.md",
        benched,
    ),
    "best-of-camera": Experiment(
        f"bench drealsr20 {DRAWN} --row '--steps 3' --row '--steps 3 --best-of 4'",
        "papers.md",
        benched,
    ),
    "noise-in-hr": Experiment(
        "bench Set5/HR --scale 1 --no-baselines --metrics psnr,ssim,lpips --warmup 0 "
        "--row '--method diffsr --t1 10' --row '--method diffsr --t1 50' "
        "--row '--method diffsr --t1 100'",
        "papers.md",
        benched,
    ),
    "prf-scales": Experiment("prf-search Set14/HR --scales 1.6,2,2.7,3.5,4,8", "prf.md", searched),
    "diffsr-scales": Experiment(
        "bench Set5/HR --scales 2,2.7,3.5,4 --metrics psnr,ssim,lpips --warmup 0 "
        "--row '--method diffsr' --row '--method diffsr --t1 100' --row '' --row '--model clean'",
        "prf.md",
        scaled,
    ),
    "diffsr-samplers": Experiment(
        "bench Set14/HR --crop 256 --scales 2.7,4 --no-baselines --metrics psnr,lpips --warmup 0 "
        "--row '--method diffsr' --row '--method diffsr --sampler ddpm' "
        "--row '--method diffsr --sampler edm' --row '--method diffsr --sampler dpmsolver++'",
        "prf.md",
        scaled,
    ),
    "t1-clean": Experiment("prf-search Set14/HR --method dossr --model clean", "prf.md", searched),
    "t1-clean-mse": Experiment(
        "prf-search Set14/HR --method dossr --model clean-mse", "prf.md", searched
    ),
}


def placed(line: str, folder: Path) -> list[str]:
    """The words of a line, those that name a set as paths in the folder."""
    sets = re.compile(r"(Set5|Set14|drealsr20)(/|$)")
    return [str(folder / word) if sets.match(word) else word for word in shlex.split(line)]


def digest() -> str:
    """Of all networks in the folder of weights: results of others are not today's."""
    found = hashlib.sha256()
    for file in sorted(WEIGHTS.glob("*.safetensors")):
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:12]


def measured(name: str, folder: Path, results: Path, *, again: bool) -> Record:
    """What the experiment's line gave, run where there is no result.

    Calibrations that it makes stay in the folder of results, and the user's own are not asked.
    Raises SystemExit where the line fails or is interrupted.
    """
    file = results / f"{name}-{digest()}.json"
    if again or not file.exists():
        results.mkdir(parents=True, exist_ok=True)
        words = placed(EXPERIMENTS[name].line, folder)
        if words[0] != "bench":
            words += ["--cache", str(results / f"{words[0]}.jsonl")]
        command = [sys.executable, "-m", "sr_cli", *words, "--json"]
        own = os.environ | {"SRX_HOME": str(results / f"{name}-home")}
        begin = perf_counter()
        try:
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE, env=own)
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        if done.returncode:
            raise SystemExit(done.returncode)
        sys.stderr.write(f"{name}: {(perf_counter() - begin) / 60:.1f} minutes\n")
        unfinished = file.with_suffix(".part")
        unfinished.write_bytes(done.stdout)
        unfinished.replace(file)
    found: Record = json.loads(file.read_text("utf-8"))
    return found


def written(page: str, name: str, document: Record) -> str:
    """The page with the experiment's line and table between its marks. Raises SystemExit."""
    experiment = EXPERIMENTS[name]
    block = f"\n    srx {experiment.line}\n\n{experiment.table(document)}\n"
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
    names = given.only.split(",")
    for number, name in enumerate(names, 1):
        sys.stderr.write(f"[{number}/{len(names)}] {name}\n")
        page = DOCS / EXPERIMENTS[name].page
        document = measured(name, given.eval, given.results, again=given.again)
        page.write_text(written(page.read_text("utf-8"), name, document), "utf-8")


if __name__ == "__main__":
    main()
