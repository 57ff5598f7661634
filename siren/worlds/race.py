"""Compare-and-swap among a few functions: short epochs of the event kernel, instead of a closed form.

Closed forms take commits to come at a rate; two or three functions commit in turns, and a first attempt,
which computes between its read and its write, loses to every commit meanwhile.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from siren.worlds import events

FEW = 12
"""Functions up to which races are played out."""

COMMITS = 600
"""Updates of a played race; longer epochs go on at its pace. Its mean is known within about 2 %."""

SEED = 20_261_122


@functools.lru_cache(maxsize=4096)
def few_race(
    functions: int, steps: float, transfer_s: float, compute_s: float, service_s: float, read: events.Latency,
    write: events.Latency,
) -> tuple[float, float, float]:  # fmt: skip
    """(seconds to the last update, mean of one function's work, retries) of an epoch under `cas`.

    Args:
        functions: n, at most about `FEW`.
        steps: Pushes of one function, a mean.
        transfer_s: Of a model, one way.
        compute_s: Of a gradient.
        service_s: For which a push blocks the store.
        read, write: Latencies.
    """
    pushes = min(math.ceil(steps * functions - 1e-9), COMMITS)
    first_push = np.arange(functions + 1) * pushes // functions
    endless = np.full(functions, np.inf)
    starts = events.Starts(
        np.zeros(functions), endless, endless, np.ones(functions), np.full(functions, -1, np.int64)
    )
    times = events.Times(
        read=read._replace(tail_probability=0.0),  # rare, and not of the race
        write=write._replace(tail_probability=0.0),
        transfer_s=transfer_s,
        push_overhead_s=compute_s,
        sample_s=0.0,
        service_s=service_s,
        merge_s=0.0,
        push_noise=0.0,
        retry_limit=np.iinfo(np.int64).max,
        reads_queue=False,
    )
    rng = np.random.default_rng(SEED)
    samples = np.arange(pushes + 1, dtype=np.int64)
    trace = events.run_asynchronous(times, events.COMPARE_AND_SWAP, starts, first_push, samples, rng)
    own_s, longer = float(trace.end_s.mean()), steps * functions / pushes
    return own_s * longer + trace.barrier_s - own_s, own_s * longer, trace.retries * longer
