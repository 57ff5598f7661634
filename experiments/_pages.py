"""What experiments share: intervals, courses of runs, tables, CSVs, and where results lie."""

from __future__ import annotations

import csv
import functools
import subprocess
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.evaluation.episode import MAX_EPOCHS, Episode, play
from siren.evaluation.statistics import LEVEL, RESAMPLES, JobEpisodes
from siren.planning.machines import Convergence
from siren.platforms.twin import TwinPlatform
from siren.policies import Policy
from siren.units import SECONDS_PER_HOUR
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing
from siren.worlds.vm import Cluster, VmCosting

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = ROOT / "experiments"
RESULTS = EXPERIMENTS / "results"
CODE = ("siren", "envs", "workloads", "agents", ":(glob)experiments/*.py")
"""What numbers come from, for git."""

Floats = NDArray[np.float64]
Interval = tuple[float, float, float]
"""A number with the ends of its 95% interval."""


@functools.cache
def commit() -> str:
    """The commit that was checked out when this was first asked, and whether `CODE` differed from it."""
    found = _git("rev-parse", "--short", "HEAD")
    changed = found and _git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return (found or "unknown") + (" and changes to it" if changed else "")


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", "--no-optional-locks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def wrapped(text: str) -> str:
    """A page with its paragraphs filled; headings, tables and pictures stay as they are."""
    blocks = text.split("\n\n")
    kept = ("#", "|", "!", "    ")
    filled = [
        block
        if block.lstrip("\n").startswith(kept)
        else textwrap.fill(block, 118, break_long_words=False, break_on_hyphens=False)
        for block in blocks
    ]
    return "\n\n".join(filled).rstrip() + "\n"


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Rows of one set of columns as CSV; floats with six digits."""
    path.unlink(missing_ok=True)
    append_rows(path, rows)


def append_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Adds rows to a CSV, which gets its header with the first; see `write_rows`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if fresh:
            table.writeheader()
        table.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )


def job_episodes(
    own: Sequence[Episode], fixed: Sequence[Episode], unit_s: float, failure_s: float
) -> JobEpisodes:
    """Episodes of a policy measured by those of a fixed action on the same seeds."""
    return JobEpisodes(
        success=np.array([e.success for e in own]),
        time_s=np.array([e.duration_s for e in own]),
        cost_usd=np.array([float(e.cost_usd) for e in own]),
        overspent_usd=np.array([float(e.overspent_usd) for e in own]),
        best_fixed_success=np.array([e.success for e in fixed]),
        best_fixed_time_s=np.array([e.duration_s for e in fixed]),
        unit_s=unit_s,
        failure_s=failure_s,
    )


# --- intervals ---------------------------------------------------------------------------------------


def _means(values: Sequence[float], seed: int) -> Floats:
    sample = np.asarray(values, np.float64)
    return np.random.default_rng(seed).choice(sample, (RESAMPLES, len(sample))).mean(axis=1)


def interval(values: Sequence[float]) -> Interval:
    """Mean and its 95% percentile bootstrap interval over seeds."""
    low, high = np.percentile(_means(values, 0), LEVEL)
    return float(np.mean(values)), float(low), float(high)


def ratio(over: Sequence[float], under: Sequence[float]) -> Interval:
    """Ratio of two means and its interval; both are resampled, each by itself."""
    low, high = np.percentile(_means(over, 0) / _means(under, 1), LEVEL)
    return float(np.mean(over) / np.mean(under)), float(low), float(high)


def told(found: Interval, write: Callable[[float], str]) -> str:
    """An interval as text."""
    return f"{write(found[0])} [{write(found[1])}, {write(found[2])}]"


# --- courses -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Course:
    """How one run went; arrays are (epochs + 1,), before the first epoch and after every one.

    Attributes:
        seconds: On the virtual clock, starts included.
        dollars: Billed until then; the first hour of a cache from the beginning.
        losses: Held-out.
        reached: Whether it ended at its target.
        cache_usd: What of the dollars was the cache node's.
    """

    seconds: Floats
    dollars: Floats
    losses: Floats
    reached: bool
    cache_usd: float = 0.0

    @property
    def duration_s(self) -> float:
        """Its whole time."""
        return float(self.seconds[-1])

    @property
    def cost_usd(self) -> float:
        """Its whole bill."""
        return float(self.dollars[-1])


def played(
    workload: Workload,
    costing: Costing,
    policy: Policy,
    seed: int,
    budget_usd: Decimal,
    max_epochs: int = MAX_EPOCHS,
) -> tuple[Course, list[int]]:
    """The course of a job on functions in the twin, and the functions of its epochs."""
    initial_loss = TwinPlatform(workload, costing, seed).start()[0]
    platform, training = TwinPlatform(workload, costing, seed), workload.spec.training
    episode = play(platform, policy, costing, training, budget_usd, max_epochs=max_epochs)
    epochs = [record.status for record in episode.records]
    cache = [float(status.bill["cache"]) for status in epochs]
    course = Course(
        seconds=np.array([0.0, *(status.elapsed_s for status in epochs)]),
        dollars=np.array([sum(cache[:1]), *np.cumsum([float(status.cost_usd) for status in epochs])]),
        losses=np.array([initial_loss, *episode.losses]),
        reached=episode.success,
        cache_usd=sum(cache),
    )
    return course, [status.report.action.functions for status in epochs]


def machine_courses(
    costing: VmCosting, cluster: Cluster, found: Convergence, *, started: bool
) -> list[Course]:
    """The courses of synchronous SGD on machines, one for every curve.

    Args:
        costing: Laws and prices.
        cluster: Where.
        found: The curves.
        started: Whether machines run already and hold the data; seconds are then billed without a minimum.
    """
    epoch_s = costing.epoch_s(cluster, found.steps, found.batch)
    usd_per_h = float(costing.book.instance_usd_per_h(costing.region, cluster.instance)) * cluster.machines
    courses = []
    for losses in found.losses:
        training = epoch_s * np.arange(len(losses))
        if started:
            seconds, dollars = training, training * usd_per_h / SECONDS_PER_HOUR
        else:
            running = costing.ready_s(cluster) + training
            seconds = costing.machines.start.pending + running
            dollars = np.array([float(costing.bill_usd(cluster, s)) for s in running])
        courses.append(Course(seconds, dollars, np.array(losses), reached=True))
    return courses
