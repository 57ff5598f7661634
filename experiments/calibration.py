"""Whether the bands of `siren.plan` hold 80% of runs: `python experiments/calibration.py`, about 20 minutes.

Generated jobs of `small-2026`, each with the budget that the family draws (1.1 to 3 times what the cheapest
fixed action needs), are rehearsed in this process for `--seconds` of its processor's time. What was chosen
plays `--episodes` runs on the prediction's seeds, as `siren.plan` does; then `--runs` runs on seeds that
nothing has seen. A time counts where the run reached its target, dollars always. Coverage is the share of
outcomes inside their band, with a 95% bootstrap interval over jobs. Beside the band stand two that
`siren.plan` does not use: plain percentiles of the same episodes, and those of the rehearsal's own selection.
Writes the runs to experiments/results/calibration/runs.csv.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import ROUND_UP, Decimal
from pathlib import Path

import numpy as np
import tyro
from threadpoolctl import threadpool_limits

from siren.errors import BudgetError
from siren.planning.bands import HIGH, LOW, Band
from siren.planning.prediction import Prediction, play_fresh, prediction_of
from siren.rehearsal.rehearse import rehearse
from siren.rehearsal.stage import Stage, Trial
from siren.simulator.scenarios import load_sgd_scenario
from siren.simulator.twin_jobs import family_job
from siren.workloads.workload import Workload

FAMILY = "small-2026"
JOBS = 20_261_123
"""Begins the seed of every job: a stream of its own, not that of `siren.evaluation.seeds`."""

HELD_OUT = 1000
"""Jobs from here on played no part while the bands were made; those before were looked at."""

RUN_SEED = 50_000_000
"""Seeds of the runs that are predicted: this, plus 1,000 for every job."""

RESAMPLES = 2000
COVERAGES = {
    "time_held": "time",
    "cost_held": "dollars",
    "time_held_by_percentiles": "time, by plain percentiles of the same runs",
    "cost_held_by_percentiles": "dollars, by plain percentiles",
    "time_held_by_selection": "time, by the rehearsal's own percentiles",
}


@dataclass(frozen=True)
class Row:
    """One predicted run: its outcome, its bands, and whether they held it; None where that does not apply."""

    job: int
    budget_usd: str
    policy: str
    episodes: int
    selection_episodes: int
    seed: int
    success: bool
    chance: float
    duration_s: float
    cost_usd: float
    time_low_s: float | None
    time_high_s: float | None
    cost_low_usd: float | None
    cost_high_usd: float | None
    time_held: bool | None
    cost_held: bool | None
    time_held_by_percentiles: bool | None
    cost_held_by_percentiles: bool | None
    time_held_by_selection: bool | None


@dataclass(frozen=True)
class CalibrationConfig:
    """Measure whether the bands of siren.plan hold 80% of runs."""

    jobs: int = 50
    """Jobs."""

    first: int = HELD_OUT
    """Number of the first job."""

    runs: int = 5
    """Predicted runs of each."""

    seconds: float = 8.0
    """Seconds of a rehearsal, of this process's time."""

    episodes: int = 40
    """Episodes that a band is made of."""

    world: str = "aws-2026"
    """The world."""

    out: Path | None = Path("experiments/results/calibration/runs.csv")
    """Where the runs go."""


def percentiles(values: Sequence[float]) -> Band | None:
    """What one might take for a band."""
    if not values:
        return None
    low, high = np.quantile(values, (LOW, HIGH)).tolist()
    return Band(float(np.mean(values)), low, high, len(values))


def budgeted(index: int, world: str, clock: Callable[[], float]) -> tuple[Stage, Decimal]:
    """A generated job with its target, and its budget."""
    made = family_job(load_sgd_scenario(FAMILY), np.random.default_rng([JOBS, index]), world)
    workload = made.twin.workload
    training = workload.spec.training.model_copy(update={"target_loss": made.spec.target_loss})
    spec = workload.spec.model_copy(update={"training": training})
    workload = Workload(workload.name, spec, workload.model, workload.dataset, workload.folder)
    budget = Decimal(repr(made.spec.budget_usd)).quantize(Decimal("1e-6"), rounding=ROUND_UP)
    return Stage(workload, made.spec.costing, clock=clock), budget


def job_rows(config: CalibrationConfig, index: int) -> list[Row]:
    """The predicted runs of a job.

    Raises:
        BudgetError: The rehearsal found no way to the target.
    """
    stage, budget = budgeted(index, config.world, time.process_time)
    found = rehearse(stage, None, budget, config.seconds)
    choice = found.choice
    trials = [stage.trial(choice, budget, found.target_loss, seed) for seed in _seeds(index, config.runs)]
    played = play_fresh(
        stage, None, [choice], budget, found.target_loss, 10 * config.seconds, episodes=config.episodes
    )
    prediction = prediction_of(choice.name, played)
    own = next(s for s in found.standings if s.candidate == choice)
    bands = {
        "time_held": prediction.time_s,
        "time_held_by_percentiles": percentiles([t.duration_s for t in played if t.success]),
        "time_held_by_selection": Band(0.0, own.low_s, own.high_s, own.successes),
        "cost_held": prediction.cost_usd,
        "cost_held_by_percentiles": percentiles([t.cost_usd for t in played]),
    }
    return [_row(index, budget, prediction, own.episodes, trial, bands) for trial in trials]


def _seeds(index: int, runs: int) -> range:
    first = RUN_SEED + 1000 * index
    return range(first, first + runs)


def _row(
    index: int, budget: Decimal, told: Prediction, selection: int, trial: Trial, bands: dict[str, Band | None]
) -> Row:
    time_s, cost_usd = told.time_s or Band(0.0, None, None, 0), told.cost_usd
    held = {name: _held(name, band, trial) for name, band in bands.items()}
    return Row(
        job=index,
        budget_usd=str(budget),
        policy=told.policy,
        episodes=told.episodes,
        selection_episodes=selection,
        seed=trial.seed,
        success=trial.success,
        chance=told.chance.mean,
        duration_s=trial.duration_s,
        cost_usd=trial.cost_usd,
        time_low_s=time_s.low,
        time_high_s=time_s.high,
        cost_low_usd=cost_usd.low,
        cost_high_usd=cost_usd.high,
        **held,
    )


def _held(name: str, band: Band | None, trial: Trial) -> bool | None:
    """Whether a band held a run; None where there is no band, or no time to the target."""
    if band is None or band.low is None or (name.startswith("time") and not trial.success):
        return None
    return band.holds(trial.duration_s if name.startswith("time") else trial.cost_usd)


def coverage(rows: Sequence[Row], name: str) -> tuple[float, float, float, int]:
    """(share of outcomes held, 95% interval over jobs, outcomes)."""
    by_job = {row.job: [] for row in rows}
    for row in rows:
        if getattr(row, name) is not None:
            by_job[row.job].append(bool(getattr(row, name)))
    jobs = [np.array(held, np.float64) for held in by_job.values() if held]
    drawn = np.random.default_rng(0).integers(len(jobs), size=(RESAMPLES, len(jobs)))
    sums, counts = np.array([held.sum() for held in jobs]), np.array([len(held) for held in jobs])
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (0.025, 0.975))
    return float(sums.sum() / counts.sum()), float(low), float(high), int(counts.sum())


def chance_table(rows: Sequence[Row]) -> str:
    """Told chance of reaching the target against how often it was, summed over the runs."""
    told, reached = sum(row.chance for row in rows), sum(row.success for row in rows)
    return f"chance of the target: told {told / len(rows):.1%}, reached {reached / len(rows):.1%}"


def write(rows: Sequence[Row], path: Path) -> None:
    """The runs as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        table.writeheader()
        table.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()} for row in rows
        )


def main(config: CalibrationConfig) -> int:
    """Measures, writes, prints; 1 if a band of siren.plan is off by more than 8 points."""
    rows: list[Row] = []
    with threadpool_limits(1):
        for index in range(config.first, config.first + config.jobs):
            try:
                rows += job_rows(config, index)
            except BudgetError as error:
                print(f"job {index} is left out: {error}", file=sys.stderr)
                continue
            last = rows[-1]
            print(f"job {index}: {last.policy}, {last.episodes} episodes", file=sys.stderr)
            if config.out:
                write(rows, config.out)
    print(f"{len(rows)} runs of {len({row.job for row in rows})} jobs; {chance_table(rows)}")
    print("\n| band of | outcomes | held |\n|---|---|---|")
    for name, title in COVERAGES.items():
        share, low, high, count = coverage(rows, name)
        print(f"| {title} | {count} | {share:.1%} [{low:.1%}, {high:.1%}] |")
    return int(any(abs(coverage(rows, name)[0] - 0.8) > 0.08 for name in ("time_held", "cost_held")))


if __name__ == "__main__":
    sys.exit(main(tyro.cli(CalibrationConfig)))
