"""Shows an episode so far: as text, or as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from siren.errors import MissingExtraError

WIDTH_IN, HEIGHT_IN, DPI = 7.0, 5.0, 80


class Row(NamedTuple):
    """A job after an epoch; the first row is the job before its first epoch."""

    epoch: int
    elapsed_s: float
    loss: float
    functions: int
    memory_mb: int
    spent_usd: float


def draw_text(history: Sequence[Row], target_loss: float, budget_usd: float) -> str:
    """The history as a table, and below it what is wanted."""
    lines = ["epoch   elapsed s        loss  functions  memory MB     spent $"]
    for r in history:
        progress = f"{r.epoch:5d} {r.elapsed_s:11.1f} {r.loss:11.5g}"
        lines.append(f"{progress} {r.functions:10d} {r.memory_mb:10d} {r.spent_usd:11.6f}")
    return "\n".join([*lines, f"target loss {target_loss:.5g}, budget ${budget_usd:.6f}", ""])


def draw_figure(history: Sequence[Row], target_loss: float, budget_usd: float) -> NDArray[np.uint8]:
    """Loss, functions, memory and dollars against time; uint8, (height, width, 3).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:  # pragma: no cover - depends on what is installed
        raise MissingExtraError("matplotlib", "plot") from error
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2).ravel()
    time_s = [r.elapsed_s for r in history]
    losses = [r.loss if np.isfinite(r.loss) else np.nan for r in history]
    axes[0].plot(time_s, losses, marker=".")
    axes[0].axhline(target_loss, linestyle="--", color="0.5")
    axes[0].set_title("held-out loss")
    for axis, title, values in (
        (axes[1], "functions", [r.functions for r in history[1:]]),
        (axes[2], "memory, MB", [r.memory_mb for r in history[1:]]),
    ):
        if values:
            axis.stairs(values, time_s, baseline=None)
        axis.set_title(title)
    axes[3].plot(time_s, [r.spent_usd for r in history], marker=".")
    axes[3].axhline(budget_usd, linestyle="--", color="0.5")
    axes[3].set_title("dollars spent")
    for axis in axes:
        axis.set_xlabel("time, s")
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba(), np.uint8)  # type: ignore[no-untyped-call]
    return np.ascontiguousarray(pixels[..., :3])
