"""The rows of an evaluation, and how they are shown; see `siren.evaluation.statistics` for each column."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from siren.analysis import _format
from siren.evaluation.case import CaseFacts, CaseKey
from siren.evaluation.entrants import BEST_FIXED
from siren.evaluation.journal import Result
from siren.evaluation.statistics import COLUMNS, JobEpisodes, summarise

Row = dict[str, Any]

WIDTH = 120
"""Columns of a table that does not go to a terminal."""


@dataclass(frozen=True)
class Cell:
    """Where policies are compared."""

    workload: str
    world: str
    batch_rule: str
    update_rule: str
    budget_ratio: float

    @property
    def setting(self) -> str:
        """The cell without its budget."""
        return f"{self.workload}, {self.world}, {self.batch_rule}, {self.update_rule}"


def rows_of(
    cases: Sequence[CaseKey],
    policies: Sequence[str],
    facts: Mapping[int, CaseFacts],
    results: Sequence[Result],
) -> list[Row]:
    """A row per policy and cell, in the order of the cases and of the policies.

    Args:
        cases: The cases.
        policies: Names of the entrants.
        facts: What is known of each case, by number.
        results: Every episode.
    """
    cells: dict[Cell, list[int]] = {}
    for number, key in enumerate(cases):
        batch_rule, update_rule = facts[number].rules
        workload = Path(key.job.workload).stem
        cell = Cell(workload, facts[number].world, batch_rule, update_rule, key.budget_ratio)
        cells.setdefault(cell, []).append(number)
    played: dict[tuple[int, str], list[Result]] = {}
    for result in sorted(results, key=lambda r: r.seed):
        played.setdefault((result.case, result.policy), []).append(result)
    rows = []
    for (cell, numbers), policy in itertools.product(cells.items(), policies):
        jobs = [_episodes(facts[k], played[k, policy], played[k, BEST_FIXED]) for k in numbers]
        row = {"policy": policy, **vars(cell), **summarise(jobs)}
        rows.append({column: row[column] for column in COLUMNS})
    return rows


def _episodes(facts: CaseFacts, own: Sequence[Result], best: Sequence[Result]) -> JobEpisodes:
    return JobEpisodes(
        success=np.array([r.success for r in own]),
        time_s=np.array([r.time_s for r in own]),
        cost_usd=np.array([r.cost_usd for r in own]),
        overspent_usd=np.array([r.overspent_usd for r in own]),
        best_fixed_success=np.array([r.success for r in best]),
        best_fixed_time_s=np.array([r.time_s for r in best]),
        unit_s=facts.baseline.time_s,
        failure_s=facts.baseline.failure_s,
        bound_s=math.nan if facts.bound_s is None else facts.bound_s,
        bound_failure_s=math.nan if facts.bound_failure_s is None else facts.bound_failure_s,
    )


def csv_of(rows: Sequence[Row]) -> str:
    """The rows as CSV; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def show(rows: Sequence[Row], console: Console) -> None:
    """A table per cell."""
    if not console.is_terminal:
        console.width = WIDTH
    for (setting, ratio), group in itertools.groupby(
        rows, key=lambda row: (_setting(row), row["budget_ratio"])
    ):
        chosen = list(group)
        table = Table(
            title=f"{setting}: {ratio:g} x the cheapest budget, {chosen[0]['seeds']} seeds a job",
            title_justify="left",
        )
        table.add_column("policy", overflow="fold", min_width=min(24, max(len(r["policy"]) for r in chosen)))
        for heading in ("success", "time", "counted", "to best fixed", "to bound", "cost"):
            table.add_column(heading, justify="right")
        for row in chosen:
            table.add_row(
                row["policy"],
                f"{row['success_rate']:.1%}",
                "-" if row["time_s"] is None else _format.seconds(row["time_s"]),
                _ratio(row, "failure_counted_ratio"),
                _ratio(row, "ratio_to_best_fixed"),
                _ratio(row, "ratio_to_bound"),
                _format.dollars(row["cost_usd"]),
            )
        console.print(table)
    overspent_usd = sum(row["overspent_usd"] for row in rows)
    console.print(
        f"overspent in all: {_format.dollars(overspent_usd)}; counted: a failure is twice the best fixed "
        "action's mean time; the lower a ratio, the better; 95% intervals over jobs (over seeds for one job)"
    )


def _setting(row: Row) -> str:
    return Cell(*(row[name] for name in Cell.__dataclass_fields__)).setting


def _ratio(row: Row, name: str) -> str:
    if row[name] is None:
        return "-"
    low, high = (row[f"{name}_{end}"] for end in ("low", "high"))
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"{row[name]:.2f}{interval}"


def figure(rows: Sequence[Row], path: Path) -> None:
    """Failure-counted time over that of the best fixed action, and success, against the budget.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunFolderError: The file cannot be written.
    """
    from siren.analysis.figures import RUN_COLOURS, styled_figure

    settings = list(dict.fromkeys(_setting(row) for row in rows))
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    with styled_figure(path, (max(7.0, 4.2 * len(settings)), 6.4)) as drawn:
        from matplotlib.ticker import LogLocator, NullFormatter  # there if the figure is

        axes = drawn.subplots(2, len(settings), squeeze=False, sharex="col")
        for column, setting in enumerate(settings):
            upper, lower = axes[0][column], axes[1][column]
            for k, policy in enumerate(policies):
                own = [row for row in rows if _setting(row) == setting and row["policy"] == policy]
                style = {
                    "color": RUN_COLOURS[k % len(RUN_COLOURS)],
                    "marker": "osD^vPX*"[k % 8],
                    "linestyle": "-" if k < len(RUN_COLOURS) else "--",
                    "label": policy,
                    "markersize": 4,
                    "linewidth": 1.2,
                }
                _line(upper, own, "ratio_to_best_fixed", k, style)
                _line(lower, own, "success_rate", k, style)
            upper.set_title(setting, fontsize=8)
            upper.set_yscale("log")
            upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            upper.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            upper.yaxis.set_minor_formatter(NullFormatter())
            upper.axhline(1.0, color="black", linewidth=0.6)
            lower.set_ylim(-0.03, 1.03)
            lower.set_xlabel("budget / cheapest fixed budget")
        axes[0][0].set_ylabel("time / best fixed")
        axes[1][0].set_ylabel("success rate")
        handles, labels = axes[0][0].get_legend_handles_labels()
        drawn.subplots_adjust(
            right=1 - 1.9 / drawn.get_figwidth(), left=0.9 / drawn.get_figwidth(), wspace=0.3
        )
        drawn.legend(handles, labels, loc="center right", fontsize=8)


def _line(axes: Any, rows: Sequence[Row], name: str, k: int, style: Mapping[str, Any]) -> None:
    """One policy's line with its intervals, a little aside so that they do not hide each other."""
    known = [row for row in rows if row[name] is not None]
    x = np.array([row["budget_ratio"] for row in known]) * (1 + 0.006 * k)
    y = np.array([row[name] for row in known])
    ends = [[row[f"{name}_{end}"] for row in known] for end in ("low", "high")]
    low, high = (np.array([np.nan if v is None else v for v in values], np.float64) for values in ends)
    spread = np.stack([np.maximum(y - low, 0), np.maximum(high - y, 0)])
    axes.errorbar(x, y, yerr=np.nan_to_num(spread), capsize=2, elinewidth=0.8, **style)
