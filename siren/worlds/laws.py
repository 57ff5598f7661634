"""The laws of time and cost (docs/explanation/laws.md), shared by the twin and by the simulator.

Plain functions over numbers or arrays: `functions` (n) and `memory_mb` (m) may be arrays of any
one shape, so that a whole grid of actions is predicted at once. The twin draws its noise from
the distributions that `EpochLaws` describes; `expect_epoch` gives their closed-form expectation.

For a function of memory m: v = m / 1769 vCPU (AWS Lambda developer guide), one-thread speed
min(1, v), and Amdahl's law with parallel fraction p above one vCPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.types import BatchRule, ChannelKind, UpdateRule
from siren.units import BYTES_PER_MB
from siren.worlds.world import Cpu, Network, Store, World

Array = NDArray[np.float64]
Quantity = Any
"""A float or an array of floats; results have the broadcast shape of the arguments."""

FLOAT_BYTES = 4
RANGE_BYTES = 16 * BYTES_PER_MB
"""Bytes of one ranged GET; S3's guidance is 8-16 MB (Amazon S3 user guide, performance)."""

OBJECT_BYTES = 64 * BYTES_PER_MB
"""Bytes of one stored shard object of the training set."""

COPIES_OF_MODEL = 4
"""Parameters, gradient, received update and serialisation buffer of a worker."""

RULES_OF_CHANNEL: dict[ChannelKind, frozenset[UpdateRule]] = {
    ChannelKind.MEMORY: frozenset(UpdateRule),
    ChannelKind.S3: frozenset({UpdateRule.OVERWRITE, UpdateRule.CAS, UpdateRule.AVERAGE, UpdateRule.SYNC}),
    ChannelKind.REDIS: frozenset(UpdateRule) - {UpdateRule.CAS},
}
"""Which update rule works over which channel. S3 has no atomic add, so `additive` and `staleness`
need a store that adds in place (docs/explanation/hsp.md). Over such a store `cas` would add the same steps
with many requests instead of one."""

BARRIER_RULES = frozenset({UpdateRule.AVERAGE, UpdateRule.SYNC})
"""Rules whose contributions meet at a barrier; over S3 one worker merges them."""


@dataclass(frozen=True)
class Job:
    """What the laws need to know of a workload.

    Attributes:
        update_rule, batch_rule, channel: How it trains.
        samples: S, samples of one epoch.
        batch_size: b, under `constant`.
        pushes_per_function: k, under `split`.
        parameters: Size of the model.
        heldout_samples: Samples that an evaluation reads.
        dataset_samples: Samples that are stored.
        evaluator_is_function: Whether a function evaluates, not the scheduler's machine.
        seconds_per_sample, seconds_per_push, evaluate_seconds_per_sample, parallel_fraction,
        sample_bytes, import_s, runtime_mb: See `siren.workloads.spec.CostSpec`.
    """

    update_rule: UpdateRule
    batch_rule: BatchRule
    channel: ChannelKind
    samples: int
    batch_size: int
    pushes_per_function: int
    parameters: int
    heldout_samples: int
    dataset_samples: int
    evaluator_is_function: bool
    seconds_per_sample: float
    seconds_per_push: float
    evaluate_seconds_per_sample: float
    parallel_fraction: float
    sample_bytes: int
    import_s: float
    runtime_mb: float

    @property
    def functions_max(self) -> int:
        """Most functions that have work: K = S/b under `constant`, S/k under `split`."""
        if self.batch_rule is BatchRule.CONSTANT:
            return self.samples // self.batch_size
        return self.samples // self.pushes_per_function

    def pushes(self, functions: Quantity) -> Quantity:
        """Pushes of one epoch."""
        if self.batch_rule is BatchRule.CONSTANT:
            return 0 * functions + self.samples // self.batch_size
        return functions * self.pushes_per_function

    def shard_samples(self, functions: Quantity) -> Quantity:
        """Samples of the largest shard when an epoch is divided over `functions` functions."""
        n = np.asarray(functions, np.float64)
        if self.batch_rule is BatchRule.CONSTANT:
            return np.ceil(self.samples // self.batch_size / n) * self.batch_size
        return np.ceil(self.samples / n)

    @property
    def heldout_bytes(self) -> int:
        """Bytes of the held-out split as it is stored."""
        return self.heldout_samples * self.sample_bytes

    @property
    def model_bytes(self) -> int:
        """Bytes of the parameters as they travel."""
        return self.parameters * FLOAT_BYTES


def vcpus(cpu: Cpu, memory_mb: Quantity) -> Quantity:
    """vCPUs that a memory size brings."""
    return np.minimum(np.asarray(memory_mb) / cpu.memory_per_vcpu, cpu.vcpus_max)


def speed(cpu: Cpu, memory_mb: Quantity, parallel_fraction: float) -> Quantity:
    """Speed relative to one vCPU: v below one vCPU, 1 / ((1 - p) + p / v) above."""
    v = vcpus(cpu, memory_mb)
    return np.where(v <= 1, v, 1 / ((1 - parallel_fraction) + parallel_fraction / np.maximum(v, 1)))


def bandwidth(network: Network, cpu: Cpu, store: Store, functions: Quantity, memory_mb: Quantity) -> Quantity:
    """Bytes a second of one of `functions` functions: its own limit, its CPU's, its share of the store's."""
    own = np.minimum(network.per_function, network.per_vcpu * vcpus(cpu, memory_mb))
    return np.minimum(own, store.aggregate / np.asarray(functions))


def memory_needed_mb(job: Job, functions: Quantity) -> Quantity:
    """Memory that a worker needs: its packages, its shard, and the model's copies.

    One that evaluates holds the held-out split as well.
    """
    shard = job.shard_samples(functions) * job.sample_bytes
    if job.evaluator_is_function:
        shard = shard + job.heldout_bytes
    return job.runtime_mb + (shard + COPIES_OF_MODEL * job.model_bytes) / BYTES_PER_MB


def tail_excess_s(store: Store) -> float:
    """Mean seconds that the heavy tail adds to a request that meets it: a Pareto cut off at `tail_max`."""
    if store.tail_probability == 0 or store.tail_min == 0:
        return 0.0
    a, low, high = store.tail_shape, store.tail_min, max(store.tail_max, store.tail_min)
    inside = low * np.log(high / low) if a == 1 else a * low**a / (1 - a) * (high ** (1 - a) - low ** (1 - a))
    return float(inside + high * (low / high) ** a)


def latency_mean_s(store: Store, median_s: float, sigma: float) -> float:
    """Mean of a log-normal latency with its tail."""
    return float(median_s * np.exp(sigma**2 / 2)) + store.tail_probability * tail_excess_s(store)


@dataclass(frozen=True)
class EpochLaws:
    """Times of one epoch at (n, m), before noise; scalars or arrays of the actions' shape.

    Attributes:
        load_s: Transfer of a shard that the environment does not hold (a read's latency comes on top).
        load_requests: Ranged GETs for it.
        transfer_s: Transfer of the parameters, one way.
        compute_s: Compute of one push of the mean batch.
        push_overhead_s: The part of it that does not depend on the batch.
        sample_s: The part of it that one sample adds.
        service_s: Time for which one push blocks the store.
        merge_s: Merging n contributions at a barrier, latencies included (0 where the store adds).
        evaluate_s: Fetching and evaluating the model after the barrier.
        evaluate_billed_s: The part of it that is billed as a function.
        pushes: Pushes of the epoch.
    """

    load_s: Quantity
    load_requests: Quantity
    transfer_s: Quantity
    compute_s: Quantity
    push_overhead_s: Quantity
    sample_s: Quantity
    service_s: float
    merge_s: Quantity
    evaluate_s: Quantity
    evaluate_billed_s: Quantity
    pushes: Quantity


def epoch_laws(world: World, job: Job, functions: Quantity, memory_mb: Quantity) -> EpochLaws:
    """The times of an epoch of `job` in `world` at n = `functions`, m = `memory_mb`."""
    n = np.asarray(functions, dtype=np.float64)
    store, s3 = world.channels[job.channel], world.channels[ChannelKind.S3]
    rate = bandwidth(world.network, world.cpu, store, n, memory_mb)
    factor = speed(world.cpu, memory_mb, job.parallel_fraction)
    shard_bytes = job.shard_samples(n) * job.sample_bytes
    pushes = job.pushes(n)
    batch = job.samples / pushes
    own_rate = bandwidth(world.network, world.cpu, s3, 1, memory_mb)
    evaluate_s, billed_s = _evaluate_s(world, job, factor, own_rate)
    merging = job.channel is ChannelKind.S3 and job.update_rule in BARRIER_RULES
    return EpochLaws(
        load_s=shard_bytes / bandwidth(world.network, world.cpu, s3, n, memory_mb),
        load_requests=np.ceil(shard_bytes / RANGE_BYTES),
        transfer_s=job.model_bytes / rate,
        compute_s=(job.seconds_per_push + job.seconds_per_sample * batch) / factor,
        push_overhead_s=job.seconds_per_push / factor,
        sample_s=job.seconds_per_sample / factor,
        service_s=store.service_base + store.service_per_float * job.parameters,
        merge_s=_merge_s(world, job, n, own_rate) if merging else 0.0 * n,
        evaluate_s=evaluate_s,
        evaluate_billed_s=billed_s,
        pushes=pushes,
    )


def _merge_s(world: World, job: Job, n: Quantity, own_rate: Quantity) -> Quantity:
    """AllReduce over S3 (LambdaML section 4.3): one party reads n objects and writes one.

    Under `sync` that is one of the functions, under `average` whoever evaluates.
    """
    s3 = world.channels[ChannelKind.S3]
    if job.update_rule is UpdateRule.AVERAGE and not job.evaluator_is_function:
        own_rate = world.scheduler.bandwidth + 0 * own_rate
    read = latency_mean_s(s3, s3.read_median, s3.read_sigma)
    write = latency_mean_s(s3, s3.write_median, s3.write_sigma)
    rounds = np.ceil(n / s3.parallel_requests)
    merge = rounds * read + write + (n + 1) * job.model_bytes / own_rate
    return np.where(n > 1, merge, 0.0)


def _evaluate_s(world: World, job: Job, factor: Quantity, own_rate: Quantity) -> tuple[Quantity, Quantity]:
    s3, scheduler = world.channels[ChannelKind.S3], world.scheduler
    work = job.heldout_samples * job.evaluate_seconds_per_sample
    read = latency_mean_s(s3, s3.read_median, s3.read_sigma)
    if job.evaluator_is_function:
        billed = 2 * read + (job.model_bytes + job.heldout_bytes) / own_rate + work / factor
        return world.start.warm + scheduler.latency + billed, billed
    p = job.parallel_fraction
    pace = 1 / ((1 - p) + p / max(scheduler.vcpus, 1.0)) if scheduler.vcpus > 1 else scheduler.vcpus
    fetch = 0.0
    if job.channel is not ChannelKind.MEMORY:
        write = latency_mean_s(s3, s3.write_median, s3.write_sigma)
        fetch = write + scheduler.latency + read + job.model_bytes / scheduler.bandwidth
    return 0 * factor + fetch + work / pace, 0.0 * factor


def s3_requests(
    job: Job,
    functions: Quantity,
    *,
    attempts: Quantity,
    unanswered: Quantity,
    steps: Quantity,
    loads: Quantity,
) -> tuple[Quantity, Quantity]:
    """S3 (puts, gets) of an epoch: shards, parameters, and the model for the evaluation.

    Args:
        job: How it trains.
        functions: n.
        attempts: Pushes that reached the store, retries included.
        unanswered: Functions that had fetched once more when they were cut.
        steps: Barriers: of `sync`, 1 of `average`.
        loads: Ranged GETs for shards.
    """
    if job.channel is ChannelKind.MEMORY:
        return 0 * functions, loads + 0 * functions
    heldout = int(np.ceil(job.heldout_bytes / RANGE_BYTES)) if job.evaluator_is_function else 0
    puts, gets = 1 + 0 * functions, 1 + heldout + loads + 0 * functions
    if job.channel is ChannelKind.REDIS:
        return puts, gets
    if job.update_rule in BARRIER_RULES:
        merged = np.where(np.asarray(functions) > 1, 1, 0)
        sent = functions * steps if job.update_rule is UpdateRule.AVERAGE else attempts + unanswered
        return puts + sent + merged * steps, gets + sent * (1 + merged)
    return puts + attempts, gets + attempts + unanswered


def egress_bytes(job: Job, functions: Quantity) -> Quantity:
    """Bytes that leave the region in an epoch: what the scheduler's machine evaluates or merges."""
    if job.evaluator_is_function or job.channel is ChannelKind.MEMORY:
        return 0 * functions
    if job.channel is ChannelKind.S3 and job.update_rule is UpdateRule.AVERAGE:
        return functions * job.model_bytes
    return job.model_bytes + 0 * functions
