"""The known physics of asynchronous SGD, shown by real SGD in the twin.

    python experiments/physics.py           # about 4 minutes: CSVs, summary.json, docs/figures/physics.png
    python experiments/physics.py --fast    # about half a minute: fewer seeds, nothing to quote

(a) `overwrite` loses most updates as the number of functions n grows.
(b) `additive` makes the same progress at every n, up to a cliff beyond which it diverges. With n
    functions an update is about n - 1 updates old. Gradient descent with rate lr on a curvature L
    that is d steps old is stable while lr L d < pi/2 (the delay equation x' = -a x(t - d); Hayes
    1950), so the cliff is predicted at n = 1 + pi / (2 lr L), L the Hessian's largest eigenvalue.
(c) `staleness` divides the rate by 1 + d / s: the cliff moves to where (n - 1) / (1 + (n - 1) / s)
    equals the same number, and vanishes where s is below it.
(d) Under the batch rule `split` an epoch of n functions makes n k updates on S / (n k) samples: more
    but noisier. On a job whose target lies near the noise floor, few functions are slow, very many
    never arrive, and many early, few late is faster and cheaper than the best fixed number.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits

from experiments._pages import ROOT, interval, write_rows
from siren.analysis.asynchrony import (
    changed_costing,
    changed_workload,
    floor_limited_job,
    logistic_optimum,
    predicted_cliff,
)
from siren.money.pricer import RunTotals
from siren.twin.twin import Twin
from siren.types import Action, ChannelKind, UpdateRule
from siren.workloads.registry import load_workload
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing, EpochPlan

MEMORY_MB = 1769
TIMEOUT_S = 10**6
SECONDS_PER_PUSH = 5.0
"""Emulated compute of an update in panels (a) to (c). Logistic regression itself takes 30 microseconds:
then functions are done before the next ones have started, and their updates are hardly stale."""

SECONDS_PER_SAMPLE = 2.5e-3
"""Emulated compute of panel (d): a job heavy enough that functions, not start-ups, take the time."""

TARGET_GAP = 2e-4
"""Panel (d): the target's excess over the best loss; the noise floor of 28 functions."""

DIVERGED = 30.0
Schedule = Callable[[int], int]


@dataclass(frozen=True)
class Config:
    """Show the physics of asynchronous SGD on the twin."""

    fast: bool = False
    """Fewer seeds and points: a look, nothing to quote."""

    out: Path = ROOT / "experiments" / "results" / "physics"
    """Folder for the CSVs and summary.json."""

    figure: Path = ROOT / "docs" / "figures" / "physics.png"
    """The figure."""


# --- jobs ---------------------------------------------------------------------------------------


def higgs(samples_per_epoch: int = 64_000) -> Workload:
    """The shipped `logreg-higgs`, K = samples_per_epoch / 64 updates an epoch."""
    return load_workload("logreg-higgs", overrides={"samples_per_epoch": samples_per_epoch})


def plan(functions: int) -> EpochPlan:
    """An epoch that no deadline cuts."""
    return EpochPlan(Action(functions, MEMORY_MB), TIMEOUT_S, TIMEOUT_S - 1.0, Decimal(0))


# --- (a) to (c): what n does to an epoch -----------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """Some epochs from the start with n functions.

    Attributes:
        functions: n.
        excess_ratio: Excess training loss after them over that before, per epoch.
        lost_share: Share of the updates that the final model does not contain.
        staleness: Mean staleness of an update.
    """

    functions: int
    excess_ratio: float
    lost_share: float
    staleness: float


def progress(workload: Workload, best: float, functions: int, seed: int, epochs: int) -> Progress:
    """Runs `epochs` epochs; the training loss is exact, over the whole training set."""

    def excess(params: NDArray[np.float32]) -> float:
        data = workload.dataset
        with np.errstate(over="ignore", invalid="ignore"):
            return workload.model.evaluate(params, data.train_features, data.train_labels)[0] - best

    twin = Twin(workload, changed_costing(workload, seconds_per_push=SECONDS_PER_PUSH), seed)
    before = excess(twin.params)
    told = [twin.run_epoch(plan(functions)) for _ in range(epochs)]
    ratio = excess(twin.params) / before
    ratio = DIVERGED**epochs if not math.isfinite(ratio) else max(ratio, 1e-12)
    return Progress(
        functions,
        min(ratio ** (1 / epochs), DIVERGED),
        sum(r.updates_lost for r in told) / sum(r.pushes for r in told),
        float(np.mean([r.mean_staleness for r in told])),
    )


def ladder(
    workload: Workload, best: float, functions: Iterable[int], seeds: Sequence[int], epochs: int
) -> list[Progress]:
    """One `Progress` for every n and seed."""
    return [progress(workload, best, n, seed, epochs) for n in functions for seed in seeds]


# --- (d): few, many, and many early, few late --------------------------------------------------------


@dataclass(frozen=True)
class Arrival:
    """How a schedule came to its target.

    Attributes:
        reached: Whether it did, before `epochs` ran out.
        epochs: Epochs that it took.
        seconds: Virtual time that it took.
        dollars: What its functions were billed; the cache's started hour, the same for all, left out.
    """

    reached: bool
    epochs: int
    seconds: float
    dollars: float


def arrive(
    workload: Workload, costing: Costing, target: float, schedule: Schedule, seed: int, most: int
) -> Arrival:
    """Trains by a schedule (epoch, from 0 -> functions) until the target, or `most` epochs."""
    twin, totals, dollars = Twin(workload, costing, seed), RunTotals(), 0.0
    for epoch in range(most):
        told = twin.run_epoch(plan(schedule(epoch)))
        bill = costing.pricer.price_epoch(told.usage, previous=totals)
        dollars += float(bill.total - bill["cache"])
        totals = totals.after(told.usage)
        if told.loss <= target:
            return Arrival(True, epoch + 1, twin.clock_s, dollars)
        if not told.loss < 2.0:
            return Arrival(False, epoch + 1, twin.clock_s, dollars)
    return Arrival(False, most, twin.clock_s, dollars)


def fixed(functions: int) -> Schedule:
    """The same number in every epoch."""
    return lambda epoch: functions


def many_then_few(many: int, few: int, epochs: int) -> Schedule:
    """`many` functions for the first epochs, `few` after that."""
    return lambda epoch: many if epoch < epochs else few


# --- the whole experiment ---------------------------------------------------------------------------


def run(config: Config, console: Console) -> dict[str, Any]:
    """All panels: writes their CSVs, and returns what the figure and summary.json need."""
    seeds, quiet = range(2 if config.fast else 5), not console.is_terminal
    base = higgs()
    best_w, curvature = logistic_optimum(base.dataset.train_features, base.dataset.train_labels)
    best = base.model.evaluate(
        best_w.astype(np.float32), base.dataset.train_features, base.dataset.train_labels
    )[0]
    result: dict[str, Any] = {"curvature": curvature, "best_training_loss": best, "seeds": list(seeds)}

    def sweep(panel: str, jobs: dict[str, tuple[dict[str, Any], Sequence[int], int]]) -> None:
        rows = []
        for label, (training, functions, epochs) in jobs.items():
            workload = changed_workload(base, **training)
            for n in track(
                functions, description=f"({panel}) {label}", console=console, transient=True, disable=quiet
            ):
                rows += [{"series": label, **vars(p)} for p in ladder(workload, best, [n], seeds, epochs)]
        write_rows(config.out / f"{panel}.csv", rows)
        result[panel] = rows

    rate = 0.02
    few = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500]
    sweep(
        "overwrite",
        {
            "overwrite": (
                {"learning_rate": rate, "update_rule": UpdateRule.OVERWRITE, "channel": ChannelKind.S3},
                few,
                1,
            ),
            "additive": ({"learning_rate": rate / 10, "update_rule": UpdateRule.ADDITIVE}, few, 1),
        },
    )
    wide = [1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 120, 150, 200, 300, 500]
    rates = (0.04, 0.02, 0.01)
    sweep("additive", {f"{lr:g}": ({"learning_rate": lr}, wide, 3) for lr in rates})
    result["additive_cliffs"] = {f"{lr:g}": predicted_cliff(lr, curvature) for lr in rates}
    strong, scales = 0.1, (math.inf, 40.0, 25.0, 10.0)
    damped = [1, 2, 5, 8, 12, 16, 20, 24, 28, 34, 40, 50, 60, 80, 100, 140, 200]
    sweep(
        "staleness",
        {
            f"{s:g}": (
                {"learning_rate": strong}
                | (
                    {"update_rule": UpdateRule.STALENESS, "staleness_scale": s}
                    if math.isfinite(s)
                    else {"update_rule": UpdateRule.ADDITIVE}
                ),
                damped,
                3,
            )
            for s in scales
        },
    )
    result["staleness_cliffs"] = {f"{s:g}": predicted_cliff(strong, curvature, s) for s in scales}
    result["split"] = split_panel(config, console)
    return result


def split_panel(config: Config, console: Console) -> dict[str, Any]:
    """Panel (d). Schedules are chosen on seeds 0-7, everything is reported on seeds 100-123."""
    workload, best, curvature = floor_limited_job()
    costing = changed_costing(workload, seconds_per_sample=SECONDS_PER_SAMPLE)
    target = best + TARGET_GAP
    quiet = not console.is_terminal
    choose, tell = range(4 if config.fast else 8), range(100, 106 if config.fast else 124)

    def runs(schedule: Schedule, seeds: Iterable[int], most: int) -> list[Arrival]:
        return [arrive(workload, costing, target, schedule, seed, most) for seed in seeds]

    def told(name: str, found: list[Arrival]) -> list[dict[str, Any]]:
        return [{"schedule": name, "seed": s, **vars(a)} for s, a in zip(tell, found, strict=True)]

    counts = [5, 9, 14, 19, 24, 28, 33, 38, 45, 52, 60, 66, 80, 100]
    counts = counts[::3] if config.fast else counts
    rows: list[dict[str, Any]] = []
    for n in track(counts, description="(d) fixed", console=console, transient=True, disable=quiet):
        most = 150 if n < 20 else 60
        rows += told(f"{n}", runs(fixed(n), tell, most))
    candidates = [(many, low, k) for many in (60, 70, 80) for low in (24, 28, 33) for k in (4, 6, 8, 10)]
    candidates = candidates[6::12] if config.fast else candidates
    scored = []
    for many, low, k in track(
        candidates, description="(d) many, few", console=console, transient=True, disable=quiet
    ):
        found = runs(many_then_few(many, low, k), choose, 60)
        if all(a.reached for a in found):
            scored.append((float(np.mean([a.seconds for a in found])), (many, low, k)))
    chosen = min(scored)[1] if scored else candidates[0]
    name = f"{chosen[0]} for {chosen[2]} epochs, then {chosen[1]}"
    rows += told(name, runs(many_then_few(*chosen), tell, 60))
    write_rows(config.out / "split.csv", rows)
    table: dict[str, dict[str, Any]] = {}
    for key in dict.fromkeys(r["schedule"] for r in rows):
        mine = [r for r in rows if r["schedule"] == key]
        table[key] = {
            "reached": float(np.mean([r["reached"] for r in mine])),
            "seconds": interval([r["seconds"] for r in mine]),
            "dollars": interval([r["dollars"] for r in mine]),
        }
    full = {k: v for k, v in table.items() if v["reached"] == 1 and k != name}
    fastest = min(full, key=lambda k: full[k]["seconds"][0]) if full else ""
    cheapest = min(full, key=lambda k: full[k]["dollars"][0]) if full else ""
    return {
        "table": table,
        "chosen": name,
        "fastest_fixed": fastest,
        "cheapest_fixed": cheapest,
        "speed_up": table[fastest]["seconds"][0] / table[name]["seconds"][0] if full else math.nan,
        "saving": 1 - table[name]["dollars"][0] / table[cheapest]["dollars"][0] if full else math.nan,
        "target_gap": TARGET_GAP,
        "best_loss": best,
        "predicted_cliff": predicted_cliff(0.08, curvature),
        "choice_seeds": list(choose),
        "report_seeds": list(tell),
    }


# --- the figure -------------------------------------------------------------------------------------

BLUE, ORANGE, GREEN, VERMILION, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#666666"
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""


LABELLED = {"5", "9", "14", "19", "24", "33", "45", "52", "60", "100"}
"""Fixed numbers that panel (d) names; labels of the others would overlap."""


def curve(
    axis: Any, rows: Sequence[dict[str, Any]], series: str, value: str, colour: str, **style: Any
) -> None:
    """The mean over seeds against n, and the range over seeds."""
    mine = [r for r in rows if r["series"] == series]
    counts = sorted({r["functions"] for r in mine})
    values = np.array([[r[value] for r in mine if r["functions"] == n] for n in counts])
    axis.plot(counts, np.exp(np.log(np.maximum(values, 1e-9)).mean(axis=1)), color=colour, **style)
    axis.fill_between(counts, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.2, linewidth=0)


def draw(result: dict[str, Any], path: Path) -> None:
    """The four panels, 1600 x 1000 pixels."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update(
        {"font.size": 12, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
    )
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(16, 10), dpi=100)
    rows = result["overwrite"]
    curve(a, rows, "overwrite", "lost_share", VERMILION, marker="o", label="updates lost, share")
    curve(a, rows, "overwrite", "excess_ratio", BLUE, marker="s", label="excess loss after / before an epoch")
    curve(
        a,
        rows,
        "additive",
        "excess_ratio",
        GREY,
        linestyle="--",
        label="the same with `additive`, a tenth of the rate",
    )
    a.set(xscale="log", ylim=(0, 1.02), xlabel="functions n", title="(a) overwrite: most updates are lost")
    a.legend(loc="lower right")
    for (rate, cliff), colour in zip(
        result["additive_cliffs"].items(), (VERMILION, BLUE, GREEN), strict=True
    ):
        curve(b, result["additive"], rate, "excess_ratio", colour, marker="o", label=f"learning rate {rate}")
        b.axvline(cliff, color=colour, linestyle=":")
    b.set(title="(b) additive: n is free up to a cliff")
    names = {
        "inf": "additive",
        "40": "staleness, s = 40",
        "25": "staleness, s = 25",
        "10": "staleness, s = 10",
    }
    for (scale, cliff), colour in zip(
        result["staleness_cliffs"].items(), (VERMILION, ORANGE, BLUE, GREEN), strict=True
    ):
        curve(c, result["staleness"], scale, "excess_ratio", colour, marker="o", label=names[scale])
        if math.isfinite(cliff):
            c.axvline(cliff, color=colour, linestyle=":")
    c.set(title="(c) staleness: damping moves the cliff (learning rate 0.1)")
    for axis in (b, c):
        axis.axhline(1, color=GREY, linewidth=0.8)
        axis.set(xscale="log", yscale="log", ylim=(0.15, 9), xlabel="functions n")
        axis.set(ylabel="excess loss, factor per epoch (mean of 3)")
        axis.legend(loc="upper left", title="dotted: predicted cliff")
    _draw_split(d, result["split"])
    for axis in (b, c, d):
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter("{x:g}")
            side.set_minor_formatter("")
    for axis in (b, c):
        axis.set_yticks([0.2, 0.5, 1, 2, 5])
    d.set_yticks([0.02, 0.05, 0.1, 0.2])
    a.xaxis.set_major_formatter("{x:g}")
    figure.suptitle("Real SGD of emulated functions in Siren's twin (logistic regression)", fontsize=15)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def _draw_split(axis: Any, split: dict[str, Any]) -> None:
    for key, entry in split["table"].items():
        (x, x_low, x_high), (y, y_low, y_high) = entry["seconds"], entry["dollars"]
        if key == split["chosen"]:
            colour, marker, size, text = VERMILION, "*", 20, f"{key}"
        else:
            colour, marker, size, text = BLUE, "o", 8, f"n = {key}"
        axis.errorbar(
            x,
            y,
            xerr=[[x - x_low], [x_high - x]],
            yerr=[[y - y_low], [y_high - y]],
            color=colour,
            marker=marker,
            markersize=size,
            markerfacecolor=colour if entry["reached"] == 1 else "white",
            linewidth=1,
        )
        if key != split["chosen"] and key not in LABELLED:
            continue
        aside: dict[str, Any] = {"xytext": (8, -4), "ha": "left"}
        if entry["reached"] < 1:
            text += f" ({entry['reached']:.0%} arrive)"
            aside = {"xytext": (-12, -4), "ha": "right"}
        if key == split["chosen"]:
            aside["xytext"] = (14, -4)
        axis.annotate(text, (x, y), textcoords="offset points", fontsize=11, color=colour, **aside)
    axis.set(xscale="log", yscale="log", xlabel="seconds to the target", ylabel="dollars of functions")
    axis.set(title="(d) split, near the noise floor (hollow: stopped after 60 epochs)")
    axis.margins(x=0.12, y=0.08)


def main(config: Config) -> int:
    """Runs the experiment; returns the exit code."""
    console = Console(stderr=True)
    with threadpool_limits(1):
        result = run(config, console)
    draw(result, config.figure)
    summary = {k: v for k, v in result.items() if k not in ("overwrite", "additive", "staleness")}
    summary["means"] = {
        panel: {
            series: {
                str(n): {
                    key: float(
                        np.mean(
                            [r[key] for r in result[panel] if (r["series"], r["functions"]) == (series, n)]
                        )
                    )
                    for key in ("excess_ratio", "lost_share", "staleness")
                }
                for n in sorted({r["functions"] for r in result[panel] if r["series"] == series})
            }
            for series in dict.fromkeys(r["series"] for r in result[panel])
        }
        for panel in ("overwrite", "additive", "staleness")
    }
    summary["fast"] = config.fast
    summary["command"] = "python experiments/physics.py" + (" --fast" if config.fast else "")
    (config.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    split = result["split"]
    print(f"figure: {config.figure}")
    print(
        f"split: {split['chosen']}: {split['speed_up']:.2f} times as fast as fixed {split['fastest_fixed']}, "
        f"{split['saving']:.0%} cheaper than fixed {split['cheapest_fixed']}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config, prog="python experiments/physics.py")))
