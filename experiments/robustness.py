"""What remains of a rehearsal's gain where the truth is not what was rehearsed, and what m gives.

    nice -n 5 python experiments/robustness.py          # about 15 minutes of one core
    nice -n 5 python experiments/robustness.py --fast   # some seconds: a look, nothing to quote

Each job is rehearsed in the undisturbed world with exact losses. What was chosen then plays a disturbed
truth with the same dollars, against the fixed action that was best in the undisturbed world, and the fixed
action that is best in the disturbed one in hindsight. Every cell is a line of results/robustness/cells.csv
as soon as it is done, and the same command goes on where a run was killed. Writes
experiments/robustness.md and a figure.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from threadpoolctl import threadpool_limits

from experiments._disturbed import DISTURBANCES, NONE, ONE_SIZE, Disturbance, DisturbedCase
from experiments._pages import (
    EXPERIMENTS,
    RESULTS,
    append_rows,
    commit,
    wrapped,
)
from experiments._robustness_page import figure, page
from experiments._robustness_tables import (
    HINDSIGHT,
    MOVED,
    PLANNED,
    REHEARSED,
    SPLIT_FAMILY,
    WORLD,
    read_cells,
)
from siren.evaluation import seeds
from siren.evaluation.baseline import Baseline
from siren.evaluation.cache import ChoiceCache
from siren.evaluation.case import Case, CaseKey
from siren.evaluation.jobs import TWIN, JobKey
from siren.policies import FixedPolicy, Policy, Safeguard, Safety
from siren.rehearsal.entrant import rehearsed_case

FLOOR_BUDGET, GENERATED_BUDGET = 1.2, 1.5
"""Times the cheapest with which a fixed action is expected to finish."""


@dataclass(frozen=True)
class RobustnessConfig:
    """Measure what disturbances leave of a rehearsal's gain."""

    fast: bool = False
    """One job, three seeds, two disturbances, in a folder of its own: a look, nothing to quote."""

    workloads: tuple[str, ...] = ("softmax", "higgs")
    """Folders of experiments/floor."""

    first_job: int = 300
    """Number of the first generated job."""

    jobs: int = 8
    """Generated jobs."""

    seeds: int = 24
    """Report seeds."""

    seconds: float = 15.0
    """Seconds of one core's time of each rehearsal."""

    page: Path = EXPERIMENTS / "robustness.md"
    """The page."""

    out: Path = RESULTS / "robustness"
    """Folder for the CSV and the figure."""


def keys_of(config: RobustnessConfig) -> dict[str, CaseKey]:
    """The jobs with their budgets, by name."""
    found = {}
    for name in config.workloads:
        folder = str(EXPERIMENTS / "floor" / name)
        found[name] = CaseKey(JobKey(TWIN, folder, WORLD, None, None, 0, generated=False), FLOOR_BUDGET)
    for k in range(config.first_job, config.first_job + config.jobs):
        key = JobKey(TWIN, SPLIT_FAMILY, WORLD, "split", None, k, generated=True)
        found[f"{SPLIT_FAMILY}:{k}"] = CaseKey(key, GENERATED_BUDGET)
    return found


def truths(fast: bool) -> tuple[Disturbance, ...]:
    """The disturbances, then the ablation."""
    return (*DISTURBANCES[:2], ONE_SIZE) if fast else (*DISTURBANCES, ONE_SIZE)


# --- cells -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """Who plays what: a policy with its name, and the yardstick of its truth."""

    policy: str
    choice: str
    plays: Policy
    best: Baseline


def cells_of(planned: Case, case: DisturbedCase, truth: Disturbance, seconds: float) -> Iterator[Cell]:
    """The policies of a truth, each chosen when its turn comes."""
    fixed = planned.baseline
    rehearsal = rehearsed_case(case if truth.known else planned, seconds)
    also = [rehearsal.reference.action] if truth.known else []
    best = fixed if truth is NONE else case.hindsight(fixed, also)
    yield Cell(REHEARSED, rehearsal.choice.name, Safeguard(rehearsal.choice.policy(), Safety()), best)
    if not truth.known:
        yield Cell(PLANNED, str(fixed.action), FixedPolicy(fixed.action), best)
    if truth is NONE:
        moved = rehearsed_case(DisturbedCase(planned, ONE_SIZE), seconds).choice
        yield Cell(MOVED, moved.name, Safeguard(moved.policy(), Safety()), best)
    else:
        yield Cell(HINDSIGHT, str(best.action), FixedPolicy(best.action), best)


def played(name: str, case: DisturbedCase, truth: Disturbance, cell: Cell, count: int) -> dict[str, Any]:
    """A cell on the report seeds, as a row: what differs between seeds is listed in one field."""
    training = case.job.training
    episodes, off = [], []
    for seed in seeds.report_seeds(count):
        episode, exact_loss = case.played(cell.plays, seed)
        initial = case.job.workload.evaluate(case.job.workload.init(seed))[0]
        episodes.append(episode)
        off.append((exact_loss - training.target_loss) / (initial - training.target_loss))
    return {
        "job": name,
        "budget_ratio": case.key.budget_ratio,
        "budget_usd": str(case.budget_usd),
        "truth": truth.name,
        "policy": cell.policy,
        "choice": cell.choice,
        "best_fixed": str(cell.best.action),
        "best_fixed_success": cell.best.success_rate,
        "best_fixed_s": cell.best.time_s,
        "failure_s": cell.best.failure_s,
        "success": _listed(float(e.success) for e in episodes),
        "time_s": _listed(e.duration_s for e in episodes),
        "cost_usd": _listed(float(e.cost_usd) for e in episodes),
        "overspent_usd": _listed(float(e.overspent_usd) for e in episodes),
        "exact_off_target": _listed(off),
    }


def _listed(numbers: Iterator[float] | list[float]) -> str:
    return " ".join(f"{x:.5g}" for x in numbers)


def measure(config: RobustnessConfig, path: Path) -> None:
    """Every cell that the CSV does not hold yet."""
    done = {(row["job"], row["truth"], row["policy"]) for row in _rows(path)}
    cache, spent_s = ChoiceCache(), time.process_time()
    for name, key in keys_of(config).items():
        left = [truth for truth in truths(config.fast) if not _is_done(name, truth, done)]
        planned = Case(key, cache) if left else None
        for truth in left:
            case = DisturbedCase(planned, truth)
            for cell in cells_of(planned, case, truth, config.seconds):
                if (name, truth.name, cell.policy) in done:
                    continue
                row = played(name, case, truth, cell, config.seeds)
                now_s = time.process_time()
                append_rows(path, [{**row, "cpu_s": round(now_s - spent_s, 2), "commit": commit()}])
                sys.stderr.write(
                    f"{name} {truth.name} {cell.policy} {cell.choice}: {now_s - spent_s:.1f} s\n"
                )
                spent_s = now_s


def _is_done(name: str, truth: Disturbance, done: set[tuple[str, str, str]]) -> bool:
    wanted = REHEARSED, MOVED if truth is NONE else HINDSIGHT
    return all((name, truth.name, policy) in done for policy in wanted)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _flags(config: RobustnessConfig) -> str:
    """What the command was given, beside folders."""
    if config.fast:
        return " --fast"
    given = {name: getattr(config, name) for name in ("first_job", "jobs", "seeds", "seconds")}
    changed = {name: value for name, value in given.items() if value != getattr(RobustnessConfig, name)}
    return "".join(f" --{name.replace('_', '-')} {value:g}" for name, value in changed.items())


def main(config: RobustnessConfig) -> int:
    """Measures what is missing, writes the page."""
    commit()  # others may commit while this runs
    if config.fast:
        folder = Path(tempfile.gettempdir()) / "siren-robustness-fast"
        kept = config.out == RobustnessConfig.out
        config = RobustnessConfig(
            fast=True,
            workloads=(),
            first_job=390,
            jobs=1,
            seeds=3,
            seconds=1.0,
            page=folder / "robustness.md" if kept else config.page,
            out=folder if kept else config.out,
        )
    config.out.mkdir(parents=True, exist_ok=True)
    path = config.out / "cells.csv"
    if config.fast:
        path.unlink(missing_ok=True)
    with threadpool_limits(1):
        measure(config, path)
    cells = read_cells(path)
    figure(cells, config.out / "figure.png")
    config.page.parent.mkdir(parents=True, exist_ok=True)
    config.page.write_text(
        wrapped(page(cells, flags=_flags(config), seconds=config.seconds)), encoding="utf-8"
    )
    sys.stdout.write(f"{config.page}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(RobustnessConfig)))
