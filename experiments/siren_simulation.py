"""Siren's simulation: the learned scheduler against a grid search over the number of functions.

    python experiments/siren_simulation.py          # about a minute of one core
    python experiments/siren_simulation.py --fast   # a few seconds: a look, nothing to quote

Held-out jobs of `family-2026` in the simulator. The grid search tries every count of the ladder at the memory
size of one vCPU, in whole runs on seeds that report nothing; its search costs nothing. A search that pays for
its trials stands beside it. The training curve is the shipped agent's. Writes
experiments/siren_simulation.md, a figure and a CSV.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from experiments._pages import (
    EXPERIMENTS,
    RESULTS,
    commit,
    job_episodes,
    markdown,
    told,
    wrapped,
    write_rows,
)
from siren.analysis import _format
from siren.analysis.figures import BLUE, GREEN, INK, ORANGE, RED, plain_log, styled_figure
from siren.evaluation import seeds
from siren.evaluation.baseline import FAILURE, Trials, ranked
from siren.evaluation.cache import ChoiceCache
from siren.evaluation.case import Case, CaseKey
from siren.evaluation.episode import Episode
from siren.evaluation.grid_search import play_grid_search
from siren.evaluation.jobs import FAMILIES, SIMULATOR, JobKey
from siren.evaluation.statistics import JobEpisodes, summarise
from siren.learning.record import EVALUATIONS
from siren.policies import AgentPolicy, FixedPolicy, Reference, Safeguard, Safety
from siren.policies.agent import DEFAULT_AGENT, agent_folder
from siren.simulator.job import ActionGrid
from siren.simulator.planner import Place
from siren.simulator.search import Arena, Outcomes, Schedule

Floats = NDArray[np.float64]

WORLD = "aws-2026"

GRID, PAYING, TOLD, ALONE = "grid", "paying", "told", "alone"
NAMES = {
    GRID: "grid search over functions, its search free",
    PAYING: "grid search that pays for its trials",
    TOLD: "agent, told the grid's choice",
    ALONE: "agent, told nothing",
}


@dataclass(frozen=True)
class SimulationConfig:
    """Repeat the simulation of Siren's slides."""

    fast: bool = False
    """Two jobs, two seeds: a look, nothing to quote."""

    jobs: int = 12
    """Held-out jobs."""

    seeds: int = 5
    """Episodes of every policy on every job at every budget."""

    budgets: tuple[float, ...] = (1.5,)
    """Budgets over the cheapest with which a fixed count at one vCPU is expected to finish the job."""

    page: Path = EXPERIMENTS / "siren_simulation.md"
    """The page."""

    out: Path = RESULTS / "siren_simulation"
    """Folder for the CSVs and the figure."""


# --- the grid search ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """The grid search of a case: arrays are (counts,), outcomes on the seeds that choose.

    Attributes:
        functions, memory_mb: What was tried.
        outcomes: Of each count.
        chosen: Index of the best.
    """

    functions: Floats
    memory_mb: Floats
    outcomes: list[Outcomes]
    chosen: int

    @property
    def reference(self) -> Reference:
        """The choice and what it took."""
        best = self.outcomes[self.chosen]
        action = int(self.functions[self.chosen]), int(self.memory_mb[self.chosen])
        cost_usd = float(best.cost_usd[best.success].mean())
        return Reference(*action, best.time_s, cost_usd)


def key_of(job: int, budget_ratio: float) -> CaseKey:
    """A held-out job with a budget."""
    return CaseKey(
        JobKey(SIMULATOR, FAMILIES[SIMULATOR], WORLD, None, None, job, generated=True), budget_ratio
    )


def usual_sizes(grid: ActionGrid) -> NDArray[np.int64]:
    """For every count the index of the memory size that is nearest to one vCPU."""
    away = np.abs(grid.memory_mb - grid.costing.world.cpu.memory_per_vcpu)
    return np.where(grid.allowed, away, np.inf).argmin(axis=1)


def budgeted(key: CaseKey) -> Case:
    """The case, its budget a multiple of the cheapest with which a count at about one vCPU finishes."""
    case = Case(key, ChoiceCache())
    grid, runs = case.scouted.grid, case.scouted.runs()
    needed_usd = np.median(np.stack([run.needed_usd for run in runs]), axis=0)
    cheapest_usd = float(needed_usd[np.arange(len(grid.functions)), usual_sizes(grid)].min())
    ratio = Decimal(repr(key.budget_ratio))
    case.budget_usd = (ratio * Decimal(repr(cheapest_usd))).quantize(Decimal("1e-9"), rounding=ROUND_UP)
    return case


def grid_search(case: Case) -> Grid:
    """Every count of the ladder at about one vCPU, in whole runs on `seeds.select_seeds`."""
    arena = Arena(case.simulated)
    sizes = usual_sizes(arena.grid)
    levels = [k for k in range(len(sizes)) if arena.grid.allowed[k].any()]
    places = [Place(k, int(sizes[k])) for k in levels]
    outcomes = arena.play([Schedule.fixed(place) for place in places], seeds.select_seeds())
    best = ranked([Trials(o.success, o.elapsed_s, o.cost_usd) for o in outcomes])[0]
    memory = arena.grid.memory_mb[sizes[levels]].astype(float)
    return Grid(arena.grid.functions[levels].astype(float), memory, outcomes, best)


# --- episodes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Played:
    """A case with its grid search and the episodes of every policy."""

    key: CaseKey
    grid: Grid
    episodes: dict[str, list[Episode]]


def play_case(key: CaseKey, report: Iterable[int]) -> Played:
    """Every policy on the seeds that report."""
    case = budgeted(key)
    grid = grid_search(case)
    reference = grid.reference
    agents = {TOLD: AgentPolicy.load(DEFAULT_AGENT, reference), ALONE: AgentPolicy.load(DEFAULT_AGENT)}
    played = {GRID: [case.episode(FixedPolicy(reference.action), seed) for seed in report]}
    played[PAYING] = [play_grid_search(case, seed) for seed in report]
    for name, agent in agents.items():
        policy = Safeguard(agent, Safety())
        played[name] = [case.episode(policy, seed) for seed in report]
    return Played(key, grid, played)


def measured(played: Played, policy: str) -> JobEpisodes:
    """The episodes of a policy, measured by those of the grid search's choice."""
    unit_s = played.grid.reference.duration_s
    return job_episodes(played.episodes[policy], played.episodes[GRID], unit_s, FAILURE * unit_s)


def table_rows(every: Sequence[Played]) -> list[dict[str, Any]]:
    """One row for each policy at each budget; ratios are to the grid search's choice on the same seeds."""
    rows = []
    for budget in dict.fromkeys(p.key.budget_ratio for p in every):
        cases = [p for p in every if p.key.budget_ratio == budget]
        for policy in NAMES:
            found = summarise([measured(p, policy) for p in cases])
            wins = sum(job_ratio(p, policy) < 1 for p in cases)
            rows.append(
                {"budget_ratio": budget, "policy": policy, "jobs": len(cases), "faster_on": wins, **found}
            )
    return rows


def job_ratio(played: Played, policy: str) -> float:
    """Counted time of a policy over the grid's on one job."""
    episodes = measured(played, policy)
    return episodes.ratios(np.arange(len(episodes.success)))[1]


# --- the agent's training ---------------------------------------------------------------------------


def shipped_curve() -> dict[str, Floats]:
    """The evaluations of the shipped agent's training, by column."""
    table = np.genfromtxt(agent_folder(DEFAULT_AGENT) / EVALUATIONS, delimiter=",", names=True)
    return {name: table[name] for name in table.dtype.names}


# --- the figure --------------------------------------------------------------------------------------


def figure(every: Sequence[Played], shipped: dict[str, Floats], path: Path) -> None:
    """One job's grid, all jobs, the training curve."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with styled_figure(path, (17.0, 6.2)) as drawn:
        cells = drawn.add_gridspec(1, 3, left=0.055, right=0.985, top=0.83, bottom=0.125, wspace=0.22)
        one, jobs, curve = (drawn.add_subplot(cell) for cell in cells)
        drawn.suptitle(
            "The agent against a grid search over functions, simulated", x=0.055, ha="left", size=17
        )
        _draw_grid(one, every[0])
        _draw_jobs(jobs, every)
        _draw_curve(curve, shipped)


def _draw_grid(axes, played: Played) -> None:
    grid = played.grid
    reached = np.array([o.success_rate for o in grid.outcomes])
    times = np.array([o.time_s for o in grid.outcomes])
    marks = (
        (reached == 1, {"markerfacecolor": BLUE}, "always in time"),
        ((reached > 0) & (reached < 1), {"markerfacecolor": "white"}, "at times (mean of those)"),
    )
    for mask, face, label in marks:
        axes.plot(grid.functions[mask], times[mask], "o", color=BLUE, label=label, **face)
    never = grid.functions[reached == 0]
    axes.plot(never, np.full(len(never), times.min() / 2), "x", color=BLUE, label="never within the budget")
    told_s = np.mean(_counted(played, TOLD))
    axes.axhline(told_s, color=RED)
    axes.annotate(
        "agent, told the best count", (0.02, told_s), xycoords=("axes fraction", "data"), xytext=(0, 5),
        textcoords="offset points", color=RED,
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="functions of every epoch", title="One job: every count")
    axes.set_ylabel("seconds to the target (log)")
    plain_log(axes.xaxis, (1.0,))
    plain_log(axes.yaxis)
    low, high = axes.get_ylim()
    axes.set_ylim(low, 4 * high)  # room for the legend
    axes.legend(loc="upper right", handlelength=1)


def _counted(played: Played, policy: str) -> Floats:
    found = measured(played, policy)
    return np.where(found.success, found.time_s, found.failure_s)


def _draw_jobs(axes, every: Sequence[Played]) -> None:
    budget = every[0].key.budget_ratio
    cases = [p for p in every if p.key.budget_ratio == budget]
    cases.sort(key=lambda p: job_ratio(p, TOLD))
    at = np.arange(1, len(cases) + 1)
    for policy, colour, marker in ((PAYING, ORANGE, "s"), (ALONE, GREEN, "^"), (TOLD, RED, "o")):
        ratios = [job_ratio(p, policy) for p in cases]
        axes.plot(at, ratios, marker, color=colour, label=NAMES[policy], markersize=7)
    axes.axhline(1, color=BLUE)
    axes.annotate("grid search's choice", (0.99, 1), xycoords=("axes fraction", "data"), xytext=(0, -6),
                  textcoords="offset points", ha="right", va="top", color=BLUE)  # fmt: skip
    axes.set_xticks(at[::3] if len(at) > 6 else at)
    axes.set(yscale="log", xlabel="jobs, sorted", title=f"All jobs at {budget:g} x the cheapest budget")
    axes.set_ylabel("time over the grid search's choice (log)")
    plain_log(axes.yaxis)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0.45), max(high, 2.0) * 2.2)
    axes.legend(loc="upper left", handlelength=1)


def _draw_curve(axes, shipped: dict[str, Floats]) -> None:
    steps = shipped["steps"]
    axes.plot(steps, shipped["speedup"], color=RED, label=f"{DEFAULT_AGENT}, as shipped")
    axes.fill_between(steps, shipped["low"], shipped["high"], color=RED, alpha=0.15, linewidth=0)
    axes.axhline(1, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
    axes.annotate("reference action", (0.99, 1), xycoords=("axes fraction", "data"), xytext=(0, -5),
                  textcoords="offset points", ha="right", va="top", color=INK)  # fmt: skip
    axes.set(xlabel="simulated epochs learned from", title="Training")
    axes.set_xscale("symlog", linthresh=50_000)
    ticks = [0, 100_000, 1_000_000, 10_000_000]
    axes.set_xticks(ticks, ["0", "100k", "1M", "10M"])
    axes.set_xlim(0, 1.5 * float(steps.max()))
    axes.minorticks_off()
    axes.set_ylabel("speed-up over the reference, validation jobs")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.02))


# --- the page ----------------------------------------------------------------------------------------

HEAD = ("budget", "policy", "success", "time over the grid's", "faster on", "mean bill")
PAGE = """# Siren's simulation: the agent against a grid search

Written by `python experiments/siren_simulation.py{flags}` at commit {commit}; jobs 0-{last_job} of
`{family}` (seeds `[{jobs_seed}, k]`, never trained on), report seeds {first}-{last}, choices on {select}
other seeds.

**Question.** Siren's slides compare a learned scheduler with a grid search over the number of functions in
a simulation of mini-batch SGD, and show its training; they give no number in text. How does the agent that
ships here compare?

**Method.** The simulator with the laws and prices of `{world}`. The grid search plays every count of the
ladder in whole runs at the memory size of one vCPU and keeps the fastest, a failure counted as twice; the
search itself is free, which no user can have. A grid search that runs one epoch of each count first, pays
for it and waits for the longest stands beside it. The agent (`{agent}`) picks functions and memory before
every epoch; it needs a reference action, and is told the grid's choice, or nothing. Ratios are those of
counted mean times on the same seeds, geometric means over jobs, with 95% bootstrap intervals over jobs.
Budgets are multiples of the cheapest with which a fixed count at one vCPU is expected to finish.

{table}
![One job, all jobs, training](results/siren_simulation/figure.png)

**What it shows.** {shows}

**Training.** {training}

**Threats.** Simulated, not real, training: on real SGD the agent gains less without a rehearsal (README of
this folder). The family was made by us; the slides' jobs are unknown. The grid search knows n alone, as
theirs; a search over memory as well is `best-fixed` in `siren.evaluate`.
"""


def page(config: SimulationConfig, rows: Sequence[dict[str, Any]], shipped: dict[str, Floats]) -> str:
    """The whole page."""
    report = seeds.report_seeds(config.seeds)
    return PAGE.format(
        flags=" --fast" if config.fast else "", commit=commit(), last_job=config.jobs - 1,
        family=FAMILIES[SIMULATOR], jobs_seed=seeds.JOBS, first=report[0], last=report[-1],
        select=seeds.SELECT_COUNT, world=WORLD, agent=DEFAULT_AGENT,
        table=markdown(HEAD, [_told(r) for r in rows]),
        shows=shows(rows), training=training(shipped),
    )  # fmt: skip


def _told(row: dict[str, Any]) -> tuple[str, ...]:
    ratio = _ratio(row)
    name = NAMES[row["policy"]]
    wins = "" if row["policy"] == GRID else f"{row['faster_on']} of {row['jobs']} jobs"
    return (
        f"{row['budget_ratio']:g}",
        name,
        f"{row['success_rate']:.1%}",
        ratio,
        wins,
        _format.dollars(row["cost_usd"]),
    )


def _ratio(row: dict[str, Any]) -> str:
    name = "ratio_to_best_fixed"
    return told((row[name], row[f"{name}_low"], row[f"{name}_high"]), lambda x: f"{x:.2f}")


def shows(rows: Sequence[dict[str, Any]]) -> str:
    """The findings, from the numbers."""
    lines = []
    for row in rows:
        if row["policy"] != TOLD:
            continue
        low, high = row["ratio_to_best_fixed_low"], row["ratio_to_best_fixed_high"]
        word = "faster than" if high < 1 else "slower than" if low > 1 else "not clearly different from"
        lines.append(
            f"At {row['budget_ratio']:g} times the cheapest budget the agent that is told the grid's choice "
            f"is {word} it: "
            f"{_ratio(row)} of its time, faster on {row['faster_on']} of {row['jobs']} jobs, success "
            f"{row['success_rate']:.1%}."
        )
    paying = "; ".join(f"{_ratio(r)} at {r['budget_ratio']:g}" for r in rows if r["policy"] == PAYING)
    alone = "; ".join(f"{_ratio(r)} at {r['budget_ratio']:g}" for r in rows if r["policy"] == ALONE)
    lines.append(f"A search that pays takes {paying}; the agent that is told nothing {alone}.")
    return " ".join(lines)


def training(shipped: dict[str, Floats]) -> str:
    """What the training curve says."""
    usable = shipped["success"] >= shipped["reference_success"]
    best = int(np.where(usable, shipped["speedup"], 0.0).argmax())  # what training keeps: `Evaluation.merit`
    speedup, low, high, steps = (shipped[name][best] for name in ("speedup", "low", "high", "steps"))
    return (
        f"The curve is that of `{DEFAULT_AGENT}` as it ships, by `python -m siren.train_agent --recipe "
        f"{DEFAULT_AGENT}`, seed 0; its card has the commit. It starts at the reference action, and was "
        f"{speedup:.3f} [{low:.3f}, {high:.3f}] times as fast on its validation jobs after {int(steps):,} "
        "simulated epochs; the card has the test jobs."
    )


def csv_rows(every: Sequence[Played], report: Sequence[int]) -> list[dict[str, Any]]:
    """Every episode."""
    return [
        {"job": p.key.job.index, "budget_ratio": p.key.budget_ratio, "policy": policy, "seed": seed,
         "grid_functions": int(p.grid.reference.functions), "success": e.success, "seconds": e.duration_s,
         "dollars": float(e.cost_usd), "epochs": len(e.records)}
        for p in every
        for policy, episodes in p.episodes.items()
        for seed, e in zip(report, episodes, strict=True)
    ]  # fmt: skip


def main(config: SimulationConfig) -> int:
    """Plays, writes, prints the table."""
    commit()  # others may commit while this runs
    if config.fast:
        config = SimulationConfig(
            fast=True,
            jobs=2,
            seeds=2,
            budgets=(1.5,),
            page=config.page,
            out=config.out,
        )
    report = seeds.report_seeds(config.seeds)
    with threadpool_limits(1):
        every = [
            play_case(key_of(k, budget), report) for budget in config.budgets for k in range(config.jobs)
        ]
    rows, shipped = table_rows(every), shipped_curve()
    write_rows(config.out / "episodes.csv", csv_rows(every, report))
    figure(every, shipped, config.out / "figure.png")
    config.page.parent.mkdir(parents=True, exist_ok=True)
    config.page.write_text(wrapped(page(config, rows, shipped)), encoding="utf-8")
    sys.stdout.write(markdown(HEAD, [_told(row) for row in rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(SimulationConfig)))
