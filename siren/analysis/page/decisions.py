"""Every decision of a run: why, what was expected of it and of its neighbours, what came of it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from siren.analysis import _format
from siren.analysis._table import incidents
from siren.analysis.page.charts import NONE, loss_text
from siren.analysis.page.source import Run
from siren.analysis.page.specs import Table
from siren.types import Action, EpochRecord, Forecast

_COLUMNS = ("", "functions", "time", "cost", "loss", "remark")


@dataclass(frozen=True)
class DecisionView:
    """A decision as text.

    Attributes:
        epoch: Its epoch.
        action: What was chosen.
        outcome: What came of it, in a few words.
        reason: Why.
        incidents: What went wrong in the epoch; may be empty.
        table: What happened, what was expected of the choice, and of its neighbours.
    """

    epoch: int
    action: str
    outcome: str
    reason: str
    incidents: str
    table: Table


@dataclass(frozen=True)
class Stretch:
    """Epochs that follow each other with the same action.

    Attributes:
        title: Which epochs.
        action: What they ran on.
        decisions: One each.
    """

    title: str
    action: str
    decisions: tuple[DecisionView, ...]


def decisions(run: Run) -> tuple[Stretch, ...]:
    """The decisions, first epoch first."""
    stretches = []
    for action, group in itertools.groupby(run.records, lambda record: record.decision.action):
        views = tuple(_view(record) for record in group)
        first, last = views[0].epoch, views[-1].epoch
        title = f"Epoch {first:,}" if first == last else f"Epochs {first:,} to {last:,}"
        stretches.append(Stretch(title, action_text(action), views))
    return tuple(stretches)


def action_text(action: Action) -> str:
    """An action in words: "8 x 1,769 MB" with a multiplication sign."""
    return f"{action.functions:,} × {action.memory_mb:,} MB"


def _view(record: EpochRecord) -> DecisionView:
    decision, status = record.decision, record.status
    report = status.report
    happened = (
        _format.seconds(report.duration_s),
        _format.dollars(status.cost_usd, decimals=5),
        loss_text(report.loss),
    )
    rows: list[tuple[str, ...]] = [("happened", action_text(report.action), *happened, "")]
    if decision.forecast:
        rows.append(_row("expected", decision.forecast))
    rows += [_row("instead", neighbour) for neighbour in decision.neighbours]
    return DecisionView(
        epoch=report.epoch,
        action=action_text(decision.action),
        outcome=f"loss {happened[2]}, {happened[0]}, {happened[1]}",
        reason=_format.clean(decision.reason),
        incidents=incidents(record).partition(": ")[2],
        table=_without_empty(Table(_COLUMNS, tuple(rows))),
    )


def _row(kind: str, forecast: Forecast) -> tuple[str, ...]:
    remark = _format.clean(forecast.note)
    if not forecast.fits and not remark:
        remark = "its worst case does not fit what is left"
    return (
        kind,
        action_text(forecast.action),
        _format.seconds(forecast.duration_s) if math.isfinite(forecast.duration_s) else NONE,
        _format.dollars(forecast.cost_usd, decimals=5) if math.isfinite(forecast.cost_usd) else NONE,
        loss_text(forecast.loss),
        remark,
    )


def _without_empty(table: Table) -> Table:
    """The table without remarks where nothing is remarked."""
    if any(row[-1] for row in table.rows):
        return table
    return Table(table.head[:-1], tuple(row[:-1] for row in table.rows))
