"""A simulated job as a platform, so that policies run on it exactly as they run on the twin."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from siren.simulator import core
from siren.simulator.core import POOLS, Col
from siren.simulator.job import SimulatedJob
from siren.simulator.quadratic import Quadratic
from siren.simulator.sensors import noise_gain
from siren.simulator.tables import Cell, Fact, Pool, pool_at
from siren.types import Action, EpochReport, GradientStatistics, Usage
from siren.units import MS_PER_S
from siren.workloads.spec import TrainingSpec
from siren.worlds.costing import EpochPlan
from siren.worlds.expectation import ExpectedEpoch, expect_epoch
from siren.worlds.laws import egress_bytes

POOLS_KEPT = 1024
"""Tables of so many (job, count of functions) are kept for further episodes."""

_pool_at = functools.lru_cache(POOLS_KEPT)(pool_at)

SPLIT_RATES = {0.0: "none", 0.5: "sqrt", 1.0: "linear"}


def training_of(job: SimulatedJob) -> TrainingSpec:
    """How a simulated job trains, in units in which its largest curvature is 1."""
    laws_job, dynamics = job.spec.job, job.dynamics
    quadratic = dynamics if isinstance(dynamics, Quadratic) else None
    return TrainingSpec.model_validate(
        {
            "target_loss": job.spec.target_loss,
            "batch_rule": laws_job.batch_rule,
            "batch_size": laws_job.batch_size,
            "pushes_per_function": laws_job.pushes_per_function,
            "update_rule": laws_job.update_rule,
            "channel": laws_job.channel,
            "learning_rate": quadratic.rate if quadratic else 1.0,
            "split_learning_rate": SPLIT_RATES[quadratic.batch_exponent if quadratic else 0.0],
            "staleness_scale": quadratic.staleness_scale if quadratic else 20.0,
        }
    )


class SimulatedPlatform:
    """Runs the epochs of a simulated job: the draws of `siren.simulator.core`, billed by the real pricer.

    Keeps the promises of `siren.platforms.base.Platform`. Its "model" is the modes of the quadratic.

    Args:
        job: What runs.
        seed: All randomness of an epoch comes from (seed, epoch).
    """

    name = "simulator"
    spends_money = False
    replays = True

    def __init__(self, job: SimulatedJob, seed: int) -> None:
        self._job, self._seed = job, seed
        self._training = training_of(job)
        self._costing = job.spec.costing
        self._sizes = self._costing.world.limits.memory_grid
        self._pools: dict[int, Pool] = {}
        self._state = core.new_state(1)
        core.begin(self._pool(job.spec.functions_ref), self._state, 0, 0)

    def start(self) -> tuple[float, float]:
        """See `Platform.start`."""
        return self._job.spec.initial_loss, math.nan

    def check_action(self, action: Action) -> None:
        """See `Platform.check_action`."""
        self._costing.check_action(action)

    def expect_starts(self, action: Action, timeout_s: int) -> tuple[int, int]:
        """See `Platform.expect_starts`; versions differ by memory and by the timeout a plan prefers."""
        state, n = self._state, action.functions
        size = self._sizes.index(action.memory_mb)
        if not (state.version[0] // len(self._costing.world.limits.timeout_rungs) == size).any():
            return n, n
        pool = self._pool(n)
        version, facts = pool.cells[0, 0, size, Cell.VERSION], pool.facts[0]
        for k in range(POOLS):
            fresh = self.clock_s - state.used_s[0, k] <= facts[Fact.KEEP_ALIVE_S]
            if state.version[0, k] == version and fresh:
                cold = int(max(0, n - state.warm[0, k]))
                stays = state.shards[0, k] == n and facts[Fact.SHARDS_RETURN] > 0
                return cold, cold if stays and not cold else n
        return n, n

    def run_epoch(self, plan: EpochPlan) -> EpochReport:
        """See `Platform.run_epoch`."""
        self.check_action(plan.action)
        n, m = plan.action.functions, plan.action.memory_mb
        pool, values = self._pool(n), self._state.values[0]
        cold, loading = self.expect_starts(plan.action, plan.timeout_s)
        epoch = int(values[Col.EPOCH]) + 1
        rng = np.random.default_rng([self._seed, epoch])
        values[Col.LEVEL], values[Col.SIZE] = 0, self._sizes.index(m)
        values[Col.FUNCTIONS], values[Col.MEMORY] = n, m
        gradients = self._gradients_before()
        core.simulate(pool, self._state, 0, rng)
        values[Col.EPOCH] = epoch
        values[Col.ELAPSED_S] += values[Col.DURATION_S]
        world, job = self._costing.world, self._costing.job
        expected = expect_epoch(world, job, float(n), float(m), cold=float(cold), loading=float(loading))
        spread = float(pool.cells[0, 0, int(values[Col.SIZE]), Cell.SPREAD_USD])
        factor = math.exp(spread * rng.standard_normal() - spread**2 / 2)
        return self._report(plan, cold, gradients, self._usage(plan, expected, factor))

    def _gradients_before(self) -> tuple[float, float]:
        """(|gradient|^2, curvature along it) of the model that the epoch starts from."""
        dynamics = self._job.dynamics
        if not isinstance(dynamics, Quadratic):
            return math.nan, math.nan
        curvature = dynamics.rates / dynamics.rate
        squares = (curvature * self._state.amplitude[0]) ** 2
        norm = float(squares.sum())
        return norm, float((curvature * squares).sum()) / norm if norm > 0 else math.nan

    def _report(
        self, plan: EpochPlan, cold: int, gradients: tuple[float, float], usage: Usage
    ) -> EpochReport:
        values, job, n = self._state.values[0], self._costing.job, plan.action.functions
        epoch, duration_s = int(values[Col.EPOCH]), float(values[Col.DURATION_S])
        parts = [float(values[column]) for column in (Col.FETCH_S, Col.COMPUTE_S, Col.UPDATE_S)]
        pushes = int(job.pushes(n))
        trace = float(values[Col.FLOOR]) / noise_gain(self._training, job, epoch, n, float(n - 1))
        return EpochReport(
            epoch=epoch,
            action=plan.action,
            loss=float(values[Col.LOSS]),
            accuracy=math.nan,
            duration_s=duration_s,
            start_s=0.0,
            load_s=0.0,
            fetch_s=parts[0],
            compute_s=parts[1],
            update_s=parts[2],
            wait_s=duration_s - sum(parts),
            evaluate_s=0.0,
            cold_starts=cold,
            memory_utilization=float(values[Col.MEMORY_USE]),
            cpu_utilization=float(values[Col.CPU_USE]),
            pushes=pushes,
            pushes_planned=pushes,
            mean_staleness=float(n - 1),
            updates_lost=0,
            update_retries=0,
            unfinished=0,
            gradients=GradientStatistics(trace + gradients[0], gradients[0], gradients[1]),
            usage=usage,
        )

    def _usage(self, plan: EpochPlan, expected: ExpectedEpoch, factor: float) -> Usage:
        """What the expected epoch is billed for, its functions' time multiplied by `factor`."""
        costing, n = self._costing, plan.action.functions
        billing, limits = costing.world.billing, costing.world.limits
        evaluations = int(costing.job.evaluator_is_function)
        most_ms = n * (plan.timeout_s + limits.init_max * billing.init_billed) * MS_PER_S
        billed_ms = min(n * float(expected.billed_s) * factor * MS_PER_S, most_ms)
        values = self._state.values[0]
        puts = int(expected.s3_puts) + (costing.setup_puts if values[Col.EPOCH] == 1 else 0)
        return Usage(
            memory_mb=plan.action.memory_mb,
            billed_ms=max(n, int(billed_ms)),
            requests=n + evaluations,
            ephemeral_mb=billing.ephemeral_storage,
            evaluator_billed_ms=evaluations * int(float(expected.evaluate_billed_s) * MS_PER_S),
            evaluator_memory_mb=evaluations * plan.action.memory_mb,
            s3_puts=puts,
            s3_gets=int(expected.s3_gets),
            s3_gb_s=float(costing.stored_gb(n)) * float(values[Col.DURATION_S]),
            log_bytes=(n + evaluations) * billing.log_per_invocation,
            egress_bytes=int(egress_bytes(costing.job, n)),
            cache_s=self.clock_s if costing.uses_cache else 0.0,
        )

    def _pool(self, functions: int) -> Pool:
        if functions not in self._pools:
            self._pools[functions] = _pool_at(self._job, functions)
        return self._pools[functions]

    @property
    def params(self) -> NDArray[np.float32]:
        """See `Platform.params`: the modes."""
        return self._state.amplitude[0].astype(np.float32)

    def set_params(self, params: NDArray[np.float32]) -> None:
        """See `Platform.set_params`."""
        self._state.amplitude[0] = params

    @property
    def clock_s(self) -> float:
        """See `Platform.clock_s`."""
        return float(self._state.values[0, Col.ELAPSED_S])

    def save(self) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
        """See `Platform.save`."""
        return {name: array.copy() for name, array in self._state._asdict().items()}, {}

    def restore(self, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """See `Platform.restore`."""
        for name, array in self._state._asdict().items():
            array[...] = tensors[name]

    def close(self) -> None:
        """See `Platform.close`."""
