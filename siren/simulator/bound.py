"""A time that no policy beats on a simulated job with quadratic dynamics, proved by a potential.

Let E_i = u_i^2 / 2 be the energies of the modes, T the excess loss of the target, p(a) and c(a) the
expected time and bill of an epoch of action a with the cheapest start. Take any function

    W(E) = sum_i sum_j w_ij log((E_i + c_ij) / (E_i + c_i,j+1)) - w_0,     w_ij >= 0, c_ij < c_i,j+1

and any price of a dollar in seconds q >= 0 for which

    (1)  W(E) <= 0                                   wherever sum_i E_i <= T,
    (2)  W(E) - E[W(E') | E, a] <= p(a) + q c(a)     for every E and every action a.

By (2), W plus what was paid so far is a submartingale under every policy, also one that knows the
true state. Stopped at the end of the episode, where W <= 0 at the target by (1) and W <= W_max
elsewhere, and with the expected bills of all epochs within the budget B (set-up, the first hour h of
the cache and what the last epoch may be expected to overshoot its reservation by are in B),

    E[time] + (W_max + q h) P(target not reached) >= min_a { p(a) + q c(a) + E[W(E') | E_0, a] } - q B,

where a is the first action, which starts cold. That is the bound. It holds for every policy of
`siren.simulator.core`, since what is left out only costs more: cold starts after the first epoch,
reservations (beyond that what cannot be reserved at the start never runs), hours of the cache after
the first, whole numbers of epochs. (2) splits into modes: the sum of the largest decrements of each.

The best weights and price solve a linear programme with one row for every action and every E. It is
solved by cutting planes, separated halfway between the best feasible point and the programme's own
optimum (Ben-Ameur and Neto, "Acceleration of cutting-plane and column generation algorithms",
Networks 49, 2007). Any feasible point is a bound; the last one is scaled until (2) holds on a fine grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.special import ndtr

from siren.errors import UsageError
from siren.simulator.job import SimulatedJob
from siren.simulator.quadratic import MODES, Quadratic
from siren.simulator.tables import Cell, Fact, Pool, pool_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BANDS = 3
"""Terms of the potential per mode."""

LOWEST_KNOT = 0.2
"""c_i1 over the target's excess."""

HIGHEST_KNOT = 4.0
"""The last c_ij over the larger of the mode's initial energy and the target's excess."""

GRID, FINE_GRID = 40, 120
"""Energies at which (2) is held: while searching, and in the end."""

NODES, FINE_NODES = 33, 65
"""Nodes of the trapezoidal rule over the noise of an epoch, likewise."""

NODES_SPAN = 6.5
"""Standard deviations that they reach to."""

ROUNDING = 0.997
"""Weights are multiplied by this for what is lost between grid points; tests hold (2) against quadrature."""

HUGE = 1e100
"""What gains beyond the cliff that overflow count as: modes are held inside `Relaxation.limit` anyway."""

ITERATIONS = 30
TOLERANCE = 1e-2
"""The search ends when the programme's optimum is within this share of the best bound, or after that."""

INSIDE = (0.7, 0.4, 0.0)
"""Cuts are sought at these mixtures of the best feasible point and the programme's optimum, in turn."""

CUTS_PER_ROUND = 6
NEAR = 0.95
"""Levels whose (2) is tight to this share on the coarse grid are looked at on the fine one."""


@dataclass(frozen=True)
class Potential:
    """The function W.

    Attributes:
        knots: c_ij, (modes, bands + 1), ascending.
        weights: w_ij in seconds, (modes, bands).
        offset: w_0 in seconds.
    """

    knots: Floats
    weights: Floats
    offset: float

    def __call__(self, energy: Floats) -> Floats:
        """W in seconds of energies (..., modes)."""
        value: Floats = (self.weights * bands(energy, self.knots)).sum(axis=(-2, -1)) - self.offset
        return value


@dataclass(frozen=True)
class Bound:
    """What no policy beats: E[time] + failure_s x P(target not reached) >= seconds.

    Time is that of all epochs, whether or not the target is reached within the budget.

    Attributes:
        seconds: The bound; also on the expected time of any policy that is sure to reach the target,
            even where only its expected bill is within the budget.
        failure_s: What a failure must at least count as, beside the time it took.
        dollar_s: The price of a dollar in seconds.
        potential: The proof.
    """

    seconds: float
    failure_s: float
    dollar_s: float
    potential: Potential


@dataclass(frozen=True)
class Relaxation:
    """A job without what the bound leaves out.

    Attributes:
        row: (actions,) Row of each action's level in `gain` and `spread`.
        duration_s, usd: (2, actions) Of an epoch with the cheapest start, and of one that starts cold.
        budget_usd: What epochs can be billed, after the set-up and the first hour of the cache.
        cache_usd: That hour. A budget that is exhausted within the first epoch may not have paid it.
        gain, spread: (levels, modes) The epoch map, see `quadratic.Responses`.
        energy: (modes,) Of the initial model.
        target: Excess loss of the target.
        limit: Largest |u| of a mode.
    """

    row: Ints
    duration_s: Floats
    usd: Floats
    budget_usd: float
    cache_usd: float
    gain: Floats
    spread: Floats
    energy: Floats
    target: float
    limit: float


def relax(pool: Pool) -> Relaxation:
    """The relaxation of job 0 of a pool."""
    facts, cells = pool.facts[0], pool.cells[0].astype(np.float64)
    setup_usd, budget_usd = facts[Fact.SETUP_USD], facts[Fact.BUDGET]
    level, size = np.nonzero(cells[..., Cell.RESERVE_USD] <= budget_usd - setup_usd)
    cells = cells[level, size]
    levels, row = np.unique(level, return_inverse=True)
    warm = 0 if facts[Fact.SHARDS_RETURN] else 1
    duration_s = cells[:, Cell.DURATION_S + warm : Cell.DURATION_S + 3]
    usd = cells[:, Cell.MARGINAL_USD + warm : Cell.MARGINAL_USD + 3]
    over_usd = facts[Fact.MAX_EPOCHS] * _overshoot_usd(cells).max(initial=0.0)
    return Relaxation(
        row=row,
        duration_s=np.stack([duration_s.min(axis=1), duration_s[:, -1]]),
        usd=np.stack([usd.min(axis=1), usd[:, -1]]),
        budget_usd=budget_usd - setup_usd - facts[Fact.CACHE_USD_PER_H] + over_usd,
        cache_usd=facts[Fact.CACHE_USD_PER_H],
        gain=np.nan_to_num(pool.gain[0, levels], nan=HUGE, posinf=HUGE, neginf=-HUGE),
        spread=np.nan_to_num(pool.noise[0, levels], nan=HUGE, posinf=HUGE),
        energy=pool.start[0] ** 2 / 2,
        target=facts[Fact.TARGET] - facts[Fact.LOWEST],
        limit=facts[Fact.AMPLITUDE],
    )


def _overshoot_usd(cells: Floats) -> Floats:
    """Expected bill of an epoch beyond its reservation, which the budget cuts off."""
    usd, reserve = cells[:, Cell.MARGINAL_USD + 2], cells[:, Cell.RESERVE_USD]
    sigma = np.maximum(cells[:, Cell.SPREAD_USD], 1e-9)
    above = (np.log(usd / reserve) + sigma**2 / 2) / sigma
    over_usd: Floats = np.maximum(usd * ndtr(above) - reserve * ndtr(above - sigma), 0.0)
    return over_usd


def bands(energy: Floats, knots: Floats) -> Floats:
    """log((E_i + c_ij) / (E_i + c_i,j+1)), zero at E = 0; (..., modes, bands)."""
    logs = np.log1p(energy[..., None] / knots)
    return logs[..., :-1] - logs[..., 1:]


@numba.njit(cache=True, fastmath=True)
def expected_bands(
    gain: Floats, spread: Floats, limit: float, energy: Floats, knots: Floats, nodes: int
) -> Floats:
    """Expected `bands` after an epoch, (levels, modes, points, bands); `energy` is (modes, points)."""
    levels, modes = gain.shape
    points, terms = energy.shape[1], knots.shape[1]
    x = np.linspace(-NODES_SPAN, NODES_SPAN, nodes)
    weights = np.exp(-x * x / 2)
    weights /= weights.sum()
    found = np.zeros((levels, modes, points, terms - 1))
    for a in range(levels):
        for i in range(modes):
            for g in range(points):
                mean = gain[a, i] * math.sqrt(2 * energy[i, g])
                for q in range(nodes):
                    u = min(max(mean + spread[a, i] * x[q], -limit), limit)
                    last = math.log1p(u * u / 2 / knots[i, 0])
                    for j in range(terms - 1):
                        following = math.log1p(u * u / 2 / knots[i, j + 1])
                        found[a, i, g, j] += weights[q] * (last - following)
                        last = following
    return found


@numba.njit(cache=True)
def highest_at_target(weights: Floats, knots: Floats, target: float) -> Floats:
    """The energies, sum at most `target`, at which W is largest, (modes,): W is concave in them."""
    modes, terms = weights.shape
    energy = np.zeros(modes)
    low, high = -25.0, 25.0  # logarithm of the multiplier of the sum
    for _ in range(45):
        multiplier = math.exp((low + high) / 2)
        for i in range(modes):
            least, most = 0.0, target
            for _ in range(30):
                middle = (least + most) / 2
                slope = 0.0
                for j in range(terms):
                    slope += weights[i, j] * (1 / (middle + knots[i, j]) - 1 / (middle + knots[i, j + 1]))
                if slope > multiplier:
                    least = middle
                else:
                    most = middle
            energy[i] = most
        if energy.sum() > target:
            low = (low + high) / 2
        else:
            high = (low + high) / 2
    return energy


class Programme:
    """The linear programme of the weights, in units of a reference time and of the budget.

    Variables: w_ij (modes x bands), q, w_0, and the bound plus q.

    Args:
        relaxed: The job.
        second: The unit of time.
        failure: Largest W, in that unit; infinite if there is no such limit.
    """

    def __init__(self, relaxed: Relaxation, second: float, failure: float) -> None:
        self.relaxed = relaxed
        self.time, self.first_time = relaxed.duration_s / second
        self.bill, self.first_bill = relaxed.usd / relaxed.budget_usd
        target, energy = relaxed.target, relaxed.energy
        self.most = relaxed.limit**2 / 2
        highest = HIGHEST_KNOT * np.maximum(energy, target)
        self.knots = np.geomspace(np.full(MODES, LOWEST_KNOT * target), highest, BANDS + 1, axis=1)
        self.energy = self._grid(GRID)
        args = relaxed.gain, relaxed.spread, relaxed.limit
        after = expected_bands(*args, self.energy, self.knots, NODES)
        self.fall = np.ascontiguousarray(bands(self.energy.T, self.knots).swapaxes(0, 1) - after)
        first = expected_bands(*args, energy[:, None], self.knots, FINE_NODES)
        self.first = first.reshape(len(relaxed.gain), -1)
        self.size = MODES * BANDS
        self._rows: list[Floats] = []
        self._sides: list[float] = []
        self._ages: list[int] = []
        self.failure = failure
        self.highest = bands(np.full(MODES, self.most), self.knots).ravel()
        self.first_hour = relaxed.cache_usd / relaxed.budget_usd
        if math.isfinite(failure):
            self._add(self.highest, self.first_hour, -1.0, 0.0, failure)
        self._start()

    def _grid(self, points: int) -> Floats:
        steps = np.geomspace(LOWEST_KNOT * self.relaxed.target / 4, self.most, points - 1)
        return np.tile(np.concatenate([[0.0], steps]), (MODES, 1))

    def _start(self) -> None:
        """Cuts that keep the first programme bounded and near the solution."""
        relaxed = self.relaxed
        for k in range(len(relaxed.row)):
            same = relaxed.row == relaxed.row[k]
            better = (self.time < self.time[k]) & (self.bill <= self.bill[k])
            if relaxed.row[k] % 3 == 0 and not (same & better).any():
                for share in (0.3, 0.5, 0.7):
                    self._add_action(k, np.full(MODES, int(share * GRID)))
        self._add_first(int(self.first_time.argmin()))
        self._add_first(int(self.first_bill.argmin()))
        for energy in (*np.eye(MODES) * relaxed.target, np.full(MODES, relaxed.target / MODES)):
            self._add_target(energy)

    def _add(self, weights: Floats, price: float, offset: float, bound: float, side: float) -> None:
        row = np.concatenate([weights, [price, offset, bound]])
        unit = float(np.abs(row).max())
        self._rows.append(row / unit)
        self._sides.append(side / unit)
        self._ages.append(0)

    def _add_action(self, k: int, points: Ints) -> None:
        fall = self.fall[self.relaxed.row[k], np.arange(MODES), points]
        self._add(fall.ravel(), -self.bill[k], 0.0, 0.0, self.time[k])

    def _add_first(self, k: int) -> None:
        self._add(-self.first[self.relaxed.row[k]], -self.first_bill[k], 1.0, 1.0, self.first_time[k])

    def _add_target(self, energy: Floats) -> None:
        self._add(bands(energy, self.knots).ravel(), 0.0, -1.0, 0.0, 0.0)

    def optimum(self) -> tuple[Floats, float] | None:
        """(the optimum of the cuts so far, an upper bound on the bound); drops cuts long slack.

        None if the solver gives up, which rows of very different sizes can make it do.
        """
        objective = np.zeros(self.size + 3)
        objective[-3], objective[-1] = 1.0, -1.0
        limits = [(0.0, 1e3)] * (self.size + 1) + [(-1e3, 1e4), (-1e3, 1e3)]
        result = linprog(objective, np.array(self._rows), self._sides, bounds=limits, method="highs")
        if result.status != 0:
            return None
        for k, slack in enumerate(result.slack):
            self._ages[k] = self._ages[k] + 1 if slack > 1e-6 else 0
        keep = [k for k, age in enumerate(self._ages) if age < 5]
        self._rows = [self._rows[k] for k in keep]
        self._sides = [self._sides[k] for k in keep]
        self._ages = [self._ages[k] for k in keep]
        return result.x, -float(result.fun)

    def cut(self, point: Floats) -> bool:
        """Adds the rows that a point violates most; False if there are none."""
        row = self.relaxed.row
        weights, price = point[: self.size], point[-3]
        falls = np.einsum("aigj,ij->aig", self.fall, weights.reshape(MODES, BANDS))
        worst = falls.argmax(axis=2)
        excess = falls.max(axis=2).sum(axis=1)[row] - self.time - price * self.bill
        violated = False
        seen: set[int] = set()
        for k in np.argsort(-excess)[: 10 * CUTS_PER_ROUND].tolist():
            if excess[k] <= 1e-6 * self.time[k] or len(seen) == CUTS_PER_ROUND:
                break
            if row[k] not in seen:
                seen.add(int(row[k]))
                self._add_action(k, worst[row[k]])
                violated = True
        energy = highest_at_target(weights.reshape(MODES, BANDS), self.knots, self.relaxed.target)
        if weights @ bands(energy, self.knots).ravel() > point[-2] + 1e-7:
            self._add_target(energy)
            violated = True
        start = self.first_time + price * self.first_bill + self.first[row] @ weights - point[-2]
        if start.min() < point[-1] - 1e-7:
            self._add_first(int(start.argmin()))
            violated = True
        return violated

    def repaired(self, point: Floats, *, fine: bool = False) -> Floats:
        """The point, scaled until it is feasible: its bound is at `value`."""
        weights, price = np.maximum(point[: self.size], 0.0), max(point[-3], 0.0)
        excess = self._ratio(weights.reshape(MODES, BANDS), price, fine)
        weights = weights * (ROUNDING if fine else 1.0) / max(excess, 1.0)
        table = weights.reshape(MODES, BANDS)
        energy = highest_at_target(table, self.knots, self.relaxed.target)
        offset = float(weights @ bands(energy, self.knots).ravel()) * (1 + 1e-9)
        offset = max(offset, float(weights @ self.highest) + price * self.first_hour - self.failure)
        start = self.first_time + price * self.first_bill + self.first[self.relaxed.row] @ weights - offset
        return np.concatenate([weights, [price, offset, start.min()]])

    def _ratio(self, weights: Floats, price: float, fine: bool) -> float:
        """How often the largest fall of W exceeds what an epoch costs."""
        cost = self.time + price * self.bill
        cheapest = np.full(len(self.relaxed.gain), np.inf)
        np.minimum.at(cheapest, self.relaxed.row, cost)
        falls = np.einsum("aigj,ij->aig", self.fall, weights).max(axis=2).sum(axis=1)
        ratio = falls / cheapest
        if fine and ratio.max() > 0:
            near = np.flatnonzero(ratio > NEAR * ratio.max())
            energy = self._grid(FINE_GRID)
            args = self.relaxed.gain[near], self.relaxed.spread[near], self.relaxed.limit
            after = expected_bands(*args, energy, self.knots, FINE_NODES)
            now = bands(energy.T, self.knots).swapaxes(0, 1)
            falls = np.einsum("aigj,ij->aig", now - after, weights).max(axis=2).sum(axis=1)
            ratio[near] = falls / cheapest[near]
        return float(ratio.max())

    @staticmethod
    def value(point: Floats) -> float:
        """The bound of a feasible point."""
        return float(point[-1] - point[-3])


def lower_bound(job: SimulatedJob, failure_s: float = math.inf) -> Bound:
    """A bound on the completion time of every policy; see the module.

    Args:
        job: A job with quadratic dynamics.
        failure_s: The most that a failure may count as beside its own time; the lower, the lower the bound.

    Raises:
        UsageError: The job's dynamics are not quadratic.
    """
    if not isinstance(job.dynamics, Quadratic):
        raise UsageError(
            f"no bound is known for {type(job.dynamics).__name__} dynamics: choose a scenario with "
            'dynamics = "quadratic"'
        )
    return bound_of(pool_of([job]), job.spec.reference_s, failure_s)


def bound_of(pool: Pool, second: float, failure_s: float = math.inf) -> Bound:
    """The bound of job 0 of a pool.

    Args:
        pool: Tables of a job with quadratic dynamics.
        second: A time of the size of the job's, which the programme is scaled by.
        failure_s: See `lower_bound`.
    """
    programme = Programme(relax(pool), second, failure_s / second)
    best = programme.repaired(np.zeros(programme.size + 3))
    for _ in range(ITERATIONS):
        solved = programme.optimum()
        if solved is None:
            break
        point, upper = solved
        if upper - programme.value(best) < TOLERANCE * programme.value(best):
            break
        for share in INSIDE:
            mixed = share * best + (1 - share) * point
            found = programme.cut(mixed)
            better = programme.repaired(mixed)
            if programme.value(better) > programme.value(best):
                best = better
            if found:
                break
    best = programme.repaired(best, fine=True)
    weights = best[: programme.size].reshape(MODES, BANDS) * second
    potential = Potential(programme.knots, weights, best[-2] * second)
    dollar_s = best[-3] * second / programme.relaxed.budget_usd
    highest_s = float(potential(np.full(MODES, programme.most)))
    return Bound(
        seconds=max(programme.value(best), 0.0) * second,
        failure_s=highest_s + dollar_s * programme.relaxed.cache_usd,
        dollar_s=dollar_s,
        potential=potential,
    )
