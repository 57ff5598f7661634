"""Fitting the constants of the laws to measured epochs, with 95% intervals.

Compute: the seconds of all functions at one vCPU are pushes x seconds_per_push + samples x
seconds_per_sample, a line through the warm epochs of different mini-batches. Imports: what the
initialisations of cold starts took beyond an empty function's. Channel: the medians of reads and writes
and the time for which a push blocks the store, in logarithms, to the fetch and update seconds that the
closed forms of the laws expect, and loosely to what was assumed. A constant that the epochs do not tell is
left as it was assumed. Errors are the larger of what residuals show and what the laws' own noise and error
explain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from siren.profiling.measure import Epoch, Measured
from siren.simulator.job import ActionGrid
from siren.types import UpdateRule
from siren.workloads.profile import Constant, ConstantName
from siren.worlds.costing import Costing
from siren.worlds.laws import speed

Floats = NDArray[np.float64]

CONFIDENCE = 0.95

PRIOR = math.log(2.0)
"""Error of what is assumed of a channel, of its logarithm: a factor of 2."""

TELLING = 0.8
"""Epochs tell a constant if they lessen the error of what is assumed to less than this share of it."""

LAWS_ERROR, CAS_ERROR = 0.06, 0.15
"""Error of the closed forms of fetch and update seconds where functions contend: up to 9% against the twin
on the larger shipped workloads at 4 to 64 functions (`cas`: docs/agreement.md). All epochs share it, so that
more of them do not lessen it. Where launching takes a share of an epoch, it is larger by that share."""

LEAST_ERROR = 0.005
"""Of one function, where they are exact."""


@dataclass(frozen=True)
class Store:
    """Constants of a channel, seconds: medians of a read and a write, and what a push blocks it for."""

    read_s: float
    write_s: float
    service_s: float

    def in_costing(self, costing: Costing) -> Costing:
        """The laws with these."""
        channel = costing.job.channel
        changes = {
            "read_median": self.read_s,
            "write_median": self.write_s,
            "service_base": self.service_s,
            "service_per_float": 0.0,
        }
        store = costing.world.channels[channel].model_copy(update=changes)
        world = costing.world.model_copy(update={"channels": {**costing.world.channels, channel: store}})
        return Costing(world, costing.job, costing.pricer, lifetimes_max=costing.lifetimes_max)


def assumed_store(costing: Costing) -> Store:
    """The channel's constants as they are assumed, for this size of model."""
    store = costing.world.channels[costing.job.channel]
    service_s = store.service_base + store.service_per_float * costing.job.parameters
    return Store(store.read_median, store.write_median, service_s)


def expected_parts(costing: Costing, functions: int, memory_mb: int) -> tuple[float, float, float]:
    """(fetch, compute, update) seconds of a function in a warm epoch, by the laws."""
    grid = ActionGrid(costing, np.array([functions]), np.array([memory_mb]))
    fetch_s, compute_s, update_s = grid.parts[:3, 0, 0].tolist()
    return fetch_s, compute_s, update_s


def fit(measured: Measured, costing: Costing) -> dict[ConstantName, Constant]:
    """The constants that the epochs tell.

    Args:
        measured: The epochs.
        costing: The job's own laws as they are assumed.
    """
    found: dict[ConstantName, Constant] = {}
    found.update(fit_compute(measured.warm()))
    imports = fit_imports(measured.epochs)
    if imports:
        found["import_s"] = imports
    own = [epoch for epoch in measured.warm() if epoch.costing.job == costing.job]
    found.update(fit_store(own, costing))
    return found


def fit_compute(epochs: Sequence[Epoch]) -> dict[ConstantName, Constant]:
    """What a sample and a push take at one vCPU; both scaled alike where nothing tells them apart."""
    rows, told, noise = [], [], []
    for epoch in epochs:
        report, job, cpu = epoch.report, epoch.costing.job, epoch.costing.world.cpu
        n, pushes = report.action.functions, report.pushes
        pace = float(speed(cpu, report.action.memory_mb, job.parallel_fraction))
        rows.append((float(job.samples), float(pushes)))
        told.append(report.compute_s * n * pace)
        noise.append(math.hypot(cpu.function_noise / math.sqrt(n), cpu.push_noise / math.sqrt(pushes)))
    job = epochs[0].costing.job
    assumed = np.array([job.seconds_per_sample, job.seconds_per_push])
    design, y = np.array(rows), np.array(told)
    scales = y * np.maximum(noise, LEAST_ERROR)
    value, error = np.zeros(2), np.zeros(2)
    if len(np.unique(design, axis=0)) > 1 and assumed[1] > 0:
        value, error = _line(design, y, scales)
    if value[0] == 0:  # one size of mini-batch, or so few samples that noise hides them: their sum is told
        factor, spread = _line((design @ assumed)[:, None], y, scales)
        value, error = factor * assumed, spread * assumed
    names: tuple[ConstantName, ...] = ("seconds_per_sample", "seconds_per_push")
    return {name: _constant(value[k], error[k], assumed[k]) for k, name in enumerate(names) if assumed[k] > 0}


def _line(design: Floats, y: Floats, scales: Floats) -> tuple[Floats, Floats]:
    """Coefficients, none negative, and the half-widths of their intervals, by weighted least squares."""
    a, b = design / scales[:, None], y / scales
    size = np.linalg.norm(a, axis=0)
    value = optimize.nnls(a / size, b)[0] / size
    free = max(len(y) - design.shape[1], 1)
    excess = max(float(((b - a @ value) ** 2).sum()) / free, 1.0)
    spread = np.sqrt(np.diag(np.linalg.inv((a / size).T @ (a / size))) * excess) / size
    return value, spread * stats.t.ppf((1 + CONFIDENCE) / 2, free)


def _constant(value: float, reach: float, assumed: float) -> Constant:
    return Constant(
        value=float(value),
        low=float(max(value - reach, 0.0)),
        high=float(value + reach),
        assumed=float(assumed),
    )


def fit_imports(epochs: Sequence[Epoch]) -> Constant | None:
    """What cold starts took beyond an empty function's, by the initialisations that Lambda reported."""
    epochs = [epoch for epoch in epochs if epoch.initialised]
    if not epochs:
        return None
    told = [epoch.report.init_s - empty_init_s(epoch.costing) for epoch in epochs]
    weights = np.array([epoch.report.cold_starts for epoch in epochs], np.float64)
    costing = epochs[0].costing
    value = float(np.average(told, weights=weights))
    own_s = empty_init_s(costing) * math.sqrt(math.expm1(costing.world.start.init_sigma**2))
    spread_s = own_s / math.sqrt(weights.sum())
    free = max(len(told) - 1, 1)
    if len(told) > 1:
        seen = math.sqrt(float(np.average((np.array(told) - value) ** 2, weights=weights)) / free)
        spread_s = max(spread_s, seen)
    reach_s = spread_s * float(stats.t.ppf((1 + CONFIDENCE) / 2, free) if len(told) > 1 else 1.96)
    return _constant(max(value, 0.0), reach_s, costing.job.import_s)


def empty_init_s(costing: Costing) -> float:
    """Mean initialisation of a function that imports nothing: of a log-normal law."""
    start = costing.world.start
    return float(start.init_median * math.exp(start.init_sigma**2 / 2))


def fit_store(epochs: Sequence[Epoch], costing: Costing) -> dict[ConstantName, Constant]:
    """The channel's constants from warm epochs of the job's own tour; those that they tell."""
    assumed = assumed_store(costing)
    start = np.array([assumed.read_s, assumed.write_s, assumed.service_s])
    if not epochs or not (start > 0).all():
        return {}
    logs, spread = _least_squares(epochs, costing, np.log(start))
    reach = spread * stats.t.ppf((1 + CONFIDENCE) / 2, max(2 * len(epochs) - len(start), 1))
    names: tuple[ConstantName, ...] = ("read_median", "write_median", "service_s")
    ends = np.exp(logs[:, None] + reach[:, None] * np.array([-1.0, 0.0, 1.0]))
    return {
        name: Constant(value=value, low=low, high=high, assumed=float(start[k]))
        for k, (name, (low, value, high)) in enumerate(zip(names, ends.tolist(), strict=True))
        if spread[k] < TELLING * PRIOR
    }


def _least_squares(epochs: Sequence[Epoch], costing: Costing, start: Floats) -> tuple[Floats, Floats]:
    """(logarithms of the constants, their standard errors).

    What is assumed counts as one more measurement with the error `PRIOR`: one function tells only the sum
    of a write and the service, and without functions that contend nothing else would part them.
    """
    contended = sum(epoch.report.action.functions > 1 for epoch in epochs)

    def residuals(logs: Floats) -> Floats:
        laws = Store(*np.exp(logs).tolist()).in_costing(costing)
        told = [_residuals(epoch, laws, contended) for epoch in epochs]
        return np.concatenate([*told, (logs - start) / PRIOR])

    solved = optimize.least_squares(residuals, start)
    told = solved.fun[: -len(start)]
    excess = max(float(told @ told) / max(len(told) - len(start), 1), 1.0)
    weights = np.sqrt(np.concatenate([np.full(len(told), 1 / excess), np.ones(len(start))]))
    rows = solved.jac * weights[:, None]
    return solved.x, np.sqrt(np.diag(np.linalg.inv(rows.T @ rows)))


def _residuals(epoch: Epoch, laws: Costing, contended: int) -> Floats:
    """Differences of logarithms over their errors: of fetches and updates alone, else of their sum.

    Args:
        epoch: What was measured.
        laws: What is expected.
        contended: Epochs of several functions, whose errors are all alike.
    """
    report, action = epoch.report, epoch.report.action
    fetch_s, _, update_s = expected_parts(laws, action.functions, action.memory_mb)
    told_s = np.array([report.fetch_s, report.update_s])
    expected_s = np.array([fetch_s, update_s])
    error = _sampling_errors(epoch, laws)
    if action.functions > 1:
        launch_s = (action.functions - 1) / laws.world.start.fan_out
        launching = launch_s / (told_s.sum() + report.compute_s)
        alike = math.hypot(CAS_ERROR if laws.job.update_rule is UpdateRule.CAS else LAWS_ERROR, launching)
        whole = math.hypot(float(error.max()), alike * math.sqrt(contended))
        return np.array([math.log(told_s.sum() / max(expected_s.sum(), 1e-12)) / whole])
    logs: Floats = np.log(np.maximum(told_s, 1e-12) / np.maximum(expected_s, 1e-12)) / error
    return logs


def _sampling_errors(epoch: Epoch, laws: Costing) -> Floats:
    """Relative errors of an epoch's fetch and update seconds, because latencies vary."""
    store, report = laws.world.channels[laws.job.channel], epoch.report
    own = laws.job.update_rule is UpdateRule.AVERAGE
    requests = report.action.functions if own else report.pushes
    variation = np.sqrt(np.expm1(np.array([store.read_sigma, store.write_sigma]) ** 2))
    errors: Floats = np.hypot(variation / math.sqrt(max(requests, 1)), LEAST_ERROR)
    return errors
