"""Every seed of an evaluation, in one place: what chooses is never what reports.

| for | seeds |
|---|---|
| generated jobs | `[JOBS, k]`, a stream of its own: training draws its jobs from `[1 to 3, ...]` |
| short ladders, which tell the cheapest budget and what is worth trying | `SCOUT` + k |
| choosing baselines and schedules | `SELECT` + k, `SELECT_COUNT` of them |
| the report | `REPORT` + k |
"""

from __future__ import annotations

from siren.errors import UsageError

JOBS = 20_261_122
"""Begins the seed of every generated job that is evaluated; nothing may be trained or tuned on them."""

SCOUT = 1_000_000
SELECT = 2_000_000
REPORT = 5_000_000

SCOUT_COUNT = 4
"""Runs of every count of functions on the ladder."""

SELECT_COUNT = 24
"""Episodes that a baseline is chosen on: in a prototype a choice on 8 looked 2-7% worse than it was."""

MOST_REPORT = 1_000_000
"""More seeds than anybody reports."""


def job_seed(index: int) -> list[int]:
    """The seed of the generated job of that number."""
    return [JOBS, index]


def scout_seeds() -> range:
    """Seeds of the short ladders."""
    return range(SCOUT, SCOUT + SCOUT_COUNT)


def select_seeds() -> range:
    """Seeds that choose."""
    return range(SELECT, SELECT + SELECT_COUNT)


def report_seeds(count: int) -> range:
    """Seeds that report.

    Raises:
        UsageError: There are none, or too many.
    """
    if not 1 <= count <= MOST_REPORT:
        raise UsageError(f"--seeds {count}: give a number from 1 to {MOST_REPORT:,}")
    return range(REPORT, REPORT + count)
