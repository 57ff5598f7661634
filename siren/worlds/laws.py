"""The laws of time and cost (DESIGN section 5), shared by the twin and by the simulator.

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
    ChannelKind.REDIS: frozenset(UpdateRule),
}
"""Which update rule works over which channel. S3 has no atomic add, so `additive` and `staleness`
need a store that adds in place (DESIGN section 4)."""

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
    """Memory that a worker needs: its packages, its shard, and the model's copies."""
    shard = np.ceil(job.samples / np.asarray(functions)) * job.sample_bytes
    return job.runtime_mb + (shard + COPIES_OF_MODEL * job.model_bytes) / BYTES_PER_MB


def tail_mean_s(store: Store) -> float:
    """Expected seconds that the heavy tail adds to a request: a Pareto cut off at `tail_max`."""
    if store.tail_probability == 0 or store.tail_min == 0:
        return 0.0
    a, low, high = store.tail_shape, store.tail_min, max(store.tail_max, store.tail_min)
    inside = low * np.log(high / low) if a == 1 else a * low**a / (1 - a) * (high ** (1 - a) - low ** (1 - a))
    return float(store.tail_probability * (inside + high * (low / high) ** a))


def latency_mean_s(store: Store, median_s: float, sigma: float) -> float:
    """Mean of a log-normal latency with its tail."""
    return float(median_s * np.exp(sigma**2 / 2)) + tail_mean_s(store)


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
    shard_bytes = np.ceil(job.samples / n) * job.sample_bytes
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
    """AllReduce over S3 (LambdaML section 4.3): one worker reads n objects and writes one."""
    s3 = world.channels[ChannelKind.S3]
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
        billed = read + job.model_bytes / own_rate + work / factor
        return world.start.warm + scheduler.latency + billed, billed
    p = job.parallel_fraction
    pace = 1 / ((1 - p) + p / max(scheduler.vcpus, 1.0)) if scheduler.vcpus > 1 else scheduler.vcpus
    fetch = 0.0
    if job.channel is not ChannelKind.MEMORY:
        write = latency_mean_s(s3, s3.write_median, s3.write_sigma)
        fetch = write + scheduler.latency + read + job.model_bytes / scheduler.bandwidth
    return 0 * factor + fetch + work / pace, 0.0 * factor


@dataclass(frozen=True)
class ExpectedEpoch:
    """Closed-form expectation of an epoch; arrays of the actions' shape.

    Attributes:
        duration_s: P, from launch to the end of the evaluation.
        upper_s: A high quantile of one function's time from its handler's start to its end, to
            choose a timeout from.
        billed_s: Mean billed seconds of one function, initialisation included where it is billed.
        evaluate_billed_s: Billed seconds of the evaluating function.
        s3_puts, s3_gets: Requests of the whole epoch.
    """

    duration_s: Quantity
    upper_s: Quantity
    billed_s: Quantity
    evaluate_billed_s: Quantity
    s3_puts: Quantity
    s3_gets: Quantity


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
    laws = epoch_laws(world, job, n, memory_mb)
    start, s3 = world.start, world.channels[ChannelKind.S3]
    init_s = float(start.init_median * np.exp(start.init_sigma**2 / 2)) + job.import_s
    read = latency_mean_s(s3, s3.read_median, s3.read_sigma)
    load_s = np.where(np.asarray(loading) > 0, laws.load_s + read, 0.0)
    work_s, spread_s = _work_s(world, job, n, laws)
    handler_s = load_s * np.asarray(loading) / n + work_s
    any_cold = np.asarray(cold) > 0
    waiting = np.maximum(0.0, (np.asarray(cold) - start.scale_out_burst) / start.scale_out_rate)
    launch_s = np.maximum((n - 1) / start.fan_out, waiting)
    begin_s = np.where(any_cold, start.placement + init_s, start.warm)
    barrier_s = launch_s + begin_s + load_s + work_s + spread_s
    puts, gets = _requests(job, n, laws)
    return ExpectedEpoch(
        duration_s=barrier_s + _after_barrier_s(job, laws) + laws.evaluate_s,
        upper_s=1.2 * (load_s + work_s) + 2 * spread_s + 1.0,
        billed_s=handler_s + (init_s * np.asarray(cold) / n if world.billing.init_billed else 0.0),
        evaluate_billed_s=laws.evaluate_billed_s,
        s3_puts=puts,
        s3_gets=gets + np.asarray(loading) * laws.load_requests,
    )


def _after_barrier_s(job: Job, laws: EpochLaws) -> Quantity:
    return laws.merge_s if job.update_rule is UpdateRule.AVERAGE else 0.0 * laws.merge_s


def _work_s(world: World, job: Job, n: Quantity, laws: EpochLaws) -> tuple[Quantity, Quantity]:
    """Mean seconds from shard to last push, and what the slowest of n adds to them."""
    store, cpu = world.channels[job.channel], world.cpu
    read = latency_mean_s(store, store.read_median, store.read_sigma)
    write = latency_mean_s(store, store.write_median, store.write_sigma)
    exchange_s = read + write + 2 * laws.transfer_s + laws.service_s
    each = laws.pushes / n
    slowest = np.sqrt(2 * np.log(np.maximum(n, 1.0)))
    noise_s = np.sqrt(each) * laws.compute_s * cpu.push_noise
    latency_sd = _latency_sd_s(store)
    function_sd = each * laws.compute_s * cpu.function_noise
    if job.update_rule is UpdateRule.AVERAGE:
        work = exchange_s + each * laws.compute_s + (n - 1) * laws.service_s
        return work, slowest * np.sqrt(noise_s**2 + function_sd**2 + latency_sd**2)
    if job.update_rule is UpdateRule.SYNC:
        step_sd = np.sqrt((laws.compute_s * cpu.push_noise) ** 2 + latency_sd**2)
        spread = slowest * (step_sd + laws.compute_s * cpu.function_noise)
        step = exchange_s + laws.compute_s + (n - 1) * laws.service_s + laws.merge_s + spread
        return np.ceil(each) * step, 0.0 * n
    cycle = exchange_s + laws.compute_s
    serial = n * laws.service_s
    if job.update_rule is UpdateRule.CAS:
        serial = np.where(n > 1, n * exchange_s, 0.0)
    work = each * np.maximum(cycle, serial)
    ragged = (np.ceil(each) - each) * cycle
    return work, ragged + slowest * np.sqrt(noise_s**2 + function_sd**2 + each * latency_sd**2)


def _latency_sd_s(store: Store) -> float:
    """Standard deviation of one read and one write, without the tail."""
    variance = 0.0
    for median, sigma in ((store.read_median, store.read_sigma), (store.write_median, store.write_sigma)):
        variance += median**2 * np.exp(sigma**2) * (np.exp(sigma**2) - 1)
    return float(np.sqrt(variance))


def _requests(job: Job, n: Quantity, laws: EpochLaws) -> tuple[Quantity, Quantity]:
    """S3 (puts, gets) of training and evaluation, without shards."""
    evaluation = 0 if job.channel is ChannelKind.MEMORY else 1
    puts, gets = evaluation + 0.0 * n, evaluation + 0.0 * n
    if job.channel is not ChannelKind.S3:
        return puts, gets
    if job.update_rule in BARRIER_RULES:
        steps = 1.0 if job.update_rule is UpdateRule.AVERAGE else np.ceil(laws.pushes / n)
        merged = np.where(n > 1, 1.0, 0.0)
        return puts + steps * (n + merged), gets + steps * n * (1 + merged)
    attempts = laws.pushes * (np.maximum(1.0, n / 2) if job.update_rule is UpdateRule.CAS else 1.0)
    return puts + attempts, gets + attempts
