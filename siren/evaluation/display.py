"""Shows how far an evaluation is: live on a terminal, as a few lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from siren.analysis import _format
from siren.analysis.console import console_for

PLAIN_PARTS = 10
"""Plain lines about the episodes."""


class EvaluationDisplay:
    """Two bars, or plain lines: jobs prepared, episodes played.

    Args:
        stream: Where to show.
        cases, episodes: How many there are.
    """

    def __init__(self, stream: TextIO, cases: int, episodes: int) -> None:
        self._console = console_for(stream)
        self._cases, self._episodes = cases, episodes
        self._began, self._first = time.monotonic(), -1
        self._told = (-1, -1)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bars = [
            self._progress.add_task("budgets and baselines", total=cases),
            self._progress.add_task("episodes", total=episodes),
        ]

    def __enter__(self) -> Self:
        """Takes the lower lines of the terminal, if it is one."""
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives them back."""
        if self._console.is_terminal:
            self._progress.stop()

    def note(self, text: str) -> None:
        """Shows a line."""
        self._console.print(Text(text))

    def moved(self, cases: int, episodes: int) -> None:
        """See `siren.evaluation.runner.Watcher`."""
        if self._console.is_terminal:
            for bar, done in zip(self._bars, (cases, episodes), strict=True):
                self._progress.update(bar, completed=done)
            return
        if self._first < 0:
            self._first = episodes
        told = cases * PLAIN_PARTS // self._cases, episodes * PLAIN_PARTS // self._episodes
        if told != self._told:
            self._told = told
            text = f"{cases} of {self._cases} baselines, {episodes:,} of {self._episodes:,} episodes"
            self.note(text + self._left(episodes))

    def _left(self, episodes: int) -> str:
        fresh = episodes - self._first
        if fresh <= 0 or episodes == self._episodes:
            return ""
        seconds = (time.monotonic() - self._began) / fresh * (self._episodes - episodes)
        return f", ends in about {_format.seconds(seconds)}"
