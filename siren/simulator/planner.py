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

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from siren.simulator import quadratic
from siren.simulator.job import MAX_EPOCHS, ActionGrid, SimulatedJob
from siren.simulator.quadratic import AMPLITUDE_MAX, Quadratic
from siren.units import SECONDS_PER_HOUR

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SWITCHES = np.array([0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40, 60], np.int64)
"""Epochs of the first phase that are looked at."""

STALLED = 0.998
"""A mean that falls by less than this factor in an epoch is taken to have reached its floor."""

RELAXED = 1.25
"""Where no schedule is expected to reach the target, one is sought for this multiple of it, and so on."""

MARGIN = 1.03
"""Expected bills are multiplied by this before they are held against the budget."""

NEAR = 5.0
"""Excess below this multiple of the target may be at the target by luck."""

UNLIKELY = 0.15
"""A schedule is taken to have ended when the probability that it has not is down to this. On 40 jobs of
family-2026, seed 2026, 1/e was 2% faster under `split` and failed more often than the best fixed action."""

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


class Costs(NamedTuple):
    """Time and dollars of every level at the sizes chosen for one price; all (levels,).

    Attributes:
        size: Index of the size; -1 where the level cannot run at any.
        duration_s, usd: Of a warm epoch.
        cold_s, cold_usd: What a cold start adds.
        reserve_usd: The least reservation.
        version: The number of its function version.
    """

    size: Ints
    duration_s: Floats
    usd: Floats
    cold_s: Floats
    cold_usd: Floats
    reserve_usd: Floats
    version: Ints


@numba.njit(cache=True)
def _chance(signal: Floats, noise: Floats, gain: Floats, target: float) -> tuple[float, float]:
    """(probability that the excess is at most the target, its correlation with that of the next epoch).

    A mode is normal, so that its energy has the variance 2 x noise^2 + 4 x signal x noise; their sum is
    taken to be log-normal.
    """
    mean, variance, kept = 0.0, 0.0, 0.0
    for i in range(len(signal)):
        mean += signal[i] + noise[i]
        own = noise[i] * (2 * noise[i] + 4 * signal[i])
        variance += own
        kept += min(gain[i], 1.0) * own
    if variance <= 1e-12 * mean * mean:
        return (1.0 if mean <= target else 0.0), 1.0
    width = math.log1p(variance / (mean * mean))
    score = (math.log(target / mean) + width / 2) / math.sqrt(2 * width)
    return 0.5 * math.erfc(-score), kept / variance


@numba.njit(cache=True)
def _epochs_alone(
    modes: tuple[Floats, Floats],
    gain: Floats,
    power: Floats,
    target: float,
    duration_s: float,
    limit_s: float,
) -> int:
    """Epochs of one level until the target is likely to have been reached; -1 if never or not in time."""
    signal, noise = modes[0].copy(), modes[1].copy()
    last, left, before = signal.sum() + noise.sum(), 1.0, 0.0
    for j in range(1, MAX_EPOCHS + 1):
        if j * duration_s >= limit_s:
            return -1
        excess = 0.0
        for i in range(len(signal)):
            signal[i] *= gain[i]
            noise[i] = gain[i] * noise[i] + power[i]
            excess += signal[i] + noise[i]
        hazard = 0.0
        if excess < NEAR * target:
            chance, kept = _chance(signal, noise, gain, target)
            hazard = max(chance - kept * before, 0.0) / max(1.0 - kept * before, 1e-12)
            before = chance
            left *= 1.0 - min(hazard, 1.0)
            if left <= UNLIKELY:
                return j
        if excess > STALLED * last:  # the mean is at its floor: from now on it is a matter of luck
            if hazard <= 1.0 / MAX_EPOCHS:
                return -1
            more = math.ceil(math.log(UNLIKELY / left) / math.log1p(-min(hazard, 0.999)))
            total = j + int(more)
            return total if total <= MAX_EPOCHS and total * duration_s < limit_s else -1
        last = excess
    return -1


@numba.njit(cache=True)
def epochs_to_target(
    energy: Floats,
    maps: tuple[Floats, Floats],
    target: float,
    ceiling: float,
    duration_s: Floats,
    limit_s: float,
) -> Ints:
    """Epochs that the second phase needs after each first phase, (levels, switches, levels); -1 for never.

    Without a first phase (`SWITCHES[0]` is 0) all first levels are alike: only row 0 is filled.

    Args:
        energy: Expected u^2 / 2 of every mode, (modes,).
        maps: A^2 and half the variance that an epoch adds, (levels, modes) each.
        target: Excess loss of the target.
        ceiling: First phases whose expected excess rises above this are not followed.
        duration_s: The least time of an epoch, (levels,); infinite where it cannot run.
        limit_s: Schedules that take at least this long are not followed; 0 for no first phases at all.
    """
    gain, power = maps
    levels = len(gain)
    found = np.full((levels, len(SWITCHES), levels), -1, np.int64)
    signal, noise = energy.copy(), np.zeros(len(energy))
    if limit_s == 0.0:
        for b in range(levels):
            modes = (signal, noise)
            found[0, 0, b] = _epochs_alone(modes, gain[b], power[b], target, duration_s[b], np.inf)
        return found
    for a in range(levels):
        signal[:], noise[:] = energy, 0.0
        for at in range(1, len(SWITCHES)):
            spent_s = SWITCHES[at] * duration_s[a]
            if spent_s >= limit_s:
                break
            highest = 0.0
            for _ in range(SWITCHES[at] - SWITCHES[at - 1]):
                for i in range(len(signal)):
                    signal[i] *= gain[a, i]
                    noise[i] = gain[a, i] * noise[i] + power[a, i]
                highest = max(highest, signal.sum() + noise.sum())
            if signal.sum() + noise.sum() <= target or highest > ceiling:
                break
            for b in range(levels):
                if b != a:
                    modes, left_s = (signal, noise), limit_s - spent_s
                    found[a, at, b] = _epochs_alone(modes, gain[b], power[b], target, duration_s[b], left_s)
    return found


@numba.njit(cache=True)
def fastest(
    later: Ints, costs: Costs, counts: Floats, warm: tuple[int, float], purse: tuple[float, ...]
) -> tuple[int, int, int, float, float, float]:
    """The schedule that ends first among those that fit, or the one that misses by the least.

    Args:
        later: See `epochs_to_target`.
        costs: At one price.
        counts: Functions of every level.
        warm: The function version that is warm, and how many of it.
        purse: (dollars left, margin on bills, cache dollars an hour, elapsed seconds).

    Returns:
        (first level, index of the switch, second level, seconds, dollars, dollars that the budget lacks).
    """
    left, margin, cache_usd, elapsed = purse
    booked = math.ceil(elapsed / SECONDS_PER_HOUR)
    best, best_s, best_usd, miss = (-1, 0, -1), np.inf, np.inf, np.inf
    levels, switches, _ = later.shape
    for a in range(levels):
        for at in range(switches):
            for b in range(levels):
                j, k = later[a, at, b], SWITCHES[at]
                if j < 0 or costs.size[b] < 0 or (k > 0 and costs.size[a] < 0):
                    continue
                time_s, usd = j * costs.duration_s[b], j * costs.usd[b]
                version, count = warm
                if k > 0:
                    time_s += k * costs.duration_s[a]
                    usd += k * costs.usd[a]
                    if costs.version[a] != version or counts[a] > count:
                        time_s += costs.cold_s[a]
                        usd += costs.cold_usd[a]
                        version, count = costs.version[a], counts[a]
                if costs.version[b] != version or counts[b] > count:
                    time_s += costs.cold_s[b]
                    usd += costs.cold_usd[b]
                usd += max(math.ceil((elapsed + time_s) / SECONDS_PER_HOUR) - booked, 0.0) * cache_usd
                last_usd = max(costs.reserve_usd[b], margin * costs.usd[b])
                short = max((usd - costs.usd[b]) * margin + last_usd - left, 0.0)
                if short < miss or (short == miss and time_s < best_s):
                    best, best_s, best_usd, miss = (a, at, b), time_s, usd, short
    return *best, best_s, best_usd, miss


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
