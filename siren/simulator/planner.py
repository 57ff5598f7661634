"""A planner that knows the model: at every epoch the fastest affordable schedule of two phases from here.

From the expected energy of every mode (u_i^2 / 2, see `siren.simulator.quadratic`) it follows the mean
and the variance of the excess under every "k epochs of a, then b until the target is likely to have been
reached", and takes the first action of the schedule that ends first among those whose expected bill fits
what is left. Doing so anew at every epoch makes it a feedback policy. The same schedules from the start
are what `siren.simulator.search` proposes.

A loss that is expected to rise above the initial one is no part of a plan. The model would forgive it
(fast modes that blow up under many functions are gone after an epoch of few, and slow modes gain
meanwhile), but a real loss is no quadratic out there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from siren.simulator import quadratic
from siren.simulator.job import ActionGrid, SimulatedJob
from siren.simulator.quadratic import AMPLITUDE_MAX, Quadratic
from siren.simulator.schedules import SWITCHES, Costs, epochs_to_target, fastest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RELAXED = 1.25
"""Where no schedule is expected to reach the target, one is sought for this multiple of it, and so on."""

MARGIN = 1.03
"""Expected bills are multiplied by this before they are held against the budget."""

PRICES = 12
"""Prices of a dollar in seconds that sizes of functions are chosen by, from free to dear."""

PRICE_SPAN = 1e-2, 1e3
"""The lowest and highest of them, over the time to spend what is left if all actions were alike."""


class Place(NamedTuple):
    """An action by its place on the grid."""

    level: int
    size: int


@dataclass(frozen=True)
class Plan:
    """A schedule of two phases.

    Attributes:
        first: Action of the next epoch: that of the first phase, or `second` if there is none.
        epochs: How many epochs it runs.
        second: Action of the second phase.
        later: Epochs that the second phase is expected to need.
        expected_s, expected_usd: To the target, from where the plan was made.
        short_usd: What the budget lacks for the expected bill with its margin; 0 if it fits.
    """

    first: Place
    epochs: int
    second: Place
    later: int
    expected_s: float
    expected_usd: float
    short_usd: float

    @property
    def rank(self) -> tuple[float, float]:
        """The lower, the better: what fits, then what ends first."""
        return self.short_usd, self.expected_s


class Planner:
    """Looks ahead with a model of the job.

    Args:
        dynamics: How the job converges, as known or as fitted.
        grid: Its actions.
        target: Excess loss of the target, over the model's lowest loss.
        memory_mb: Size that the delay of pushes is expected at.
        margin: See `MARGIN`.
    """

    def __init__(
        self,
        dynamics: Quadratic,
        grid: ActionGrid,
        target: float,
        memory_mb: float,
        *,
        margin: float = MARGIN,
    ) -> None:
        self.dynamics = dynamics
        self.grid = grid
        self.target = target
        self.margin = margin
        pushes, batch = grid.pushes
        costing, counts = grid.costing, grid.functions.astype(np.float64)
        maps = quadratic.responses(
            dynamics, costing.job.update_rule, counts, pushes, batch, grid.delay(memory_mb)
        )
        with np.errstate(over="ignore"):  # gains far beyond the cliff
            self.gain, self.power = maps.gain**2, maps.spread**2 / 2
        self._counts = counts
        warm = 0 if costing.job.samples % costing.job.dataset_samples == 0 else 1
        self._warm_s = np.where(grid.allowed, grid.duration_s[warm], np.inf)
        self._warm_usd = grid.marginal_usd[warm]
        self._least_s = self._warm_s.min(axis=1)
        self._cold_s = grid.duration_s[2] - grid.duration_s[warm]
        self._cold_usd = grid.marginal_usd[2] - grid.marginal_usd[warm]
        rungs = len(costing.world.limits.timeout_rungs)
        self._version = np.arange(len(grid.memory_mb)) * rungs + grid.covering_rung
        self._cache_usd_per_h = float(costing.pricer.cache_usd_per_h) if costing.uses_cache else 0.0
        self._setup_usd = float(grid.standing_usd(np.zeros(1))[0])

    @classmethod
    def of(cls, job: SimulatedJob, *, margin: float = MARGIN) -> Planner:
        """The planner with the true model of a simulated job.

        Raises:
            TypeError: The job's dynamics are not quadratic.
        """
        if not isinstance(job.dynamics, Quadratic):
            raise TypeError(f"a planner follows quadratic dynamics, not {type(job.dynamics).__name__}")
        spec = job.spec
        target = spec.target_loss - spec.initial_loss + job.dynamics.excess
        grid = ActionGrid.of(spec.costing)
        return cls(job.dynamics, grid, target, float(spec.memory_ref_mb), margin=margin)

    @property
    def initial_energy(self) -> Floats:
        """u^2 / 2 of every mode of the initial model, (modes,)."""
        energy: Floats = self.dynamics.amplitudes**2 / 2
        return energy

    def advance(self, energy: Floats, level: int) -> Floats:
        """Expected energies after an epoch at a level, (modes,)."""
        ceiling = AMPLITUDE_MAX**2 / 2 * self.dynamics.excess
        after: Floats = np.minimum(self.gain[level] * energy + self.power[level], ceiling)
        return after

    def track(self, energy: Floats, level: int, excess: float) -> Floats:
        """Energies after an epoch whose excess loss was observed, (modes,).

        The expected ones, scaled so that their sum is what was observed; an excess that is not positive
        (a model whose lowest loss is too high) leaves a thousandth of the target.
        """
        after = self.advance(energy, level)
        scaled: Floats = after * (max(excess, 1e-3 * self.target) / after.sum())
        return scaled

    def plan(
        self,
        energy: Floats,
        left_usd: float,
        *,
        elapsed_s: float = 0.0,
        last: Place | None = None,
    ) -> Plan:
        """The schedule from here that is expected to end first.

        Args:
            energy: Expected u^2 / 2 of every mode, (modes,).
            left_usd: What is left of the budget.
            elapsed_s: The run's clock.
            last: The action before, whose environments are warm; None before the first.
        """
        if last is None:
            left_usd -= self._setup_usd
        warm = (-1, 0.0) if last is None else (int(self._version[last]), float(self._counts[last.level]))
        purse = (left_usd, self.margin, self._cache_usd_per_h, elapsed_s)
        target, found = self.target, None
        while found is None:
            found = self._search(energy, target, warm, purse)
            target *= RELAXED
        return found

    def _search(
        self, energy: Floats, target: float, warm: tuple[int, float], purse: tuple[float, ...]
    ) -> Plan | None:
        """The best schedule; None if no expected excess gets to the target."""
        maps, ceiling = (self.gain, self.power), max(self.dynamics.excess, float(energy.sum()))
        alone = epochs_to_target(energy, maps, target, ceiling, self._least_s, 0.0)
        prices = np.geomspace(*PRICE_SPAN, PRICES) * self._scale(alone[0, 0], purse[0])
        options = [self._costs(price) for price in (0.0, *prices)]
        fixed = self._best(alone, options, warm, purse)
        limit_s = fixed.expected_s if fixed is not None and fixed.short_usd == 0 else np.inf
        later = epochs_to_target(energy, maps, target, ceiling, self._least_s, limit_s)
        plans = (fixed, self._best(later, options, warm, purse))
        return min((plan for plan in plans if plan is not None), key=lambda plan: plan.rank, default=None)

    def schedules(self, left_usd: float, stretch: float, count: int) -> list[Plan]:
        """Schedules from the initial model that are expected to end first.

        Args:
            left_usd: What expected bills must be within.
            stretch: The target's excess is multiplied by this.
            count: How many at most.
        """
        energy, maps, target = self.initial_energy, (self.gain, self.power), self.target * stretch
        ceiling = self.dynamics.excess
        later = epochs_to_target(energy, maps, target, ceiling, self._least_s, np.inf)
        alone = epochs_to_target(energy, maps, target, ceiling, self._least_s, 0.0)
        found: dict[tuple[Place, Place, int], Plan] = {}
        for price in (0.0, *np.geomspace(*PRICE_SPAN, PRICES // 2) * self._scale(alone[0, 0], left_usd)):
            costs = self._costs(price)
            first, second = SWITCHES[:, None], later
            with np.errstate(invalid="ignore"):
                time_s = first * costs.duration_s[:, None, None] + second * costs.duration_s
                usd = first * costs.usd[:, None, None] + second * costs.usd + costs.cold_usd[:, None, None]
            reserved_usd = usd - costs.usd + np.maximum(costs.reserve_usd, costs.usd)
            fits = (later > 0) & (reserved_usd <= left_usd) & np.isfinite(time_s)
            time_s = np.where(fits & (costs.reserve_usd <= left_usd)[:, None, None], time_s, np.inf)
            for flat in np.argsort(time_s, axis=None)[:count]:
                a, at, b = np.unravel_index(flat, time_s.shape)
                places = Place(int(a), int(costs.size[a])), Place(int(b), int(costs.size[b]))
                epochs, key = int(SWITCHES[at]), (*places, int(SWITCHES[at]))
                numbers = float(time_s[a, at, b]), float(usd[a, at, b]), 0.0
                if np.isfinite(time_s[a, at, b]):
                    found[key] = Plan(places[0], epochs, places[1], int(later[a, at, b]), *numbers)
        return sorted(found.values(), key=lambda plan: plan.rank)[:count]

    def _scale(self, epochs: Ints, left_usd: float) -> float:
        """Seconds that a dollar is worth, roughly: the time of single actions over what is left."""
        reach = epochs > 0
        if not reach.any() or left_usd <= 0:
            return 1.0
        return float(np.median(epochs[reach] * self._least_s[reach])) / left_usd

    def _costs(self, price: float) -> Costs:
        """Every level at the size that is best if a dollar is worth `price` seconds."""
        size = (self._warm_s + price * self._warm_usd).argmin(axis=1)
        at = np.arange(len(size)), size
        runs = np.isfinite(self._warm_s[at])
        tables = (self._warm_s, self._warm_usd, self._cold_s, self._cold_usd, self.grid.reserve_usd)
        warm_s, warm_usd, cold_s, cold_usd, reserve_usd = (table[at] for table in tables)
        places = np.where(runs, size, -1)
        return Costs(places, warm_s, warm_usd, cold_s, cold_usd, reserve_usd, self._version[at])

    def _best(
        self,
        later: Ints,
        options: list[Costs],
        warm: tuple[int, float],
        purse: tuple[float, ...],
    ) -> Plan | None:
        """The best schedule over all prices."""
        found = None
        for costs in options:
            a, at, b, *numbers = fastest(later, costs, self._counts, warm, purse)
            if b < 0:
                continue
            second = Place(b, int(costs.size[b]))
            first = Place(a, int(costs.size[a])) if at else second
            plan = Plan(first, int(SWITCHES[at]), second, int(later[a, at, b]), *map(float, numbers))
            if found is None or plan.rank < found.rank:
                found = plan
        return found

    def decide(
        self, energy: Floats, left_usd: float, *, elapsed_s: float = 0.0, last: Place | None = None
    ) -> tuple[int, int, float, float]:
        """(level, size, expected seconds to the target, expected dollars) of the next epoch; see `plan`."""
        plan = self.plan(energy, left_usd, elapsed_s=elapsed_s, last=last)
        return *plan.first, plan.expected_s, plan.expected_usd
