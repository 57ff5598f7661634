"""The jobs that agents are trained, chosen and tested on, as tables; sampled by all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from enum import IntEnum

import numpy as np

from siren._pool_worker import become_pool_worker
from siren.simulator.job import SimulatedJob
from siren.simulator.tables import Cell, Pool, pool_of

Source = Callable[[int, list[int]], list[SimulatedJob]]
"""So many jobs of a seed; it is sent to other processes. Equal seeds give equal jobs."""

CHUNK = 50
"""Jobs that one seed stands for."""

WORTH_PROCESSES = 4
"""Chunks from which on starting other processes is worth their start-up."""


class Part(IntEnum):
    """Disjoint streams of jobs; the number begins the seed."""

    TRAINING = 1
    VALIDATION = 2
    TEST = 3


_Task = tuple[Source, int, list[int]]


def sample_pool(
    source: Source, part: Part, seed: int, count: int, tell: Callable[[int], None] = lambda done: None
) -> Pool:
    """Tables of `count` jobs; equal arguments give equal jobs, more jobs begin with the fewer.

    Args:
        source: Where they come from.
        part: What they are for.
        seed: Seed of the training; validation and test jobs are the same for every training of a
            family, so that agents can be compared, and take 0.
        count: How many.
        tell: Called with the number of jobs that are ready.

    Raises:
        UsageError: The source finds no job.
    """
    sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    tasks = [(source, size, [int(part), seed, k]) for k, size in enumerate(sizes)]
    pools: list[Pool] = []
    for pool in _sampled(tasks):
        pools.append(pool)
        tell(min(len(pools) * CHUNK, count))
    return joined(pools)


def _sampled(tasks: Sequence[_Task]) -> Iterator[Pool]:
    processes = min(len(tasks), os.cpu_count() or 1)
    if len(tasks) < WORTH_PROCESSES or processes < 2:
        yield from map(_sample_chunk, tasks)
        return
    # Not forked: the learner's threads would be copied in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=become_pool_worker) as executor:
        yield from executor.map(_sample_chunk, tasks)


def _sample_chunk(task: _Task) -> Pool:
    source, count, seed = task
    return pool_of(source(count, seed))


def joined(pools: Sequence[Pool]) -> Pool:
    """One pool with the jobs of all, in order."""
    jobs = sum(len(pool.facts) for pool in pools)
    tables = {}
    for name in Pool._fields:
        parts = [getattr(pool, name) for pool in pools]
        whole = np.zeros((jobs, *np.max([part.shape[1:] for part in parts], axis=0)), parts[0].dtype)
        if name == "cells":
            whole[..., Cell.RESERVE_USD] = np.inf
        at = 0
        for part in parts:
            rows = whole[(slice(at, at + len(part)), *map(slice, part.shape[1:]))]
            rows[...] = part
            if name == "cells":  # a choice counts in rows of its table, and these are longer now
                level, size = np.divmod(part[..., Cell.CHOICE], part.shape[2])
                rows[..., Cell.CHOICE] = level * whole.shape[2] + size
            at += len(part)
        tables[name] = whole
    return Pool(**tables)
