"""The logic of an episode, shared by every environment: plain functions over arrays of environments.

Each function takes the tables of a pool of jobs, the state of all environments, and the row i of
one of them. An epoch is `choose` (decode the action), then either `simulate` or a real epoch
whose outcome is written into the same columns, then `settle` (money, end, reward), then
`observe` or `observe_siren`. `step_all` does all of it for every environment.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from siren.simulator import fitted, quadratic
from siren.simulator.quadratic import MODES
from siren.simulator.tables import FUNCTIONS_SPAN, MEMORY_SPAN, Cell, Fact, Pool
from siren.units import SECONDS_PER_HOUR

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

PENALTY = 2.5
"""A failure costs so many reference times, and the share of progress that was left; with 1 a
prototype's agents failed at once. experiments/LOG.md compares penalties ("training the shipped agent")."""

EPOCH_REWARD_MIN = -3.0
"""No single epoch counts for more reference times than this, so that returns stay comparable."""

SENSOR_NOISE = 0.2
"""Standard deviation of the logarithm of the noise floor that gradients tell: 128 pushes are sampled."""

POOLS = 8
"""Function versions whose warm environments are remembered; the least recently used is forgotten."""


class End(IntEnum):
    """Why an episode ended."""

    RUNNING = 0
    TARGET = 1
    BUDGET = 2
    DIVERGED = 3
    LIMIT = 4


class Col(IntEnum):
    """Columns of `State.values`."""

    LOSS = 0
    BEST = 1
    PREVIOUS = 2
    LEFT = 3
    ELAPSED_S = 4
    EPOCH = 5
    RISES = 6
    ROSE = 7
    LEVEL = 8
    SIZE = 9
    FUNCTIONS = 10
    MEMORY = 11
    DURATION_S = 12
    COST = 13
    FETCH_S = 14
    COMPUTE_S = 15
    UPDATE_S = 16
    MEMORY_USE = 17
    CPU_USE = 18
    FLOOR = 19
    CACHE_HOURS = 20
    RETURN = 21
    COLD = 22
    END = 23


class State(NamedTuple):
    """N environments.

    Attributes:
        job: (N,) Row of the pool that each plays.
        values: (N, len(Col)).
        amplitude: (N, MODES) Modes of the model.
        version, warm, shards: (N, POOLS) Versions with warm environments (-1 for none), how many, and
            the count by which the data was divided when they last ran.
        used_s: (N, POOLS) When they last ran.
    """

    job: Ints
    values: Floats
    amplitude: Floats
    version: Ints
    warm: Floats
    shards: Floats
    used_s: Floats


def new_state(environments: int) -> State:
    """The state of so many environments, before `begin`."""
    return State(
        np.zeros(environments, np.int64),
        np.zeros((environments, len(Col))),
        np.zeros((environments, MODES)),
        np.full((environments, POOLS), -1, np.int64),
        np.zeros((environments, POOLS)),
        np.zeros((environments, POOLS)),
        np.zeros((environments, POOLS)),
    )


@numba.njit(cache=True)
def begin(pool: Pool, state: State, i: int, job: int) -> None:
    """Starts an episode of a job."""
    facts, values = pool.facts[job], state.values[i]
    state.job[i] = job
    values[:] = 0.0
    values[Col.LOSS] = values[Col.BEST] = values[Col.PREVIOUS] = facts[Fact.INITIAL]
    values[Col.LEFT] = facts[Fact.BUDGET]
    state.amplitude[i, :] = pool.start[job]
    state.version[i, :] = -1


@numba.njit(cache=True)
def _nearest(grid: Floats, count: int, value: float, logarithmic: bool) -> int:
    high = min(int(np.searchsorted(grid[:count], value)), count - 1)
    low = max(high - 1, 0)
    if logarithmic:
        return low if value * value < grid[low] * grid[high] else high
    return low if value - grid[low] < grid[high] - value else high


@numba.njit(cache=True)
def decode(pool: Pool, job: int, first: float, second: float, absolute: bool) -> tuple[int, int]:
    """(level, size) of an action in [-1, 1]^2, before budget, limits and memory have their say.

    Relative: n = n_ref e^(2 a0), m = m_ref 4^a1, each to the nearest on the grid in the logarithm.
    Absolute, as in the paper: n and m linear from the least to the most, to the nearest.
    """
    facts = pool.facts[job]
    levels, sizes = int(facts[Fact.LEVELS]), int(facts[Fact.SIZES])
    a, b = min(max(first, -1.0), 1.0), min(max(second, -1.0), 1.0)
    n_grid, m_grid = pool.functions[job], pool.memory_mb[job]
    if absolute:
        n = n_grid[0] + (a + 1) / 2 * (n_grid[levels - 1] - n_grid[0])
        m = m_grid[0] + (b + 1) / 2 * (m_grid[sizes - 1] - m_grid[0])
        return _nearest(n_grid, levels, n, False), _nearest(m_grid, sizes, m, False)
    n = facts[Fact.FUNCTIONS_REF] * math.exp(FUNCTIONS_SPAN * a)
    m = facts[Fact.MEMORY_REF] * math.exp(MEMORY_SPAN * b)
    return _nearest(n_grid, levels, n, True), _nearest(m_grid, sizes, m, True)


@numba.njit(cache=True)
def choose(pool: Pool, state: State, i: int, action: Singles, absolute: bool) -> bool:
    """Writes the action that runs; False if the budget that is left can reserve no epoch at all.

    An action that the job cannot run (short of memory, beyond the longest timeout) becomes the nearest
    that it can; one that the budget cannot reserve becomes the one of most functions below it that
    it can, at the same memory if possible, else at less.
    """
    level, size = decode(pool, state.job[i], action[0], action[1], absolute)
    return take(pool, state, i, level, size)


@numba.njit(cache=True)
def take(pool: Pool, state: State, i: int, level: int, size: int) -> bool:
    """`choose` for an action that is given as its place on the grid."""
    job, values = state.job[i], state.values[i]
    stride = pool.cells.shape[2]
    choice = int(pool.cells[job, level, size, Cell.CHOICE])
    level, size = choice // stride, choice % stride
    left = values[Col.LEFT] - _standing(pool, state, i, 0.0)
    if pool.cells[job, level, size, Cell.RESERVE_USD] > left:
        level, size = _affordable(pool.cells[job], level, size, left)
        if level < 0:
            return False
    values[Col.LEVEL], values[Col.SIZE] = level, size
    values[Col.FUNCTIONS], values[Col.MEMORY] = pool.functions[job, level], pool.memory_mb[job, size]
    return True


@numba.njit(cache=True)
def _affordable(cells: Singles, level: int, size: int, left: float) -> tuple[int, int]:
    levels, sizes, _ = cells.shape
    for s in range(sizes):
        z = size - s if s <= size else s
        for k in range(levels):
            n = level - k if k <= level else k
            if cells[n, z, Cell.RESERVE_USD] <= left:
                return n, z
    return -1, -1


@numba.njit(cache=True)
def _standing(pool: Pool, state: State, i: int, duration_s: float) -> float:
    """`Costing.standing_usd` of one epoch: set-up before the first, started hours of the cache."""
    facts, values = pool.facts[state.job[i]], state.values[i]
    usd = facts[Fact.SETUP_USD] if values[Col.EPOCH] == 0 else 0.0
    hours = math.ceil((values[Col.ELAPSED_S] + duration_s) / SECONDS_PER_HOUR) - values[Col.CACHE_HOURS]
    return float(usd + max(hours, 0.0) * facts[Fact.CACHE_USD_PER_H])


@numba.njit(cache=True)
def _place(pool: Pool, state: State, i: int, version: int, n: float) -> tuple[float, bool]:
    """(functions that start cold, whether shards are loaded), and the environments are taken."""
    facts, values = pool.facts[state.job[i]], state.values[i]
    now, slot, oldest = values[Col.ELAPSED_S], -1, 0
    for k in range(POOLS):
        if state.version[i, k] == version:
            slot = k
        if state.version[i, k] < 0 or (
            state.version[i, oldest] >= 0 and state.used_s[i, k] < state.used_s[i, oldest]
        ):
            oldest = k
    if slot < 0:
        slot = oldest
        state.version[i, slot] = version
        state.warm[i, slot] = state.shards[i, slot] = 0.0
    elif now - state.used_s[i, slot] > facts[Fact.KEEP_ALIVE_S]:
        state.warm[i, slot] = state.shards[i, slot] = 0.0
    cold = max(0.0, n - state.warm[i, slot])
    loads = cold > 0 or state.shards[i, slot] != n or facts[Fact.SHARDS_RETURN] == 0.0
    state.warm[i, slot] = max(n, state.warm[i, slot])
    state.shards[i, slot] = n
    values[Col.COLD] = cold
    state.used_s[i, slot] = now
    return cold, loads


@numba.njit(cache=True)
def simulate(pool: Pool, state: State, i: int, rng: np.random.Generator) -> None:
    """Draws the epoch that was chosen: its time, its bill, its loss and what it tells."""
    job, values = state.job[i], state.values[i]
    facts = pool.facts[job]
    level, size, n = int(values[Col.LEVEL]), int(values[Col.SIZE]), values[Col.FUNCTIONS]
    cell = pool.cells[job, level, size]
    version = int(cell[Cell.VERSION])
    cold, loads = _place(pool, state, i, version, n)
    kind = 2 if cold > 0 else (1 if loads else 0)
    duration_s = float(cell[Cell.DURATION_S + kind])
    marginal = float(cell[Cell.MARGINAL_USD + min(kind, 1)])
    if kind == 2:
        marginal += cold / n * (float(cell[Cell.MARGINAL_USD + 2]) - marginal)
    sigma = float(cell[Cell.SPREAD_S])
    duration_s *= math.exp(sigma * rng.standard_normal() - sigma * sigma / 2)
    sigma = float(cell[Cell.SPREAD_USD])
    marginal *= math.exp(sigma * rng.standard_normal() - sigma * sigma / 2)
    values[Col.DURATION_S] = duration_s
    values[Col.COST] = marginal + _standing(pool, state, i, duration_s)
    for k in range(POOLS):
        if state.version[i, k] == version:
            state.used_s[i, k] = values[Col.ELAPSED_S] + duration_s
    values[Col.FETCH_S] = cell[Cell.FETCH_S]
    values[Col.COMPUTE_S] = cell[Cell.COMPUTE_S]
    values[Col.UPDATE_S] = cell[Cell.UPDATE_S]
    values[Col.MEMORY_USE] = cell[Cell.MEMORY_USE]
    values[Col.CPU_USE] = cell[Cell.CPU_USE]
    values[Col.PREVIOUS] = values[Col.LOSS]
    if facts[Fact.FITTED] > 0:
        excess = values[Col.LOSS] - facts[Fact.LOWEST]
        excess = fitted.advance(excess, pool.progress[job, level], facts[Fact.NOISE], rng)
        values[Col.FLOOR] = 0.0
    else:
        gain, noise = pool.gain[job, level], pool.noise[job, level]
        excess = quadratic.advance(state.amplitude[i], gain, noise, facts[Fact.AMPLITUDE], rng)
        values[Col.FLOOR] = pool.floor[job, level] * math.exp(SENSOR_NOISE * rng.standard_normal())
    values[Col.LOSS] = facts[Fact.LOWEST] + excess


@numba.njit(cache=True)
def settle(pool: Pool, state: State, i: int, ran: bool, siren: bool) -> float:
    """Books the epoch, decides whether the episode is over, and returns the reward.

    Args:
        pool, state, i: The environment.
        ran: Whether an epoch ran; if not, the budget is exhausted.
        siren: The paper's reward: -P / T_ref, and +2.5 or -2.5 at the end.
    """
    facts, values = pool.facts[state.job[i]], state.values[i]
    reward, end = 0.0, End.RUNNING.value
    if ran:
        duration_s, loss = values[Col.DURATION_S], values[Col.LOSS]
        cut = values[Col.COST] > values[Col.LEFT]
        values[Col.COST] = min(values[Col.COST], values[Col.LEFT])
        values[Col.LEFT] -= values[Col.COST]
        values[Col.ELAPSED_S] += duration_s
        hours = math.ceil(values[Col.ELAPSED_S] / SECONDS_PER_HOUR)
        values[Col.CACHE_HOURS] = max(values[Col.CACHE_HOURS], hours)
        values[Col.EPOCH] += 1
        reward = max(-duration_s / facts[Fact.REFERENCE_S], EPOCH_REWARD_MIN)
        finite = math.isfinite(loss)
        values[Col.ROSE] = 0.0 if finite and loss <= values[Col.BEST] else 1.0
        values[Col.RISES] += values[Col.ROSE]
        if finite and loss < values[Col.BEST]:
            values[Col.BEST] = loss
        if cut:
            end = End.BUDGET.value
        elif loss <= facts[Fact.TARGET]:
            end = End.TARGET.value
        elif not finite or loss > facts[Fact.EXPLODED_LOSS]:
            end = End.DIVERGED.value
        elif values[Col.LEFT] < facts[Fact.LEAST_RESERVE]:
            end = End.BUDGET.value
        elif values[Col.EPOCH] >= facts[Fact.MAX_EPOCHS]:
            end = End.LIMIT.value
    else:
        end = End.BUDGET.value
    if end == End.TARGET.value:
        reward += PENALTY if siren else 1.0
    elif end in (End.BUDGET.value, End.DIVERGED.value):
        span = facts[Fact.INITIAL] - facts[Fact.TARGET]
        left = min(max((values[Col.BEST] - facts[Fact.TARGET]) / span, 0.0), 1.0)
        reward -= PENALTY if siren else PENALTY + left
    values[Col.RETURN] += reward
    values[Col.END] = end
    return reward
