"""Shows a run as it goes: on a terminal, as plain lines, or as one JSON object.

Rows of finished epochs are printed once and scroll away; only the few lines below them are redrawn.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from siren.analysis import _format, _wording, records
from siren.analysis._table import Table, incidents
from siren.errors import RunFolderError
from siren.types import Decision, EpochRecord, RunHeader, RunObserver, RunSummary

PAST_ROWS = 5
"""Epochs of an earlier process that are shown again on resume."""
_REFRESHES_PER_S = 5
_MAX_WIDTH = 110


class _PatientConsole(Console):
    """A console whose reader may go away: the run goes on, nothing more is shown."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # What is still buffered must not fail again when the interpreter ends.
        with contextlib.suppress(OSError, ValueError):
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.file.fileno())
            os.close(devnull)


def console_for(stream: TextIO) -> Console:
    """Return a console on `stream`: styled on a terminal, without control characters elsewhere."""
    terminal = stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return _PatientConsole(file=stream, force_terminal=terminal, highlight=False, soft_wrap=not terminal)


@contextlib.contextmanager
def progress_line(stream: TextIO, begins: str, plain: str = "") -> Iterator[Callable[[str], None]]:
    """Something to report to: one line that is redrawn on a terminal, and silence elsewhere.

    Args:
        stream: Where the line goes.
        begins: What the line begins with.
        plain: What is said once where it is no terminal.
    """
    console = console_for(stream)
    if not console.is_terminal:
        if plain:
            print(plain, file=stream, flush=True)
        yield lambda text: None
        return
    with console.status(begins) as status:
        yield lambda text: status.update(f"{begins}: {text}")


def observer_for(json: bool, stdout: TextIO, stderr: TextIO) -> RunObserver:
    """Return who shows a run.

    Args:
        json: Keep `stdout` for one JSON object at the end, and show progress on `stderr` if that
            is a terminal, else notes alone.
        stdout: Where results go.
        stderr: Where progress goes beside JSON.
    """
    if not json:
        return ConsoleObserver(console_for(stdout))
    console = console_for(stderr)
    return JsonObserver(stdout, ConsoleObserver(console) if stderr.isatty() else NotesObserver(console))


class NotesObserver(RunObserver):
    """What the user should know now, as lines, and nothing else.

    Args:
        console: Where to show it; one that cannot be written to never stops a run.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def note(self, text: str) -> None:
        """Show it as a line."""
        with contextlib.suppress(OSError, ValueError):
            self._console.print(Text(text))


class ConsoleObserver(RunObserver):
    """Header, a row per epoch, live progress on a terminal, summary.

    A console that cannot be written to never stops a run: it falls silent.

    Args:
        console: Where to show; not a terminal means plain lines.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._terminal = console.is_terminal
        self._table = Table.for_width(0)
        self._rows_since_heading = 0
        self._live: Live | None = None
        self._header: RunHeader | None = None
        self._initial_loss = self._best_loss = math.nan
        self._spent_usd = 0.0
        self._now = ""

    def started(self, header: RunHeader, past: tuple[EpochRecord, ...], initial_loss: float) -> None:
        """Show the header and the last of the past epochs."""
        self._header = header
        self._initial_loss = self._best_loss = initial_loss
        with self._steadily():
            self._show_header(header)
            for record in past:
                self._count(record)
            if past:
                spent = _format.dollars(self._spent_usd)
                self._line(f"resumed after epoch {len(past)}, {spent} spent", "bold")
            self._heading()
            if len(past) > PAST_ROWS:
                self._line(f"... {len(past) - PAST_ROWS} earlier epochs", "dim")
            for record in past[-PAST_ROWS:]:
                self._row(record)
            self._start_live()

    def epoch_started(self, epoch: int, decision: Decision) -> None:
        """Say what runs now."""
        action = decision.action
        self._now = f"epoch {epoch}: {_format.functions(action.functions)} of {action.memory_mb:,} MB"
        with self._steadily():
            self._update_live()

    def epoch_ended(self, record: EpochRecord) -> None:
        """Add the epoch's row."""
        self._count(record)
        with self._steadily():
            if self._terminal and Table.for_width(self._console.width) != self._table:
                self._heading()  # The window was resized.
            elif self._terminal and self._rows_since_heading >= max(20, self._console.height - 8):
                self._heading()
            self._row(record)
            self._update_live()

    def note(self, text: str) -> None:
        """Show it as a line above the live region."""
        with self._steadily():
            self._line(text, "bold")

    def finished(self, summary: RunSummary) -> None:
        """Show how the run ended."""
        self.close()
        with self._steadily():
            self._show_summary(summary)

    def close(self) -> None:
        """Give the terminal back; `finished` does so too."""
        live, self._live = self._live, None
        if live is not None:
            atexit.unregister(self.close)
            with self._steadily():
                live.stop()

    def _count(self, record: EpochRecord) -> None:
        loss = record.status.report.loss
        if not self._best_loss <= loss:  # NaN compares false: the first number replaces it.
            self._best_loss = loss if math.isfinite(loss) else self._best_loss
        self._spent_usd += float(record.status.cost_usd)

    @contextlib.contextmanager
    def _steadily(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # e.g. output to a file on a full disk: what the run earned is worth more.
            self._console.quiet = True

    def _line(self, text: str, style: str = "") -> None:
        """Print one line and flush it; on a terminal cut to its width."""
        encoding = self._console.encoding
        text = text.encode(encoding, "replace").decode(encoding)
        self._console.print(
            Text(text, style=style),
            no_wrap=True,
            overflow="ellipsis" if self._terminal else "ignore",
            crop=self._terminal,
            soft_wrap=not self._terminal,
        )
        self._console.file.flush()

    def _heading(self) -> None:
        self._table = Table.for_width(self._console.width)
        self._rows_since_heading = 0
        self._line(self._table.heading(), "bold")

    def _row(self, record: EpochRecord) -> None:
        self._rows_since_heading += 1
        self._line(self._table.row(record))
        trouble = incidents(record)
        if trouble:
            self._line(trouble, "yellow")

    def _show_header(self, header: RunHeader) -> None:
        lines = _wording.header_lines(header)
        if self._terminal:
            self._panel(f"Siren: {_wording.title(header)}", [_grid(lines)], "cyan")
            return
        self._line(f"Siren: {_wording.title(header)}")
        self._plain(lines)
        self._line("")

    def _show_summary(self, summary: RunSummary) -> None:
        lines, bill = _wording.summary_lines(summary), _wording.bill_lines(summary)
        following = _wording.next_lines(summary)
        if self._terminal:
            style = "green" if summary.target_reached else "yellow"
            parts: list[RenderableType] = [_grid(lines)]
            if bill:
                parts.append(_bill_grid(bill))
            # Paths and commands stay outside of the frame, so that they can be copied.
            self._panel(_wording.verdict(summary), parts, style)
            for name, value in following:
                self._console.print(Text(f"{name:8} {value}"), soft_wrap=True)
            return
        self._line("")
        self._line(_wording.verdict(summary))
        self._plain(lines)
        for index, (name, usd) in enumerate(bill):
            self._line(f"{'' if index else 'bill':8}  {name:18} {usd:>12}")
        self._plain(following)

    def _plain(self, lines: _wording.Lines) -> None:
        for name, value in lines:
            self._line(f"{name:8}  {value}")

    def _panel(self, title: str, parts: list[RenderableType], style: str) -> None:
        width = min(self._console.width, _MAX_WIDTH)
        self._console.print(
            Panel(
                Group(*parts),
                title=Text(title, style="bold"),
                title_align="left",
                border_style=style,
                box=box.ROUNDED,
                width=width,
            )
        )

    def _start_live(self) -> None:
        if not self._terminal or self._console.quiet:
            return
        ours = self._console.file is sys.stdout
        self._live = Live(
            get_renderable=self._progress,
            console=self._console,
            transient=True,
            refresh_per_second=_REFRESHES_PER_S,
            # What a user's model prints goes above the live lines, if it goes to the same terminal.
            redirect_stdout=ours,
            redirect_stderr=ours and sys.stderr.isatty(),
        )
        atexit.register(self.close)
        self._live.start(refresh=True)
        self._console.show_cursor(True)  # A killed process cannot bring it back.

    def _update_live(self) -> None:
        if self._live is not None and self._console.quiet:
            self.close()

    def _progress(self) -> RenderableType:
        header = self._header
        if header is None:
            return Text("")
        towards = _format.progress(self._initial_loss, self._best_loss, header.target_loss)
        budget_usd = float(header.budget_usd)
        spent = min(1.0, self._spent_usd / budget_usd) if budget_usd > 0 else 0.0
        budget = _format.budget(header.budget_usd)
        grid = Grid.grid(padding=(0, 2), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, min_width=18)
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True, min_width=4)
        for name, value, share, style in (
            ("best loss", f"{_format.loss(self._best_loss)} -> {header.target_loss:g}", towards, "green"),
            ("budget", f"{_format.dollars(self._spent_usd)} of {budget}", spent, "cyan"),
        ):
            bar = ProgressBar(total=1.0, completed=share, complete_style=style, finished_style=style)
            grid.add_row(Text(name, style="dim"), value, bar, f"{share:.0%}")
        now = Text(self._now or "starting", style="dim", no_wrap=True, overflow="ellipsis")
        width = min(self._console.width, _MAX_WIDTH)
        return _Narrow(Group(grid, now), width)


class Held(RunObserver):
    """Passes on all but how a run ended.

    Args:
        observer: Whom to tell.
    """

    def __init__(self, observer: RunObserver) -> None:
        self._observer = observer

    def started(self, header: RunHeader, past: tuple[EpochRecord, ...], initial_loss: float) -> None:
        """See `RunObserver.started`."""
        self._observer.started(header, past, initial_loss)

    def epoch_started(self, epoch: int, decision: Decision) -> None:
        """See `RunObserver.epoch_started`."""
        self._observer.epoch_started(epoch, decision)

    def epoch_ended(self, record: EpochRecord) -> None:
        """See `RunObserver.epoch_ended`."""
        self._observer.epoch_ended(record)

    def note(self, text: str) -> None:
        """See `RunObserver.note`."""
        self._observer.note(text)

    def close(self) -> None:
        """See `RunObserver.close`."""
        self._observer.close()


class JsonObserver(Held):
    """Prints the summary as one JSON object when the run ended, and nothing else on `stdout`.

    Args:
        stdout: Where the object goes.
        progress: Who shows the run meanwhile.
    """

    def __init__(self, stdout: TextIO, progress: RunObserver) -> None:
        super().__init__(progress)
        self._stdout = stdout

    def finished(self, summary: RunSummary) -> None:
        """Print the object.

        Raises:
            RunFolderError: `stdout` cannot be written.
        """
        self._observer.finished(summary)
        try:
            self._stdout.write(records.to_text(records.summary_to_json(summary), indent=2) + "\n")
            self._stdout.flush()
        except OSError as error:
            raise RunFolderError(
                f"could not write the summary to stdout: {error.strerror}; "
                f"it is also in {summary.header.folder}/summary.json"
            ) from error


class _Narrow:
    """A renderable that uses at most `width` characters."""

    def __init__(self, content: RenderableType, width: int) -> None:
        self._content = content
        self._width = width

    def __rich_console__(self, console: Console, options: Any) -> Iterator[Any]:
        yield from console.render(self._content, options.update(width=min(self._width, options.max_width)))


def _grid(lines: _wording.Lines) -> Grid:
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, min_width=8)
    grid.add_column(overflow="fold")
    for name, value in lines:
        grid.add_row(name, Text(value, style="bold" if "no money is spent" in value else ""))
    return grid


def _bill_grid(lines: _wording.Lines) -> Grid:
    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True, min_width=8)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    for index, (name, usd) in enumerate(lines):
        grid.add_row("bill" if index == 0 else "", name, usd)
    return grid
