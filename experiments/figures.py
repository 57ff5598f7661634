"""Makes the README's pictures: `python experiments/figures.py`.

`run.png` is the default job, `budgets.png` one job at three budgets by the greedy policy, both by the real
command; `how.png` is drawn. The default job is rehearsed before, for so long as the clock says.
Runs go to a temporary folder.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from siren.analysis.figures import compare_figure, run_figure
from siren.analysis.run_folder import RunFolder

BUDGETED_WORKLOAD = "logreg-higgs"
BUDGETS = ("0.03225", "0.0325", "2.00")


@dataclass(frozen=True)
class FiguresConfig:
    """Make the README's pictures."""

    out: Path = Path("docs/figures")
    """Where the pictures go."""

    seed: int = 0
    """Seed of every run."""


def run(folder: Path, *arguments: str) -> RunFolder:
    """Runs `siren.run`; a run that misses its target is a picture too."""
    command = [sys.executable, "-m", "siren.run", "--out", str(folder), *arguments]
    subprocess.run(command, check=False)
    return RunFolder.open(folder)


def how(path: Path) -> None:
    """Draws how a run works."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    figure, axes = plt.subplots(figsize=(13, 5.6), dpi=110)
    axes.set(xlim=(0, 13), ylim=(0, 5.6))
    axes.axis("off")
    boxes = {
        "workload": (0.2, 3.9, 2.3, 1.3, "workload\nmodel.py, data,\ntarget loss", "#e8f1fa"),
        "world": (0.2, 0.4, 2.3, 1.3, "world\nprices, limits,\nlaws of time", "#e8f1fa"),
        "policy": (3.4, 3.9, 2.3, 1.3, "policy\npicks functions n\nand memory m", "#fdf1dc"),
        "ledger": (6.4, 3.9, 2.5, 1.3, "ledger\nreserves the worst\ncase, or refuses", "#fbe5e5"),
        "platform": (9.7, 2.15, 3.1, 3.05, "", "#e6f4ea"),
        "bill": (6.4, 0.4, 2.5, 1.3, "bill\nevery item priced,\nledger settles", "#fbe5e5"),
        "status": (3.4, 0.4, 2.3, 1.3, "epoch status\nloss, time, cost,\ngradient statistics", "#fdf1dc"),
    }
    for x, y, width, height, text, colour in boxes.values():
        axes.add_patch(
            FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.05", fc=colour, ec="#555555", lw=1.2)
        )
        axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=11.5)
    axes.text(11.25, 4.85, "platform: one HSP epoch", ha="center", fontsize=12)
    for k in range(4):
        y = 4.35 - 0.42 * k
        axes.text(9.85, y, f"function {k + 1}" if k < 3 else "function n", va="center", fontsize=9.5)
        for j in range(3 + k % 2):
            x = 10.9 + 0.4 * j + 0.06 * k
            for part, width, colour in ((0, 0.1, "#9ecae1"), (0.1, 0.15, "#fdae6b"), (0.25, 0.1, "#a1d99b")):
                axes.add_patch(plt.Rectangle((x + part, y - 0.13), width, 0.26, color=colour))
    axes.plot([12.68, 12.68], [2.88, 4.6], color="#333333", lw=2.5)
    axes.text(
        11.25,
        2.55,
        "fetch, compute, push freely,\nthen a barrier and the held-out loss",
        ha="center",
        va="center",
        fontsize=9.5,
    )
    arrows = [
        ((2.55, 4.55), (3.3, 4.55), ""),
        ((5.75, 4.55), (6.3, 4.55), "n, m"),
        ((8.95, 4.55), (9.6, 4.55), "launch"),
        ((11.2, 2.05), (8.98, 1.05), "billed ms, requests, ..."),
        ((6.35, 1.05), (5.78, 1.05), ""),
        ((4.55, 1.78), (4.55, 3.82), "next epoch,\nuntil target, budget\nor limit"),
        ((2.55, 1.4), (3.5, 3.8), "forecasts"),
    ]
    for start, end, text in arrows:
        axes.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=16, lw=1.4, color="#333333")
        )
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        if text.startswith("next"):
            axes.text(middle[0] + 0.12, middle[1], text, ha="left", va="center", fontsize=10)
        elif text == "forecasts":
            axes.text(middle[0] - 0.15, middle[1], text, ha="right", va="center", fontsize=10)
        elif text.startswith("billed"):
            axes.text(middle[0] + 0.35, middle[1] - 0.12, text, ha="left", va="center", fontsize=10)
        elif text:
            axes.text(middle[0], middle[1] + 0.14, text, ha="center", va="bottom", fontsize=10)
    figure.savefig(path, bbox_inches="tight", facecolor="white")
    plt.close(figure)


def main(config: FiguresConfig) -> int:
    """Makes all pictures; returns the exit code."""
    config.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        seed = ("--seed", str(config.seed))
        one = run(Path(scratch) / "run", "--budget", "2.00", *seed)
        run_figure(one.events(), one.read_summary(), config.out / "run.png")
        runs = []
        for budget in BUDGETS:
            job = ("--workload", BUDGETED_WORKLOAD, "--policy", "greedy", *seed)
            folder = run(Path(scratch) / budget, "--budget", budget, *job)
            runs.append((f"${budget}", folder.events(), folder.read_summary()))
        compare_figure(runs, config.out / "budgets.png")
    how(config.out / "how.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(FiguresConfig)))
