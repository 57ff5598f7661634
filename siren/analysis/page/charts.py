"""The charts of a run: what is drawn, what stands beside it, and the same as a sentence and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal

from siren.analysis import _format
from siren.analysis.page.source import Run
from siren.analysis.page.specs import Amounts, Axis, Chart, Mark, Rule, Series, Table, numbers
from siren.types import EpochRecord, EpochReport
from siren.units import counted

PARTS = ("start", "load", "fetch", "compute", "update", "wait", "evaluate")
"""Where the time of an epoch goes, in its order; `EpochReport` has each as `..._s`."""

NONE = "–"
"""Stands in a table where there is no number."""

_EPOCH = Axis("epoch", whole=True)
_UNITS = ((180.0, 1.0, "seconds"), (180 * 60.0, 60.0, "minutes"), (math.inf, 3600.0, "hours"))
"""(up to so many seconds, seconds per unit, unit) of an axis."""


def loss_charts(run: Run) -> tuple[Chart, Chart]:
    """Held-out loss against time and against dollars."""
    reports = [r.status.report for r in run.records]
    losses = [run.initial_loss, *(report.loss for report in reports)]
    accuracies = [math.nan, *(report.accuracy for report in reports)]
    elapsed_s = [0.0, *(r.status.elapsed_s for r in run.records)]
    spent_usd = [Decimal(0), *(spent_usd_after(run, r) for r in run.records)]
    per_unit, unit = _time_unit(elapsed_s[-1])
    clock = f"{unit} on the virtual clock" if run.header.platform == "twin" else unit
    times = [
        (str(epoch), _format.seconds(second), loss_text(loss), percent_text(accuracy))
        for epoch, (second, loss, accuracy) in enumerate(zip(elapsed_s, losses, accuracies, strict=True))
    ]
    dollars = [
        (str(epoch), _format.dollars(usd), loss_text(loss))
        for epoch, (usd, loss) in enumerate(zip(spent_usd, losses, strict=True))
    ]
    against_time = _loss_chart(
        run,
        "time",
        [second / per_unit for second in elapsed_s],
        Axis(clock, zero=True),
        f"in {_format.seconds(elapsed_s[-1])}",
        Table(("epoch", "time", "loss", "accuracy"), tuple(times)),
    )
    against_dollars = _loss_chart(
        run,
        "dollars",
        spent_usd,
        Axis("dollars spent", "$", zero=True),
        f"for {_format.dollars(spent_usd[-1])}",
        Table(("epoch", "spent", "loss"), tuple(dollars)),
    )
    return against_time, against_dollars


def _loss_chart(
    run: Run, against: str, xs: Sequence[float | Decimal], axis: Axis, price: str, table: Table
) -> Chart:
    target, last = f"{run.header.target_loss:g}", loss_text(run.loss)
    course = f"from {loss_text(run.initial_loss)} to {last}"
    epochs = counted(len(run.records), "epoch")
    alt = f"The held-out loss goes {course} {price}, in {epochs}; the target is {target}."
    losses = numbers([run.initial_loss, *(r.status.report.loss for r in run.records)])
    return Chart(
        id=f"loss-{against}",
        title=f"Loss against {against}",
        alt=alt,
        x=axis,
        y=Axis("held-out loss, logarithmic", log=True),
        xs=numbers(xs),
        series=(Series("held-out loss", "main", Mark.LINE, losses, label=last),),
        rules=(Rule(run.header.target_loss, f"target {target}"),),
        table=table,
    )


def choice_charts(run: Run) -> tuple[Chart, Chart]:
    """Functions, and memory of each, per epoch."""
    reports = [r.status.report for r in run.records]
    functions = [
        (str(r.epoch), f"{r.action.functions:,}", f"{r.cold_starts:,}", f"{r.pushes:,}") for r in reports
    ]
    memory = [
        (str(r.epoch), f"{r.action.memory_mb:,} MB", percent_text(r.memory_utilization)) for r in reports
    ]
    return (
        _steps(
            reports,
            "functions",
            "Functions per epoch",
            "functions",
            [r.action.functions for r in reports],
            Table(("epoch", "functions", "cold starts", "updates"), tuple(functions)),
        ),
        _steps(
            reports,
            "memory",
            "Memory of each function",
            "MB",
            [r.action.memory_mb for r in reports],
            Table(("epoch", "memory", "used"), tuple(memory)),
        ),
    )


def _steps(
    reports: Sequence[EpochReport], name: str, title: str, unit: str, values: Sequence[int], table: Table
) -> Chart:
    if not values:
        alt = "No epoch has ended yet."
    elif min(values) == max(values):
        alt = f"{values[0]:,} {unit} in every epoch."
    else:
        alt = f"Between {min(values):,} and {max(values):,} {unit}, {values[-1]:,} in the last epoch."
    return Chart(
        id=name,
        title=title,
        alt=alt,
        x=_EPOCH,
        y=Axis(unit, whole=True, zero=True),
        xs=numbers(report.epoch for report in reports),
        series=(
            Series(unit, "main", Mark.STEPS, numbers(values), label=f"{values[-1]:,}" if values else ""),
        ),
        table=table,
        size="low",
    )


def time_chart(run: Run) -> Chart:
    """Where the time of each epoch goes."""
    reports = [r.status.report for r in run.records]
    totals = {part: sum(_seconds(report, part) for report in reports) for part in PARTS}
    whole_s = sum(totals.values())
    per_unit, unit = _time_unit(max((report.duration_s for report in reports), default=0.0))
    series, low = [], [0.0] * len(reports)
    for part in PARTS:
        if totals[part] > 0:
            top = [base + _seconds(report, part) for base, report in zip(low, reports, strict=True)]
            y, base = (numbers(value / per_unit for value in values) for values in (top, low))
            name = f"{part} {_share(totals[part], whole_s)}"
            series.append(Series(name, part, Mark.BARS, y, base))
            low = top
    rows = [
        (
            str(report.epoch),
            _format.seconds(report.duration_s),
            *(_format.seconds(_seconds(report, part)) for part in PARTS),
        )
        for report in reports
    ]
    shares = sorted(((totals[part], part) for part in PARTS if totals[part] > 0), reverse=True)
    said = ", ".join(f"{part} {_share(total, whole_s)}" for total, part in shares)
    return Chart(
        id="time",
        title="Where the time of each epoch goes",
        alt=f"Of the time of all epochs: {said}." if said else "No epoch has ended yet.",
        x=_EPOCH,
        y=Axis(f"{unit}, mean over functions", zero=True),
        xs=numbers(report.epoch for report in reports),
        series=tuple(series),
        table=Table(("epoch", "all", *PARTS), tuple(rows)),
        legend=True,
    )


def bill_chart(run: Run) -> Amounts:
    """The bill by item, largest first."""
    items = sorted(((usd, name.replace("_", " ")) for name, usd in run.bill.items() if usd), reverse=True)
    total_usd = run.cost_usd
    rows = [
        (_format.clean(name), _format.exact_dollars(usd), percent_text(float(usd / total_usd)))
        for usd, name in items
    ]
    if items:
        alt = f"{_format.exact_dollars(total_usd)} in all, most of it for {items[0][1]} ({rows[0][2]})."
    else:
        alt = "Nothing has been billed yet."
    return Amounts(
        id="bill",
        title="The bill by item",
        alt=alt,
        names=tuple(row[0] for row in rows),
        values=numbers(usd for usd, _ in items),
        texts=tuple(row[1] for row in rows),
        table=Table(
            ("item", "dollars", "share"), (*rows, ("all", _format.exact_dollars(total_usd), percent_text(1)))
        ),
    )


def budget_chart(run: Run) -> Chart:
    """Dollars left after each epoch, and what was set aside for the worst case of the next."""
    budget_usd = run.header.budget_usd
    left = [budget_usd, *(r.status.budget_left_usd for r in run.records)]
    reserved = [r.reserved_usd for r in run.records]
    worst = [usd - aside for usd, aside in zip(left, reserved, strict=False)]
    rows = [
        (
            str(r.status.report.epoch),
            _format.dollars(r.reserved_usd),
            _format.dollars(r.status.cost_usd, decimals=5),
            _format.dollars(r.status.budget_left_usd),
        )
        for r in run.records
    ]
    alt = f"{_format.dollars(left[-1])} of {_format.budget(budget_usd)} is left."
    if reserved:
        alt += f" At most {_format.dollars(max(reserved))} was set aside for the worst case of an epoch."
    return Chart(
        id="budget",
        title="Budget that is left",
        alt=alt,
        x=Axis("epochs completed", whole=True, zero=True),
        y=Axis("dollars", "$", zero=True),
        xs=numbers(range(len(left))),
        series=(
            Series("set aside", "aside", Mark.BAND, numbers(left[:-1]), numbers(worst)),
            Series("left", "main", Mark.HOLD, numbers(left), label=_format.dollars(left[-1])),
        ),
        table=Table(
            ("epoch", "set aside", "cost", "left"),
            (("0", NONE, NONE, _format.budget(budget_usd)), *rows),
        ),
        legend=True,
    )


def spent_usd_after(run: Run, record: EpochRecord) -> Decimal:
    """Dollars of the run after an epoch, with what was charged beside the epochs."""
    return run.header.budget_usd - record.status.budget_left_usd


def loss_text(value: float) -> str:
    """A loss, or a dash."""
    return NONE if math.isnan(value) else _format.loss(value)


def percent_text(share: float) -> str:
    """A share in per cent, or a dash."""
    return _format.percent(share) if math.isfinite(share) else NONE


def _seconds(report: EpochReport, part: str) -> float:
    value = float(getattr(report, f"{part}_s"))
    return value if math.isfinite(value) else 0.0


def _share(part: float, whole: float) -> str:
    """A share in whole per cent."""
    return "<1%" if 0 < part < 0.005 * whole else f"{part / whole:.0%}"


def _time_unit(longest_s: float) -> tuple[float, str]:
    """Seconds per unit, and the unit, of an axis that goes so far."""
    return next((per_unit, unit) for most, per_unit, unit in _UNITS if longest_s <= most)
