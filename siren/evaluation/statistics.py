"""From episodes to rows: one row per cell, every ratio with a 95% interval.

A cell is a policy on a workload, in a world, under rules, at a budget ratio. For every job of it:

* counted time: the mean over seeds of the episode's time, a failure counted as twice the mean time of
  the successes of the best fixed action on the seeds that chose it (never the seeds reported);
* `failure_counted_ratio`: counted time over that mean time;
* `ratio_to_best_fixed`: counted time over the counted time of the best fixed action on the same seeds;
* `ratio_to_bound`: the mean over seeds of the episode's own time, plus for a failure what the bound was
  proved with, over the lower bound. In expectation it is never below 1.

All three are better the lower they are. A cell's ratio is the geometric mean over its jobs. The interval
is a percentile bootstrap over jobs (`RESAMPLES` resamples, always the same); where the cell is one job,
over its seeds. `success_rate` is the share of all episodes, with an interval of the same kind, `time_s`
the geometric mean over jobs of the mean time of successes, `cost_usd` the mean over all episodes, failures
included, and `overspent_usd` the sum over all episodes of what was billed beyond the budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

RESAMPLES = 2000
"""Bootstrap resamples."""

LEVEL = (2.5, 97.5)
"""Percentiles of the interval."""

RATIOS = ("failure_counted_ratio", "ratio_to_best_fixed", "ratio_to_bound")
"""Columns that are ratios of times."""

COLUMNS = (
    "policy",
    "workload",
    "world",
    "batch_rule",
    "update_rule",
    "budget_ratio",
    "seeds",
    "success_rate",
    "success_rate_low",
    "success_rate_high",
    "time_s",
    *(f"{ratio}{end}" for ratio in RATIOS for end in ("", "_low", "_high")),
    "cost_usd",
    "overspent_usd",
)
"""The keys of a row."""


@dataclass(frozen=True)
class JobEpisodes:
    """The episodes of one policy on one job; arrays are (seeds,), in the order of the seeds.

    Attributes:
        success: Whether the target was reached.
        time_s, cost_usd, overspent_usd: Of every episode.
        best_fixed_success, best_fixed_time_s: Of the best fixed action on the same seeds.
        unit_s: Mean time of the best fixed action's successes on the seeds that chose it.
        failure_s: What a failure counts as.
        bound_s, bound_failure_s: Lower bound, and what a failure counts as beside its time there; NaN if
            there is none.
    """

    success: Flags
    time_s: Floats
    cost_usd: Floats
    overspent_usd: Floats
    best_fixed_success: Flags
    best_fixed_time_s: Floats
    unit_s: float
    failure_s: float
    bound_s: float = math.nan
    bound_failure_s: float = math.nan

    def ratios(self, which: NDArray[np.int64]) -> tuple[float, float, float]:
        """`RATIOS` on those episodes."""
        success, time_s = self.success[which], self.time_s[which]
        counted_s = float(np.where(success, time_s, self.failure_s).mean())
        best = np.where(self.best_fixed_success[which], self.best_fixed_time_s[which], self.failure_s)
        bounded_s = float((time_s + np.where(success, 0.0, self.bound_failure_s)).mean())
        return counted_s / self.unit_s, counted_s / float(best.mean()), bounded_s / self.bound_s


def summarise(jobs: Sequence[JobEpisodes]) -> dict[str, Any]:
    """The numbers of a cell: `COLUMNS` from `seeds` on; None where there is no such number."""
    successes = [float(job.time_s[job.success].mean()) for job in jobs if job.success.any()]
    episodes = sum(len(job.success) for job in jobs)
    row: dict[str, Any] = {
        "seeds": len(jobs[0].success),
        "time_s": math.exp(float(np.log(successes).mean())) if successes else None,
        "cost_usd": sum(float(job.cost_usd.sum()) for job in jobs) / episodes,
        "overspent_usd": sum(float(job.overspent_usd.sum()) for job in jobs),
    }
    for name, value in zip(("success_rate", *RATIOS), _statistics(jobs, _every(jobs)), strict=True):
        row[name] = _number(value)
    low, high = _interval(jobs)
    for k, name in enumerate(("success_rate", *RATIOS)):
        row[f"{name}_low"], row[f"{name}_high"] = _number(low[k]), _number(high[k])
    return row


def _every(jobs: Sequence[JobEpisodes]) -> list[NDArray[np.int64]]:
    return [np.arange(len(job.success)) for job in jobs]


def _statistics(jobs: Sequence[JobEpisodes], which: Sequence[NDArray[np.int64]]) -> Floats:
    """(success rate, then the geometric means of `RATIOS`), (4,)."""
    return _combined(_table(jobs, which))


def _table(jobs: Sequence[JobEpisodes], which: Sequence[NDArray[np.int64]]) -> Floats:
    """(jobs, 4): success rate and logarithms of `RATIOS` of every job."""
    rows = []
    for job, episodes in zip(jobs, which, strict=True):
        with np.errstate(divide="ignore"):
            rows.append([job.success[episodes].mean(), *np.log(job.ratios(episodes))])
    return np.array(rows)


def _combined(table: Floats) -> Floats:
    mean = table.mean(axis=0)
    return np.concatenate([mean[:1], np.exp(mean[1:])])


def _interval(jobs: Sequence[JobEpisodes]) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(0)
    if len(jobs) > 1:
        table = _table(jobs, _every(jobs))
        drawn = rng.integers(len(jobs), size=(RESAMPLES, len(jobs)))
        samples = np.stack([_combined(table[rows]) for rows in drawn])
    else:
        seeds = len(jobs[0].success)
        drawn = rng.integers(seeds, size=(RESAMPLES, seeds))
        samples = np.stack([_statistics(jobs, [rows]) for rows in drawn])
    low, high = np.percentile(samples, LEVEL, axis=0)
    return low, high


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
