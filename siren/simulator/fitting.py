"""Fits convergence models to losses that were seen: of a rehearsal, of recorded runs, of an experiment.

Every law predicts the excess of a loss over the lowest that endless training reaches. That lowest loss
is unknown and fitted as well. Least squares on the logarithm of the excess over whole traces, each trace
with one weight, from several starts, with a weak pull to ordinary values: traces of few epochs leave some
numbers open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from siren.errors import UsageError
from siren.simulator import quadratic
from siren.simulator.fitted import SpotDnn
from siren.simulator.quadratic import Quadratic, Responses
from siren.types import BatchRule, UpdateRule
from siren.workloads.spec import TrainingSpec
from siren.worlds.laws import Job
from siren.worlds.world import World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PULL = 0.02
"""Weight of the ordinary values in a fit."""

RISE = 3.0
"""Excess is followed up to this multiple of the initial one: what lies beyond has no common law."""

LEAST = 1e-6
"""Excess below this counts as this."""

LOWEST = -2.6
"""Ordinary value of the last number x: the lowest loss lies e^x of the gain below the best one seen."""

LOWEST_MOST = 1.0
"""And its largest."""

ROUNDS = 80
"""Most evaluations of a fit from one start."""


@dataclass(frozen=True)
class Trace:
    """What one run showed.

    Attributes:
        functions: (epochs,) n of every epoch.
        losses: (epochs + 1,) Held-out losses, the initial one first.
    """

    functions: Ints
    losses: Floats


def fixed_trace(functions: int, losses: Floats) -> Trace:
    """A run with the same n in every epoch."""
    return Trace(np.full(len(losses) - 1, functions, np.int64), np.asarray(losses, np.float64))


@dataclass(frozen=True)
class Setting:
    """What a fit must know beside the traces; arrays are (counts,).

    Attributes:
        rule: The update rule.
        functions: Every n that traces may name, ascending.
        pushes, batch: Pushes of an epoch and their mean batch at each.
        delay: Mean delay of a push at each.
        reference_batch: The batch that the learning rate is stated for.
        batch_exponent: Of the learning rate in the batch, under `split`.
        staleness_scale: See `siren.hsp.rules.damped_rate`.
    """

    rule: UpdateRule
    functions: Ints
    pushes: Ints
    batch: Floats
    delay: Floats
    reference_batch: float
    batch_exponent: float
    staleness_scale: float

    @classmethod
    def of(
        cls, world: World, job: Job, training: TrainingSpec, functions: Sequence[int], memory_mb: float
    ) -> Setting:
        """The setting of a job.

        Args:
            world, job: What ran where.
            training: How it trained.
            functions: Every n that its traces name.
            memory_mb: Memory of its functions: staleness depends on their speed.
        """
        n = np.unique(np.asarray(functions, np.int64))
        pushes = np.asarray(job.pushes(n), np.int64)
        exponents = {"none": 0.0, "sqrt": 0.5, "linear": 1.0}
        split = job.batch_rule is BatchRule.SPLIT
        return cls(
            rule=job.update_rule,
            functions=n,
            pushes=pushes,
            batch=job.samples / pushes,
            delay=quadratic.in_flight_delay(world, job, n.astype(np.float64), memory_mb),
            reference_batch=float(training.batch_size),
            batch_exponent=exponents[training.split_learning_rate] if split else 0.0,
            staleness_scale=training.staleness_scale,
        )

    def levels(self, trace: Trace) -> Ints:
        """Row of `functions` of every epoch of a trace.

        Raises:
            UsageError: The trace names another n.
        """
        rows = np.searchsorted(self.functions, trace.functions)
        known = rows < len(self.functions)
        if not known.all() or (self.functions[rows] != trace.functions).any():
            raise UsageError(
                "a trace has counts of functions that the setting lacks: name all of them in Setting.of"
            )
        return rows


class Law(Protocol):
    """A convergence model as a vector of free numbers; the last one places the lowest loss.

    Attributes:
        starts: Vectors that fits start from; the first holds ordinary values.
        bounds: (least, most).
    """

    starts: Sequence[Floats]
    bounds: tuple[Floats, Floats]

    def whole(self, x: Floats, excess: float, levels: Ints) -> Floats:
        """Expected excess of a run from its initial excess on, (epochs + 1,)."""
        ...

    def steps(self, x: Floats, observed: Floats, levels: Ints) -> Floats:
        """Expected excess after each epoch from the one observed before it, (epochs,)."""
        ...


class QuadraticLaw:
    """The noisy quadratic model; x = (log rate, spectrum, energy, log noise share, lowest).

    With `free_batch` the exponent of the rate in the batch is free as well, before the last number.

    Args:
        setting: The job.
        free_batch: Whether the batch exponent is fitted and not taken from the setting.
    """

    def __init__(self, setting: Setting, *, free_batch: bool = False) -> None:
        self._setting = setting
        self._free = free_batch
        middle = (setting.batch_exponent,) if free_batch else ()
        shapes = ((-4.0, 1.0, 1.0, -2.0), (-2.0, 1.5, 0.5, -2.0), (-6.0, 0.5, 1.5, -2.0))
        self.starts: Sequence[Floats] = [np.array([*shape, *middle, LOWEST]) for shape in shapes]
        low, high = ((-1.0,), (1.5,)) if free_batch else ((), ())
        self.bounds = (
            np.array([-9.0, 0.0, -1.0, -9.0, *low, -8.0]),
            np.array([1.5, 4.0, 5.0, 5.0, *high, LOWEST_MOST]),
        )

    def model(self, x: Floats, excess: float) -> Quadratic:
        """The model of these numbers, with this initial excess."""
        s = self._setting
        return Quadratic(
            rate=float(np.exp(x[0])),
            spectrum=float(x[1]),
            energy=float(x[2]),
            noise=float(np.exp(x[3])) * excess * s.reference_batch,
            excess=excess,
            reference_batch=s.reference_batch,
            batch_exponent=float(x[4]) if self._free else s.batch_exponent,
            staleness_scale=s.staleness_scale,
        )

    def _maps(self, model: Quadratic) -> Responses:
        s = self._setting
        n = s.functions.astype(np.float64)
        return quadratic.responses(model, s.rule, n, s.pushes, s.batch, s.delay)

    def whole(self, x: Floats, excess: float, levels: Ints) -> Floats:
        """See `Law.whole`."""
        model = self.model(x, excess)
        maps, energy = self._maps(model), model.amplitudes**2 / 2
        found = [energy.sum()]
        for level in levels:
            energy = np.minimum(maps.gain[level] ** 2 * energy + maps.spread[level] ** 2 / 2, 1e3 * excess)
            found.append(energy.sum())
        return np.array(found)

    def steps(self, x: Floats, observed: Floats, levels: Ints) -> Floats:
        """See `Law.steps`: modes keep their shares and are scaled to the excess that was observed."""
        model = self.model(x, float(observed[0]))
        maps, energy = self._maps(model), model.amplitudes**2 / 2
        found = np.empty(len(levels))
        for t, level in enumerate(levels):
            energy = energy * observed[t] / max(energy.sum(), LEAST)
            energy = maps.gain[level] ** 2 * energy + maps.spread[level] ** 2 / 2
            found[t] = energy.sum()
        return found


class SpotDnnLaw:
    """The law that spotDNN fitted; x = (g2 over g3 x batch, log g3, lowest).

    Args:
        setting: The job.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        pushes = float(np.log(np.median(setting.pushes)))
        self.starts: Sequence[Floats] = [
            np.array([share, pushes + shift, LOWEST]) for share in (0.0, 3.0) for shift in (-1.0, 2.0)
        ]
        self.bounds = (np.array([-0.9, -12.0, -8.0]), np.array([50.0, 16.0, LOWEST_MOST]))

    def model(self, x: Floats, lowest: float) -> SpotDnn:
        """The law of these numbers, with this lowest loss."""
        scale = float(np.exp(x[1]))
        return SpotDnn(0.0, float(x[0]) * scale / self._setting.reference_batch, scale, 1.0, lowest)

    def _progress(self, x: Floats) -> Floats:
        s, law = self._setting, self.model(x, 0.0)
        strength = law.strength(s.functions.astype(np.float64), s.batch)
        progress: Floats = s.pushes / np.maximum(strength, 1e-9)
        return progress

    def whole(self, x: Floats, excess: float, levels: Ints) -> Floats:
        """See `Law.whole`."""
        gained = np.concatenate([[0.0], np.cumsum(self._progress(x)[levels])])
        found: Floats = 1.0 / (1.0 / excess + gained)
        return found

    def steps(self, x: Floats, observed: Floats, levels: Ints) -> Floats:
        """See `Law.steps`."""
        found: Floats = 1.0 / (1.0 / observed[:-1] + self._progress(x)[levels])
        return found


class ExponentialLaw:
    """The same share of the excess goes in every epoch, whatever n is; x = (log rate, lowest)."""

    starts: Sequence[Floats] = (np.array([-1.0, LOWEST]), np.array([-3.0, LOWEST]))
    bounds = (np.array([-9.0, -8.0]), np.array([2.0, LOWEST_MOST]))

    def whole(self, x: Floats, excess: float, levels: Ints) -> Floats:
        """See `Law.whole`."""
        found: Floats = excess * np.exp(-np.exp(x[0]) * np.arange(len(levels) + 1))
        return found

    def steps(self, x: Floats, observed: Floats, levels: Ints) -> Floats:
        """See `Law.steps`."""
        found: Floats = observed[:-1] * np.exp(-np.exp(x[0]))
        return found


def lowest_loss(x: Floats, traces: Sequence[Trace]) -> float:
    """The lowest loss that the last number of a fit stands for."""
    best = min(float(np.nanmin(trace.losses)) for trace in traces)
    initial = float(np.mean([trace.losses[0] for trace in traces]))
    return best - (initial - best) * float(np.exp(x[-1]))


def excess_of(trace: Trace, lowest: float) -> Floats:
    """The part of a trace that has a law, over the lowest loss: up to where it rises above `RISE`."""
    excess = np.where(np.isfinite(trace.losses), trace.losses, np.inf) - lowest
    wild = np.flatnonzero(excess > RISE * excess[0])
    return np.maximum(excess[: wild[0]] if len(wild) else excess, LEAST)


def predict(law: Law, x: Floats, observed: Floats, levels: Ints) -> Floats:
    """Expected excess along an observed one, from its first value on, inside what has a law."""
    whole = law.whole(x, float(observed[0]), levels[: len(observed) - 1])
    return np.clip(whole, LEAST, RISE * observed[0])


def fit(law: Law, setting: Setting, traces: Sequence[Trace]) -> Floats:
    """The numbers of a law that fit the traces best.

    Args:
        law: The law.
        setting: The job.
        traces: What was seen.

    Raises:
        UsageError: No trace has an epoch with a finite loss.
    """
    usable = [t for t in traces if len(t.losses) > 1 and np.isfinite(t.losses[:2]).all()]
    if not usable:
        raise UsageError("no trace has an epoch with a finite loss: a fit needs at least one")
    levels = [setting.levels(trace) for trace in usable]
    size = len(law.starts[0]) + sum(len(trace.losses) - 1 for trace in usable)

    def residuals(x: Floats) -> Floats:
        lowest, parts = lowest_loss(x, usable), [PULL * (x - law.starts[0])]
        for trace, rows in zip(usable, levels, strict=True):
            observed = excess_of(trace, lowest)
            wrong = np.log(predict(law, x, observed, rows) / observed)[1:]
            parts.append(wrong / np.sqrt(len(trace.losses)))
        found = np.concatenate(parts)
        return np.concatenate([found, np.zeros(size - len(found))])

    tried = [
        least_squares(residuals, x, bounds=law.bounds, loss="soft_l1", f_scale=0.2, max_nfev=ROUNDS)
        for x in law.starts
    ]
    return np.asarray(min(tried, key=lambda result: result.cost).x)


def fit_quadratic(traces: Sequence[Trace], setting: Setting) -> Quadratic:
    """The noisy quadratic model of a job; its lowest loss is the initial one less `excess`.

    Where the batch follows n, the exponent of the rate in the batch is free: it predicts other n better
    (docs/convergence.md).

    Args:
        traces: What was seen; more than one n tells noise and staleness apart.
        setting: The job.

    Raises:
        UsageError: No trace has an epoch with a finite loss.
    """
    law = QuadraticLaw(setting, free_batch=bool(np.ptp(setting.batch) > 0))
    x = fit(law, setting, traces)
    initial = float(np.mean([trace.losses[0] for trace in traces]))
    return law.model(x, initial - lowest_loss(x, traces))


def fit_spotdnn(traces: Sequence[Trace], setting: Setting) -> SpotDnn:
    """The law of spotDNN for a job, with the noise of an epoch on the logarithm of its excess.

    Args:
        traces, setting: As in `fit_quadratic`.

    Raises:
        UsageError: No trace has an epoch with a finite loss.
    """
    law = SpotDnnLaw(setting)
    x = fit(law, setting, traces)
    lowest, wrong = lowest_loss(x, traces), []
    for trace in traces:
        observed = excess_of(trace, lowest)
        rows = setting.levels(trace)[: len(observed) - 1]
        wrong.append(np.log(law.steps(x, observed, rows) / observed[1:]))
    model = law.model(x, lowest)
    noise = float(np.std(np.concatenate(wrong)))
    return SpotDnn(model.offset, model.per_sample, model.scale, model.heterogeneity, lowest, noise)
