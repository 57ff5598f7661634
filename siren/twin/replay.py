"""What a trace does to the model: real gradients, in the order that the events decided.

A *program* lists the updates that matter and where each finds its inputs in a small pool of
parameter vectors: `slot[read]` held the model when the function read it, `slot[base]` is what the
step is taken from, `slot[write]` receives the result. A version of the model stays in the pool
only while somebody still needs it, so memory follows the number of distinct versions in flight,
not n x model size.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from siren.hsp import rules

Params = NDArray[np.float32]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

STATISTICS = 128
"""At most so many pushes of an epoch enter its gradient statistics."""


class Program(NamedTuple):
    """Updates in order, and the pool slots that each uses.

    Attributes:
        push: Global push index.
        rate: Learning rate of the step.
        read, base, write: Pool slots.
        slots: Size of the pool.
        first: Slot that holds the epoch's first model at the start.
        last: Slot that holds the final model at the end.
        lost: Applied updates that the final model does not contain.
    """

    push: Ints
    rate: Floats
    read: Ints
    base: Ints
    write: Ints
    slots: int
    first: int
    last: int
    lost: int


@numba.njit(cache=True)
def plan(push: Ints, read_version: Ints, rate: Floats, overwrite: bool) -> Program:
    """Finds the updates that the final model contains, and assigns pool slots to versions.

    Version v is the model after v updates. Under `overwrite` an update is taken from the version
    that its function read, so only the chain of updates behind the final version survives;
    under every other rule it is taken from the version before it.
    """
    total = len(push)
    alive = np.ones(total, np.bool_)
    if overwrite:
        alive[:] = False
        version = total
        while version > 0:
            alive[version - 1] = True
            version = read_version[version - 1]
    kept = np.flatnonzero(alive)
    count = len(kept)
    last_use = np.full(total + 1, -1, np.int64)
    for k in range(count):
        update = kept[k]
        last_use[read_version[update]] = k
        base = read_version[update] if overwrite else update
        last_use[base] = k
    slot = np.full(total + 1, -1, np.int64)
    free = np.empty(total + 1, np.int64)
    freed, slots = 0, 1
    slot[0] = 0
    read, base_slot, write = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int64)
    for k in range(count):
        update = kept[k]
        source = read_version[update]
        base = source if overwrite else update
        read[k], base_slot[k] = slot[source], slot[base]
        if last_use[base] == k:
            target = slot[base]
        elif freed > 0:
            freed -= 1
            target = free[freed]
        else:
            target = slots
            slots += 1
        write[k] = slot[update + 1] = target
        if source != base and last_use[source] == k:
            free[freed] = slot[source]
            freed += 1
    return Program(push[kept], rate[kept], read, base_slot, write, slots, 0, slot[total], total - count)


class Sums(NamedTuple):
    """Running sums over sampled pushes, by half of the epoch: gradients, where they were taken, |g|^2."""

    gradient: NDArray[np.float32]
    params: NDArray[np.float32]
    square: Floats
    pushes: Floats


def empty_sums(size: int) -> Sums:
    """Sums over nothing, for parameters of that size."""
    return Sums(np.zeros((2, size), np.float32), np.zeros((2, size), np.float32), np.zeros(2), np.zeros(2))


def every(pushes: int) -> int:
    """The stride at which pushes enter the statistics."""
    return max(1, -(-pushes // STATISTICS))


def _observe(sums: Sums, half: int, params: Params, gradient: Params) -> None:
    sums.gradient[half] += gradient
    sums.params[half] += params
    sums.square[half] += float(np.dot(gradient, gradient))
    sums.pushes[half] += 1


class Engine(Protocol):
    """Computes a workload's gradients: interpreted (`Interpreted`) or compiled (`siren.twin.compiled`)."""

    def gradient(self, params: Params, rows: Ints) -> Params:
        """The gradient of the mean loss over dataset rows, float32; the caller may overwrite it."""
        ...

    def replay(
        self, program: Program, first_sample: Ints, rows: Ints, params: Params, sums: Sums, stride: int
    ) -> Params:
        """The model after the program.

        Args:
            program: What to do.
            first_sample: Bounds of every push in `rows`.
            rows: Dataset rows of the epoch's samples.
            params: The epoch's first model; not changed.
            sums: Statistics, added to.
            stride: One in so many updates enters the statistics.
        """
        ...


class LossAndGrad(Protocol):
    """What the interpreted engine calls: `Workload.loss_and_grad`."""

    def __call__(self, params: Params, rows: Ints) -> tuple[float, Params]:
        """The mean loss over the rows and its gradient."""
        ...


class Interpreted:
    """An engine that calls the model's own `loss_and_grad` for every update.

    Args:
        loss_and_grad: The workload's function.
    """

    def __init__(self, loss_and_grad: LossAndGrad) -> None:
        self._loss_and_grad = loss_and_grad

    def gradient(self, params: Params, rows: Ints) -> Params:
        """See `Engine.gradient`."""
        return self._loss_and_grad(params, rows)[1]

    def replay(
        self, program: Program, first_sample: Ints, rows: Ints, params: Params, sums: Sums, stride: int
    ) -> Params:
        """See `Engine.replay`."""
        pool = [np.empty(0, np.float32)] * program.slots
        pool[program.first] = params.copy()
        half = max(1, len(program.push) // 2)
        lists = (program.push, program.rate, program.read, program.base, program.write)
        for k, (p, rate, read, base, write) in enumerate(zip(*(x.tolist() for x in lists), strict=True)):
            g = self.gradient(pool[read], rows[first_sample[p] : first_sample[p + 1]])
            if k % stride == 0:
                _observe(sums, min(k // half, 1), pool[read], g)
            if not pool[write].size:
                pool[write] = np.empty_like(params)
            rules.step(pool[base], g, rate, pool[write])
        return pool[program.last]


def chain(push: Ints, rate: Floats) -> Program:
    """The program of plain SGD: each update starts from the one before it."""
    slots = np.zeros(len(push), np.int64)
    return Program(push, rate, slots, slots, slots, 1, 0, 0, 0)


def replay_average(
    engine: Engine,
    push: Ints,
    rate: Floats,
    first_push: Ints,
    first_sample: Ints,
    rows: Ints,
    params: Params,
    sums: Sums,
) -> Params:
    """The mean of the functions' models, each after plain SGD on its own shard, weighted by samples."""
    mean, stride = rules.Mean(len(params)), every(len(push))
    owner = np.searchsorted(first_push, push, side="right")
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    for start, stop in itertools.pairwise([*starts.tolist(), len(push)]):
        mine = push[start:stop]
        local = engine.replay(chain(mine, rate[start:stop]), first_sample, rows, params, sums, stride)
        mean.add(local, float(first_sample[mine[-1] + 1] - first_sample[mine[0]]))
    return mean.value() if len(push) else params.copy()


def replay_synchronous(
    engine: Engine,
    push: Ints,
    step: Ints,
    rate: Floats,
    first_sample: Ints,
    rows: Ints,
    params: Params,
    sums: Sums,
) -> Params:
    """The model after steps with the mean gradient of each step's pushes, weighted by samples."""
    model = params.copy()
    starts = np.flatnonzero(np.diff(step, prepend=-1))
    stride, half = every(len(push)), max(1, len(push) // 2)
    for start, stop in itertools.pairwise([*starts.tolist(), len(push)]):
        mean = rules.Mean(len(params))
        for k in range(start, stop):
            low, high = first_sample[push[k]], first_sample[push[k] + 1]
            g = engine.gradient(model, rows[low:high])
            if k % stride == 0:
                _observe(sums, min(k // half, 1), model, g)
            mean.add(g, float(high - low))
        rules.step(model, mean.value(), rate[start], model)
    return model


@numba.njit(cache=True)
def shuffle_shards(shards: Ints, first_row: int, stored: int, rng: np.random.Generator) -> Ints:
    """Dataset rows of an epoch: every function's shard in an order of its own.

    Args:
        shards: (n + 1,) Bounds of the shards in the epoch.
        first_row: Row of the stored training set at which the epoch begins.
        stored: Rows of the stored training set; the epoch wraps around its end.
        rng: Source of the order.
    """
    rows = np.empty(shards[-1], np.int64)
    for j in range(len(rows)):
        rows[j] = (first_row + j) % stored
    for i in range(len(shards) - 1):
        low = shards[i]
        for j in range(shards[i + 1] - 1, low, -1):
            other = low + int(rng.random() * (j - low + 1))
            rows[j], rows[other] = rows[other], rows[j]
    return rows
