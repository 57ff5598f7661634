"""A simulated job as a platform, so that policies run on it exactly as they run on the twin."""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from siren.hsp import quotas
from siren.simulator import core
from siren.simulator.core import POOLS, Col
from siren.simulator.job import EpisodeSpec, SimulatedJob
from siren.simulator.quadratic import Quadratic
from siren.simulator.sensors import noise_gain
from siren.simulator.tables import Cell, Fact, Pool, pool_at
from siren.types import Action, EpochReport, GradientStatistics, Usage
from siren.units import MS_PER_S
from siren.workloads.spec import TrainingSpec
from siren.worlds.costing import Costing, EpochPlan
from siren.worlds.expectation import ExpectedEpoch, expect_epoch
from siren.worlds.laws import egress_bytes

POOLS_KEPT = 1024
"""Tables of so many (job, count of functions) are kept for further episodes."""

EPOCHS_KEPT = 1 << 16
"""Expected epochs of so many (job, action, starts) are kept likewise."""

_pool_at = functools.lru_cache(POOLS_KEPT)(pool_at)

SPLIT_RATES = {0.0: "none", 0.5: "sqrt", 1.0: "linear"}


@functools.lru_cache(EPOCHS_KEPT)
def _expected(costing: Costing, n: int, m: int, cold: int, loading: int) -> ExpectedEpoch:
    world, job = costing.world, costing.job
    return expect_epoch(world, job, float(n), float(m), cold=float(cold), loading=float(loading))


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


class Simulated(NamedTuple):
    """What the dynamics of a job did in an epoch.

    Attributes:
        amplitude: Modes that the epoch started from, (MODES,).
        loss: Held-out loss after it.
        floor: The noise floor that its gradients told, see `siren.simulator.sensors`.
    """

    amplitude: NDArray[np.float64]
    loss: float
    floor: float


class Trained(NamedTuple):
    """What training told in an epoch."""

    loss: float
    accuracy: float
    staleness: float
    gradients: GradientStatistics


class LawPlatform(ABC):
    """Epochs whose times and bills are drawn from the laws, as `siren.simulator.core` draws them.

    Keeps the promises of `siren.platforms.base.Platform`; subclasses say what training does.

    Args:
        spec: The job; its reference does not matter here.
        seed: All randomness of an epoch comes from (seed, epoch).
    """

    name = "simulator"
    spends_money = False
    replays = True

    def __init__(self, spec: EpisodeSpec, seed: int) -> None:
        self.spec, self.seed = spec, seed
        self.costing = spec.costing
        self._sizes = spec.world.limits.memory_grid
        self._pools: dict[int, Pool] = {}
        self._ran: set[int] = set()  # sizes that may have warm environments
        self._state = core.new_state(1)
        core.begin(self.pool(spec.functions_ref), self._state, 0, 0)

    @abstractmethod
    def make_pool(self, functions: int) -> Pool:
        """The tables of the job at so many functions."""

    @abstractmethod
    def train(self, action: Action, epoch: int, simulated: Simulated) -> Trained:
        """What training does in an epoch.

        Args:
            action: What runs.
            epoch: 1 for the first.
            simulated: What the job's dynamics did, if its pool has any.
        """

    def pool(self, functions: int) -> Pool:
        """`make_pool`, once for each count."""
        if functions not in self._pools:
            self._pools[functions] = self.make_pool(functions)
        return self._pools[functions]

    def start(self) -> tuple[float, float]:
        """See `Platform.start`."""
        return self.spec.initial_loss, math.nan

    def check_action(self, action: Action) -> None:
        """See `Platform.check_action`."""
        self.costing.check_action(action)
        quotas.check(self.costing.job, action.functions)

    def expect_starts(self, action: Action, timeout_s: int) -> tuple[int, int]:
        """See `Platform.expect_starts`; versions differ by memory and by the timeout a plan prefers."""
        state, n = self._state, action.functions
        size = self._sizes.index(action.memory_mb)
        if size not in self._ran:
            return n, n
        pool = self.pool(n)
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
        before = self.save()
        try:
            return self._run_epoch(plan)
        except BaseException:
            self.restore(*before)
            raise

    def _run_epoch(self, plan: EpochPlan) -> EpochReport:
        n, m = plan.action.functions, plan.action.memory_mb
        pool, values = self.pool(n), self._state.values[0]
        cold, loading = self.expect_starts(plan.action, plan.timeout_s)
        epoch = int(values[Col.EPOCH]) + 1
        rng = np.random.default_rng([self.seed, epoch])
        values[Col.LEVEL], values[Col.SIZE] = 0, self._sizes.index(m)
        values[Col.FUNCTIONS], values[Col.MEMORY] = n, m
        amplitude = self._state.amplitude[0].copy()
        core.simulate(pool, self._state, 0, rng)
        self._ran.add(self._sizes.index(m))
        longest_s = self.costing.longest_s(plan.action, plan.timeout_s)
        values[Col.DURATION_S] = min(values[Col.DURATION_S], longest_s)
        simulated = Simulated(amplitude, float(values[Col.LOSS]), float(values[Col.FLOOR]))
        trained = self.train(plan.action, epoch, simulated)
        values[Col.LOSS] = trained.loss
        values[Col.EPOCH] = epoch
        values[Col.ELAPSED_S] += values[Col.DURATION_S]
        expected = _expected(self.costing, n, m, cold, loading)
        spread = float(pool.cells[0, 0, int(values[Col.SIZE]), Cell.SPREAD_USD])
        factor = math.exp(spread * rng.standard_normal() - spread**2 / 2)
        return self._report(plan, cold, trained, self._usage(plan, expected, factor))

    def _report(self, plan: EpochPlan, cold: int, trained: Trained, usage: Usage) -> EpochReport:
        values = self._state.values[0]
        epoch, duration_s = int(values[Col.EPOCH]), float(values[Col.DURATION_S])
        parts = [float(values[column]) for column in (Col.FETCH_S, Col.COMPUTE_S, Col.UPDATE_S)]
        pushes = int(self.costing.job.pushes(plan.action.functions))
        return EpochReport(
            epoch=epoch,
            action=plan.action,
            loss=trained.loss,
            accuracy=trained.accuracy,
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
            mean_staleness=trained.staleness,
            updates_lost=0,
            update_retries=0,
            unfinished=0,
            gradients=trained.gradients,
            usage=usage,
        )

    def _usage(self, plan: EpochPlan, expected: ExpectedEpoch, factor: float) -> Usage:
        """What the expected epoch is billed for, its functions' time multiplied by `factor`."""
        costing, n = self.costing, plan.action.functions
        billing, limits = costing.world.billing, costing.world.limits
        evaluations = int(costing.job.evaluator_is_function)
        evaluate_s = min(float(expected.evaluate_billed_s), plan.timeout_s)
        most_ms = n * (plan.timeout_s + limits.init_max * billing.init_billed) * MS_PER_S
        billed_ms = min(n * float(expected.billed_s) * factor * MS_PER_S, most_ms)
        values = self._state.values[0]
        puts = int(expected.s3_puts) + (costing.setup_puts if values[Col.EPOCH] == 1 else 0)
        return Usage(
            memory_mb=plan.action.memory_mb,
            billed_ms=max(n, int(billed_ms)),
            requests=n + evaluations,
            ephemeral_mb=billing.ephemeral_storage,
            evaluator_billed_ms=evaluations * int(evaluate_s * MS_PER_S),
            evaluator_memory_mb=evaluations * plan.action.memory_mb,
            s3_puts=puts,
            s3_gets=int(expected.s3_gets),
            s3_gb_s=float(costing.stored_gb(n)) * float(values[Col.DURATION_S]),
            log_bytes=(n + evaluations) * billing.log_per_invocation,
            egress_bytes=int(egress_bytes(costing.job, n)),
            cache_s=self.clock_s if costing.uses_cache else 0.0,
        )

    @property
    def clock_s(self) -> float:
        """See `Platform.clock_s`."""
        return float(self._state.values[0, Col.ELAPSED_S])

    @property
    def idle_s(self) -> float:
        """See `Platform.idle_s`."""
        return 0.0

    def save(self) -> tuple[Mapping[str, NDArray[Any]], Mapping[str, Any]]:
        """See `Platform.save`."""
        return {name: array.copy() for name, array in self._state._asdict().items()}, {}

    def restore(self, tensors: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """See `Platform.restore`."""
        for name, array in self._state._asdict().items():
            array[...] = tensors[name]
        rungs = len(self.costing.world.limits.timeout_rungs)
        self._ran = {version // rungs for version in self._state.version[0].tolist() if version >= 0}

    def close(self) -> None:  # noqa: B027 - nothing is held
        """See `Platform.close`."""


class SimulatedPlatform(LawPlatform):
    """Runs the epochs of a simulated job. Its "model" is the modes of the quadratic.

    Args:
        job: What runs.
        seed: All randomness of an epoch comes from (seed, epoch).
    """

    def __init__(self, job: SimulatedJob, seed: int) -> None:
        self._dynamics, self._training = job.dynamics, training_of(job)
        super().__init__(job.spec, seed)

    def make_pool(self, functions: int) -> Pool:
        """See `LawPlatform.make_pool`."""
        return _pool_at(self.spec, functions, self._dynamics)

    def train(self, action: Action, epoch: int, simulated: Simulated) -> Trained:
        """See `LawPlatform.train`: what was simulated, and the gradients it implies."""
        dynamics, staleness = self._dynamics, float(action.functions - 1)
        norm = curvature = math.nan
        if isinstance(dynamics, Quadratic):
            curvatures = dynamics.rates / dynamics.rate
            squares = (curvatures * simulated.amplitude) ** 2
            norm = float(squares.sum())
            curvature = float((curvatures * squares).sum()) / norm if norm > 0 else math.nan
        job, n = self.costing.job, action.functions
        trace = simulated.floor / noise_gain(self._training, job, epoch, n, staleness)
        return Trained(simulated.loss, math.nan, staleness, GradientStatistics(trace + norm, norm, curvature))

    @property
    def params(self) -> NDArray[np.float32]:
        """See `Platform.params`: the modes."""
        return np.asarray(self._state.amplitude[0], np.float32)

    def set_params(self, params: NDArray[np.float32]) -> None:
        """See `Platform.set_params`."""
        self._state.amplitude[0] = params
