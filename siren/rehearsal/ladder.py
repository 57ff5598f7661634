"""The ladder of a rehearsal: function counts trained without a budget, and what follows for every action."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.errors import BudgetError
from siren.rehearsal.sampled import expected_epochs
from siren.rehearsal.schedule import EPOCHS, LADDER_SHARE, LONGEST_LADDER, TRIALS_LEAST, Schedule
from siren.rehearsal.stage import FIRST_SEED, Curve, Stage
from siren.rehearsal.workers import Workers
from siren.simulator.job import ActionGrid, FixedRuns, fixed_runs, memory_grid
from siren.types import Action, BatchRule

Floats = NDArray[np.float64]
Report = Callable[[str], None]
"""Told what a rehearsal does, in a few words."""

RATIO = 2.0
"""Ratio of neighbouring counts; one refinement around the best halves it on a log scale."""

STEPS, PROMISING = 6, 4
"""Rounds, and counts that get another curve after each."""

MOST_EPOCHS = 60
"""A fixed action that does not reach the target in so many epochs is not considered."""

SLACK = 1.05
"""A fixed action is safe if so many times what it needs fits the budget."""

SLACKS = (SLACK, 0.95, 0.85)
"""Of every promising count the fastest size for each of these slacks races, and those between: near the noise
floor a few curves do not tell its epochs to within a tenth, and the sizes need almost the same dollars."""

COUNTS_RACING = 3
"""Counts that race, the fastest at the middle slack."""


class Ladder:
    """Curves of fixed counts of functions. Losses depend on n; times and dollars on (n, m), by the laws.

    Args:
        stage: What is trained.
        memory_mb: With how much memory.
        target: Held-out loss at which a curve ends.
        budget_usd: What a fixed action may need.
        schedule: How long all may take.
    """

    def __init__(
        self, stage: Stage, memory_mb: int, target: float, budget_usd: float, schedule: Schedule
    ) -> None:
        self._stage, self._memory_mb, self._target = stage, memory_mb, target
        self._budget_usd, self._schedule = budget_usd, schedule
        self._curves: dict[int, list[Curve]] = {}

    @property
    def trained(self) -> int:
        """How many curves there are."""
        return sum(len(curves) for curves in self._curves.values())

    def climb(self, pool: Workers, report: Report) -> None:
        """Trains the ladder of counts, from the middle outwards, then more around the best ones."""
        counts = counts_of(self._stage, self._memory_mb)
        for step in range(STEPS):
            if not counts or not self._time_for_curves(pool):
                break
            report(f"ladder of function counts: {', '.join(map(str, counts))}")
            calls = self._curve_calls(counts, FIRST_SEED + step, pool)
            for curve in pool.each("curve", calls, self._schedule.until(LONGEST_LADDER)):
                self._curves.setdefault(curve.functions, []).append(curve)
            counts = self._promising()
        if not self._curves:
            raise self.too_short()

    def too_short(self) -> BudgetError:
        """What to raise if there was no time for a single curve."""
        return BudgetError(
            f"{self._schedule.asked_s:g} s are too short to rehearse this job on this machine: "
            "give a rehearsal more seconds"
        )

    def done_already(self) -> BudgetError:
        """What to raise if the initial model is at the target."""
        return BudgetError("the initial model is at the target already: there is nothing to rehearse")

    def _curve_calls(self, counts: Sequence[int], seed: int, pool: Workers) -> Iterator[tuple[Any, ...]]:
        """Curves to train, each decided on when its turn comes."""
        for n in counts:
            if self._too_slow() < n < self._ceiling() and self._time_for_curves(pool):
                until = self._schedule.until(LONGEST_LADDER if self._slow(pool) else LADDER_SHARE)
                yield n, self._memory_mb, self._worth_following(), self._target, seed, until

    def _time_for_curves(self, pool: Workers) -> bool:
        """Whether the ladder may go on: for its share of the time, or longer if trials would be too few."""
        return self._stage.clock() < self._schedule.until(
            LONGEST_LADDER if self._slow(pool) else LADDER_SHARE
        )

    def _slow(self, pool: Workers) -> bool:
        """Whether what the ladder leaves of the time would not do for enough trials."""
        walls = [curve.wall_s for curves in self._curves.values() for curve in curves]
        episode_s = float(np.median(walls)) if walls else EPOCHS * self._schedule.epoch_s
        return (1 - LADDER_SHARE) * self._schedule.seconds * pool.count < TRIALS_LEAST * episode_s

    def _ceiling(self) -> float:
        """Counts above this are hopeless: a smaller one exploded."""
        exploded = [n for n, curves in self._curves.items() if _exploded(curves[0])]
        return min(exploded, default=math.inf)

    def _too_slow(self) -> float:
        """Counts below this are hopeless: a larger one was still falling when it was no longer followed.

        Fewer functions push less often in an epoch only where they split it.
        """
        if self._stage.workload.spec.training.batch_rule is not BatchRule.SPLIT:
            return 0
        falling = [
            n
            for n, curves in self._curves.items()
            if not curves[0].cut and self._target < curves[0].losses[-1] == curves[0].losses.min()
        ]
        return max(falling, default=0)

    def _worth_following(self) -> int:
        reached = [len(c[0].losses) - 1 for c in self._curves.values() if c[0].losses[-1] <= self._target]
        return min(MOST_EPOCHS, 3 * min(reached) + 2) if reached else MOST_EPOCHS

    def _promising(self) -> list[int]:
        """The best counts so far, for another curve, and counts between them and their neighbours."""
        try:
            grid, runs = self.fixed_runs()
        except BudgetError:
            return []
        rows = list(dict.fromkeys(row for row, _ in self.ranked(runs)))[:PROMISING]
        best = [int(grid.functions[row]) for row in rows]
        step = math.sqrt(RATIO)
        near = {round(best[0] / step), round(best[0] * step)} - {*best}
        fit = [n for n in sorted(near) if 1 <= n <= self._stage.most_functions]
        return [*best, *(n for n in fit if not self._stage.costing.refusal(Action(n, self._memory_mb)))]

    def fixed_runs(self) -> tuple[ActionGrid, FixedRuns]:
        """What every count that was trained is expected to take at every memory size.

        Raises:
            BudgetError: None of them reached the target.
        """
        counts = sorted(self._curves)
        costing = self._stage.costing
        grid = ActionGrid(costing, np.array(counts, np.int64), memory_grid(costing.world))
        known = [c for curves in self._curves.values() for c in curves]
        most = MOST_EPOCHS + 1 if any(c.cut for c in known) else max(len(c.losses) for c in known)
        excess = np.full((len(counts), most), np.inf)
        for row, n in enumerate(counts):
            excess[row] = _mean_losses(self._curves[n], most, self._target)
        runs = fixed_runs(grid, excess, self._target)
        if most == 1 and (excess <= self._target).all():
            raise self.done_already()
        if not runs.epochs.any():
            raise BudgetError(
                f"no fixed count of {', '.join(map(str, counts))} functions reached the loss "
                f"{self._target:.4g} within {most - 1} epochs of a rehearsal: give an easier target, "
                "or a smaller learning rate"
            )
        return grid, runs

    def ranked(self, runs: FixedRuns) -> list[tuple[int, int]]:
        """(count, size) indices from the fastest that the budget pays; if none, the cheapest first."""
        fits = runs.needed_usd * SLACK <= self._budget_usd
        usable = np.isfinite(runs.duration_s)
        if (fits & usable).any():
            score = np.where(fits & usable, runs.duration_s, np.inf)
        else:
            score = np.where(usable, runs.needed_usd, np.inf)
        order = np.argsort(score, axis=None, kind="stable")
        order = order[np.isfinite(score.ravel()[order])]
        rows, columns = np.unravel_index(order, score.shape)
        return list(zip(rows.tolist(), columns.tolist(), strict=True))

    def worth_racing(self, runs: FixedRuns) -> list[tuple[int, int]]:
        """(count, size) indices of what should be played with the budget enforced, the safest first."""
        sizes: dict[int, list[int]] = {}
        rank: dict[int, float] = {}
        for row, (needed_usd, duration_s) in enumerate(zip(runs.needed_usd, runs.duration_s, strict=True)):
            for slack in SLACKS:
                fits = np.isfinite(duration_s) & (needed_usd * slack <= self._budget_usd)
                if fits.any():
                    column = int(np.where(fits, duration_s, np.inf).argmin())
                    sizes.setdefault(row, []).append(column)
                    if slack != SLACKS[-1]:
                        rank[row] = float(duration_s[column])
        rows = sorted(rank, key=lambda row: rank[row])[:COUNTS_RACING]
        return [(row, column) for row in rows for column in _between(sizes[row])] or self.ranked(runs)[
            :COUNTS_RACING
        ]


def _between(columns: Sequence[int]) -> list[int]:
    """The columns, each once, and those halfway between neighbours."""
    kept = sorted(set(columns))
    halfway = {(a + b) // 2 for a, b in itertools.pairwise(kept)}
    return sorted({*kept, *halfway})


def counts_of(stage: Stage, memory_mb: int) -> list[int]:
    """Counts of ratio `RATIO`, from 8 outwards."""
    counts, n = [], 1
    while n <= stage.most_functions:
        counts.append(n)
        n = max(n + 1, round(n * RATIO))
    usable = [n for n in counts if not stage.costing.refusal(Action(n, memory_mb))]
    return sorted(usable, key=lambda n: abs(math.log(n / 8)))


def _exploded(curve: Curve) -> bool:
    last = float(curve.losses[-1])
    return not math.isfinite(last) or last > curve.losses[0]


def _continued(losses: Floats, target: float, length: int) -> Floats:
    """A curve that was cut off, down to the target in as many epochs as it is expected to need."""
    last = len(losses) - 1
    if last < 2 or not losses[-1] < losses[0]:
        return losses
    more = max(math.ceil(expected_epochs(losses, 1.0, target, length - 1)) - last, 1)
    rest = np.geomspace(losses[-1], target, more + 1)[1:]
    return np.concatenate([losses, rest])[:length]


def _mean_losses(curves: Sequence[Curve], length: int, target: float) -> Floats:
    """Mean losses after 0 to `length` - 1 epochs; a curve that reached the target stays there."""
    table = np.full((len(curves), length), np.inf)
    for row, curve in zip(table, curves, strict=True):
        losses = _continued(curve.losses, target, length) if curve.cut else curve.losses
        row[: len(losses)] = losses
        if losses[-1] <= target:
            row[len(losses) - 1 :] = target
    mean: Floats = table.mean(axis=0)
    mean[(table <= target).all(axis=0)] = target  # equal numbers may round to a mean above them
    return mean
