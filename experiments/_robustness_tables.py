"""The tables of `experiments/robustness.py`, from its CSV alone."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments._disturbed import (
    DISTURBANCES,
    NOISY,
    ONE_SIZE,
    ONE_VCPU_MB,
)
from experiments._pages import Floats, Interval, interval, told
from siren.evaluation.statistics import JobEpisodes, summarise

Flags = NDArray[np.bool_]

REHEARSED, PLANNED, HINDSIGHT, MOVED = "rehearsed", "planned", "hindsight", "moved"
"""The rehearsed policy; the best fixed action of the undisturbed world; that of the truth; what was rehearsed
at one memory size."""

WORLD, SPLIT_FAMILY = "aws-2026", "noisy-2026"

TOLERANCE = 0.05
"""An exact loss above the target by at most this share of the gap at the start counts as at the target."""

KEPT = 0.02
"""Success within so much counts as kept."""

UNDISTURBED = "none"


@dataclass(frozen=True)
class CellRow:
    """A policy on a job in a truth; arrays are (seeds,).

    Attributes:
        job, truth, policy, choice, best_fixed: Names.
        unit_s, failure_s: Mean time of the truth's best fixed action, and what a failure counts as.
        success, time_s, cost_usd, overspent_usd: Of every episode.
        off: Exact loss at the end over the target, per gap at the start.
        budget_usd, cpu_s, commit: As written.
    """

    job: str
    truth: str
    policy: str
    choice: str
    best_fixed: str
    unit_s: float
    failure_s: float
    success: Flags
    time_s: Floats
    cost_usd: Floats
    overspent_usd: Floats
    off: Floats
    budget_usd: str
    cpu_s: float
    commit: str

    @property
    def group(self) -> str:
        """The jobs that it is reported with."""
        return self.job.partition(":")[0]

    def counted_s(self, failure_s: float | None = None) -> float:
        """Mean time, a failure counted as that."""
        return float(np.where(self.success, self.time_s, failure_s or self.failure_s).mean())


def read_cells(path: Path) -> list[CellRow]:
    """What the CSV holds of jobs that are done."""
    with path.open(newline="", encoding="utf-8") as file:
        cells = [_cell(row) for row in csv.DictReader(file)]
    done = {c.job for c in cells if (c.truth, c.policy) == (ONE_SIZE.name, HINDSIGHT)}  # the last of a job
    return [c for c in cells if c.job in done]


def _cell(row: dict[str, str]) -> CellRow:
    def numbers(name: str) -> Floats:
        return np.array(row[name].split(), np.float64)

    return CellRow(
        job=row["job"],
        truth=row["truth"],
        policy=row["policy"],
        choice=row["choice"],
        best_fixed=row["best_fixed"],
        unit_s=float(row["best_fixed_s"]),
        failure_s=float(row["failure_s"]),
        success=numbers("success") > 0,
        time_s=numbers("time_s"),
        cost_usd=numbers("cost_usd"),
        overspent_usd=numbers("overspent_usd"),
        off=numbers("exact_off_target"),
        budget_usd=row["budget_usd"],
        cpu_s=float(row["cpu_s"]),
        commit=row["commit"],
    )


class Table:
    """Cells by what they are; a truth's best fixed action without a row of its own is the planned one."""

    def __init__(self, cells: Sequence[CellRow]) -> None:
        self.cells = cells
        self._by = {(c.job, c.truth, c.policy): c for c in cells}
        self.groups = list(dict.fromkeys(c.group for c in cells))
        self.truths = [d for d in DISTURBANCES if any(c.truth == d.name for c in cells)]

    def jobs(self, group: str) -> list[str]:
        """The names of its jobs."""
        return list(dict.fromkeys(c.job for c in self.cells if c.group == group))

    def get(self, job: str, truth: str, policy: str) -> CellRow:
        """One cell."""
        found = self._by.get((job, truth, policy))
        return found or self._by[job, truth, PLANNED]

    def speed_up(self, group: str, truth: str, over: str, *, exact: bool = False) -> Interval:
        """How many times faster the rehearsed policies are than others on the same seeds."""
        jobs = [
            episodes(self.get(job, truth, REHEARSED), self.get(job, truth, over), exact=exact)
            for job in self.jobs(group)
        ]
        row = summarise(jobs)
        ratios = (row["ratio_to_best_fixed" + end] for end in ("", "_high", "_low"))
        mean, low, high = (1 / x for x in ratios)
        return mean, low, high

    def success(self, group: str, truth: str, policy: str, *, exact: bool = False) -> Flags:
        """Of every episode, job after job."""
        cells = [self.get(job, truth, policy) for job in self.jobs(group)]
        return np.concatenate([reached(c) if exact else c.success for c in cells])

    def difference(self, group: str, truth: str, other: tuple[str, str]) -> Interval:
        """Success of the rehearsed policies less that of others: (truth, policy), over jobs or seeds."""
        pairs = [(self.get(j, truth, REHEARSED), self.get(j, *other)) for j in self.jobs(group)]
        each = [ours.success.astype(float) - theirs.success for ours, theirs in pairs]
        return interval(each[0] if len(each) == 1 else [float(x.mean()) for x in each])


def reached(cell: CellRow) -> Flags:
    """Whether an episode ended at its target, and its exact loss is near enough."""
    return cell.success & (cell.off <= TOLERANCE)


def episodes(ours: CellRow, theirs: CellRow, *, exact: bool = False) -> JobEpisodes:
    """A cell measured by another on the same seeds."""
    return JobEpisodes(
        success=reached(ours) if exact else ours.success,
        time_s=ours.time_s,
        cost_usd=ours.cost_usd,
        overspent_usd=ours.overspent_usd,
        best_fixed_success=reached(theirs) if exact else theirs.success,
        best_fixed_time_s=theirs.time_s,
        unit_s=ours.unit_s,
        failure_s=ours.failure_s,
    )


def times(found: Interval) -> str:
    return told(found, lambda x: f"{x:.2f}")


def _points(found: Interval) -> str:
    return told(found, lambda x: f"{100 * x:+.1f}")


def _share(flags: Flags) -> str:
    return f"{flags.mean():.1%}"


# --- disturbances ------------------------------------------------------------------------------------


def remaining(undisturbed: Interval, disturbed: Interval) -> str:
    """What is left of the gain over the planned fixed action, where there clearly is one."""
    if undisturbed[1] <= 1:
        return "no clear gain"
    return f"{(disturbed[0] - 1) / (undisturbed[0] - 1):.0%}"


DISTURBED_HEAD = (
    "jobs",
    "disturbance",
    "success: rehearsed",
    "planned fixed",
    "best fixed in truth",
    "success over planned, points",
    "speed-up over planned",
    "speed-up over best in truth",
    "gain that remains",
)


def disturbed_rows(table: Table) -> list[list[str]]:
    """One row for each group of jobs in each truth."""
    rows = []
    for group in table.groups:
        before = table.speed_up(group, UNDISTURBED, PLANNED)
        for truth in table.truths:
            now = table.speed_up(group, truth.name, PLANNED)
            success = [
                _share(table.success(group, truth.name, policy)) for policy in (REHEARSED, PLANNED, HINDSIGHT)
            ]
            left = "" if truth.name == UNDISTURBED else remaining(before, now)
            points = _points(table.difference(group, truth.name, (truth.name, PLANNED)))
            best = times(table.speed_up(group, truth.name, HINDSIGHT))
            rows.append([named(table, group), truth.title, *success, points, times(now), best, left])
    return rows


def named(table: Table, group: str) -> str:
    jobs = table.jobs(group)
    if ":" not in jobs[0]:
        return f"`{group}`"
    numbers = [job.partition(":")[2] for job in jobs]
    return f"`{group}` {numbers[0]}-{numbers[-1]}" if len(jobs) > 1 else f"`{group}` {numbers[0]}"


NOISY_HEAD = (
    "jobs",
    "policy",
    "ended at the noisy target",
    "of these at the exact one",
    f"of these within {TOLERANCE:.0%} of the gap",
    "mean excess of these, share of the gap",
    "speed-up, only these count as reached",
)


def noisy_rows(table: Table) -> list[list[str]]:
    """What the exact loss was where a noisy one ended a run."""
    rows = []
    for group in table.groups:
        for policy in (REHEARSED, PLANNED, HINDSIGHT):
            cells = [table.get(job, NOISY.name, policy) for job in table.jobs(group)]
            ended = np.concatenate([c.success for c in cells])
            off = np.concatenate([c.off for c in cells])[ended]
            speed = (
                "" if policy == REHEARSED else times(table.speed_up(group, NOISY.name, policy, exact=True))
            )
            rows.append(
                [
                    named(table, group),
                    policy,
                    f"{ended.sum()} of {len(ended)}",
                    f"{(off <= 0).sum()}",
                    f"{(off <= TOLERANCE).sum()}",
                    f"{off.mean():+.1%}" if len(off) else "",
                    speed,
                ]
            )
    return rows


JOB_HEAD = ("job", "planned fixed", "rehearsal's choice", *(d.title for d in DISTURBANCES))


def job_rows(table: Table) -> list[list[str]]:
    """Speed-up over the planned fixed action, job by job."""
    rows = []
    for job in dict.fromkeys(c.job for c in table.cells):
        ours, planned = (table.get(job, UNDISTURBED, policy) for policy in (REHEARSED, PLANNED))
        cells = []
        for d in DISTURBANCES:
            if d not in table.truths:
                cells.append("")
                continue
            found = episodes(table.get(job, d.name, REHEARSED), table.get(job, d.name, PLANNED))
            speed = 1 / found.ratios(np.arange(len(found.success)))[1]
            cells.append(f"{speed:.2f} ({found.success.mean():.0%}, {found.best_fixed_success.mean():.0%})")
        rows.append([f"`{job}`", planned.choice, ours.choice, *cells])
    return rows


# --- memory ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """A job with and without the choice of m, at the same dollars.

    Attributes:
        job: Its name.
        one, free: (best fixed, rehearsed) at one size, and with all; there also what was rehearsed at one.
        seconds: Counted seconds of these five, in this order, a failure counted as twice the slower of the
            two best fixed actions' mean times.
    """

    job: str
    one: tuple[CellRow, CellRow]
    free: tuple[CellRow, CellRow, CellRow]
    seconds: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, float, float, float]:
        """What rehearsing gives at one size, and with all; what m gives fixed actions, and rehearsed ones."""
        fixed_one, rehearsed_one, fixed_free, rehearsed_free, _ = self.seconds
        return (
            fixed_one / rehearsed_one,
            fixed_free / rehearsed_free,
            fixed_one / fixed_free,
            rehearsed_one / rehearsed_free,
        )


def memories(table: Table) -> list[Memory]:
    """The ablation, job by job."""
    found = []
    for job in dict.fromkeys(c.job for c in table.cells if c.truth == ONE_SIZE.name):
        one = table.get(job, ONE_SIZE.name, HINDSIGHT), table.get(job, ONE_SIZE.name, REHEARSED)
        fixed, rehearsed, moved = (table.get(job, UNDISTURBED, p) for p in (PLANNED, REHEARSED, MOVED))
        free = fixed, rehearsed, moved
        failure_s = max(one[0].failure_s, free[0].failure_s)
        seconds = tuple(cell.counted_s(failure_s) for cell in (*one, *free))
        found.append(Memory(job, one, free, seconds))
    return found


ONE = f"{ONE_VCPU_MB:,} MB"
MEMORY_HEAD = (
    "job",
    f"best fixed, {ONE}",
    f"rehearsed, {ONE}",
    "best fixed, m free",
    "rehearsed, m free",
    f"rehearsed at {ONE}, played with m free",
    f"rehearsed over fixed, {ONE}",
    "rehearsed over fixed, m free",
    "m free over one size, fixed",
    "m free over one size, rehearsed",
)


def memory_rows(found: Sequence[Memory]) -> list[list[str]]:
    """Counted seconds and ratios; the last row has the geometric means over the generated jobs."""
    rows = []
    for m in found:
        cells = [
            f"{cell.choice}: {seconds:.1f} s ({cell.success.mean():.0%})"
            for cell, seconds in zip((*m.one, *m.free), m.seconds, strict=True)
        ]
        rows.append([f"`{m.job}`", *cells, *(f"{x:.2f}" for x in m.ratios)])
    generated = [m for m in found if ":" in m.job]
    if len(generated) > 1:
        rows.append(
            [
                "generated, geometric mean",
                *[""] * 5,
                *(times(geometric(generated, k)) for k in range(4)),
            ]
        )
    return rows


def geometric(found: Sequence[Memory], which: int) -> Interval:
    """Geometric mean over jobs of one of `Memory.ratios`, with its interval."""
    mean, low, high = interval([math.log(m.ratios[which]) for m in found])
    return math.exp(mean), math.exp(low), math.exp(high)
