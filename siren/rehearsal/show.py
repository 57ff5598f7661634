"""A rehearsal on a terminal: progress while it goes, a table of what it found."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from siren.analysis.console import progress_line
from siren.rehearsal.rehearse import Rehearsal
from siren.rehearsal.selection import Standing
from siren.rehearsal.stage import Candidate
from siren.units import counted


def progress(stream: TextIO, seconds: float) -> AbstractContextManager[Callable[[str], None]]:
    """See `progress_line`."""
    return progress_line(stream, f"rehearsing in the twin for {seconds:g} s, which costs nothing")


def summary_line(rehearsal: Rehearsal, chosen: Candidate, known: bool = False) -> str:
    """What was found, in a line for a run's header.

    Args:
        rehearsal: What was found.
        chosen: What the run uses: the rehearsal's choice, or the policy that the user named.
        known: Whether it was found before.
    """
    before = "earlier, " if known else ""
    part = "" if rehearsal.share >= 1 else f" of {rehearsal.share:.0%} of the samples"
    own = chosen == rehearsal.choice
    why = rehearsal.why if own else f"as you wish, relative to {rehearsal.reference.action}"
    return f"rehearsed {_played(rehearsal)}{part} {before}in {rehearsal.wall_s:.0f} s: {chosen.name}, {why}"


def show(rehearsal: Rehearsal, console: Console, target_loss: float) -> None:
    """Prints the ladder, the candidates and the choice."""
    ladder = ", ".join(f"{n}: {epochs or 'never'}" for n, epochs in rehearsal.ladder)
    console.print(f"epochs to the target by functions  {ladder}", soft_wrap=True)
    if rehearsal.share < 1:
        console.print(
            f"rehearsed on {rehearsal.share:.1%} of each epoch's samples, down to the loss "
            f"{rehearsal.target_loss:.4g} (the job's own target is {target_loss:.4g}): "
            "expect other times, and read the choice as a good guess",
            soft_wrap=True,
        )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("candidate", "reached", "time", "10-90%", "cost", "failures counted twice"):
        table.add_column(title, justify="left" if title == "candidate" else "right")
    for standing in rehearsal.standings:
        table.add_row(*_row(standing))
    console.print(table)
    console.print(f"choice: {rehearsal.choice.name}, {rehearsal.why}", soft_wrap=True)
    console.print(
        f"{_played(rehearsal)} in {rehearsal.wall_s:.1f} s; no money was spent",
        soft_wrap=True,
    )


def _row(standing: Standing) -> tuple[str, ...]:
    if standing.duration_s is None or standing.low_s is None or standing.high_s is None:
        times = ("", "")
    else:
        times = f"{standing.duration_s:.1f} s", f"{standing.low_s:.1f}-{standing.high_s:.1f} s"
    reached = f"{standing.successes} of {standing.episodes}" if standing.episodes else "not played"
    score = f"{standing.score_s:.1f} s" if standing.episodes else ""
    return standing.candidate.name, reached, *times, f"${standing.cost_usd:.4f}", score


def _played(rehearsal: Rehearsal) -> str:
    return f"{counted(rehearsal.episodes, 'episode')} and {counted(rehearsal.curves, 'curve')}"
