"""The twin: one epoch of real SGD by emulated functions, on a virtual clock."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.errors import ActionError
from siren.hsp import quotas, rules
from siren.money.billed_time import billed_ms_array
from siren.types import Action, ChannelKind, EpochReport, GradientStatistics, UpdateRule, Usage
from siren.units import MS_PER_S
from siren.twin import events, replay
from siren.twin.compiled import Compiled
from siren.twin.environments import Environments, Placement, Shard
from siren.worlds import laws
from siren.worlds.costing import Costing, EpochPlan
from siren.worlds.laws import Job
from siren.worlds.world import Store, World
from siren.workloads.workload import Workload

Params = NDArray[np.float32]


def job_of(workload: Workload) -> Job:
    """What the laws of time need to know of a workload."""
    training, cost = workload.spec.training, workload.spec.cost
    return Job(
        update_rule=training.update_rule,
        batch_rule=training.batch_rule,
        channel=training.channel,
        samples=workload.samples,
        batch_size=training.batch_size,
        pushes_per_function=training.pushes_per_function,
        parameters=workload.size,
        heldout_samples=len(workload.dataset.heldout_labels),
        dataset_samples=len(workload.dataset.train_labels),
        evaluator_is_function=training.evaluator == "function",
        seconds_per_sample=cost.seconds_per_sample,
        seconds_per_push=cost.seconds_per_push,
        evaluate_seconds_per_sample=cost.evaluate_seconds_per_sample,
        parallel_fraction=cost.parallel_fraction,
        sample_bytes=cost.sample_bytes,
        import_s=cost.import_s,
        runtime_mb=cost.runtime_mb,
    )


@dataclass(frozen=True)
class _Launch:
    """How the functions of one epoch started.

    Attributes:
        sent_s: (n,) When a function's handler began, initialisation done.
        init_s: (n,) Its initialisation; 0 for a warm start.
        load_s: (n,) Time to load its shard.
        starts: The same for the event kernels.
    """

    sent_s: NDArray[np.float64]
    init_s: NDArray[np.float64]
    load_s: NDArray[np.float64]
    starts: events.Starts


class Twin:
    """Real SGD of a workload in a world; state is the model, the clock and the warm environments.

    Equal seeds give equal runs, bit for bit, on one machine: all randomness of an epoch comes
    from (seed, epoch).

    Args:
        workload: What to train.
        costing: The laws of time and prices of this job in its world.
        seed: Seed of the run.
    """

    def __init__(self, workload: Workload, costing: Costing, seed: int) -> None:
        self.workload = workload
        self.costing = costing
        self.seed = seed
        self.params: Params = workload.init(seed)
        self.clock_s = 0.0
        self.epoch = 0
        self.environments = Environments(costing.world.start)
        self._engine = _engine(workload)

    @property
    def world(self) -> World:
        """The world the twin emulates."""
        return self.costing.world

    @property
    def job(self) -> Job:
        """The job as the laws see it."""
        return self.costing.job

    def check_action(self, action: Action) -> None:
        """Refuses an action that this job cannot run in this world.

        Raises:
            ActionError: The action is off the grid, above a limit or the quota, or short of memory.
        """
        self.world.check_action(action)
        quotas.divide(self.job, action.functions)
        needed = float(laws.memory_needed_mb(self.job, action.functions))
        if needed > action.memory_mb:
            raise ActionError(
                f"{action.memory_mb} MB are too little: a worker of {self.workload.name} with 1/{action.functions} "
                f"of the data needs {math.ceil(needed)} MB; choose more memory or more functions"
            )

    def run_epoch(self, plan: EpochPlan) -> EpochReport:
        """Runs one epoch and moves the model, the clock and the environments on.

        Args:
            plan: The action, the platform's timeout and the workers' own deadline.

        Returns:
            What happened; a loss that is not finite means that training diverged.

        Raises:
            ActionError: The action cannot be run; nothing was changed.
            WorkloadError: The model raised.
        """
        self.check_action(plan.action)
        epoch = self.epoch + 1
        split = quotas.divide(self.job, plan.action.functions)
        timing, order = (np.random.default_rng([self.seed, epoch, stream]) for stream in (0, 1))
        window = (self.epoch * self.job.samples) % self.job.dataset_samples
        shards = self._shards(split, window)
        version = (plan.action.memory_mb, plan.timeout_s)
        placement = self.environments.place(version, shards, self.clock_s)
        laws_now = laws.epoch_laws(self.world, self.job, plan.action.functions, plan.action.memory_mb)
        launch = self._launch(plan, split, placement, laws_now, timing)
        trace = self._events(plan.action, split, launch, laws_now, timing)
        rows = replay.shuffle_shards(split.shards, window, self.job.dataset_samples, order)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            params, sums, lost = self._replay(epoch, split, trace, rows)
            loss, accuracy = self.workload.evaluate(params)
        report = self._report(epoch, plan, split, placement, launch, trace, laws_now, sums, (loss, accuracy, lost))
        killed = {shard for shard, end, kill in zip(shards, trace.end_s, launch.starts.kill_s, strict=True) if end >= kill}
        self.environments.release(version, shards, self.clock_s + trace.barrier_s, killed)
        self.params, self.epoch = params, epoch
        self.clock_s += report.duration_s
        return report

    def expect_starts(self, action: Action, timeout_s: int) -> tuple[int, int]:
        """How many functions of an epoch would (start cold, load their shard)."""
        n = action.functions
        window = (self.epoch * self.job.samples) % self.job.dataset_samples
        held = self.environments.warm((action.memory_mb, timeout_s), self.clock_s)
        first = quotas.divide(self.job, n).shards[1]
        cold = max(0, n - len(held))
        return cold, cold if (window, int(first)) in held else n

    def _shards(self, split: quotas.Quotas, window: int) -> list[Shard]:
        bounds = split.shards
        stored = self.job.dataset_samples
        return [((window + low) % stored, high - low) for low, high in itertools.pairwise(bounds.tolist())]

    def _launch(
        self,
        plan: EpochPlan,
        split: quotas.Quotas,
        placement: Placement,
        now: laws.EpochLaws,
        rng: np.random.Generator,
    ) -> _Launch:
        start, cpu, n = self.world.start, self.world.cpu, plan.action.functions
        s3 = latency(self.world.channels[ChannelKind.S3], read=True)
        init_s = start.init_median * np.exp(start.init_sigma * rng.standard_normal(n)) + self.job.import_s
        init_s = np.where(placement.cold, np.minimum(init_s, self.world.limits.init_max), 0.0)
        sent_s = np.arange(n) / start.fan_out + placement.wait_s
        sent_s += np.where(placement.cold, start.placement + init_s, start.warm)
        load_s = events.draw_latencies(rng, s3, n) + float(now.load_s)
        load_s = np.where(placement.load, load_s, 0.0)
        sigma2 = math.log1p(cpu.function_noise**2)
        slowness = np.exp(math.sqrt(sigma2) * rng.standard_normal(n) - sigma2 / 2)
        hangs = np.full(n, -1, np.int64)
        if cpu.hang_probability > 0:
            hung = np.flatnonzero(rng.random(n) < cpu.hang_probability)
            hangs[hung] = rng.integers(split.first_push[hung], split.first_push[hung + 1])
        starts = events.Starts(sent_s + load_s, sent_s + plan.deadline_s, sent_s + plan.timeout_s, slowness, hangs)
        return _Launch(sent_s, init_s, load_s, starts)

    def _events(
        self, action: Action, split: quotas.Quotas, launch: _Launch, now: laws.EpochLaws, rng: np.random.Generator
    ) -> events.Trace:
        store = self.world.channels[self.job.channel]
        times = events.Times(
            read=latency(store, read=True),
            write=latency(store, read=False),
            transfer_s=float(now.transfer_s),
            push_overhead_s=float(now.push_overhead_s),
            sample_s=float(now.sample_s),
            service_s=float(now.service_s),
            merge_s=float(now.merge_s),
            push_noise=self.world.cpu.push_noise,
            retry_limit=self.costing.retry_limit(action),
        )
        rule, arguments = self.job.update_rule, (launch.starts, split.first_push, split.first_sample, rng)
        trace: events.Trace
        if rule is UpdateRule.AVERAGE:
            trace = events.run_average(times, *arguments)
        elif rule is UpdateRule.SYNC:
            trace = events.run_synchronous(times, *arguments)
        else:
            mode = events.COMPARE_AND_SWAP if rule is UpdateRule.CAS else events.ASYNCHRONOUS
            trace = events.run_asynchronous(times, mode, *arguments)
        return trace

    def _replay(
        self, epoch: int, split: quotas.Quotas, trace: events.Trace, rows: NDArray[np.int64]
    ) -> tuple[Params, replay.Sums, int]:
        """(the model after the epoch, gradient statistics, updates lost)."""
        training, rule = self.workload.spec.training, self.job.update_rule
        sums = replay.empty_sums(self.workload.size)
        rate = np.full(len(trace.push), training.rate(epoch, self.job.samples / split.pushes))
        common = (split.first_sample, rows, self.params, sums)
        if rule is UpdateRule.AVERAGE:
            params = replay.replay_average(self._engine, trace.push, rate, split.first_push, *common)
            return params, sums, 0
        if rule is UpdateRule.SYNC:
            params = replay.replay_synchronous(self._engine, trace.push, trace.read_version, rate, *common)
            return params, sums, 0
        if rule is UpdateRule.STALENESS:
            staleness = np.arange(len(trace.push)) - trace.read_version
            rate = rules.damped_rate(rate, staleness, training.staleness_scale)
        program = replay.plan(trace.push, trace.read_version, rate, rule is UpdateRule.OVERWRITE)
        return self._engine.replay(program, *common), sums, int(program.lost)

    def _report(
        self,
        epoch: int,
        plan: EpochPlan,
        split: quotas.Quotas,
        placement: Placement,
        launch: _Launch,
        trace: events.Trace,
        now: laws.EpochLaws,
        sums: replay.Sums,
        result: tuple[float, float, int],
    ) -> EpochReport:
        action, n = plan.action, plan.action.functions
        loss, accuracy, lost = result
        means = {
            "start_s": float(launch.sent_s.mean()),
            "load_s": float(launch.load_s.mean()),
            "fetch_s": float(trace.fetch_s.mean()),
            "compute_s": float(trace.compute_s.mean()),
            "update_s": float(trace.update_s.mean()),
        }
        merge_s = float(now.merge_s) if self.job.update_rule is UpdateRule.AVERAGE else 0.0
        evaluate_s = merge_s + float(now.evaluate_s)
        handler_s = trace.end_s - launch.sent_s
        duration_s = trace.barrier_s + evaluate_s
        staleness = 0.0
        if self.job.update_rule not in laws.BARRIER_RULES and len(trace.push):
            staleness = float(np.mean(np.arange(len(trace.push)) - trace.read_version))
        return EpochReport(
            epoch=epoch,
            action=action,
            loss=loss,
            accuracy=accuracy,
            duration_s=duration_s,
            **means,
            wait_s=trace.barrier_s - sum(means.values()),
            evaluate_s=evaluate_s,
            cold_starts=int(placement.cold.sum()),
            memory_utilization=float(laws.memory_needed_mb(self.job, n)) / action.memory_mb,
            cpu_utilization=min(1.0, float(trace.compute_s.sum() / max(handler_s.sum(), 1e-12))),
            pushes=len(trace.push),
            pushes_planned=split.pushes,
            mean_staleness=staleness,
            updates_lost=lost,
            update_retries=int(trace.retries),
            unfinished=int(np.count_nonzero(trace.done < np.diff(split.first_push))),
            gradients=statistics(sums),
            usage=self._usage(plan, placement, launch, trace, now, duration_s, handler_s * MS_PER_S),
        )

    def _usage(
        self,
        plan: EpochPlan,
        placement: Placement,
        launch: _Launch,
        trace: events.Trace,
        now: laws.EpochLaws,
        duration_s: float,
        handler_ms: NDArray[np.float64],
    ) -> Usage:
        action, billing = plan.action, self.world.billing
        handler_ms = np.clip(handler_ms, 0.0, plan.timeout_s * MS_PER_S)
        init_ms = launch.init_s * MS_PER_S
        billed = billed_ms_array(handler_ms, init_ms, billing.granularity, billing.init_billed)
        evaluations = 1 if self.job.evaluator_is_function else 0
        evaluate_s = float(now.evaluate_billed_s)
        if self.job.update_rule is UpdateRule.AVERAGE:
            evaluate_s += float(now.merge_s)
        evaluator_ms = billed_ms_array(evaluations * evaluate_s * MS_PER_S, 0.0, billing.granularity)
        puts, gets = self._requests(action.functions, placement, trace, now)
        return Usage(
            memory_mb=action.memory_mb,
            billed_ms=int(billed.sum()),
            requests=action.functions + evaluations,
            ephemeral_mb=billing.ephemeral_storage,
            evaluator_billed_ms=int(evaluator_ms),
            evaluator_memory_mb=action.memory_mb * evaluations,
            s3_puts=puts + (self.costing.setup_puts if self.epoch == 0 else 0),
            s3_gets=gets,
            s3_gb_s=self.costing.dataset_gb * duration_s,
            log_bytes=(action.functions + evaluations) * billing.log_per_invocation,
            cache_s=self.clock_s + duration_s if self.costing.uses_cache else 0.0,
        )

    def _requests(self, n: int, placement: Placement, trace: events.Trace, now: laws.EpochLaws) -> tuple[int, int]:
        """S3 (puts, gets) of the epoch: shards, parameters, and the model for the evaluation."""
        loads = int(placement.load.sum()) * int(now.load_requests)
        if self.job.channel is ChannelKind.MEMORY:
            return 0, loads
        if self.job.channel is ChannelKind.REDIS:
            return 1, loads + 1
        merged = 1 if n > 1 else 0
        if self.job.update_rule is UpdateRule.AVERAGE:
            return n + merged + 1, n + merged * n + loads + 1
        if self.job.update_rule is UpdateRule.SYNC:
            steps = int(trace.read_version.max()) + 1 if len(trace.push) else 0
            return len(trace.push) + merged * steps + 1, len(trace.push) * (1 + merged) + loads + 1
        attempts = len(trace.push) + int(trace.retries)
        unanswered = int(np.count_nonzero(np.isfinite(trace.end_s) & (trace.done == 0)))
        return attempts + 1, attempts + unanswered + loads + 1

    def save(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything that the next epoch depends on, as (tensors, JSON)."""
        table, scalars = self.environments.save()
        return {"params": self.params, "environments": table}, {"epoch": self.epoch, "clock_s": self.clock_s, **scalars}

    def restore(self, tensors: dict[str, NDArray[Any]], state: dict[str, Any]) -> None:
        """Takes over what `save` returned."""
        self.params = np.ascontiguousarray(tensors["params"], np.float32)
        self.epoch, self.clock_s = int(state["epoch"]), float(state["clock_s"])
        self.environments.restore(tensors["environments"], state)


def latency(store: Store, *, read: bool) -> events.Latency:
    """A store's law of latency as the kernels take it."""
    median, sigma = (store.read_median, store.read_sigma) if read else (store.write_median, store.write_sigma)
    return events.Latency(
        median, sigma, store.tail_probability, store.tail_min, store.tail_shape, store.tail_max
    )


def statistics(sums: replay.Sums) -> GradientStatistics:
    """The gradient statistics of an epoch, from its running sums."""
    count = sums.count
    if count.sum() == 0:
        return GradientStatistics(math.nan, math.nan, math.nan)
    mean = sums.gradient.sum(axis=0, dtype=np.float64) / count.sum()
    curvature = math.nan
    if count.min() > 0:
        moved = np.diff(sums.params / count[:, None], axis=0)[0].astype(np.float64)
        turned = np.diff(sums.gradient / count[:, None], axis=0)[0].astype(np.float64)
        length = float(moved @ moved)
        curvature = float(turned @ moved) / length if length > 0 else math.nan
    return GradientStatistics(float(sums.square.sum() / count.sum()), float(mean @ mean), curvature)


def _engine(workload: Workload) -> replay.Engine:
    if workload.kernel is None:
        return replay.Interpreted(workload.loss_and_grad)
    return Compiled(workload.kernel, workload.dataset.train_features, workload.dataset.train_labels)
