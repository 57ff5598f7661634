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

WAIT_ITERATIONS = 40
"""Fixed-point steps of the wait at a store; it changes by less than 1 % after 30."""

LAUNCH_ITERATIONS = 4
"""Fixed-point steps of how many functions work at a time while they are being launched."""

RACE_POINTS, RACE_TIMES = 14, 120
"""Sizes of a race under `cas`, and times of the integral over its next commit."""

CAS_TURN, CAS_SLACK = 0.8, 1.06
"""Part of the queue at a store that passes between two commits of a race, and what the renewal law of
commits falls short by, as measured on the twin."""

RETRY_SHARE = 0.82
"""Share of the time lost under `cas` that goes into whole retries, as measured on the twin."""

TAIL_POINTS = 48
"""Points of the integral over the heavy tail."""

CONVOY = (0.18, 0.7, 0.2, 1.3)
"""How loose a convoy is: a factor, and exponents of the spread of arrivals per service, of the load
and of the number of functions. Fitted to 599 steady states of the twin's event kernel (n = 2 to 80;
n x service / rest of the cycle of 0.01 to 100)."""

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
    attempts = laws.pushes + 0.0 * n
    if job.update_rule is UpdateRule.CAS:
        attempts = attempts + _retries(world, job, n, laws, mean_s)
    puts, gets = s3_requests(
        job,
        n,
        attempts=attempts,
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


def _excess_s(
    store: Store, total: _Sum, racers: Quantity, functions: Quantity, launch_s: Quantity
) -> Quantity:
    """What the slowest function is expected to take longer than the mean.

    Without the heavy tail, that is the slowest of `racers`; a request that meets the tail can make any
    of `functions`, launched one after another over `launch_s`, later than that one.
    """
    mean_s = np.maximum(total.mean_s, 1e-12)
    sigma = np.sqrt(np.log1p(total.variance / mean_s**2))
    z = np.maximum(ndtri((racers - 0.375) / (racers + 0.25)), sigma / 2)
    body = mean_s * np.expm1(sigma * z - sigma**2 / 2)
    own_s = store.tail_probability * total.requests * tail_excess_s(store)  # is in the mean
    if not np.any(own_s) or not np.any(functions > 1):
        return body
    hits = functions * total.requests * store.tail_probability
    late_s = _latest_s(store, hits, np.maximum(body + own_s, 0.0), launch_s) - own_s
    return body + np.where(functions > 1, late_s, 0.0)


def _latest_s(store: Store, hits: Quantity, after_s: Quantity, launch_s: Quantity) -> Quantity:
    """Expected seconds by which the latest of `hits` heavy-tailed requests comes after `after_s`.

    The integral over t > `after_s` of the probability that one of a Poisson number of hits adds
    more than t; a hit of a function that was launched earlier must add as much more.
    """
    hits, after_s, launch_s = np.broadcast_arrays(hits, after_s, launch_s)
    share = np.linspace(0.0, 1.0, TAIL_POINTS) ** 3
    t = after_s[..., None] + share * np.maximum(store.tail_max - after_s, 0.0)[..., None]
    window = np.maximum(launch_s, 1e-3)[..., None]
    beyond = (_tail_beyond_s(store, t) - _tail_beyond_s(store, t + window)) / window
    late: Quantity = np.trapezoid(-np.expm1(-hits[..., None] * beyond), t, axis=-1)
    return late


def _tail_beyond_s(store: Store, t: Quantity) -> Quantity:
    """Expected seconds that the heavy tail adds beyond t to a request that meets it."""
    a, low, high = store.tail_shape, store.tail_min, max(store.tail_max, store.tail_min)
    x = np.clip(t, low, high)
    inside = low * np.log(high / x) if a == 1 else low**a / (1 - a) * (high ** (1 - a) - x ** (1 - a))
    return inside + np.maximum(low - t, 0.0)


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
    cycle_s = alone_s / np.maximum(exchanges, 1.0)
    waits_s = 0.0 * n
    serial_s = n * exchanges * laws.service_s
    last_half = 1 - 0.5 / np.maximum(
        steps, 1.0
    )  # the mean function's last update is in the middle of the last round
    if store.node and job.update_rule is not UpdateRule.AVERAGE:
        spread_s = np.sqrt((laws.compute_s * cpu.push_noise) ** 2 + latency_variance)
        for _ in range(LAUNCH_ITERATIONS):
            together = np.minimum(n, 1.0 + (alone_s + waits_s) * world.start.fan_out)
            waits_s = steps * _waits_s(store, together, cycle_s, laws.service_s, spread_s)
            most_s = np.maximum(last_half * serial_s - launch_s / 2, (together - 1) * laws.service_s / 2)
            waits_s = np.minimum(waits_s, most_s)
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
    ragged_s = 0.0 if average else (np.ceil(steps) - steps) * cycle_s
    busy_s = alone_s + waits_s
    held_s = np.minimum(launch_s + waits_s, np.maximum(serial_s, launch_s))
    free_s = held_s + alone_s + ragged_s + _excess_s(store, way, racers, n, launch_s)
    bound_s = np.where(n > 1, serial_s + (alone_s if average else cycle_s), 0.0)
    queue_s = np.where(n > 1, np.maximum(0.0, serial_s - launch_s - busy_s), 0.0)
    if cas:
        race_s, own_s = _race(world, job, n, laws)
        raced_s = np.maximum(free_s, race_s + launch_s / 2)
        return np.where(n > 1, raced_s, free_s), np.where(n > 1, own_s, alone_s)
    share = 0.5 if average else last_half
    return np.maximum(free_s, bound_s), busy_s + share * queue_s


def _waits_s(store: Store, n: Quantity, cycle_s: Quantity, service_s: float, spread_s: Quantity) -> Quantity:
    """Mean wait in one cycle of a fetch and a push, where both wait for the pushes before them.

    Functions whose reads waited for the same push set out together, arrive together and wait for
    each other again: a convoy, whose cycle is that of one function and all n services. What
    spreads its arrivals breaks it up; the rest of the time they wait as if they came at random.
    """
    apart_s = 2 * _wait_s(n, cycle_s, service_s)
    between_s = np.maximum(
        cycle_s - service_s - latency_mean_s(store, store.read_median, store.read_sigma), 1e-12
    )
    convoy_s = np.maximum(between_s + n * service_s - cycle_s, apart_s)
    scale, by_spread, by_load, by_count = CONVOY
    loose = scale * (spread_s / service_s) ** by_spread * (n * service_s / between_s) ** by_load * n**by_count
    return apart_s + (convoy_s - apart_s) / (1 + loose)


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


def _race(world: World, job: Job, n: Quantity, laws: EpochLaws) -> tuple[Quantity, Quantity]:
    """(seconds to the last update, mean of one function's work) under `cas`.

    Of m functions that race, each commit frees one: it goes on to its next gradient, or is done. In the
    steady state so many race as commits bring back, and the last race runs down to one.
    """
    store = world.channels[job.channel]
    exchange_s, _, _ = _exchange(world, job, laws)
    steps, alone_s = laws.pushes / n, exchange_s + laws.compute_s
    m = np.exp(np.linspace(0.0, 1.0, RACE_POINTS) * np.log(np.maximum(n, 1.0 + 1e-9))[..., None])
    between_s = _between_commits_s(store, m, laws, exchange_s)
    gone, mean_s = np.diff(m, axis=-1), (between_s[..., 1:] + between_s[..., :-1]) / 2
    last_s = (gone * mean_s).sum(axis=-1)
    own_last_s = (gone * mean_s * (m[..., 1:] + m[..., :-1]) / 2).sum(axis=-1) / n
    needed = m + np.asarray(laws.compute_s)[..., None] / between_s  # functions that keep m in the race
    above = np.clip((needed < n[..., None]).sum(axis=-1), 1, RACE_POINTS - 1)[..., None]
    (low, high), (slow_s, fast_s) = (
        [np.take_along_axis(x, at, axis=-1)[..., 0] for at in (above - 1, above)] for x in (needed, between_s)
    )
    part = np.clip((n - low) / np.maximum(high - low, 1e-12), 0.0, 1.0)
    cycle_s = np.maximum(n * slow_s ** (1 - part) * fast_s**part, alone_s)
    before_s = alone_s + np.maximum(steps - 1.0, 0.0) * cycle_s
    few, played = _few_races(store, n, laws)
    return np.where(few, played[0], before_s + last_s), np.where(few, played[1], before_s + own_last_s)


def _retries(world: World, job: Job, n: Quantity, laws: EpochLaws, mean_s: Quantity) -> Quantity:
    """Retries under `cas`: where races are not played, the time beyond what it takes alone goes into them."""
    exchange_s, _, _ = _exchange(world, job, laws)
    alone_s = laws.pushes / n * (exchange_s + laws.compute_s)
    retry_s = np.maximum(exchange_s, n * laws.service_s)
    few, played = _few_races(world.channels[job.channel], n, laws)
    return np.where(few, played[2], RETRY_SHARE * n * np.maximum(mean_s - alone_s, 0.0) / retry_s)


def _few_races(store: Store, n: Quantity, laws: EpochLaws) -> tuple[Quantity, Quantity]:
    """(which actions have few functions, (3, ...) what their races take; see `siren.worlds.race`)."""
    from siren.worlds import race
    from siren.worlds.events import latency_of

    arrays = np.broadcast_arrays(n, laws.pushes / n, laws.transfer_s, laws.compute_s, laws.service_s)
    few = (arrays[0] > 1) & (arrays[0] <= race.FEW)
    latencies = latency_of(store, read=True), latency_of(store, read=False)
    played = np.zeros((3, *few.shape))
    for flat in np.flatnonzero(few):
        count, *others = (float(array.flat[flat]) for array in arrays)
        played.reshape(3, -1)[:, flat] = race.few_race(round(count), *others, *latencies)
    return few, played


def _between_commits_s(store: Store, m: Quantity, laws: EpochLaws, exchange_s: Quantity) -> Quantity:
    """Mean seconds between two commits of m racing functions; m has one more axis than the action.

    A write counts only if it read after the commit before it. With reads at rate r = m / (retry
    time) and F the distribution of the time from a read to its write, the first valid write comes
    later than t with probability exp(-r int_0^t F); `CAS_TURN` of the queue at the store comes on top.
    """
    retry_s = np.asarray(exchange_s)[..., None]
    fixed_s = np.broadcast_to((2 * laws.transfer_s + laws.service_s)[..., None], retry_s.shape)
    t = np.linspace(0.0, 6.0, RACE_TIMES) * (store.write_median + fixed_s + retry_s)
    waited = np.maximum(t - fixed_s, 1e-12) / max(store.write_median, 1e-12)
    arrived = ndtr(np.log(waited) / max(store.write_sigma, 1e-9))
    gathered = np.cumsum((arrived[..., 1:] + arrived[..., :-1]) / 2 * np.diff(t), axis=-1)
    gathered = np.concatenate([np.zeros_like(fixed_s), gathered], axis=-1)
    survival = np.exp(-(m / retry_s)[..., None] * gathered[..., None, :])
    first_s = CAS_SLACK * np.trapezoid(survival, t[..., None, :], axis=-1)
    queue_s = CAS_TURN * np.maximum(0.0, m * laws.service_s - retry_s)
    return np.where(m > 1.0 + 1e-6, np.clip(first_s, laws.service_s, retry_s), retry_s) + queue_s


def _synchronous(
    world: World, job: Job, n: Quantity, laws: EpochLaws, prelude: _Sum, launch_s: Quantity
) -> tuple[Quantity, Quantity]:
    """As `_free_running`, with a barrier after every step."""
    store, cpu = world.channels[job.channel], world.cpu
    exchange_s, latency_s, latency_variance = _exchange(world, job, laws)
    steps = np.ceil(laws.pushes / n)
    n = n + 0.0 * steps
    noise = (laws.compute_s * cpu.push_noise) ** 2 + (laws.compute_s * cpu.function_noise) ** 2
    one = _Sum(latency_s + laws.compute_s, latency_variance + noise, 2.0 + 0.0 * n)
    alone_s = exchange_s + laws.compute_s

    def step_s(members: Quantity) -> Quantity:
        spread_s = _excess_s(store, one, members, members, 0.0)
        return alone_s + np.maximum(spread_s, (members - 1) * laws.service_s) + laws.merge_s

    first = _racers(world, n, np.sqrt(prelude.variance + one.variance))
    late_s = launch_s + _excess_s(store, prelude, first, n, launch_s)
    # The store serves the first step while functions are still being launched.
    first_s = np.maximum(late_s + step_s(np.minimum(n, first)), step_s(n))
    last = laws.pushes - (steps - 1) * n  # functions that have a last step
    all_s = first_s + np.maximum(steps - 2, 0.0) * step_s(n)
    last_s = np.where(steps > 1, step_s(last), 0.0)
    return all_s + last_s, all_s + last / n * last_s - launch_s / 2
