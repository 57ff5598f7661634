"""What an epoch is expected to take: closed forms of the laws, for arrays of actions at once.

An epoch ends with its latest function. Functions start one after another (fan-out), so the latest
is the slowest of those that started last; its excess over the mean is a high quantile of a
log-normal with the mean and variance of everything random on a function's way (Fenton and
Wilkinson's approximation of a sum of log-normals; Blom's plotting position for the expected
maximum). Under a rule that shares a store, the store's service adds a queue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from siren.types import ChannelKind, UpdateRule
from siren.units import MS_PER_S
from siren.worlds.laws import (
    EpochLaws,
    Job,
    Quantity,
    epoch_laws,
    latency_mean_s,
    s3_requests,
    tail_excess_s,
)
from siren.worlds.world import Store, World

QUEUED, QUEUE_TURN = 10.0, 0.45
"""Under `cas`, where a write takes less than `QUEUED` services, pushes queue at the store and one in
`QUEUE_TURN` x n of them commits, as measured on the twin at n = 50."""

WAIT_ITERATIONS = 40
"""Fixed-point steps of the wait at a store; it changes by less than 1 % after 30."""

UPPER_FACTOR, UPPER_SLACK_S = 1.2, 1.0
"""A timeout must cover so much of a function's expected time, and so many seconds more."""


@dataclass(frozen=True)
class ExpectedEpoch:
    """The expectation of an epoch; arrays of the actions' shape.

    Attributes:
        duration_s: P, from launch to the end of the evaluation.
        handler_s: Mean time of one function from its handler's start to its end.
        upper_s: A high quantile of the same, to choose a timeout from.
        billed_s: Mean billed time of one function, initialisation included where it is billed.
        evaluate_billed_s: Billed time of the evaluating function.
        s3_puts, s3_gets: Requests of the whole epoch.
    """

    duration_s: Quantity
    handler_s: Quantity
    upper_s: Quantity
    billed_s: Quantity
    evaluate_billed_s: Quantity
    s3_puts: Quantity
    s3_gets: Quantity


@dataclass(frozen=True)
class _Sum:
    """Mean and variance of the random part of a function's way, and its heavy-tailed requests."""

    mean_s: Quantity
    variance: Quantity
    requests: Quantity


def expect_epoch(
    world: World, job: Job, functions: Quantity, memory_mb: Quantity, *, cold: Quantity, loading: Quantity
) -> ExpectedEpoch:
    """The expected epoch at (n, m).

    Args:
        world, job: What runs where.
        functions, memory_mb: n and m, numbers or arrays.
        cold: Functions of the n that start cold.
        loading: Functions of the n whose environment does not hold their shard.
    """
    n = np.asarray(functions, dtype=np.float64)
    cold, loading = np.asarray(cold, np.float64), np.asarray(loading, np.float64)
    laws = epoch_laws(world, job, n, memory_mb)
    start, s3 = world.start, world.channels[ChannelKind.S3]
    empty_s = float(start.init_median * np.exp(start.init_sigma**2 / 2))
    init_s = np.where(cold > 0, empty_s + job.import_s, 0.0)
    begin_s = np.where(cold > 0, start.placement + init_s, start.warm)
    read_s, read_variance = _latency(s3, s3.read_median, s3.read_sigma)
    load_s = np.where(loading > 0, laws.load_s + read_s, 0.0)
    prelude = _Sum(
        np.where(cold > 0, empty_s, 0.0) + np.where(loading > 0, read_s, 0.0),
        np.where(cold > 0, (empty_s**2) * np.expm1(start.init_sigma**2), 0.0)
        + np.where(loading > 0, read_variance, 0.0),
        np.where(loading > 0, 1.0, 0.0),
    )
    throttled_s = np.maximum(0.0, (cold - start.scale_out_burst) / start.scale_out_rate)
    launch_s = np.maximum((n - 1) / start.fan_out, throttled_s)
    work = _synchronous if job.update_rule is UpdateRule.SYNC else _free_running
    to_barrier_s, mean_s = work(world, job, n, laws, prelude, launch_s)
    handler_s = load_s * loading / n + mean_s
    merge_s = laws.merge_s if job.update_rule is UpdateRule.AVERAGE else 0.0 * n
    rounding_s = world.billing.granularity / MS_PER_S / 2
    retries = np.maximum(1.0, n / 2) if job.update_rule is UpdateRule.CAS else 1.0
    puts, gets = s3_requests(
        job,
        n,
        attempts=laws.pushes * retries,
        unanswered=0.0,
        steps=1.0 if job.update_rule is UpdateRule.AVERAGE else np.ceil(laws.pushes / n),
        loads=loading * laws.load_requests,
    )
    return ExpectedEpoch(
        duration_s=begin_s + load_s + to_barrier_s + merge_s + laws.evaluate_s,
        handler_s=handler_s,
        upper_s=UPPER_FACTOR * (load_s + np.maximum(mean_s, to_barrier_s - launch_s)) + UPPER_SLACK_S,
        billed_s=handler_s + (init_s * cold / n if world.billing.init_billed else 0.0) + rounding_s,
        evaluate_billed_s=laws.evaluate_billed_s + np.where(laws.evaluate_billed_s > 0, merge_s, 0.0),
        s3_puts=puts,
        s3_gets=gets,
    )


def _latency(store: Store, median_s: float, sigma: float) -> tuple[float, float]:
    """Mean (tail included) and variance (tail excluded) of a latency."""
    variance = median_s**2 * np.exp(sigma**2) * np.expm1(sigma**2)
    return latency_mean_s(store, median_s, sigma), float(variance)


def _excess_s(store: Store, total: _Sum, racers: Quantity) -> Quantity:
    """What the slowest of `racers` functions is expected to take longer than the mean."""
    mean_s = np.maximum(total.mean_s, 1e-12)
    sigma = np.sqrt(np.log1p(total.variance / mean_s**2))
    z = np.maximum(ndtri((racers - 0.375) / (racers + 0.25)), sigma / 2)
    body = mean_s * np.expm1(sigma * z - sigma**2 / 2)
    hit = -np.expm1(racers * total.requests * np.log1p(-store.tail_probability))
    tail = (hit - store.tail_probability * total.requests) * tail_excess_s(store)
    return body + np.where(racers > 1, np.maximum(tail, 0.0), 0.0)


def _racers(world: World, n: Quantity, spread_s: Quantity) -> Quantity:
    """Functions that started late enough to be the last: those within the spread of the end."""
    return np.minimum(n, 1.0 + 2.0 * spread_s * world.start.fan_out)


def _exchange(world: World, job: Job, laws: EpochLaws) -> tuple[Quantity, Quantity, float]:
    """(mean seconds of a fetch and an update, of their latencies alone, their variance)."""
    store = world.channels[job.channel]
    read_s, read_variance = _latency(store, store.read_median, store.read_sigma)
    write_s, write_variance = _latency(store, store.write_median, store.write_sigma)
    both = read_s + write_s
    return both + 2 * laws.transfer_s + laws.service_s, both, read_variance + write_variance


def _free_running(
    world: World, job: Job, n: Quantity, laws: EpochLaws, prelude: _Sum, launch_s: Quantity
) -> tuple[Quantity, Quantity]:
    """(seconds from the first function's shard to the barrier, mean of one function's work)."""
    store, cpu = world.channels[job.channel], world.cpu
    exchange_s, latency_s, latency_variance = _exchange(world, job, laws)
    steps = laws.pushes / n
    exchanges = 1.0 if job.update_rule is UpdateRule.AVERAGE else steps
    alone_s = exchanges * exchange_s + steps * laws.compute_s
    if store.node and job.update_rule not in (UpdateRule.AVERAGE, UpdateRule.CAS):
        together = np.minimum(n, 1.0 + alone_s * world.start.fan_out)
        alone_s = alone_s + 2 * steps * _wait_s(together, exchange_s + laws.compute_s, laws.service_s)
    noise = (
        steps * (laws.compute_s * cpu.push_noise) ** 2 + (steps * laws.compute_s * cpu.function_noise) ** 2
    )
    way = _Sum(
        prelude.mean_s + exchanges * latency_s + steps * laws.compute_s,
        prelude.variance + exchanges * latency_variance + noise,
        prelude.requests + 2 * exchanges,
    )
    racers = _racers(world, n, np.sqrt(way.variance))
    average, cas = (job.update_rule is rule for rule in (UpdateRule.AVERAGE, UpdateRule.CAS))
    ragged_s = 0.0 if average else (np.ceil(steps) - steps) * alone_s / steps
    free_s = launch_s + alone_s + ragged_s + _excess_s(store, way, racers)
    serial_s = n * exchanges * _between_updates_s(world, job, n, laws)
    bound_s = np.where(
        n > 1, serial_s + alone_s / np.maximum(exchanges, 1.0) * (0.0 if average else 1.0), 0.0
    )
    queue_s = np.where(n > 1, np.maximum(0.0, serial_s - launch_s - alone_s), 0.0)
    share = 0.5 if average else 0.9 if cas else 1 - 0.5 / np.maximum(steps, 1.0)
    return np.maximum(free_s, bound_s), alone_s + share * queue_s


def _wait_s(n: Quantity, cycle_s: Quantity, service_s: float) -> Quantity:
    """Mean wait of one request at a store that does one thing at a time, before it is saturated.

    Each of n functions cycles through a fetch and a push, and both wait for the pushes before them:
    Schweitzer's approximation of mean value analysis, less half a service that is under way.
    """
    wait_s = 0.0 * cycle_s
    for _ in range(WAIT_ITERATIONS):
        rate = n / (cycle_s + 2 * wait_s)
        busy = np.minimum(rate * service_s, 1.0)
        queued = rate * (wait_s + service_s) * (n - 1) / n
        wait_s = (wait_s + service_s * np.maximum(0.0, queued - busy / 2)) / 2
    return wait_s


def _between_updates_s(world: World, job: Job, n: Quantity, laws: EpochLaws) -> Quantity:
    """Least mean time between two updates that a store applies.

    A queue serves one push after another. Under `cas` a push counts only if it read after the
    update before it. With reads at rate r = n / (retry time) and F the distribution of the time
    from a read to its write, the first valid write comes later than t with probability
    exp(-r int_0^t F); once a queue has formed, one valid push comes with every turn of it.
    """
    queue_s = laws.service_s + 0.0 * n
    if job.update_rule is not UpdateRule.CAS:
        return queue_s
    store = world.channels[job.channel]
    exchange_s, _, _ = _exchange(world, job, laws)
    queued = store.write_median < QUEUED * laws.service_s
    turn_s = np.where(queued, QUEUE_TURN * n * queue_s, n * queue_s - exchange_s)
    fixed_s = (2 * laws.transfer_s + laws.service_s + 0.0 * n)[..., None]
    t = np.linspace(0.0, 6.0, 400) * (store.write_median + fixed_s + exchange_s[..., None])
    waited = np.maximum(t - fixed_s, 1e-12) / max(store.write_median, 1e-12)
    arrived = ndtr(np.log(waited) / max(store.write_sigma, 1e-9))
    gathered = np.cumsum((arrived[..., 1:] + arrived[..., :-1]) / 2 * np.diff(t), axis=-1)
    gathered = np.concatenate([np.zeros_like(fixed_s), gathered], axis=-1)
    first_s = np.trapezoid(np.exp(-(n / exchange_s)[..., None] * gathered), t, axis=-1)
    return np.maximum(first_s, turn_s)


def _synchronous(
    world: World, job: Job, n: Quantity, laws: EpochLaws, prelude: _Sum, launch_s: Quantity
) -> tuple[Quantity, Quantity]:
    """As `_free_running`, with a barrier after every step."""
    store, cpu = world.channels[job.channel], world.cpu
    exchange_s, latency_s, latency_variance = _exchange(world, job, laws)
    steps = np.ceil(laws.pushes / n)
    noise = (laws.compute_s * cpu.push_noise) ** 2 + (laws.compute_s * cpu.function_noise) ** 2
    one = _Sum(latency_s + laws.compute_s, latency_variance + noise, 2.0 + 0.0 * n)
    spread_s = _excess_s(store, one, n)
    step_s = exchange_s + laws.compute_s + np.maximum(spread_s, (n - 1) * laws.service_s) + laws.merge_s
    first = _racers(world, n, np.sqrt(prelude.variance + one.variance))
    late_s = launch_s + _excess_s(store, prelude, first)
    return late_s + steps * step_s, steps * step_s + np.maximum(0.0, late_s - launch_s / 2)
