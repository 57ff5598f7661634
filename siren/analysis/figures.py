"""Pictures of runs: one run in four panels, several runs of one job side by side.

The same run gives the same PNG, byte for byte, with the same matplotlib.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from siren.analysis import _format
from siren.analysis._disk import Disk
from siren.errors import MissingExtraError, RunFolderError
from siren.types import EpochRecord, RunSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

Run = tuple[str, Sequence[EpochRecord], RunSummary]
"""Label, epochs and summary of a run."""

# Colours that colour-blind readers tell apart (Okabe and Ito, "Color universal design", 2008).
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, INK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#222222",
)
RUN_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
_GREY = "#6B6B6B"
_PARTS = (
    ("start", "start_s", "#BBBBBB"),
    ("load", "load_s", PURPLE),
    ("fetch", "fetch_s", SKY),
    ("compute", "compute_s", BLUE),
    ("update", "update_s", ORANGE),
    ("wait", "wait_s", YELLOW),
    ("evaluate", "evaluate_s", GREEN),
)
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib
    "font.size": 12,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": _GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 2.2,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "text.parse_math": False,  # "$2 of $3" are dollars, no formula
    "axes.facecolor": "white",
}
_SIZE_INCHES = (16.0, 10.0)
_DPI = 100
NOTEBOOK_INCHES = (11.0, 4.4)
_NOTEBOOK_DPI = 80


def run_figure(records: Sequence[EpochRecord], summary: RunSummary, path: Path) -> None:
    """Write a PNG of one run: loss, functions and memory, time, budget.

    Args:
        records: Its epochs, in order; may be empty.
        summary: How it ended.
        path: The PNG file; its folder must exist.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunFolderError: The file cannot be written.
    """
    header = summary.header
    with styled_figure(path) as figure:
        figure.suptitle(
            f"{_format.clean(header.title or header.workload)}: {_outcome(summary)}",
            x=0.06,
            ha="left",
            size=17,
        )
        figure.text(
            0.06,
            0.928,
            f"{header.workload} on {header.world} ({header.platform}), {header.policy} policy, "
            f"{header.update_rule} updates over {header.channel}, {header.batch_rule} mini-batches, "
            f"seed {header.seed}",
            color=_GREY,
        )
        cells = figure.add_gridspec(
            2, 2, left=0.06, right=0.975, top=0.87, bottom=0.07, hspace=0.33, wspace=0.15
        )
        losses = cells[0, 0].subgridspec(1, 2, wspace=0.1)
        against_time = figure.add_subplot(losses[0])
        against_dollars = figure.add_subplot(losses[1], sharey=against_time)
        run: Run = ("", records, summary)
        _plot_losses(against_time, [run], _elapsed, _times_label(summary))
        _plot_losses(against_dollars, [run], _spent, "dollars spent")
        against_time.set_title("Loss against time")
        against_time.set_ylabel("held-out loss (log scale)")
        against_dollars.set_title("and against dollars")
        against_dollars.tick_params(labelleft=False)
        choices = cells[0, 1].subgridspec(2, 1, hspace=0.18)
        functions = figure.add_subplot(choices[0])
        memory = figure.add_subplot(choices[1], sharex=functions)
        _plot_choices(functions, memory, records)
        _plot_time_split(figure.add_subplot(cells[1, 0]), records)
        _plot_budget(figure.add_subplot(cells[1, 1]), records, summary)


def compare_figure(runs: Sequence[Run], path: Path) -> None:
    """Write a PNG of runs of one job, e.g. at several budgets.

    Args:
        runs: Label, epochs and summary of each; at least one.
        path: The PNG file; its folder must exist.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RunFolderError: The file cannot be written.
    """
    if not runs:
        raise ValueError("compare_figure needs at least one run")
    summary = runs[0][2]
    header = summary.header
    with styled_figure(path) as figure:
        name = _format.clean(header.title or header.workload)
        figure.suptitle(f"{name}: the same job, {len(runs)} runs", x=0.06, ha="left", size=17)
        figure.text(
            0.06,
            0.928,
            f"{header.workload} on {header.world} ({header.platform}), ring: end of a run",
            color=_GREY,
        )
        cells = figure.add_gridspec(
            2,
            2,
            left=0.06,
            right=0.975,
            top=0.875 - 0.03 * _legend_rows(runs),
            bottom=0.07,
            hspace=0.3,
            wspace=0.13,
        )
        time = figure.add_subplot(cells[0, 0])
        dollars = figure.add_subplot(cells[0, 1], sharey=time)
        functions = figure.add_subplot(cells[1, :])
        _plot_losses(time, runs, _elapsed, _times_label(summary))
        _plot_losses(dollars, runs, _spent, "dollars spent")
        time.set_title("Loss against time: further left is faster")
        time.set_ylabel("held-out loss (log scale)")
        dollars.set_title("Loss against dollars: further left is cheaper")
        for (_, records, _summary), colour in zip(runs, _colours(len(runs)), strict=True):
            if records:
                _steps(functions, [r.status.report.action.functions for r in records], colour)
        functions.set_title("Functions that each epoch ran on")
        functions.set_ylabel("functions")
        functions.set_xlabel("epoch")
        _room_above_steps(functions)
        _whole_ticks(functions.xaxis)
        _run_legend(figure, runs)


def _legend_labels(runs: Sequence[Run]) -> list[str]:
    return [f"{_format.clean(label)}: {_outcome(summary)}" for label, _, summary in runs]


def _legend_rows(runs: Sequence[Run]) -> int:
    """Rows of the legend when labels stand side by side as far as they fit."""
    characters = max(len(label) for label in _legend_labels(runs)) + 7
    return -(-len(runs) // max(1, 160 // characters))


def _run_legend(figure: Figure, runs: Sequence[Run]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=colour, linewidth=4) for colour in _colours(len(runs))]
    labels = _legend_labels(runs)
    figure.legend(
        lines,
        labels,
        loc="upper left",
        bbox_to_anchor=(0.052, 0.922),
        ncols=-(-len(runs) // _legend_rows(runs)),
        handlelength=1.2,
        columnspacing=2.5,
    )


@contextlib.contextmanager
def styled_figure(path: Path, size_inches: tuple[float, float] = _SIZE_INCHES) -> Iterator[Figure]:
    """A figure in Siren's style that becomes the PNG `path`."""
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    data = io.BytesIO()
    with mpl.rc_context():
        mpl.rcdefaults()  # A user's matplotlibrc must not change the picture.
        mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]  # its stub wants literal keys
        figure = Figure(figsize=size_inches, dpi=_DPI)
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(data, format="png", dpi=_DPI, metadata={"Software": None})
    try:
        Disk().replace(path, data.getvalue())
    except OSError as error:
        raise RunFolderError(
            f"could not write {path}: {error.strerror}; choose another file or free space"
        ) from error


def use_style(size_inches: tuple[float, float] = NOTEBOOK_INCHES) -> None:
    """Makes what pyplot draws from now on look like Siren's other figures; meant for notebooks.

    Args:
        size_inches: Width and height of a figure that names none.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot") from error
    # A font of 11 points: titles of panels that lie side by side are whole sentences.
    changes = {
        "font.size": 11,
        "axes.titlesize": 11.5,
        "figure.figsize": size_inches,
        "figure.titlesize": 12.5,
        "figure.titleweight": "bold",
        "figure.dpi": _NOTEBOOK_DPI,
        "savefig.dpi": _NOTEBOOK_DPI,
        "figure.constrained_layout.use": True,
    }
    mpl.rcParams.update(_STYLE | changes)  # type: ignore[arg-type]  # its stub wants literal keys


def plain_ticks(axis: Axis, values: Sequence[float]) -> None:
    """Puts the ticks of an axis, above all a logarithmic one, at these values, written as plain numbers."""
    from matplotlib.ticker import FixedLocator

    _plain(axis, FixedLocator(values))


def plain_log(axis: Axis, subs: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Puts the ticks of a logarithmic axis at these multiples of powers of ten, written as plain numbers."""
    from matplotlib.ticker import LogLocator

    _plain(axis, LogLocator(subs=subs))


def _plain(axis: Axis, ticks: Locator) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.set_major_locator(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())


def _plot_losses(
    axes: Axes, runs: Sequence[Run], x_of: Callable[[Sequence[EpochRecord]], Any], label: str
) -> None:
    """Curves from the first loss to the last, the target as a line."""
    targets = sorted({summary.header.target_loss for _, _, summary in runs})
    values = list(targets)
    for (_, records, summary), colour in zip(runs, _colours(len(runs)), strict=True):
        losses = np.array([summary.initial_loss, *(r.status.report.loss for r in records)])
        times = np.concatenate([[0.0], x_of(records)])
        axes.plot(times, losses, color=colour, marker="o" if len(records) <= 60 else None, markersize=3.5)
        axes.plot(times[-1:], losses[-1:], "o", color=colour, markersize=10, markerfacecolor="white", mew=2.2)
        values += [value for value in losses if math.isfinite(value)]
    for target in targets:
        axes.axhline(target, color=INK, linewidth=1.3, linestyle=(0, (5, 3)))
        axes.annotate(
            f"target {target:g}", (0.985, target), xycoords=("axes fraction", "data"), xytext=(0, 4),
            textcoords="offset points", ha="right", va="bottom", color=INK,
        )  # fmt: skip
    axes.set_xlabel(label)
    axes.set_xlim(left=0)
    if min(values) > 0:
        axes.set_yscale("log")
        _plain_log_ticks(axes, min(values), max(values))


def _plain_log_ticks(axes: Axes, low: float, high: float) -> None:
    """Ticks at 1, 2 and 5 (at 1 over many decades), written as plain numbers."""
    room = max(high / low, 1.0001) ** 0.12  # the same share of the axis, however far the loss falls
    axes.set_ylim(low / room, high * room)
    plain_log(axes.yaxis, (1.0, 2.0, 5.0) if high / low < 1e4 else (1.0,))


def _plot_choices(functions: Axes, memory: Axes, records: Sequence[EpochRecord]) -> None:
    _steps(functions, [r.status.report.action.functions for r in records], BLUE)
    _steps(memory, [r.status.report.action.memory_mb for r in records], RED)
    functions.set_title("What each epoch ran on")
    functions.set_ylabel("functions")
    functions.tick_params(labelbottom=False)
    memory.set_ylabel("MB each")
    memory.set_xlabel("epoch")
    for axes in (functions, memory):
        _room_above_steps(axes)
        _whole_ticks(axes.yaxis, most=5)
    _whole_ticks(memory.xaxis)


def _plot_time_split(axes: Axes, records: Sequence[EpochRecord]) -> None:
    """One stacked bar per epoch."""
    epochs = np.arange(1, len(records) + 1)
    floor = np.zeros(len(records))
    for name, attribute, colour in _PARTS:
        parts = np.nan_to_num([getattr(r.status.report, attribute) for r in records])
        if len(records) and not parts.any():
            continue
        axes.bar(
            epochs, parts, bottom=floor, width=0.86 if len(records) <= 60 else 1.0, color=colour, label=name
        )
        floor = floor + parts
    axes.set_title("Where the time of each epoch goes")
    axes.set_xlabel("epoch")
    axes.set_ylabel("seconds, mean over functions")
    axes.grid(axis="x", visible=False)
    axes.set_xlim(0.5, max(1, len(records)) + 0.5)
    axes.set_ylim(0, max(float(floor.max(initial=0)) * 1.18, 1e-9))
    if records:
        axes.legend(loc="upper center", ncols=7, handlelength=0.9, handletextpad=0.4, columnspacing=1.1)
    _whole_ticks(axes.xaxis)


def _plot_budget(axes: Axes, records: Sequence[EpochRecord], summary: RunSummary) -> None:
    """Dollars left after each epoch, and what would be left if each had cost its worst case."""
    budget_usd = float(summary.header.budget_usd)
    epochs = np.arange(len(records) + 1)
    left = np.array([budget_usd, *(float(r.status.budget_left_usd) for r in records)])
    worst = left[:-1] - np.array([float(r.reserved_usd) for r in records])
    axes.plot(epochs, left, color=BLUE, drawstyle="steps-post", label="left")
    if records:
        # During epoch e (from e-1 to e on the axis) the reservation of e is held back.
        axes.fill_between(
            epochs, np.append(worst, worst[-1]), left, step="post", color=ORANGE, alpha=0.45, linewidth=0,
            label="reserved for the worst case of the epoch",
        )  # fmt: skip
    axes.set_title(
        f"Budget: {_format.dollars(float(left[-1]))} of {_format.budget(summary.header.budget_usd)} left"
    )
    axes.set_xlabel("epochs completed")
    axes.set_ylabel("dollars")
    axes.set_ylim(min(0.0, float(worst.min(initial=0))), budget_usd * 1.08)
    axes.set_xlim(0, max(1, len(records)))
    axes.legend(loc="lower left", handlelength=1.4)
    _whole_ticks(axes.xaxis)


def _steps(axes: Axes, values: Sequence[float], colour: str) -> None:
    """One horizontal step per epoch, each centred on its number."""
    edges = np.arange(len(values) + 1) + 0.5
    axes.stairs(values, edges, baseline=None, color=colour, linewidth=2.2)


def _room_above_steps(axes: Axes) -> None:
    """Start at zero and at the first epoch, and leave room above the highest step."""
    axes.set_ylim(0, axes.dataLim.y1 * 1.15 if np.isfinite(axes.dataLim.y1) else 1)
    axes.set_xlim(0.5, axes.dataLim.x1 if np.isfinite(axes.dataLim.x1) else 1.5)


def _whole_ticks(axis: Axis, most: int = 9) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=most, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def _elapsed(records: Sequence[EpochRecord]) -> Any:
    return np.array([r.status.elapsed_s for r in records])


def _spent(records: Sequence[EpochRecord]) -> Any:
    return np.cumsum([float(r.status.cost_usd) for r in records])


def _times_label(summary: RunSummary) -> str:
    return "virtual seconds" if summary.header.platform == "twin" else "seconds"


def _outcome(summary: RunSummary) -> str:
    said = "target reached" if summary.target_reached else summary.stop_reason.value.replace("_", " ")
    return f"{said} in {_format.seconds(summary.duration_s)} for {_format.dollars(summary.cost_usd)}"


def _colours(count: int) -> list[str]:
    return [RUN_COLOURS[i % len(RUN_COLOURS)] for i in range(count)]
