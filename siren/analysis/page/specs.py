"""What a chart is made of, as values that become JSON; `assets/` draws them."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from types import NoneType
from typing import Any

Numbers = tuple[float | None, ...]
"""One number per point; None where there is none, for JSON has no NaN."""


class Mark(enum.StrEnum):
    """How a series is drawn over the points of its chart."""

    LINE = "line"
    """From point to point."""
    STEPS = "steps"
    """Level around each point: x is the number of an epoch."""
    HOLD = "hold"
    """Level from each point to the next."""
    BAND = "band"
    """The area between `low` and `y`, level from each point to the next."""
    BARS = "bars"
    """A bar around each point, from `low` to `y`."""


@dataclass(frozen=True)
class Table:
    """The numbers of a chart as text.

    Attributes:
        head: Names of the columns.
        rows: Cells; row i is of point i.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: What it counts, with the unit.
        prefix: Stands before every number, e.g. "$".
        log: Whether it is logarithmic; ignored where a value is not positive.
        whole: Whether only whole numbers are marked.
        zero: Whether it starts at zero.
    """

    label: str
    prefix: str = ""
    log: bool = False
    whole: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Series:
    """One line, band or kind of bar.

    Attributes:
        name: What it is; stands in the legend.
        tone: Its colour: a variable `--tone-...` of the style sheet.
        mark: How it is drawn.
        y: Its values.
        low: Where bands and bars begin.
        label: Stands at its last point; empty for none.
    """

    name: str
    tone: str
    mark: Mark
    y: Numbers
    low: Numbers = ()
    label: str = ""


@dataclass(frozen=True)
class Rule:
    """A horizontal line across the chart."""

    y: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A chart over points.

    Attributes:
        id: Unique on the page.
        title: Its heading.
        alt: The text for who does not see it: what it shows, in a sentence or two.
        x, y: The axes.
        xs: Where the points are.
        series: What is drawn, lowest first.
        rules: Lines across.
        table: The same as text.
        size: "tall" or "low".
        legend: Whether a legend is needed.
    """

    id: str
    title: str
    alt: str
    x: Axis
    y: Axis
    xs: Numbers
    series: tuple[Series, ...]
    table: Table
    rules: tuple[Rule, ...] = ()
    size: str = "tall"
    legend: bool = False
    kind: str = "points"


@dataclass(frozen=True)
class Amounts:
    """Named amounts as horizontal bars.

    Attributes:
        id, title, alt, table: As in `Chart`.
        names, values: The bars, from the top.
        texts: What stands beside them.
    """

    id: str
    title: str
    alt: str
    names: tuple[str, ...]
    values: Numbers
    texts: tuple[str, ...]
    table: Table
    kind: str = "amounts"


def numbers(values: Iterable[float | Decimal]) -> Numbers:
    """The values as floats, None for what is not finite."""
    return tuple(float(value) if math.isfinite(value) else None for value in values)


def plain(value: Any) -> Any:
    """A value made of dataclasses and tuples as JSON; tuples hold values of one kind."""
    if dataclasses.is_dataclass(value):
        return {key: plain(part) for key, part in vars(value).items()}
    if isinstance(value, tuple) and value and not isinstance(value[0], _SCALARS):
        return [plain(part) for part in value]
    return value


_SCALARS = (str, float, int, NoneType)
