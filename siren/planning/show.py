"""A plan on a terminal and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from siren.analysis._format import budget, dollars, seconds
from siren.planning.bands import Band
from siren.planning.machines import VmOption, undominated
from siren.planning.plans import BudgetPlan, Plan
from siren.planning.prediction import FirstAction, Prediction
from siren.units import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 118
"""Columns of a table that goes to no terminal."""

DECIMALS = 5
"""Of dollars."""

CHOICE, FIXED = "siren.run's choice", "best fixed"


def show(plan: Plan, console: Console) -> None:
    """Prints the plan: a table, then what would be done first, and the verdict."""
    if not console.is_terminal:
        console.width = WIDTH
    console.print(
        f"{plan.workload} on {plan.world}, to a held-out loss of {plan.target_loss:g}; "
        "bands hold 80% of runs; nothing was spent",
        soft_wrap=True,
    )
    if plan.share < 1:
        console.print(
            f"rehearsed on {plan.share:.1%} of each epoch's samples, down to the loss "
            f"{plan.rehearsed_loss:.4g}: expect other times, read them as a comparison",
            soft_wrap=True,
        )
    console.print(_table(plan))
    for budget_plan in plan.budgets:
        _explain(budget_plan, console, named=len(plan.budgets) > 1)
    if any(option.estimated for option in undominated(plan.machines)):
        console.print("there was no time to follow machines to the target: their epochs are extrapolated")


def _table(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("budget", "policy", "chance", "time", "10-90%", "cost", "10-90%"):
        table.add_column(title, justify="left" if title == "policy" else "right", no_wrap=True)
    for planned in plan.budgets:
        for label, prediction in _rows(planned):
            table.add_row(budget(planned.budget_usd), label, *_cells(prediction))
    for option in undominated(plan.machines):
        table.add_row("", f"VM {option.cluster}", "", *_times(option.time_s), *_costs(option.cost_usd))
    return table


def _rows(planned: BudgetPlan) -> list[tuple[str, Prediction]]:
    if planned.choice == planned.best_fixed:
        return [(f"{CHOICE}: {planned.choice.policy}", planned.choice)]
    return [
        (f"{CHOICE}: {planned.choice.policy}", planned.choice),
        (f"{FIXED}: {planned.best_fixed.policy.removeprefix('fixed:')}", planned.best_fixed),
    ]


def _cells(prediction: Prediction) -> tuple[str, ...]:
    chance = f"{prediction.chance.mean:.0%}"
    times = ("never", "") if prediction.time_s is None else _times(prediction.time_s)
    return chance, *times, *_costs(prediction.cost_usd)


def _times(band: Band) -> tuple[str, str]:
    if band.low is None or band.high is None:
        return seconds(band.mean), "one run"
    return seconds(band.mean), f"{seconds(band.low)} - {seconds(band.high)}"


def _costs(band: Band) -> tuple[str, str]:
    if band.low is None or band.high is None:
        return dollars(band.mean, DECIMALS), "one run"
    return dollars(band.mean, DECIMALS), f"{dollars(band.low, DECIMALS)} - {dollars(band.high, DECIMALS)}"


def _explain(planned: BudgetPlan, console: Console, *, named: bool) -> None:
    lead = f"{budget(planned.budget_usd)}: " if named else ""
    chance, episodes = planned.choice.chance, counted(planned.choice.episodes, "run")
    console.print(
        f"{lead}{planned.choice.policy}, {planned.why}; chance of reaching the target {chance.mean:.0%} "
        f"[{chance.low:.0%}, {chance.high:.0%}], from {episodes} in the twin",
        soft_wrap=True,
    )
    console.print(f"  first   {_first(planned.first)}", soft_wrap=True)
    console.print(f"  verdict {planned.verdict.text}", soft_wrap=True, style="bold")


def _first(first: FirstAction) -> str:
    expected = ""
    if first.duration_s is not None and first.cost_usd is not None:
        expected = f", about {seconds(first.duration_s)} and {dollars(first.cost_usd)}"
    reserve = dollars(first.reserve_usd)
    action = f"{counted(first.functions, 'function')} of {first.memory_mb:,} MB"
    return f"{action}{expected}, {reserve} at most: {first.reason}"


def figure(plan: Plan, path: Path) -> None:
    """Time against dollars: policies by budget with their bands, and machines.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunFolderError: The file cannot be written.
    """
    from siren.analysis.figures import BLUE, GREEN, ORANGE, styled_figure

    with styled_figure(path, (10.0, 6.5)) as drawn:
        axes = drawn.add_subplot()
        fixed = [planned.best_fixed for planned in plan.budgets]
        _predictions(axes, fixed, "best fixed action", ORANGE, "s")
        _predictions(axes, [planned.choice for planned in plan.budgets], CHOICE, BLUE, "o")
        _clusters(axes, plan.machines, GREEN)
        _log_scales(axes)
        axes.set_xlabel("seconds to the target, starting included (log scale)")
        axes.set_ylabel("dollars (log scale)")
        axes.set_title(f"{plan.workload} on {plan.world}: time against cost, bands hold 80% of runs")
        axes.legend(loc="best")


def _log_scales(axes: Axes) -> None:
    """Logarithmic axes with plain numbers at 1, 2 and 5."""
    from siren.analysis.figures import plain_log

    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        plain_log(axis)


def _predictions(axes: Axes, found: Sequence[Prediction], label: str, colour: str, marker: str) -> None:
    """Points with their bands; runs that never reach the target have no time, and are left out."""
    known = [(p.time_s, p.cost_usd) for p in found if p.time_s is not None]
    if not known:
        return
    times, costs = zip(*known, strict=True)
    axes.errorbar(
        [band.mean for band in times],
        [band.mean for band in costs],
        xerr=_reach(times),
        yerr=_reach(costs),
        color=colour,
        marker=marker,
        capsize=3,
        label=label,
    )


def _reach(bands: Sequence[Band]) -> list[list[float]]:
    """How far every band reaches below and above its mean."""
    below = [max(b.mean - b.low, 0.0) if b.low is not None else 0.0 for b in bands]
    above = [max(b.high - b.mean, 0.0) if b.high is not None else 0.0 for b in bands]
    return [below, above]


def _clusters(axes: Axes, options: Sequence[VmOption], colour: str) -> None:
    best = undominated(options)
    for group, alpha, label in ((options, 0.25, ""), (best, 1.0, "EC2, synchronous SGD")):
        if group:
            times, costs = [o.time_s.mean for o in group], [o.cost_usd.mean for o in group]
            axes.plot(times, costs, "D", color=colour, alpha=alpha, label=label or "_", markersize=6)
    for option in best:
        at = option.time_s.mean, option.cost_usd.mean
        axes.annotate(str(option.cluster), at, xytext=(6, 4), textcoords="offset points")
