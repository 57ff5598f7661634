"""A worker's share of an epoch, by update rule; the numerics are those of `siren.hsp.rules`.

Each loop can be cut off between any two requests and begun again, or run twice at once: pushes are
counted by (worker, index) in the store, contributions to a barrier follow from their key.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.channels.base import Barrier, Params, Push, SharedModel, Snapshot, StoreError
from siren.channels.objects import NotFiniteError, Origin, StoredModel, check_finite, pack
from siren.channels.redis import RedisBarrier, RedisModel
from siren.channels.s3 import ObjectStore, S3Barrier, S3Model, read_model
from siren.hsp import rules
from siren.worker import layout
from siren.worker.environment import Environment
from siren.worker.messages import Task
from siren.worker.progress import Deadline, Meter, Result

RETRY_S, RETRY_MAX_S = 0.01, 0.5
"""Back-off of compare-and-swap, with full jitter (AWS Architecture Blog, 2015)."""
Update = Callable[[Snapshot, Params, int], Push | None]
"""Applies one gradient, (read, gradient, index) -> push; None if it had to stop before."""
POLL_S, POLL_MAX_S, POLL_GROWTH = 0.002, 0.25, 1.5
"""Waiting at a barrier: first pause, longest pause, growth. A GET of S3 is paid for."""


def shard_order(seed: int, samples: int) -> NDArray[np.int64]:
    """The order in which a worker goes through its shard: positions within it."""
    return np.random.default_rng(seed).permutation(samples)


@dataclass
class Work:
    """A task with everything that it needs.

    Attributes:
        task, store, deadline, meter: What, where, how long, and what it measures.
        model, features, labels, order, bounds: What gradients are made of.
    """

    task: Task
    store: ObjectStore
    deadline: Deadline
    meter: Meter
    model: Any
    features: NDArray[Any]
    labels: NDArray[Any]
    order: NDArray[np.int64]
    bounds: tuple[int, ...]

    @property
    def spent(self) -> bool:
        """Whether parameters cannot travel any more: S3 may not be asked again."""
        return self.task.channel == "s3" and self.store.spent

    def gradient(self, params: Params, index: int) -> tuple[Params, bool]:
        """(the gradient of a push, float32, (size,), which may be overwritten; whether it is finite)."""
        with self.meter.timed("compute_s"):
            rows = self.order[self.bounds[index] : self.bounds[index + 1]]
            _, gradient = self.model.loss_and_grad(params, self.features[rows], self.labels[rows])
            square = float(np.dot(gradient, gradient))
        finite = bool(np.isfinite(square))
        if finite:
            self.meter.square_norm_sum += square
        return gradient, finite


def prepare(
    task: Task, environment: Environment, store: ObjectStore, deadline: Deadline, meter: Meter
) -> Work:
    """Loads the shard and the model."""
    with meter.timed("load_s"):
        model = environment.model(task)
        features, labels, meter.loaded_rows = environment.shard(task, store)
        order = shard_order(task.order_seed, task.samples)
        if task.samples > len(features):
            order %= len(features)  # an epoch may be longer than the training set
    return Work(task, store, deadline, meter, model, features, labels, order, task.bounds)


def start_model(task: Task, store: ObjectStore) -> Params:
    """The model that the epoch starts from.

    Raises:
        StoreError: The manager did not write it.
    """
    key = layout.start(task.folder)
    found = read_model(store, Origin.of(task), key)
    if found is None:
        raise StoreError(f"{key} is missing: the manager writes it before it launches an epoch")
    return found.params


def redis_model(task: Task, environment: Environment, store: ObjectStore, deadline: Deadline) -> RedisModel:
    """The shared model in Redis, put there if this worker is the first."""
    assert task.redis_url
    client = environment.redis(task.redis_url)
    shared = RedisModel(
        client, task.run, task.epoch, task.launch, task.size, task.functions, lambda: deadline.left_s
    )
    shared.seed(lambda: start_model(task, store))
    return shared


def run(work: Work, environment: Environment) -> Result:
    """Does a task's pushes over its channel."""
    task = work.task
    if task.channel == "s3":
        return _run_s3(work)
    with work.meter.timed("fetch_s"):
        shared = redis_model(task, environment, work.store, work.deadline)
    if task.rule == "average":
        result = _average(work, shared)
        complete = result.version >= task.functions
    elif task.rule == "sync":
        result = _synchronous(work, RedisBarrier(shared, task.worker, task.members, task.rate))
        complete = task.worker == 0 and result.version * task.functions >= task.epoch_pushes
    else:
        update: Update = partial(_overwrite if task.rule == "overwrite" else _add, work, shared)
        result = _asynchronous(work, shared, update)
        complete = result.version >= task.epoch_pushes
    if result.state != "done" or not complete:
        return result
    with work.meter.timed("update_s"):
        return collect(task, work.store, shared, result)


def _run_s3(work: Work) -> Result:
    task, origin = work.task, Origin.of(work.task)
    if task.rule == "average":
        return _average(work, None)
    if task.rule == "sync":
        barrier = S3Barrier(work.store, origin, task.folder, task.worker, task.members, task.rate)
        result = _synchronous(work, barrier)
        if not result.version:
            return result
        return replace(result, model_key=layout.after_step(task.folder, result.version - 1))
    model = S3Model(work.store, origin, layout.start(task.folder))
    return _asynchronous(
        work, model, partial(_compare_and_swap if task.rule == "cas" else _overwrite, work, model)
    )


def _asynchronous(work: Work, shared: SharedModel, update: Update) -> Result:
    """Fetch, compute, push, again and again: `overwrite`, `additive`, `staleness`, `cas`."""
    task, index, version, longest_s = work.task, work.task.position, -1, 0.0
    while index < len(task.batches):
        if work.deadline.near(longest_s) or work.spent:
            return Result("unfinished", index, max(0, version))
        began = time.monotonic()
        try:
            with work.meter.timed("fetch_s"):
                read = shared.get()
        except NotFiniteError:
            return Result("diverged", index, max(0, version))
        version = read.version
        if read.applied[task.worker] > index:  # an earlier attempt, or a duplicate, was here
            index = int(read.applied[task.worker])
            continue
        gradient, finite = work.gradient(read.params, index)
        if not finite:
            return Result("diverged", index, version)
        with work.meter.timed("update_s"):
            push = update(read, gradient, index)
        if push is None:
            return Result("unfinished", index, version)
        work.meter.pushed(push)
        version, index = push.version, index + 1
        longest_s = max(longest_s, time.monotonic() - began)
    if version < 0:
        version = shared.get().version
    return Result("done", min(index, len(task.batches)), version)


def _overwrite(work: Work, shared: SharedModel, read: Snapshot, gradient: Params, index: int) -> Push:
    params = np.empty_like(gradient)
    rules.step(read.params, gradient, work.task.rate, params)
    return shared.write(work.task.worker, index, read, params)


def _add(work: Work, shared: RedisModel, read: Snapshot, gradient: Params, index: int) -> Push:
    task, rate, scale = work.task, work.task.rate, work.task.staleness_scale
    if task.rule == "additive":  # rounded as `rules.step` rounds it
        np.multiply(gradient, np.float32(rate), out=gradient)
        rate, scale = 1.0, 0.0
    return shared.add(task.worker, index, read.version, gradient, rate, scale)


def _compare_and_swap(
    work: Work, shared: S3Model, read: Snapshot, gradient: Params, index: int
) -> Push | None:
    """Takes the same step from whatever the model is by now, until nobody came between."""
    task, base = work.task, read
    for attempt in itertools.count():
        params = np.empty_like(gradient)
        rules.step(base.params, gradient.copy(), task.rate, params)
        push = shared.swap(task.worker, index, base, params)
        if not push.conflict:
            return push._replace(staleness=base.version - read.version)
        work.meter.retries += 1
        if work.deadline.near() or work.spent:
            return None
        time.sleep(random.uniform(0, min(RETRY_MAX_S, RETRY_S * 2 ** min(attempt, 10))))
        base = shared.get()
    raise AssertionError("unreachable")


def _average(work: Work, shared: RedisModel | None) -> Result:
    """Plain SGD on the function's own copy, handed in once."""
    task, quota = work.task, len(work.task.batches)
    with work.meter.timed("fetch_s"):
        read = shared.get() if shared else None
        if read and read.applied[task.worker]:
            return Result("done", quota, read.version)  # an earlier attempt, or a duplicate, handed it in
        index, params = _saved_local(work, quota if task.attempt and not shared else 0)
        start = read.params if read else start_model(task, work.store) if params is None else params
        params = start.copy() if params is None else params.copy()
    save_s, longest_s = work.meter.seconds["fetch_s"], 0.0
    while index < quota:
        if work.deadline.near(longest_s + save_s):
            key = _save_local(work, params, index) if index > task.position else ""
            return Result("unfinished", index, 0, key)
        began = time.monotonic()
        gradient, finite = work.gradient(params, index)
        if not finite:
            return Result("diverged", index, 0)
        rules.step(params, gradient, task.rate, params)
        index, work.meter.pushes = index + 1, work.meter.pushes + 1
        longest_s = max(longest_s, time.monotonic() - began)
    if not np.isfinite(params).all():
        return Result("diverged", index, 0)
    if not shared:
        return Result("done", index, 0, _save_local(work, params, index))
    with work.meter.timed("update_s"):
        params -= start
        count = shared.contribute(task.worker, 0, params, task.samples, task.functions, 0.0)
    return Result("done", index, count)


def _saved_local(work: Work, furthest: int) -> tuple[int, Params | None]:
    """(pushes, the function's own model after them) as an earlier attempt saved it; else (0, None)."""
    task = work.task
    for position in sorted({furthest, task.position} - {0}, reverse=True):
        key = layout.local_model(task.folder, task.worker, position)
        found = read_model(work.store, Origin.of(task), key)
        if found:
            return position, found.params
    return 0, None


def _save_local(work: Work, params: Params, position: int) -> str:
    """Writes a function's own model; its key."""
    task = work.task
    key = layout.local_model(task.folder, task.worker, position)
    none = np.zeros(task.functions, np.int32)
    stored = StoredModel(params, none, position, position, work.bounds[position])
    with work.meter.timed("update_s"):
        work.store.put(key, pack(Origin.of(task), stored))
    return key


def _synchronous(work: Work, barrier: Barrier) -> Result:
    """One gradient a step, then wait until the mean of all is applied."""
    task, step, longest_s = work.task, work.task.position, 0.0
    quota, last, catching_up = len(task.batches), 0, task.attempt > 0
    try:
        found = _wait(work, barrier, step)
        while found and (step := max(step, found[0])) < quota:
            last = found[0]
            if catching_up:
                ahead = barrier.poll(step + 1)
                catching_up = ahead is not None
                if ahead:
                    found = ahead
                    continue
            if work.deadline.near(longest_s) or work.spent:
                return Result("unfinished", step, last)
            began = time.monotonic()
            gradient, _ = work.gradient(found[1], step)
            with work.meter.timed("update_s"):
                barrier.contribute(step, gradient, task.batches[step])
            work.meter.pushes += 1
            longest_s = max(longest_s, time.monotonic() - began)
            found = _wait(work, barrier, step + 1)
    except NotFiniteError:
        return Result("diverged", step, last)
    if found is None:
        return Result("unfinished", step, last)
    return Result("done", quota, found[0])


def _wait(work: Work, barrier: Barrier, step: int) -> tuple[int, Params] | None:
    """The model after `step` steps; None if the deadline comes first, or S3 may not be asked again."""
    pause = POLL_S
    while not (work.deadline.near() or work.spent):
        began = time.monotonic()
        found = barrier.poll(step)
        if found:
            work.meter.seconds["fetch_s"] += time.monotonic() - began
            return found
        time.sleep(min(pause, max(0.0, work.deadline.left_s)))
        pause = min(POLL_MAX_S, pause * POLL_GROWTH)
    return None


def collect(task: Task, store: ObjectStore, shared: RedisModel, result: Result) -> Result:
    """The result, with the epoch's model brought from Redis to S3."""
    try:
        if task.rule == "average":
            version, params = shared.mean_of_sum(start_model(task, store))
            check_finite(params, "the functions' mean")
            model = StoredModel(params, np.zeros(task.functions, np.int32), version, version)
        else:
            read = shared.get()
            version = read.version
            model = StoredModel(read.params, read.applied, version, read.contained)
    except NotFiniteError:
        return replace(result, state="diverged")
    key = layout.final(task.folder, version)
    store.put(key, pack(Origin.of(task), model))
    return replace(result, version=version, model_key=key)
