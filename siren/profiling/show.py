"""A profile on a terminal and as a picture: measured against fitted."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from siren.analysis._format import dollars, seconds
from siren.workloads.profile import Profile

WIDTH = 110
PARTS = ("fetch", "compute", "update")


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
    constants = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("constant", "fitted", "95% interval", "assumed"):
        constants.add_column(title, justify="left" if title == "constant" else "right", no_wrap=True)
    for name, found in profile.constants.items():
        interval = f"{found.low:.3g} - {found.high:.3g} s"
        constants.add_row(name, f"{found.value:.3g} s", interval, f"{found.assumed:.3g} s")
    console.print(constants)
    spends = "" if profile.platform != "twin" else " of emulated money; nothing was spent"
    console.print(f"{dollars(float(profile.spent_usd))} of {dollars(float(profile.budget_usd))}{spends}")


def figure(profile: Profile, path: Path) -> None:
    """Bars of measured, fitted and assumed seconds for every point.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunFolderError: The file cannot be written.
    """
    from siren.analysis.figures import BLUE, ORANGE, SKY, styled_figure

    names = [f"{point.functions}x{point.memory_mb}" for point in profile.points]
    with styled_figure(path, (12.0, 5.0)) as drawn:
        panels = drawn.subplots(1, len(PARTS))
        for axes, part in zip(panels, PARTS, strict=True):
            kinds = (("", BLUE, "measured"), ("fitted_", ORANGE, "fitted"), ("assumed_", SKY, "assumed"))
            for k, (prefix, colour, label) in enumerate(kinds):
                heights = [getattr(point, f"{prefix}{part}_s") for point in profile.points]
                at = [x + 0.27 * (k - 1) for x in range(len(names))]
                axes.bar(at, heights, width=0.25, color=colour, label=label)
            axes.set_xticks(range(len(names)), names, rotation=20)
            axes.set_title(part)
        panels[0].set_ylabel("seconds of a function in a warm epoch")
        panels[0].legend(loc="best")
        drawn.subplots_adjust(left=0.07, right=0.98, bottom=0.16, wspace=0.22)
