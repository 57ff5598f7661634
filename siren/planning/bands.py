"""Bands that hold a new outcome with a stated chance, from few outcomes.

The 10th and 90th percentile of m outcomes hold less than 80% of new ones: 65% at m = 10, 76% at
m = 40, since the percentiles themselves are uncertain. So predictive quantiles are taken. From
`ORDERED` outcomes on they are order statistics: a new outcome lies below the i-th of m with chance
i / (m + 1), whatever the distribution (Wilks, 1941). Of fewer, the logarithms are taken as normal:
mean -+ t(0.9, m - 1) s sqrt(1 + 1/m) (Hahn and Meeker, Statistical Intervals, 1991).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LOW, HIGH = 0.1, 0.9
"""The band's quantiles."""

ORDERED = 9
"""Outcomes from which the 1st and the last are at or outside of the band's quantiles."""


@dataclass(frozen=True)
class Band:
    """Where a new outcome is expected.

    Attributes:
        mean: Mean of those that were seen.
        low, high: 10% and 90% predictive quantile; None where one outcome is all there is.
        count: How many were seen.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    def holds(self, value: float) -> bool:
        """Whether a value is inside."""
        return self.low is not None and self.high is not None and self.low <= value <= self.high


def band_of(outcomes: Sequence[float]) -> Band | None:
    """The band of outcomes, none below 0; None without any."""
    values = np.asarray(outcomes, np.float64)
    count = len(values)
    if count == 0:
        return None
    mean = float(values.mean())
    if count == 1:
        return Band(mean, None, None, 1)
    if count >= ORDERED:
        low, high = np.quantile(values, (LOW, HIGH), method="weibull").tolist()
        return Band(mean, low, high, count)
    logarithmic = bool(values.min() > 0)  # a run that could not pay one epoch costs nothing
    scale = np.log(values) if logarithmic else values
    reach = stats.t.ppf(HIGH, count - 1) * scale.std(ddof=1) * np.sqrt(1 + 1 / count)
    ends = scale.mean() + np.array([-reach, reach])
    low, high = (np.exp(ends) if logarithmic else np.maximum(ends, 0.0)).tolist()
    return Band(mean, low, high, count)


@dataclass(frozen=True)
class Chance:
    """The chance of a success, from some trials.

    Attributes:
        mean: Its expectation under Jeffreys' prior, (s + 1/2) / (m + 1): never quite 0 or 1.
        low, high: 10% and 90% quantile of what it may be.
    """

    mean: float
    low: float
    high: float


def chance_of(successes: int, trials: int) -> Chance:
    """The chance of a success after so many of so many trials."""
    a, b = successes + 0.5, trials - successes + 0.5
    low, high = stats.beta.ppf((LOW, HIGH), a, b).tolist()
    return Chance(a / (a + b), low, high)
