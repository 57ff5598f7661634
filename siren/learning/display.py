"""Shows a training as it goes: live on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self, TextIO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from siren.analysis import _format
from siren.analysis.console import console_for
from siren.learning.record import Evaluation
from siren.learning.training import Progress

_REFRESHES_PER_S = 4
_PLAIN_PARTS = 4
"""Plain lines about the sampling of each kind of jobs."""


class TrainingDisplay:
    """A line per evaluation; on a terminal a live region with a progress bar below them.

    Args:
        stream: Where to show.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = console_for(stream)
        self._live = Live(
            Text(""), console=self._console, refresh_per_second=_REFRESHES_PER_S, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._heading = False
        self._told = "", 0

    def __enter__(self) -> Self:
        """Takes the lower lines of the terminal, if it is one."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives them back."""
        if self._console.is_terminal:
            self._live.stop()

    def note(self, text: str) -> None:
        """Shows a line."""
        self._console.print(Text(text))

    def sampled(self, what: str, done: int, total: int) -> None:
        """Shows how far the sampling of jobs is."""
        text = f"sampling {what} jobs: {done:,} of {total:,}"
        if self._console.is_terminal:
            self._live.update(_bar(text, done / total))
        elif (what, done * _PLAIN_PARTS // total) != self._told:
            self._told = what, done * _PLAIN_PARTS // total
            self.note(text)

    def stepped(self, progress: Progress) -> None:
        """Renews the live region."""
        if self._console.is_terminal:
            self._live.update(_live_region(progress))

    def evaluated(self, evaluation: Evaluation, kept: bool) -> None:
        """Adds the evaluation's line."""
        if not self._heading:
            self._heading = True
            self.note(
                "on held-out jobs: speed-up over the reference action [95% interval], success; "
                "training: success, time"
            )
        training = (
            "" if math.isnan(evaluation.training_ratio)
            else f"  training {evaluation.training_success:.1%}, {evaluation.training_ratio:.2f}x"
        )  # fmt: skip
        self.note(
            f"{evaluation.steps:>11,} steps {_format.seconds(evaluation.seconds):>8}  "
            f"speed-up {evaluation.speedup:.3f} [{evaluation.low:.3f}, {evaluation.high:.3f}]  "
            f"success {evaluation.success:.1%} (reference {evaluation.reference_success:.1%}){training}"
            f"{'  kept' if kept else ''}"
        )


def _live_region(progress: Progress) -> RenderableType:
    known = not math.isnan(progress.ratio)
    facts = [
        f"{progress.steps:,} of {progress.total:,} steps",
        f"{progress.steps_per_s:,.0f} steps/s",
        f"success {progress.success:.1%}" if known else "success -",
        f"time {progress.ratio:.2f} x best fixed" if known else "time -",
        f"ends in {_format.seconds(progress.left_s)}" if math.isfinite(progress.left_s) else "ends in -",
    ]
    return _bar("  ".join(facts), progress.steps / progress.total)


def _bar(text: str, share: float) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True, min_width=4)
    grid.add_row(ProgressBar(total=1.0, completed=min(share, 1.0)), f"{min(share, 1.0):.0%}")
    return Group(grid, Text(text, style="dim", no_wrap=True, overflow="ellipsis"))
