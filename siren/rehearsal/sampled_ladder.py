"""The ladder of a sub-sample: how many times the epochs of a few functions does every count need?

Sub-epochs are short and the whole job needs few of its long ones, so whole numbers of either say little.
Counts are compared by where, between sub-epochs, their curves on the same data fall below the same level;
one longer curve of few functions says how many epochs the whole job needs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.errors import BudgetError
from siren.rehearsal.ladder import MOST_EPOCHS, PROMISING, RATIO, Ladder, Report, counts_of
from siren.rehearsal.sampled import epochs_to, expected_epochs
from siren.rehearsal.schedule import EPOCHS, LONGEST_LADDER, Schedule
from siren.rehearsal.stage import FIRST_SEED, Curve, Stage
from siren.rehearsal.workers import Workers
from siren.simulator.job import ActionGrid, FixedRuns, fixed_runs, memory_grid
from siren.types import Action

Floats = NDArray[np.float64]

CURVES_EACH = 3
"""Curves of a count, at most."""

FIRST_SHARE, OTHER_SHARE = 0.35, 0.12
"""Shares of the time that the curve of few functions takes, and that of another count."""

MOST_AHEAD = 4
"""A count is tried if it is at most so many times the largest that was."""

DOUBLING = 1.05
"""Twice the functions are worth it if they save 5%: at the end of every sub-epoch functions wait for each
other, so that their updates are less stale than those of a whole epoch."""

WORTH = 0.98
"""A count is tried if it could take less than this share of the best one's time."""

LEAST_EPOCHS = 3
"""Sub-epochs of a trial, at least."""

FINER = 4
"""Counts in a doubling that one is chosen from."""

UNTIL_HALF = 0.5
"""A run ends with a whole epoch: on average half of one later than the curve of its losses."""


class SampledLadder(Ladder):
    """Curves of counts of functions on a sub-sample; see `Ladder`.

    After the first count follows always the one that would be fastest if it needed no more epochs than the
    nearest count that was tried, until none could be faster than the best; then more seeds of the best.

    Args:
        stage: The sub-sample.
        usual: The action that is tried first.
        target: The whole job's.
        budget_usd: What a fixed action may need.
        schedule: How long all may take.
    """

    def __init__(
        self, stage: Stage, usual: Action, target: float, budget_usd: float, schedule: Schedule
    ) -> None:
        super().__init__(stage, usual.memory_mb, target, budget_usd, schedule)
        self._usual = min(usual.functions, stage.most_functions)
        self._given: list[int] = []

    def climb(self, pool: Workers, report: Report) -> None:
        """See `Ladder.climb`; in rounds, since what comes next may depend on curves that are still running.

        Raises:
            BudgetError: There was no time for a single curve, or there is nothing to train.
        """
        trained = -1
        while trained < self.trained:
            trained = self.trained
            calls = self._turns(pool, report)
            for curve in pool.each("curve", calls, self._schedule.until(LONGEST_LADDER)):
                if curve.losses[0] <= self._target:
                    raise self.done_already()
                self._curves.setdefault(curve.functions, []).append(curve)
        if not self._curves:
            raise self.too_short()

    def _turns(self, pool: Workers, report: Report) -> Iterator[tuple[Any, ...]]:
        """Curves to train, each decided on when its turn comes."""
        if not self._given:
            yield self._turn(self._usual, FIRST_SHARE, pool, report)
        while (n := self._next()) is not None:
            failed = self._curves and not self._longest()
            yield self._turn(n, FIRST_SHARE if failed else OTHER_SHARE, pool, report)
        for n in self._best():
            if self._given.count(n) < CURVES_EACH:
                yield self._turn(n, OTHER_SHARE, pool, report)

    def _turn(self, n: int, share: float, pool: Workers, report: Report) -> tuple[Any, ...]:
        report(f"a curve of {n} functions on a sub-sample")
        seed = FIRST_SEED + self._given.count(n)
        self._given.append(n)
        epochs = math.ceil(MOST_EPOCHS / self._stage.share)
        until = self._stage.clock() + share * pool.count * self._schedule.seconds
        until = min(until, self._schedule.until(LONGEST_LADDER))
        return n, self._memory_mb, epochs, self._target, seed, until, share == FIRST_SHARE

    def _next(self) -> int | None:
        """The count that could be fastest, if it could be faster than all that were tried."""
        given = self._given
        most = min(self._ceiling(), MOST_AHEAD * max(given) + 1)
        counts = [n for n in self._counts if n < most]
        if not counts:
            return None
        known = self._epochs()
        if known and not any(map(math.isfinite, known.values())):
            return max((n for n in counts if n < min(known) and n not in given), default=None)
        nearest = [min(known, key=lambda k: (abs(math.log(k / n)), k)) if known else n for n in counts]
        hoped = np.array([known.get(k, EPOCHS) for k in nearest], np.float64)
        hoped[~np.isfinite(hoped)] = MOST_EPOCHS
        hoped *= [self._caution(n, k) for n, k in zip(counts, nearest, strict=True)]
        fastest_s = self._fastest_s(_runs(self._grid(counts), hoped))
        best_s = min((t for n, t in zip(counts, fastest_s, strict=True) if n in given), default=math.inf)
        others = [(t, n) for n, t in zip(counts, fastest_s, strict=True) if n not in given]
        hoped_s, n = min(others, default=(math.inf, 0))
        return n if hoped_s < WORTH * best_s else None

    def _fastest_s(self, runs: FixedRuns) -> list[float]:
        """The least time of every count that the budget pays; of all sizes if it pays none at all."""
        fits = runs.needed_usd <= self._budget_usd
        usable = fits if fits.any() else np.isfinite(runs.duration_s)
        fastest: list[float] = np.where(usable, runs.duration_s, np.inf).min(axis=1).tolist()
        return fastest

    def _best(self) -> list[int]:
        """The promising counts so far, and the one that they are compared with."""
        if not any(map(math.isfinite, self._epochs().values())):
            return []
        grid, runs = self.fixed_runs()
        rows = list(dict.fromkeys(row for row, _ in self.ranked(runs)))[: PROMISING - 1]
        return list(dict.fromkeys([self._longest(), *(int(grid.functions[row]) for row in rows)]))

    @functools.cached_property
    def _counts(self) -> list[int]:
        """Counts of ratio 2 about the usual one, and those between."""
        stage, step = self._stage, math.sqrt(RATIO)
        between = (round(n * step) for n in counts_of(stage, self._memory_mb))
        counts = {self._usual, *counts_of(stage, self._memory_mb), *between}
        fit = (n for n in counts if n <= stage.most_functions)
        return sorted(n for n in fit if not stage.costing.refusal(Action(n, self._memory_mb)))

    def _grid(self, counts: list[int]) -> ActionGrid:
        costing = self._stage.costing
        return ActionGrid(costing, np.array(counts, np.int64), memory_grid(costing.world))

    def _longest(self) -> int:
        """The count with the longest curve that falls, of those with a loss on all samples if there are any.

        0 if none falls.
        """
        firsts = {n: curves[0] for n, curves in self._curves.items() if _falls(curves[0])}
        whole = {n: math.isfinite(curve.whole_loss) for n, curve in firsts.items()}
        return max(firsts, key=lambda n: (whole[n], len(firsts[n].losses)), default=0)

    def _epochs(self) -> dict[int, float]:
        """Epochs that the whole job is expected to need, by count; infinite where the loss does not fall."""
        if not self._curves:
            return {}
        first = self._longest()
        if not first:
            return dict.fromkeys(self._curves, math.inf)
        firsts = {curve.seed: curve for curve in self._curves[first] if _falls(curve)}
        found = {}
        for n, curves in self._curves.items():
            pairs = [(curve, firsts[curve.seed]) for curve in curves if curve.seed in firsts]
            ratios = [_ratio(curve.losses, other.losses) for curve, other in pairs]
            falls = bool(ratios) and all(map(_falls, curves))
            found[n] = (
                self._needed(first) * float(np.mean(ratios)) * self._caution(n, first) if falls else math.inf
            )
        return found

    def _needed(self, first: int) -> float:
        """Epochs that the whole job is expected to need with the functions of the longest curve."""
        curve = self._curves[first][0]
        return expected_epochs(curve.losses, self._stage.share, self._target * _easier(curve), MOST_EPOCHS)

    def _caution(self, n: int, other: int) -> float:
        return math.pow(DOUBLING, math.log2(max(n / other, 1.0)))

    @property
    def trial_target(self) -> float:
        """The loss that a sub-sample reaches in as many epochs as the whole job is expected to need.

        Raises:
            BudgetError: Losses do not fall.
        """
        first = self._longest()
        if not first:
            raise self._no_fall()
        losses = self._curves[first][0].losses
        epochs = max(math.ceil(self._needed(first)), LEAST_EPOCHS)
        later = losses[min(epochs, len(losses) - 1) :]
        return float(later[later < losses[0]][0])  # a curve may rise before it falls

    def _no_fall(self) -> BudgetError:
        return BudgetError(
            f"the loss does not fall on a sub-sample with {min(self._curves)} functions: "
            "give a smaller learning rate"
        )

    def fixed_runs(self) -> tuple[ActionGrid, FixedRuns]:
        """See `Ladder.fixed_runs`; counts between those that were tried need epochs between theirs."""
        found = {n: epochs for n, epochs in sorted(self._epochs().items()) if math.isfinite(epochs)}
        if not found:
            raise self._no_fall()
        tried = list(found)
        steps = math.floor(FINER * math.log(tried[-1] / tried[0], RATIO))
        between = {round(tried[0] * RATIO ** (step / FINER)) for step in range(steps)}
        allowed = {n for n in between if not self._stage.costing.refusal(Action(n, self._memory_mb))}
        counts = sorted(allowed | set(tried))
        epochs = np.interp(np.log(counts), np.log(tried), list(found.values()))
        grid = self._grid(counts)
        return grid, _runs(grid, np.maximum(epochs + UNTIL_HALF, 1.0))


def _falls(curve: Curve) -> bool:
    return len(curve.losses) > 1 and bool(curve.losses[-1] < curve.losses[0])


def _easier(curve: Curve) -> float:
    """Loss on the held-out samples of a sub-sample over that on all; they may well differ by a tenth."""
    ratio = float(curve.losses[-1] / curve.whole_loss)
    return ratio if math.isfinite(ratio) else 1.0


def _ratio(losses: Floats, others: Floats) -> float:
    """Epochs that a curve needs to the deepest level that both reach, over those that the other needs."""
    level = max(losses[-1], others[-1])
    if not level < min(losses[0], others[0]):
        return math.inf
    return epochs_to(losses, level) / epochs_to(others, level)


def _runs(grid: ActionGrid, epochs: Floats) -> FixedRuns:
    """Runs of a broken number of epochs, (counts,), between those of the whole numbers around it."""
    few = np.maximum(np.floor(epochs).astype(np.int64), 1)
    one, more = _whole_runs(grid, few), _whole_runs(grid, few + 1)
    share = (epochs - few)[:, None]

    def between(low: Floats, high: Floats) -> Floats:
        with np.errstate(invalid="ignore"):  # infinite where an action is not allowed
            mixed = low + share * (high - low)
        mixed[np.isinf(high)] = np.inf
        return mixed

    return FixedRuns(
        np.ceil(epochs).astype(np.int64),
        between(one.duration_s, more.duration_s),
        between(one.cost_usd, more.cost_usd),
        between(one.needed_usd, more.needed_usd),
    )


def _whole_runs(grid: ActionGrid, epochs: NDArray[np.int64]) -> FixedRuns:
    return fixed_runs(grid, (np.arange(epochs.max() + 1) < epochs[:, None]).astype(np.float64), 0.0)
