"""When everything happens: the event kernels of one epoch on the virtual clock.

Times do not depend on gradients, so an epoch is simulated in two passes: these kernels decide
which push read which version of the model and in which order updates land; `siren.twin.replay`
then computes the gradients in that order.

Each function has one pending event at a time, so the event queue is an indexed binary heap of
functions; ties go to the lower index. All kernels are compiled by numba.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from siren.worlds.world import Store

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ASYNCHRONOUS = 0
COMPARE_AND_SWAP = 1

_READ, _ARRIVE, _APPLY, _REREAD, _SERVED, _RESERVED = 0, 1, 2, 3, 4, 5
_AFTER_S = 1e-12  # a read that waited sees the push it waited for


class Latency(NamedTuple):
    """A log-normal latency with a Pareto tail; see `siren.worlds.world.Store`."""

    median_s: float
    sigma: float
    tail_probability: float
    tail_min_s: float
    tail_shape: float
    tail_max_s: float


def latency_of(store: Store, *, read: bool) -> Latency:
    """A store's law of latency as the kernels take it."""
    median, sigma = (store.read_median, store.read_sigma) if read else (store.write_median, store.write_sigma)
    return Latency(median, sigma, store.tail_probability, store.tail_min, store.tail_shape, store.tail_max)


class Starts(NamedTuple):
    """How the functions of an epoch start, and what ends them.

    Attributes:
        ready_s: (n,) When each function holds its shard and may fetch.
        limit_s: (n,) When each function stops itself: its deadline.
        kill_s: (n,) When the platform ends it: its timeout.
        slowness: (n,) Factor on its compute time.
        hangs: (n,) The push at which it hangs until its timeout; -1 for never.
    """

    ready_s: Floats
    limit_s: Floats
    kill_s: Floats
    slowness: Floats
    hangs: Ints


class Times(NamedTuple):
    """What the kernels draw from: `siren.worlds.laws.EpochLaws` of one action, as plain numbers.

    `reads_queue`: a read waits until the pushes before it are served, as in a store that does one
    thing at a time (Redis). `retry_limit` bounds the compare-and-swap retries of one function in
    the whole epoch, because every retry is billed.
    """

    read: Latency
    write: Latency
    transfer_s: float
    push_overhead_s: float
    sample_s: float
    service_s: float
    merge_s: float
    push_noise: float
    retry_limit: int
    reads_queue: bool


class Trace(NamedTuple):
    """What happened in one epoch.

    Attributes:
        push: Global push index of every applied update, in the order of application.
        read_version: Updates that had been applied when it read the model.
        end_s: (n,) When each function ended.
        fetch_s, compute_s, update_s: (n,) Time each function spent so.
        done: (n,) Pushes each function finished.
        retries: Compare-and-swap retries.
        barrier_s: When the last function had ended and its updates had landed.
    """

    push: Ints
    read_version: Ints
    end_s: Floats
    fetch_s: Floats
    compute_s: Floats
    update_s: Floats
    done: Ints
    retries: int
    barrier_s: float


@numba.njit(cache=True)
def draw_latency(rng: np.random.Generator, latency: Latency) -> float:
    """One latency in seconds."""
    seconds = latency.median_s
    if latency.sigma > 0.0:
        seconds *= math.exp(latency.sigma * rng.standard_normal())
    if latency.tail_probability > 0.0 and rng.random() < latency.tail_probability:
        tail = latency.tail_min_s * (1.0 - rng.random()) ** (-1.0 / latency.tail_shape)
        seconds += min(tail, latency.tail_max_s)
    return seconds


@numba.njit(cache=True)
def draw_latencies(rng: np.random.Generator, latency: Latency, count: int) -> Floats:
    """`count` latencies in seconds."""
    seconds = np.empty(count)
    for i in range(count):
        seconds[i] = draw_latency(rng, latency)
    return seconds


@numba.njit(cache=True)
def draw_noise(rng: np.random.Generator, variation: float) -> float:
    """A log-normal factor of mean 1 and coefficient of variation `variation`."""
    if variation == 0.0:
        return 1.0
    sigma2 = math.log(1.0 + variation * variation)
    return math.exp(math.sqrt(sigma2) * rng.standard_normal() - 0.5 * sigma2)


@numba.njit(cache=True)
def _compute(times: Times, rng: np.random.Generator, samples: int, slowness: float) -> float:
    work = (times.push_overhead_s + times.sample_s * samples) * slowness
    return work * draw_noise(rng, times.push_noise)


@numba.njit(cache=True)
def _before(times: Floats, a: int, b: int) -> bool:
    return times[a] < times[b] or (times[a] == times[b] and a < b)


@numba.njit(cache=True)
def _sift_down(heap: Ints, times: Floats, size: int, position: int) -> None:
    item = heap[position]
    child = 2 * position + 1
    while child < size:
        if child + 1 < size and _before(times, heap[child + 1], heap[child]):
            child += 1
        if not _before(times, heap[child], item):
            break
        heap[position] = heap[child]
        position = child
        child = 2 * position + 1
    heap[position] = item


@numba.njit(cache=True)
def run_asynchronous(  # noqa: PLR0912, PLR0915 - one state machine, read best in one piece
    times: Times,
    mode: int,
    starts: Starts,
    first_push: Ints,
    first_sample: Ints,
    rng: np.random.Generator,
) -> Trace:
    """An epoch of free-running functions: `overwrite`, `additive`, `staleness` and `cas`.

    Args:
        times: The laws' times at this action.
        mode: `ASYNCHRONOUS` or `COMPARE_AND_SWAP`.
        starts: How the functions start.
        first_push, first_sample: The quotas.
        rng: Source of all noise.
    """
    begin_s, slowness, hangs = starts.ready_s, starts.slowness, starts.hangs
    n = len(begin_s)
    total = len(first_sample) - 1
    push, read_version = np.empty(total, np.int64), np.empty(total, np.int64)
    end_s, fetch_s, compute_s, update_s = begin_s.copy(), np.zeros(n), np.zeros(n), np.zeros(n)
    done, phase, retried = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    version, seen = np.zeros(n, np.int64), np.zeros(n, np.int64)
    next_s, since_s = np.empty(n), np.empty(n)
    heap = np.arange(n)
    applied, size = 0, n
    free_s, last_s = 0.0, 0.0
    for i in range(n):
        since_s[i] = begin_s[i]
        next_s[i] = begin_s[i] + draw_latency(rng, times.read)
        if hangs[i] == first_push[i]:
            next_s[i] = np.inf
    for position in range(n // 2 - 1, -1, -1):
        _sift_down(heap, next_s, n, position)
    while size > 0:
        i = heap[0]
        now = next_s[i]
        p = first_push[i] + done[i]
        limit = starts.limit_s[i]
        ended = False
        if now == np.inf:
            end_s[i], ended = starts.kill_s[i], True
        elif now > limit and phase[i] != _APPLY:
            end_s[i], ended = max(limit, begin_s[i]), True
            if phase[i] == _ARRIVE:  # its fetch and gradient were counted in full
                beyond_s = max(0.0, since_s[i] - end_s[i])
                fetch_s[i] -= max(0.0, beyond_s - compute_s[i])
                compute_s[i] = max(0.0, compute_s[i] - beyond_s)
        elif times.reads_queue and free_s > now and (phase[i] == _READ or phase[i] == _REREAD):
            next_s[i] = free_s + _AFTER_S
            phase[i] = _SERVED if phase[i] == _READ else _RESERVED
        elif phase[i] == _READ or phase[i] == _SERVED:
            version[i] = seen[i] = applied
            arrived = now + times.transfer_s
            fetch_s[i] += arrived - since_s[i]
            work = _compute(times, rng, first_sample[p + 1] - first_sample[p], slowness[i])
            compute_s[i] += work
            since_s[i] = arrived + work
            next_s[i] = since_s[i] + draw_latency(rng, times.write) + times.transfer_s
            phase[i] = _ARRIVE
        elif phase[i] == _ARRIVE:
            free_s = max(free_s, now) + times.service_s
            next_s[i] = free_s
            phase[i] = _APPLY
        elif phase[i] == _REREAD or phase[i] == _RESERVED:
            seen[i] = applied
            next_s[i] = now + 2.0 * times.transfer_s + draw_latency(rng, times.write)
            phase[i] = _ARRIVE
        elif mode == COMPARE_AND_SWAP and seen[i] != applied:
            retried[i] += 1
            next_s[i] = now + draw_latency(rng, times.read)
            phase[i] = _REREAD
            if retried[i] > times.retry_limit:
                end_s[i], ended = min(now, limit), True
        else:
            push[applied], read_version[applied] = p, version[i]
            applied += 1
            last_s = now
            update_s[i] += now - since_s[i]
            done[i] += 1
            end_s[i] = min(now, limit)
            if p + 1 == first_push[i + 1]:
                ended = True
            elif p + 1 == hangs[i]:
                next_s[i] = np.inf
            else:
                since_s[i] = now
                next_s[i] = now + draw_latency(rng, times.read)
                phase[i] = _READ
        if ended:
            size -= 1
            heap[0] = heap[size]
        if size > 0:
            _sift_down(heap, next_s, size, 0)
    return Trace(
        push[:applied],
        read_version[:applied],
        end_s,
        fetch_s,
        compute_s,
        update_s,
        done,
        retried.sum(),
        max(last_s, end_s.max()),
    )


@numba.njit(cache=True)
def run_average(
    times: Times,
    starts: Starts,
    first_push: Ints,
    first_sample: Ints,
    rng: np.random.Generator,
) -> Trace:
    """An epoch of local SGD: one fetch, all steps on the function's own copy, one push.

    Arguments as in `run_asynchronous`. `read_version` is 0 for every push; a function that
    does not push before its deadline contributes nothing, and its pushes are not in the trace.
    """
    begin_s, slowness, hangs = starts.ready_s, starts.slowness, starts.hangs
    n = len(begin_s)
    end_s, fetch_s, compute_s, update_s = np.empty(n), np.zeros(n), np.zeros(n), np.zeros(n)
    arrive_s, done = np.empty(n), np.zeros(n, np.int64)
    for i in range(n):
        fetch_s[i] = draw_latency(rng, times.read) + times.transfer_s
        for p in range(first_push[i], first_push[i + 1]):
            compute_s[i] += _compute(times, rng, first_sample[p + 1] - first_sample[p], slowness[i])
        work_s = fetch_s[i] + compute_s[i]
        arrive_s[i] = begin_s[i] + work_s + draw_latency(rng, times.write) + times.transfer_s
    order = np.argsort(arrive_s, kind="mergesort")
    push = np.empty(len(first_sample) - 1, np.int64)
    applied, free_s = 0, 0.0
    for i in order:
        limit = starts.limit_s[i]
        if hangs[i] >= 0 or arrive_s[i] > limit:
            end_s[i] = starts.kill_s[i] if hangs[i] >= 0 else limit
            fetch_s[i] = min(fetch_s[i], end_s[i] - begin_s[i])
            compute_s[i] = min(compute_s[i], end_s[i] - begin_s[i] - fetch_s[i])
            continue
        free_s = max(free_s, arrive_s[i]) + times.service_s
        end_s[i] = min(free_s, limit)
        update_s[i] = free_s - (begin_s[i] + fetch_s[i] + compute_s[i])
        done[i] = first_push[i + 1] - first_push[i]
        for p in range(first_push[i], first_push[i + 1]):
            push[applied] = p
            applied += 1
    return Trace(
        push[:applied],
        np.zeros(applied, np.int64),
        end_s,
        fetch_s,
        compute_s,
        update_s,
        done,
        0,
        max(free_s, end_s.max()),
    )


@numba.njit(cache=True)
def run_synchronous(
    times: Times,
    starts: Starts,
    first_push: Ints,
    first_sample: Ints,
    rng: np.random.Generator,
) -> Trace:
    """An epoch with a barrier after every step; gradients of a step are averaged.

    Arguments as in `run_asynchronous`. `read_version` is the step. A step that any of its
    functions cannot end before its deadline, or in which one hangs, ends the epoch for all.
    """
    begin_s, slowness, hangs = starts.ready_s, starts.slowness, starts.hangs
    n = len(begin_s)
    quota = first_push[1:] - first_push[:-1]
    end_s, fetch_s, compute_s, update_s = begin_s.copy(), np.zeros(n), np.zeros(n), np.zeros(n)
    done, arrive_s = np.zeros(n, np.int64), np.empty(n)
    push = np.empty(len(first_sample) - 1, np.int64)
    version = np.empty(len(first_sample) - 1, np.int64)
    fetch, work = np.empty(n), np.empty(n)
    applied, step_s, broken = 0, 0.0, False
    for step in range(quota.max()):
        members = np.flatnonzero(quota > step)
        for i in members:
            p = first_push[i] + step
            broken = broken or hangs[i] == p
            fetch[i] = draw_latency(rng, times.read) + times.transfer_s
            work[i] = _compute(times, rng, first_sample[p + 1] - first_sample[p], slowness[i])
            arrive_s[i] = max(begin_s[i], step_s) + fetch[i] + work[i]
            arrive_s[i] += draw_latency(rng, times.write) + times.transfer_s
        free_s = 0.0
        for k in np.argsort(arrive_s[members], kind="mergesort"):
            free_s = max(free_s, arrive_s[members[k]]) + times.service_s
        free_s += times.merge_s
        for i in members:
            broken = broken or free_s > starts.limit_s[i]
        if broken:
            for i in members:
                late = hangs[i] == first_push[i] + step
                end_s[i] = starts.kill_s[i] if late else starts.limit_s[i]
            break
        for i in members:
            push[applied], version[applied] = first_push[i] + step, step
            applied += 1
            done[i] += 1
            fetch_s[i] += fetch[i]
            compute_s[i] += work[i]
            update_s[i] += free_s - (max(begin_s[i], step_s) + fetch[i] + work[i])
            end_s[i] = free_s
        step_s = free_s
    return Trace(
        push[:applied],
        version[:applied],
        end_s,
        fetch_s,
        compute_s,
        update_s,
        done,
        0,
        end_s.max(),
    )
