"""The noisy quadratic model with delay: an epoch of asynchronous SGD as an exact linear map.

Near a minimum a loss is a sum of independent modes, excess = sum_i u_i^2 / 2, and a push of
learning rate eta moves mode i by -h_i (u_i + sqrt(s2 / b) xi), with h_i = eta lambda_i and gradient
noise whose covariance is that of the curvature (Zhang et al., "Which algorithmic choices matter at
which batch sizes?", NeurIPS 2019). A push that n - 1 others overtake reads the model of `delay`
updates ago. An epoch is then linear and Gaussian in every mode,

    u' = A u + sqrt(W s2 / b) xi,

with A the response and W the sum of squared impulse responses, both exact for the recursion.
Five numbers describe a job: h_1, the exponents of h_i = h_1 i^-a and of the initial energy ~ i^-b,
the noise s2, and the initial excess e0.

What a rule does to an epoch of K pushes by n functions of which 1 + d are in flight at a time:

    additive    K steps with a delay of d; the first d + 1 read the epoch's first model
    staleness   the same, a push of staleness t at the rate h / (1 + t / scale)
    cas         K steps; the order of success is random, so the delay is geometric with mean d
    overwrite   the chain of updates that survive: K / (1 + d) steps of plain SGD
    average     n chains of K / n steps of plain SGD, then their mean
    sync        K / n steps of plain SGD on batches of n b
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from siren.types import UpdateRule
from siren.worlds.expectation import expect_epoch
from siren.worlds.laws import Job, epoch_laws, latency_mean_s
from siren.worlds.world import World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MODES = 16
"""Modes of a job; how well so many predict real SGD is in docs/convergence.md."""

AMPLITUDE_MAX = 8.0
"""Modes are held inside this multiple of sqrt(e0): real losses grow linearly where a square explodes."""


QUEUE_ROUNDS = 20
"""Rounds after which the delay and the queue it causes agree; at the edge they only drift slowly."""


@dataclass(frozen=True)
class Quadratic:
    """A job's convergence.

    Attributes:
        rate: h_1 = learning rate x largest curvature, at the reference batch.
        spectrum: a of h_i = h_1 i^-a.
        energy: b of the initial energy ~ i^-b.
        noise: s2, so that a push of batch b has noise variance s2 / b in units of the loss.
        excess: e0, the initial loss over the lowest.
        reference_batch: Batch for which `rate` holds.
        batch_exponent: Under `split` the rate is multiplied by (batch / reference)^this: 0, 1/2 or 1.
        staleness_scale: Under `staleness`, see `siren.hsp.rules.damped_rate`.
    """

    rate: float
    spectrum: float
    energy: float
    noise: float
    excess: float
    reference_batch: float
    batch_exponent: float = 0.0
    staleness_scale: float = 20.0

    @property
    def rates(self) -> Floats:
        """h_i, (MODES,), at the reference batch."""
        powers: Floats = self.rate * np.arange(1.0, MODES + 1) ** -self.spectrum
        return powers

    @property
    def amplitudes(self) -> Floats:
        """|u_i| of the initial model, (MODES,)."""
        share = np.arange(1.0, MODES + 1) ** -self.energy
        amplitudes: Floats = np.sqrt(2 * self.excess * share / share.sum())
        return amplitudes


class Responses(NamedTuple):
    """The epoch map at each count of a ladder.

    Attributes:
        gain: A, (counts, modes).
        spread: sqrt(W s2 / b), (counts, modes): standard deviation that an epoch adds.
        floor: (counts,) Noise floor that gradient statistics predict: rate x trace of the
            covariance of gradients / 4, the stationary excess of SGD at a small rate.
    """

    gain: Floats
    spread: Floats
    floor: Floats


@numba.njit(cache=True)
def delayed(rates: Floats, pushes: int, delay: int, scale: float) -> tuple[Floats, Floats]:
    """(A, W) of additive pushes with a fixed delay; exact.

    Args:
        rates: h_i, (modes,).
        pushes: K.
        delay: d; the first d + 1 pushes read the epoch's first model.
        scale: A push of staleness t has the rate h / (1 + t / scale); infinite for no damping.
    """
    gain, power = np.empty(len(rates)), np.empty(len(rates))
    state, impulse = np.empty(pushes + 1), np.empty(pushes + 1)
    for i in range(len(rates)):
        last = rates[i] / (1.0 + delay / scale)
        state[0] = impulse[0] = 1.0
        for t in range(pushes):
            stale = min(t, delay)
            rate = rates[i] / (1.0 + stale / scale)
            state[t + 1] = state[t] - rate * state[t - stale]
            impulse[t + 1] = impulse[t] - last * impulse[t - delay] if t >= delay else 1.0
        total = 0.0
        for t in range(pushes):
            rate = rates[i] / (1.0 + min(t, delay) / scale)
            total += (rate * impulse[pushes - 1 - t]) ** 2
        gain[i], power[i] = state[pushes], total
    return gain, power


@numba.njit(cache=True)
def shuffled(rates: Floats, pushes: int, delay: float) -> tuple[Floats, Floats]:
    """(A, W) of additive pushes whose delay is geometric with mean `delay`; A is exact in the mean."""
    gain, power = np.empty(len(rates)), np.empty(len(rates))
    impulse = np.empty(pushes + 1)
    renewal = 1.0 / (1.0 + delay)
    for i in range(len(rates)):
        value, seen = 1.0, 1.0
        moved, noticed = 1.0, 0.0
        total = 0.0
        impulse[0] = 1.0
        for t in range(pushes):
            seen += (value - seen) * renewal
            value -= rates[i] * seen
            total += (rates[i] * impulse[t]) ** 2
            noticed += (moved - noticed) * renewal
            moved -= rates[i] * noticed
            impulse[t + 1] = moved
        gain[i], power[i] = value, total
    return gain, power


@numba.njit(cache=True)
def stability_limit(delay: int) -> float:
    """Largest stable h of gradient descent with that delay: 2 sin(pi / (2 (2 d + 1)))."""
    return 2.0 * math.sin(math.pi / (2.0 * (2 * delay + 1)))


def mean_delay(functions: Floats, work_s: Floats, fan_out: float) -> Floats:
    """Mean updates by others during a push, with functions launched one after another.

    Two functions launched k / `fan_out` apart share the part max(0, 1 - k / (fan_out x work)) of
    their work, and while both run, each pushes once per push of the other. With work much longer
    than the launch this is n - 1.

    Args:
        functions: n, (counts,).
        work_s: Seconds that a function works after its start, (counts,).
        fan_out: Launches a second.
    """
    n = np.asarray(functions, np.float64)
    window = np.maximum(np.asarray(work_s, np.float64) * fan_out, 1e-12)
    last = np.floor(np.minimum(n - 1, window))
    # sum over k = 1..last of 2 (n - k) (1 - k / window) / n
    first, second = last * (last + 1) / 2, last * (last + 1) * (2 * last + 1) / 6
    total = n * last - first * (1 + n / window) + second / window
    delay: Floats = np.where(n > 1, 2 * total / n, 0.0)
    return delay


def in_flight_delay(world: World, job: Job, functions: Floats, memory_mb: float) -> Floats:
    """`mean_delay` of a job's pushes at one memory size, from the laws of time."""
    laws = epoch_laws(world, job, functions, memory_mb)
    if job.update_rule is UpdateRule.CAS:  # retries make up most of a function's time
        work_s = expect_epoch(world, job, functions, memory_mb, cold=0.0, loading=0.0).handler_s
        return mean_delay(functions, work_s, world.start.fan_out)
    store = world.channels[job.channel]
    read = latency_mean_s(store, store.read_median, store.read_sigma)
    write = latency_mean_s(store, store.write_median, store.write_sigma)
    alone_s = read + write + 2 * laws.transfer_s + laws.service_s + laws.compute_s
    delay = np.zeros(len(functions))
    for _ in range(QUEUE_ROUNDS):  # a queue keeps functions in flight longer, and that feeds the queue
        cycle_s = np.maximum(alone_s, (1 + delay) * laws.service_s)
        delay = mean_delay(functions, laws.pushes / functions * cycle_s, world.start.fan_out)
    return delay


def responses(
    model: Quadratic, rule: UpdateRule, functions: Floats, pushes: Ints, batch: Floats, delay: Floats
) -> Responses:
    """The epoch map at every count of a ladder.

    Args:
        model: The job's convergence.
        rule: Its update rule.
        functions: n, (counts,).
        pushes: K at each n, (counts,).
        batch: Mean samples of a push at each n, (counts,).
        delay: Mean delay at each n, (counts,).
    """
    shape = (len(functions), MODES)
    gain, power, floor = np.empty(shape), np.empty(shape), np.empty(len(functions))
    scale = model.staleness_scale if rule is UpdateRule.STALENESS else math.inf
    for k, (n, total, b, d) in enumerate(zip(functions, pushes, batch, delay, strict=True)):
        rates = model.rates * (b / model.reference_batch) ** model.batch_exponent
        damping, averaged = 1.0 + (d / scale), 1.0
        if rule is UpdateRule.CAS:
            gain[k], power[k] = shuffled(rates, int(total), float(d))
        elif rule in (UpdateRule.ADDITIVE, UpdateRule.STALENESS):
            gain[k], power[k] = delayed(rates, int(total), round(d), scale)
        else:
            lanes = 1 + d if rule is UpdateRule.OVERWRITE else n
            gain[k], power[k] = delayed(rates, max(1, round(total / lanes)), 0, math.inf)
            averaged = 1.0 if rule is UpdateRule.OVERWRITE else n
        power[k] *= model.noise / (b * averaged)
        floor[k] = (rates / damping).sum() * model.noise / (4 * b * averaged)
    return Responses(gain, np.sqrt(power), floor)


def mean_excess(model: Quadratic, maps: Responses, epochs: int) -> Floats:
    """Expected excess loss of fixed counts, (counts, epochs + 1); column 0 is the initial one."""
    energy = np.tile(model.amplitudes**2 / 2, (len(maps.floor), 1))
    ceiling = AMPLITUDE_MAX**2 / 2 * model.excess
    excess = np.empty((len(maps.floor), epochs + 1))
    excess[:, 0] = energy.sum(axis=1)
    with np.errstate(over="ignore"):  # far beyond the cliff a gain is huge, and the ceiling holds it
        for t in range(1, epochs + 1):
            energy = np.minimum(maps.gain**2 * energy + maps.spread**2 / 2, ceiling)
            excess[:, t] = energy.sum(axis=1)
    return excess


@numba.njit(cache=True)
def advance(amplitude: Floats, gain: Floats, spread: Floats, limit: float, rng: np.random.Generator) -> float:
    """Moves the modes one epoch on and returns the excess loss; all arrays (modes,)."""
    excess = 0.0
    for i in range(len(amplitude)):
        u = gain[i] * amplitude[i] + spread[i] * rng.standard_normal()
        u = min(max(u, -limit), limit)
        amplitude[i] = u
        excess += 0.5 * u * u
    return excess
