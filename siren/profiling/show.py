"""A profile on a terminal and as a picture: measured against fitted; before it, what it will cost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from siren.analysis._format import budget, dollars, functions, seconds
from siren.profiling.measure import WARM, Tour, patient_plan
from siren.units import counted
from siren.workloads.profile import ColdPoint, Point, Profile

WIDTH = 110
PARTS = ("fetch", "compute", "update")


def spending_plan(tours: Sequence[Tour], budget_usd: Decimal) -> str:
    """What will be measured, with expected and worst-case dollars; several lines.

    Args:
        tours: What is about to be run.
        budget_usd: What it may cost.
    """
    name = tours[0].platform.name
    lines = [
        f"{name}: real money is spent. Of each point one cold and {WARM} warm epochs, as far as paid for:"
    ]
    for tour in tours:
        view, job = tour.view, tour.view.costing.job
        lines.append(f"{job.update_rule.value} over {job.channel.value}")
        for action in tour.actions:
            told = view.predict([action])
            plan = patient_plan(view.costing, action, view.outlook)
            worst = f"at worst {dollars(plan.reserve_usd)}" if plan else "more than the budget at worst"
            lines.append(
                f"  {functions(action.functions)} of {action.memory_mb:,} MB: an epoch is expected to take "
                f"{seconds(float(told.duration_s[0]))} and {dollars(float(view.cost_usd(told)[0]))}, {worst}"
            )
    lines.append(f"all together at worst {budget(budget_usd)}, the budget")
    return "\n".join(lines)


def show(profile: Profile, console: Console) -> None:
    """Prints what was measured beside what the fitted laws expect, then the constants."""
    if not console.is_terminal:
        console.width = WIDTH
    console.print(
        f"{profile.workload} on {profile.platform}, {profile.world}, over {profile.channel}: seconds of a "
        "function in a warm epoch, measured / fitted",
        soft_wrap=True,
    )
    points = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("functions", "memory", "epochs", *PARTS):
        points.add_column(title, justify="right", no_wrap=True)
    for point in profile.points:
        pairs = [
            f"{seconds(getattr(point, f'{part}_s'))} / {seconds(getattr(point, f'fitted_{part}_s'))}"
            for part in PARTS
        ]
        points.add_row(str(point.functions), f"{point.memory_mb:,} MB", str(point.epochs), *pairs)
    console.print(points)
    for cold in profile.cold:
        console.print(
            f"initialisation of {counted(cold.starts, 'cold start')} of {cold.memory_mb:,} MB: "
            f"{seconds(cold.init_s)} / {seconds(cold.fitted_init_s)}",
            soft_wrap=True,
        )
    constants = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("constant", "fitted", "95% interval", "assumed"):
        constants.add_column(title, justify="left" if title == "constant" else "right", no_wrap=True)
    for name, found in profile.constants.items():
        interval = f"{found.low:.3g} - {found.high:.3g} s"
        constants.add_row(name, f"{found.value:.3g} s", interval, f"{found.assumed:.3g} s")
    console.print(constants)
    for note in profile.notes:
        console.print(f"note: {note}", soft_wrap=True)
    spends = "" if profile.platform == "aws" else " of emulated money; nothing was spent"
    console.print(f"{dollars(float(profile.spent_usd))} of {dollars(float(profile.budget_usd))}{spends}")


def figure(profile: Profile, path: Path) -> None:
    """Bars of measured, fitted and assumed seconds for every point, cold starts in a panel of their own.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunFolderError: The file cannot be written.
    """
    from siren.analysis.figures import BLUE, ORANGE, SKY, styled_figure

    panels: list[tuple[str, str, Sequence[Point | ColdPoint]]] = [(p, p, profile.points) for p in PARTS]
    if profile.cold:
        panels.append(("init", "initialisation of cold starts", profile.cold))
    with styled_figure(path, (4.0 * len(panels), 5.0)) as drawn:
        all_axes = drawn.subplots(1, len(panels))
        for axes, (part, title, points) in zip(all_axes, panels, strict=True):
            kinds = (("", BLUE, "measured"), ("fitted_", ORANGE, "fitted"), ("assumed_", SKY, "assumed"))
            for k, (prefix, colour, label) in enumerate(kinds):
                heights = [getattr(point, f"{prefix}{part}_s") for point in points]
                at = [x + 0.27 * (k - 1) for x in range(len(points))]
                axes.bar(at, heights, width=0.25, color=colour, label=label)
            axes.set_xticks(range(len(points)), [_name(point) for point in points], rotation=20)
            axes.set_title(title)
        all_axes[0].set_ylabel("seconds of a function in a warm epoch")
        all_axes[0].legend(loc="best")
        drawn.subplots_adjust(left=0.07, right=0.98, bottom=0.16, wspace=0.22)


def _name(point: Point | ColdPoint) -> str:
    return f"{point.memory_mb} MB" if isinstance(point, ColdPoint) else f"{point.functions}x{point.memory_mb}"
