"""The table of epochs: columns of fixed width, as many as the screen is wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from siren.analysis import _format
from siren.types import EpochRecord


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        head: Its heading.
        width: Characters; the heading and every value fit.
        rank: Columns of high rank are left out first on a narrow screen.
        value: Its text for an epoch.
    """

    head: str
    width: int
    rank: int
    value: Callable[[EpochRecord], str]


COLUMNS = (
    Column("epoch", 5, 0, lambda r: str(r.status.report.epoch)),
    Column("funcs", 5, 0, lambda r: str(r.status.report.action.functions)),
    Column("mem MB", 6, 0, lambda r: str(r.status.report.action.memory_mb)),
    Column("loss", 7, 0, lambda r: _format.loss(r.status.report.loss)),
    Column("accuracy", 8, 2, lambda r: _format.percent(r.status.report.accuracy)),
    Column("time", 6, 0, lambda r: _format.seconds(r.status.report.duration_s)),
    Column("fetch", 6, 1, lambda r: _format.seconds(r.status.report.fetch_s)),
    Column("compute", 7, 1, lambda r: _format.seconds(r.status.report.compute_s)),
    Column("update", 6, 1, lambda r: _format.seconds(r.status.report.update_s)),
    Column("cold", 4, 1, lambda r: str(r.status.report.cold_starts)),
    Column("staleness", 9, 4, lambda r: f"{r.status.report.mean_staleness:.1f}"),
    Column("total", 6, 3, lambda r: _format.seconds(r.status.elapsed_s)),
    Column("cost", 9, 0, lambda r: _format.dollars(r.status.cost_usd, decimals=5)),
    Column("left", 8, 0, lambda r: _format.dollars(r.status.budget_left_usd)),
)


@dataclass(frozen=True)
class Table:
    """The columns that fit, and the space between them."""

    columns: tuple[Column, ...]
    gap: int

    @classmethod
    def for_width(cls, width: int) -> Table:
        """Return the most detailed table of at most `width` characters (but the least one always)."""
        for rank in sorted({column.rank for column in COLUMNS}, reverse=True):
            columns = tuple(column for column in COLUMNS if column.rank <= rank)
            for gap in (2, 1):
                table = cls(columns, gap)
                if table.width <= width:
                    return table
        return table

    @property
    def width(self) -> int:
        """Characters of a row."""
        return sum(column.width for column in self.columns) + self.gap * (len(self.columns) - 1)

    def heading(self) -> str:
        """The row of headings."""
        return self._join([column.head for column in self.columns])

    def row(self, record: EpochRecord) -> str:
        """The row of an epoch."""
        return self._join([column.value(record) for column in self.columns])

    def _join(self, cells: Sequence[str]) -> str:
        padded = [cell.rjust(column.width) for cell, column in zip(cells, self.columns, strict=True)]
        return (" " * self.gap).join(padded)


def incidents(record: EpochRecord) -> str:
    """What went wrong in an epoch, in a few words; empty if nothing did."""
    report = record.status.report
    counts = (
        (report.unfinished, "stopped at the deadline"),
        (report.throttles, "throttled"),
        (report.retries, "retried"),
    )
    said = [f"{_format.functions(count)} {what}" for count, what in counts if count]
    return f"epoch {report.epoch}: {', '.join(said)}" if said else ""
