"""What an agent sees: the relative, scale-free observation, and the nine numbers of the paper."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from siren.simulator.core import Col, State
from siren.simulator.tables import FUNCTIONS_SPAN, MEMORY_SPAN, Fact, Pool

Singles = NDArray[np.float32]

NAMES = (
    "log_gap",
    "log_best_gap",
    "log_gap_change",
    "budget_left",
    "log_affordable_epochs",
    "log_needed_epochs",
    "affordable_over_needed",
    "rose",
    "rises",
    "gap_over_floor",
    "fetch_share",
    "compute_share",
    "update_share",
    "functions",
    "memory",
    "cold_share",
    "first_epoch",
    "epoch_time",
    "elapsed",
    "budget_over_reference",
    "room_for_functions",
    "split_rule",
    "additive_rule",
)
"""Entries of the observation, each float32 in [-1, 1]."""

OBSERVATION_SIZE = len(NAMES)

SIREN_NAMES = ("t", "l", "P", "P_F", "P_C", "P_U", "u", "w", "b")
"""The state of the paper, raw: epoch, loss, seconds of the epoch, of fetching, computing and updating,
memory use, CPU use, dollars left."""

SIREN_SIZE = len(SIREN_NAMES)
SIREN_HIGH = np.array([1e4, 1e6, 1e6, 1e6, 1e6, 1e6, 1.0, 1.0, 1e6], np.float32)
"""Upper bounds of the paper's state; the lower ones are 0."""

LOG_SCALE = 5.0
"""Ratios are seen as log(x) / 5: from 1/148 to 148."""

GAP_MIN = 1e-6
"""Gaps below this share of the initial one count as this share."""

RISES_SCALE = 4.0
"""Rises are counted up to this many."""


@numba.njit(cache=True)
def _clipped(x: float) -> float:
    return min(max(x, -1.0), 1.0)


@numba.njit(cache=True)
def _log(ratio: float) -> float:
    return _clipped(math.log(max(ratio, 1e-12)) / LOG_SCALE)


@numba.njit(cache=True)
def observe(pool: Pool, state: State, i: int, out: Singles) -> None:
    """Writes the observation of environment i into `out`, (OBSERVATION_SIZE,).

    Gaps are losses over the target, relative to the initial one. What the next epoch needs is
    extrapolated from the last; before the first epoch everything that depends on one is 0.
    """
    facts, values = pool.facts[state.job[i]], state.values[i]
    target, initial = facts[Fact.TARGET], facts[Fact.INITIAL]
    whole = initial - target
    loss = values[Col.LOSS] if math.isfinite(values[Col.LOSS]) else facts[Fact.EXPLODED_LOSS]
    gap = max((loss - target) / whole, GAP_MIN)
    best = max((values[Col.BEST] - target) / whole, GAP_MIN)
    before = max((values[Col.PREVIOUS] - target) / whole, GAP_MIN)
    out[0] = _log(gap)
    out[1] = _log(best)
    out[3] = _clipped(2.0 * values[Col.LEFT] / facts[Fact.BUDGET] - 1.0)
    out[19] = _clipped(math.log(facts[Fact.BUDGET] / facts[Fact.REFERENCE_USD]) / 1.5)
    levels = int(facts[Fact.LEVELS])
    most = pool.functions[state.job[i], levels - 1]
    out[20] = _clipped(math.log(most / facts[Fact.FUNCTIONS_REF]) / 3.5 - 1.0)
    out[21] = 2.0 * facts[Fact.SPLIT] - 1.0
    out[22] = 2.0 * facts[Fact.ADDS] - 1.0
    if values[Col.EPOCH] == 0:
        for k in (2, 4, 5, 6, 9, 13, 14, 17):
            out[k] = 0.0
        for k in (7, 8, 10, 11, 12, 15, 18):
            out[k] = -1.0
        out[16] = 1.0
        return
    duration_s = max(values[Col.DURATION_S], 1e-9)
    affordable = values[Col.LEFT] / max(values[Col.COST], 1e-12)
    needed = gap / max(before - gap, 1e-3 * gap)
    out[2] = _clipped(math.log(gap / before) / 2.0)
    out[4] = _log(affordable)
    out[5] = _log(needed)
    out[6] = _log(affordable / needed)
    out[7] = 2.0 * values[Col.ROSE] - 1.0
    out[8] = 2.0 * min(values[Col.RISES], RISES_SCALE) / RISES_SCALE - 1.0
    floor = values[Col.FLOOR]
    out[9] = _log(gap * whole / floor) if floor > 0.0 else 0.0
    out[10] = _clipped(2.0 * values[Col.FETCH_S] / duration_s - 1.0)
    out[11] = _clipped(2.0 * values[Col.COMPUTE_S] / duration_s - 1.0)
    out[12] = _clipped(2.0 * values[Col.UPDATE_S] / duration_s - 1.0)
    out[13] = _clipped(math.log(values[Col.FUNCTIONS] / facts[Fact.FUNCTIONS_REF]) / FUNCTIONS_SPAN)
    out[14] = _clipped(math.log(values[Col.MEMORY] / facts[Fact.MEMORY_REF]) / MEMORY_SPAN)
    out[15] = _clipped(2.0 * values[Col.COLD] / values[Col.FUNCTIONS] - 1.0)
    out[16] = -1.0
    out[17] = _log(20.0 * duration_s / facts[Fact.REFERENCE_S])
    elapsed = values[Col.ELAPSED_S]
    out[18] = 2.0 * elapsed / (elapsed + facts[Fact.REFERENCE_S]) - 1.0


@numba.njit(cache=True)
def observe_siren(state: State, i: int, out: Singles) -> None:
    """Writes the paper's state of environment i into `out`, (SIREN_SIZE,), cut at `SIREN_HIGH`."""
    values = state.values[i]
    columns = (
        Col.EPOCH,
        Col.LOSS,
        Col.DURATION_S,
        Col.FETCH_S,
        Col.COMPUTE_S,
        Col.UPDATE_S,
        Col.MEMORY_USE,
        Col.CPU_USE,
        Col.LEFT,
    )
    for k in range(SIREN_SIZE):
        value = values[columns[k]]
        out[k] = min(max(value, 0.0), SIREN_HIGH[k]) if math.isfinite(value) else SIREN_HIGH[k]


@numba.njit(cache=True)
def observe_as(pool: Pool, state: State, i: int, siren: bool, out: Singles) -> None:
    """Writes the observation of the wanted kind."""
    if siren:
        observe_siren(state, i, out)
    else:
        observe(pool, state, i, out)
