"""The twin: one epoch of real SGD by emulated functions, on a virtual clock."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.hsp import quotas, rules
from siren.twin import replay
from siren.twin.compiled import Compiled
from siren.twin.environments import Environments, Shard
from siren.twin.launch import launch
from siren.twin.report import Course, Outcome, report
from siren.types import Action, EpochReport, UpdateRule
from siren.workloads.workload import Workload
from siren.worlds import events, laws
from siren.worlds.costing import Costing, EpochPlan
from siren.worlds.laws import Job
from siren.worlds.world import World

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
        self._layout: tuple[tuple[int, int], quotas.Quotas, list[Shard]] | None = None

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
            ActionError: As in `Costing.check_action`, or there are more functions than work.
        """
        self.costing.check_action(action)
        quotas.check(self.job, action.functions)

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
        self.costing.check_action(plan.action)
        epoch = self.epoch + 1
        window = (self.epoch * self.job.samples) % self.job.dataset_samples
        split, shards = self._divide(plan.action.functions, window)
        timing, order = (np.random.default_rng(_entropy(self.seed, epoch, stream)) for stream in (0, 1))
        version = (plan.action.memory_mb, plan.timeout_s)
        placement = self.environments.place(version, shards, self.clock_s)
        now = self.costing.epoch_laws(plan.action)
        began = launch(self.world, self.job, plan, split, placement, now, timing)
        trace = self._events(plan.action, split, began.starts, now, timing)
        rows = replay.shuffle_shards(split.shards, window, self.job.dataset_samples, order)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            params, sums, lost = self._replay(epoch, split, trace, rows)
            loss, accuracy = self.workload.evaluate(params)
            outcome = Outcome(loss, accuracy, lost, sums)
            course = Course(epoch, self.clock_s, plan, split, placement, began, now, trace, outcome)
            told = report(self.costing, course)
        # An environment is of no more use if its function was killed, or never held its shard.
        lost_one = (trace.end_s >= began.starts.kill_s) | (began.starts.ready_s >= began.starts.limit_s)
        gone = {shard for shard, dead in zip(shards, lost_one.tolist(), strict=True) if dead}
        self.environments.release(version, shards, self.clock_s + trace.barrier_s, gone)
        self.params, self.epoch = params, epoch
        self.clock_s += told.duration_s
        return told

    def expect_starts(self, action: Action, timeout_s: int) -> tuple[int, int]:
        """How many functions of an epoch would (start cold, load their shard)."""
        n = action.functions
        window = (self.epoch * self.job.samples) % self.job.dataset_samples
        held = self.environments.warm((action.memory_mb, timeout_s), self.clock_s)
        cold = max(0, n - len(held))
        return cold, cold if (window, quotas.first_shard(self.job, n)) in held else n

    def _divide(self, functions: int, window: int) -> tuple[quotas.Quotas, list[Shard]]:
        """Quotas and shards of an epoch whose samples begin at row `window`; the last ones are kept."""
        key = functions, window
        if self._layout is None or self._layout[0] != key:
            split, stored = quotas.divide(self.job, functions), self.job.dataset_samples
            bounds = itertools.pairwise(split.shards.tolist())
            shards = [((window + low) % stored, high - low) for low, high in bounds]
            self._layout = key, split, shards
        return self._layout[1:]

    def _events(
        self,
        action: Action,
        split: quotas.Quotas,
        starts: events.Starts,
        now: laws.EpochLaws,
        rng: np.random.Generator,
    ) -> events.Trace:
        store = self.world.channels[self.job.channel]
        times = events.Times(
            read=events.latency_of(store, read=True),
            write=events.latency_of(store, read=False),
            transfer_s=float(now.transfer_s),
            push_overhead_s=float(now.push_overhead_s),
            sample_s=float(now.sample_s),
            service_s=float(now.service_s),
            merge_s=float(now.merge_s),
            push_noise=self.world.cpu.push_noise,
            retry_limit=self.costing.retry_limit(action),
            reads_queue=bool(store.node),
        )
        rule, arguments = self.job.update_rule, (starts, split.first_push, split.first_sample, rng)
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
            rate = np.asarray(rules.damped_rate(rate, staleness, training.staleness_scale))
        program = replay.plan(trace.push, trace.read_version, rate, rule is UpdateRule.OVERWRITE)
        return self._engine.replay(program, *common, replay.every(len(program.push))), sums, int(program.lost)

    def save(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything that the next epoch depends on, as (tensors, JSON)."""
        table, scalars = self.environments.save()
        return {"params": self.params, "environments": table}, {
            "epoch": self.epoch,
            "clock_s": self.clock_s,
            **scalars,
        }

    def restore(self, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """Takes over what `save` returned."""
        self.params = np.ascontiguousarray(tensors["params"], np.float32)
        self.epoch, self.clock_s = int(state["epoch"]), float(state["clock_s"])
        self.environments.restore(tensors["environments"], state)


def _entropy(*numbers: int) -> NDArray[np.uint32] | list[int]:
    """What seeds numpy's generator as a list of the numbers does, in a form that it takes faster."""
    if max(numbers) < 1 << 32:
        return np.array(numbers, np.uint32)
    return list(numbers)


def _engine(workload: Workload) -> replay.Engine:
    if workload.kernel is None:
        return replay.Interpreted(workload.loss_and_grad)
    return Compiled(workload.kernel, workload.dataset.train_features, workload.dataset.train_labels)
