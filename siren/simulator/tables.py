"""Jobs as arrays: everything that a step of an episode looks up, for a whole pool of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from siren.simulator import quadratic
from siren.simulator.fitted import SpotDnn
from siren.simulator.job import ActionGrid, EpisodeSpec, SimulatedJob, memory_grid
from siren.simulator.quadratic import AMPLITUDE_MAX, MODES, Quadratic
from siren.types import BatchRule, UpdateRule

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]

FUNCTIONS_SPAN = 2.0
"""Actions reach from n_ref e^-2 to n_ref e^2 (docs/explanation/rehearsal.md)."""

MEMORY_SPAN = float(np.log(4.0))
"""And from m_ref / 4 to 4 m_ref."""

EXPLODED = 20.0
"""A loss above this multiple of the initial one ends an episode, as `siren.training.EXPLODED` a run."""


class Fact(IntEnum):
    """Columns of `Pool.facts`."""

    INITIAL = 0
    TARGET = 1
    LOWEST = 2
    BUDGET = 3
    FUNCTIONS_REF = 4
    MEMORY_REF = 5
    REFERENCE_S = 6
    REFERENCE_USD = 7
    MAX_EPOCHS = 8
    EXPLODED_LOSS = 9
    LEAST_RESERVE = 10
    SETUP_USD = 11
    CACHE_USD_PER_H = 12
    KEEP_ALIVE_S = 13
    SHARDS_RETURN = 14
    SPLIT = 15
    ADDS = 16
    FITTED = 17
    NOISE = 18
    AMPLITUDE = 19
    LEVELS = 20
    SIZES = 21


class Cell(IntEnum):
    """Columns of `Pool.cells`: all that a step looks up for an action, in one cache line."""

    DURATION_S = 0  # and the next two: warm with its shards, warm, cold
    MARGINAL_USD = 3  # and the next two, likewise
    RESERVE_USD = 6
    SPREAD_S = 7
    SPREAD_USD = 8
    FETCH_S = 9
    COMPUTE_S = 10
    UPDATE_S = 11
    MEMORY_USE = 12
    CPU_USE = 13
    CHOICE = 14
    VERSION = 15


CELL_SIZE = max(Cell) + 1
"""Columns of a cell: 64 bytes."""


class Pool(NamedTuple):
    """Tables of J jobs, L function counts and Z memory sizes at most; smaller jobs are padded.

    Attributes:
        facts: (J, len(Fact)).
        functions: (J, L) Counts, ascending.
        memory_mb: (J, Z) Sizes, ascending.
        cells: (J, L, Z, CELL_SIZE) What the laws expect of an action: times and bills by kind of start;
            the least reservation, infinite for what cannot be run; standard deviations of the logarithms
            of time and bill; `ActionGrid.parts`; the nearest action that can be run, as level x Z +
            size; the number of the function version, for warm environments.
        start: (J, MODES) Amplitudes of the initial model.
        gain, noise: (J, L, MODES) The epoch map, see `quadratic.Responses`.
        floor: (J, L) The noise floor that gradient statistics predict.
        progress: (J, L) What an epoch adds to 1 / excess under the fitted law.
    """

    facts: Floats
    functions: Floats
    memory_mb: Floats
    cells: Singles
    start: Floats
    gain: Floats
    noise: Floats
    floor: Floats
    progress: Floats


def pool_of(jobs: Sequence[SimulatedJob]) -> Pool:
    """The tables of simulated jobs."""
    grids = [ActionGrid.of(job.spec.costing) for job in jobs]
    pool = _empty(grids)
    for j, (job, grid) in enumerate(zip(jobs, grids, strict=True)):
        _fill_actions(pool, j, job.spec, grid)
        _fill_dynamics(pool, j, job, grid)
    return pool


def pool_at(spec: EpisodeSpec, functions: int, dynamics: Quadratic | SpotDnn | None = None) -> Pool:
    """The tables of one job at one count of functions, on the ladder or off it.

    Without dynamics its convergence is real, and those tables stay empty.
    """
    counts, costing = np.array([functions], np.int64), spec.costing
    grid = ActionGrid(costing, counts, memory_grid(costing.world))
    pool = _empty([grid])
    _fill_actions(pool, 0, spec, grid)
    if dynamics is not None:
        _fill_dynamics(pool, 0, SimulatedJob(spec, dynamics), grid)
    return pool


def pool_of_spec(spec: EpisodeSpec) -> Pool:
    """The tables of one job whose convergence is real: its dynamics stay empty."""
    grid = ActionGrid.of(spec.costing)
    pool = _empty([grid])
    _fill_actions(pool, 0, spec, grid)
    return pool


def _empty(grids: Sequence[ActionGrid]) -> Pool:
    jobs = len(grids)
    counts = max(len(g.functions) for g in grids)
    sizes = max(len(g.memory_mb) for g in grids)
    cells = np.zeros((jobs, counts, sizes, CELL_SIZE), np.float32)
    cells[..., Cell.RESERVE_USD] = np.inf
    return Pool(
        facts=np.zeros((jobs, len(Fact))),
        functions=np.ones((jobs, counts)),
        memory_mb=np.ones((jobs, sizes)),
        cells=cells,
        start=np.zeros((jobs, MODES)),
        gain=np.zeros((jobs, counts, MODES)),
        noise=np.zeros((jobs, counts, MODES)),
        floor=np.zeros((jobs, counts)),
        progress=np.zeros((jobs, counts)),
    )


def _fill_actions(pool: Pool, j: int, spec: EpisodeSpec, grid: ActionGrid) -> None:
    counts, sizes = grid.allowed.shape
    pool.functions[j, :counts], pool.memory_mb[j, :sizes] = grid.functions, grid.memory_mb
    cells = pool.cells[j, :counts, :sizes]
    for kind in range(3):
        cells[..., Cell.DURATION_S + kind] = grid.duration_s[kind]
        cells[..., Cell.MARGINAL_USD + kind] = grid.marginal_usd[kind]
    cells[..., Cell.RESERVE_USD] = np.where(grid.allowed, grid.reserve_usd, np.inf)
    spread_s, spread_usd = (np.sqrt(np.log1p(variation**2)) for variation in grid.spreads)
    cells[..., Cell.SPREAD_S], cells[..., Cell.SPREAD_USD] = spread_s, spread_usd
    cells[..., Cell.FETCH_S : Cell.CPU_USE + 1] = np.moveaxis(grid.parts, 0, -1)
    cells[..., Cell.CHOICE] = nearest_allowed(grid, pool.cells.shape[2])
    rungs = len(spec.world.limits.timeout_rungs)
    cells[..., Cell.VERSION] = np.arange(sizes) * rungs + grid.covering_rung
    facts, job, costing = pool.facts[j], spec.job, spec.costing
    standing = grid.standing_usd(np.zeros(1))[0]
    facts[Fact.INITIAL], facts[Fact.TARGET] = spec.initial_loss, spec.target_loss
    facts[Fact.BUDGET], facts[Fact.MAX_EPOCHS] = spec.budget_usd, spec.max_epochs
    facts[Fact.FUNCTIONS_REF], facts[Fact.MEMORY_REF] = spec.functions_ref, spec.memory_ref_mb
    facts[Fact.REFERENCE_S], facts[Fact.REFERENCE_USD] = spec.reference_s, spec.reference_usd
    facts[Fact.EXPLODED_LOSS] = EXPLODED * max(spec.initial_loss, spec.target_loss)
    facts[Fact.LEAST_RESERVE] = grid.reserve_usd[grid.allowed].min()
    facts[Fact.SETUP_USD] = standing
    facts[Fact.CACHE_USD_PER_H] = float(costing.pricer.cache_usd_per_h) if costing.uses_cache else 0.0
    facts[Fact.KEEP_ALIVE_S] = spec.world.start.keep_alive
    facts[Fact.SHARDS_RETURN] = float(job.samples % job.dataset_samples == 0)
    facts[Fact.SPLIT] = float(job.batch_rule is BatchRule.SPLIT)
    facts[Fact.ADDS] = float(job.update_rule is UpdateRule.ADDITIVE)
    facts[Fact.LEVELS], facts[Fact.SIZES] = counts, sizes


def _fill_dynamics(pool: Pool, j: int, job: SimulatedJob, grid: ActionGrid) -> None:
    spec, dynamics, facts = job.spec, job.dynamics, pool.facts[j]
    counts = len(grid.functions)
    n, (pushes, batch) = grid.functions.astype(np.float64), grid.pushes
    if isinstance(dynamics, SpotDnn):
        facts[Fact.FITTED], facts[Fact.NOISE], facts[Fact.LOWEST] = 1.0, dynamics.noise, dynamics.lowest
        pool.progress[j, :counts] = dynamics.progress(n, batch, pushes.astype(np.float64))
        return
    delay = grid.delay(float(spec.memory_ref_mb))
    maps = quadratic.responses(dynamics, spec.job.update_rule, n, pushes, batch, delay)
    pool.gain[j, :counts], pool.noise[j, :counts], pool.floor[j, :counts] = maps
    pool.start[j] = dynamics.amplitudes
    facts[Fact.LOWEST] = spec.initial_loss - dynamics.excess
    facts[Fact.AMPLITUDE] = AMPLITUDE_MAX * np.sqrt(dynamics.excess)


def nearest_allowed(grid: ActionGrid, stride: int) -> Ints:
    """For every action the nearest that the job can run, as level x `stride` + size; (counts, sizes).

    Nearest in the units of actions: log n / 2 and log m / log 4.
    """
    n, m = grid.mesh
    x, y = np.log(n) / FUNCTIONS_SPAN, np.log(m) / MEMORY_SPAN
    levels, sizes = np.nonzero(grid.allowed)
    own_level, own_size = np.indices(n.shape)
    choice: Ints = np.asarray(own_level * stride + own_size, np.int64)
    wrong = ~grid.allowed
    distance = (x[wrong][:, None] - x[grid.allowed]) ** 2 + (y[wrong][:, None] - y[grid.allowed]) ** 2
    if wrong.any():
        best = distance.argmin(axis=1)
        choice[wrong] = levels[best] * stride + sizes[best]
    return choice
