"""The best schedules of a simulated job in hindsight: fixed actions, and two phases.

Candidates come from closed forms, and are then played in whole episodes, the budget enforced,
all on the same seeds. Most leave after a few seeds; those that stay are ranked by failure-counted time.
A choice is the best on its own seeds: report it on others (`Arena.play`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from siren.simulator import core
from siren.simulator.core import Col, End, State
from siren.simulator.job import ActionGrid, SimulatedJob, fixed_runs
from siren.simulator.planner import Place, Plan, Planner
from siren.simulator.tables import Fact, Pool, pool_of
from siren.types import Action

Floats = NDArray[np.float64]

FAILURE = 2.0
"""A failure counts as so many reference times (docs/howto/evaluate.md)."""

OPTIMISM = 1.02
"""What a candidate needs may exceed the budget by this: bills vary."""

RICH = 1e12
"""Dollars that are no limit."""

FIXED_CANDIDATES = 80
"""Fixed actions that are played with the budget."""

ROUNDS = ((6, 60), (12, 20))
"""(seeds, candidates that stay after them); the last of them play on all seeds."""

STRETCHES = (1.0, 1.5)
"""Two-phase schedules are proposed by the closed form for these multiples of the target's excess."""

PROPOSALS = 80
"""Schedules of two phases that the closed form proposes for each of them."""

AROUND_LEVELS, AROUND_SWITCHES = (2, 5, 8), (0.5, 0.2, 0.08, 0.03)
"""Schedules around the best fixed action: so many levels more before, or less after, such a gap."""

REFINEMENTS = 96
"""Random neighbours of the best schedule that are played in the end."""


@dataclass(frozen=True)
class Schedule:
    """One action until the gap to the target has shrunk to a share of the initial gap, then another.

    Attributes:
        first, second: Places of the actions on the grid.
        switch: The share; a fixed action has 0, and is never left.
    """

    first: Place
    second: Place
    switch: float = 0.0

    @classmethod
    def fixed(cls, place: Place) -> Schedule:
        """The same action at every epoch."""
        return cls(place, place)


@dataclass(frozen=True)
class Trials:
    """Episodes of one candidate; arrays are (seeds,).

    Attributes:
        success: Whether the target was reached.
        elapsed_s, cost_usd: Of every episode.
    """

    success: NDArray[np.bool_]
    elapsed_s: Floats
    cost_usd: Floats

    @property
    def success_rate(self) -> float:
        """Share of episodes that reached the target."""
        return float(self.success.mean())

    @property
    def time_s(self) -> float:
        """Mean time of successes; infinite without any."""
        return float(self.elapsed_s[self.success].mean()) if self.success.any() else np.inf


@dataclass(frozen=True)
class Outcomes(Trials):
    """Episodes of one schedule; arrays are (seeds,).

    Attributes:
        epochs: Of every episode.
        failure_s: What a failure counts as.
    """

    epochs: NDArray[np.int64]
    failure_s: float

    @property
    def failure_counted_s(self) -> float:
        """Mean time, a failure counted as `failure_s`."""
        return float(np.where(self.success, self.elapsed_s, self.failure_s).mean())


@dataclass(frozen=True)
class Choice:
    """The best schedule of a search.

    Attributes:
        schedule: Where it is on the grid.
        actions: What it runs, one action or two.
        outcomes: On the seeds that it was chosen on.
        tried: How many candidates were played.
    """

    schedule: Schedule
    actions: tuple[Action, ...]
    outcomes: Outcomes
    tried: int


@numba.njit(cache=True)
def play_schedule(
    pool: Pool, state: State, places: tuple[int, int, int, int], switch: float, rng: np.random.Generator
) -> None:
    """A whole episode of job 0; its end stands in row 0 of the state.

    It ends as well where the budget can no longer reserve the schedule's action, as a run of
    `siren.policies.fixed` does: running on fewer functions instead would be another policy.

    Args:
        pool, state: The job and its environment.
        places: (first level, first size, second level, second size).
        switch: See `Schedule`.
        rng: Source of all noise; every epoch draws equally often, whatever the action.
    """
    core.begin(pool, state, 0, 0)
    values, facts = state.values[0], pool.facts[0]
    gap = switch * (facts[Fact.INITIAL] - facts[Fact.TARGET])
    level, size = places[0], places[1]
    while values[Col.END] == 0:
        if values[Col.LOSS] - facts[Fact.TARGET] <= gap:
            level, size = places[2], places[3]
        ran = core.take(pool, state, 0, level, size)
        ran = ran and values[Col.LEVEL] == level and values[Col.SIZE] == size
        if ran:
            core.simulate(pool, state, 0, rng)
        core.settle(pool, state, 0, ran, False)


class Arena:
    """Plays schedules of one job.

    Args:
        job: The job.
        failure_s: What a failure counts as; by default twice the job's reference time.
    """

    def __init__(self, job: SimulatedJob, failure_s: float | None = None) -> None:
        self.job = job
        self.failure_s = failure_s if failure_s is not None else FAILURE * job.spec.reference_s
        self.grid = ActionGrid.of(job.spec.costing)
        self.pool = pool_of([job])
        self._state = core.new_state(1)

    def play(self, schedules: Sequence[Schedule], seeds: Sequence[int]) -> list[Outcomes]:
        """Episodes of every schedule on every seed; equal seeds mean equal noise."""
        found = np.empty((4, len(schedules), len(seeds)))
        for s, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            start = rng.bit_generator.state
            for k, schedule in enumerate(schedules):
                rng.bit_generator.state = start
                places = (*schedule.first, *schedule.second)
                play_schedule(self.pool, self._state, places, schedule.switch, rng)
                v = self._state.values[0]
                reached = v[Col.END] == End.TARGET
                cost_usd = self.pool.facts[0, Fact.BUDGET] - v[Col.LEFT]
                found[:, k, s] = reached, v[Col.ELAPSED_S], cost_usd, v[Col.EPOCH]
        success, elapsed_s, cost_usd, epochs = found
        rows = zip(success > 0, elapsed_s, cost_usd, epochs.astype(np.int64), strict=True)
        return [Outcomes(*row, self.failure_s) for row in rows]

    def play_fixed(self, place: Place, seeds: Sequence[int]) -> Outcomes:
        """Episodes of a fixed action."""
        return self.play([Schedule.fixed(place)], seeds)[0]

    def best(self, schedules: Sequence[Schedule], seeds: Sequence[int]) -> Choice:
        """The schedule of least failure-counted time; see `ROUNDS` for how candidates leave."""
        left, tried = list(schedules), len(schedules)
        for count, stay in ROUNDS:
            if len(left) > stay and count < len(seeds):
                scores = [o.failure_counted_s for o in self.play(left, seeds[:count])]
                left = [left[k] for k in np.argsort(scores, kind="stable")[:stay]]
        outcomes = self.play(left, seeds)
        at = int(np.argmin([o.failure_counted_s for o in outcomes]))
        chosen = left[at]
        places = (chosen.first,) if chosen.first == chosen.second else (chosen.first, chosen.second)
        actions = tuple(
            Action(int(self.grid.functions[p.level]), int(self.grid.memory_mb[p.size])) for p in places
        )
        return Choice(chosen, actions, outcomes[at], tried)

    def epochs_alone(self, seeds: Sequence[int]) -> NDArray[np.int64]:
        """Epochs of every count to the target if money were no object, (counts, seeds); 0 for never.

        The loss of a fixed action depends on its count alone: equal noise, equal losses at every size.
        """
        runs = np.asarray(self.grid.allowed.any(axis=1))
        sizes = self.grid.allowed.argmax(axis=1)
        schedules = [Schedule.fixed(Place(int(k), int(sizes[k]))) for k in np.flatnonzero(runs)]
        budget_usd = float(self.pool.facts[0, Fact.BUDGET])
        self.pool.facts[0, Fact.BUDGET] = RICH
        try:
            outcomes = self.play(schedules, seeds)
        finally:
            self.pool.facts[0, Fact.BUDGET] = budget_usd
        found = np.zeros((len(runs), len(seeds)), np.int64)
        found[runs] = [np.where(o.success, o.epochs, 0) for o in outcomes]
        return found


def best_fixed(job: SimulatedJob, seeds: Sequence[int], failure_s: float | None = None) -> Choice:
    """The best fixed action of the whole grid, in hindsight.

    Args:
        job: The job.
        seeds: Seeds of the episodes; 24 or more, or the choice looks worse than it is.
        failure_s: What a failure counts as; by default twice the job's reference time.
    """
    arena = Arena(job, failure_s)
    return arena.best(fixed_candidates(arena, seeds), seeds)


def fixed_candidates(arena: Arena, seeds: Sequence[int]) -> list[Schedule]:
    """The fixed actions of the whole grid that may be the best, the most promising first.

    Every count is played once for each seed without a budget; with the epochs that it took, the closed
    form gives time and bill at every size. Means of the model would not do: the best fixed action often
    is one whose mean excess never gets to the target, and whose excess does by luck.
    """
    spec, grid = arena.job.spec, arena.grid
    epochs = arena.epochs_alone(seeds)
    times = np.arange(spec.max_epochs + 1)
    total_s = np.zeros(grid.allowed.shape)
    for taken in epochs.T:
        missing = (taken[:, None] == 0) | (times < taken[:, None])
        runs = fixed_runs(grid, missing.astype(np.float64), 0.5)
        pays = runs.needed_usd <= OPTIMISM * spec.budget_usd
        total_s += np.where(pays, runs.duration_s, arena.failure_s)
    total_s[~grid.allowed] = np.inf
    order = np.argsort(total_s, axis=None, kind="stable")[: min(FIXED_CANDIDATES, int(grid.allowed.sum()))]
    return [Schedule.fixed(_place(arena, flat)) for flat in order]


def _place(arena: Arena, flat: int) -> Place:
    level, size = np.unravel_index(flat, arena.grid.allowed.shape)
    return Place(int(level), int(size))


def best_two_phase(job: SimulatedJob, seeds: Sequence[int], failure_s: float | None = None) -> Choice:
    """The best schedule of two phases that a search finds, in hindsight.

    It plays what the closed form proposes (`PROPOSALS`), schedules around the best fixed action
    (`AROUND_LEVELS`), that action itself, and then `REFINEMENTS` neighbours of the best of all these.

    Args:
        job: A job with quadratic dynamics.
        seeds: Seeds of the episodes.
        failure_s: What a failure counts as; by default twice the job's reference time.

    Raises:
        UsageError: The job's dynamics are not quadratic.
    """
    arena, planner = Arena(job, failure_s), Planner.of(job)
    fixed = arena.best(fixed_candidates(arena, seeds), seeds).schedule
    proposed = [
        _of_plan(planner, plan)
        for stretch in STRETCHES
        for plan in planner.schedules(job.spec.budget_usd, stretch, PROPOSALS)
    ]
    candidates = list(dict.fromkeys([fixed, *proposed, *_around(arena, fixed)]))
    best = arena.best(candidates, seeds)
    near = list(dict.fromkeys([best.schedule, *_neighbours(arena, best.schedule)]))
    return dataclasses.replace(arena.best(near, seeds), tried=len(candidates) + len(near))


def _of_plan(planner: Planner, plan: Plan) -> Schedule:
    """The schedule that switches where the mean excess is in the middle of the plan's switch."""
    energy = before = planner.initial_energy
    for _ in range(plan.epochs):
        before, energy = energy, planner.advance(energy, plan.first.level)
    gaps = np.array([before.sum(), energy.sum()]) - planner.target
    switch = np.sqrt(np.maximum(gaps, 0.0).prod()) / (planner.initial_energy.sum() - planner.target)
    return Schedule(plan.first, plan.second, float(switch))


def _around(arena: Arena, fixed: Schedule) -> list[Schedule]:
    """More functions before, or fewer after, or both."""
    place, most = fixed.first, len(arena.grid.functions) - 1
    steps = (0, *AROUND_LEVELS)
    found = []
    for up, down in itertools.product(steps, steps):
        more = Place(min(place.level + up, most), place.size)
        fewer = Place(max(place.level - down, 0), place.size)
        found += [Schedule(more, fewer, switch) for switch in AROUND_SWITCHES if more != fewer]
    return found


def _neighbours(arena: Arena, schedule: Schedule) -> list[Schedule]:
    """Random neighbours, the same at every call."""
    rng = np.random.default_rng(0)
    levels, sizes = (count - 1 for count in arena.grid.allowed.shape)
    found = []
    for _ in range(REFINEMENTS):
        places = [
            Place(
                int(np.clip(place.level + rng.integers(-3, 4), 0, levels)),
                int(np.clip(place.size + rng.integers(-1, 2), 0, sizes)),
            )
            for place in (schedule.first, schedule.second)
        ]
        stretch = float(np.exp(0.4 * rng.standard_normal()))
        found.append(Schedule(places[0], places[1], schedule.switch * stretch))
    return found
