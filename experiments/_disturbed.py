"""Cases whose truth differs from what was rehearsed: noisy losses, stragglers, a world that is off."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siren.evaluation.baseline import Baseline, Race, Scouted, near, promising
from siren.evaluation.case import Case
from siren.evaluation.episode import Episode, play
from siren.evaluation.jobs import JobInTwin
from siren.platforms.base import Platform
from siren.platforms.twin import TwinPlatform
from siren.policies import FixedPolicy, Policy
from siren.types import Action, EpochReport
from siren.workloads.workload import Workload
from siren.worlds import World
from siren.worlds.costing import Costing, EpochPlan, make_costing

HELDOUT = 512
"""Held-out samples of a noisy loss."""

NOISE = 0.3
"""Coefficient of variation of pushes and of functions among stragglers; in `aws-2026` it is 0.03."""

OFF, WORLD_SEEDS = 1.3, (1, 2, 3)
"""Constants of a world are off by factors in [1 / OFF, OFF]; one world for each seed."""

ONE_VCPU_MB = 1769
"""The only memory size of the ablation."""

PROPOSED, SIZES_EACH, ROUNDS = 6, 2, ((6, 5), (12, 3))
"""The race for the best fixed action of a disturbed truth: actions beside the planned one and its neighbours,
how many of them may have one count, and (seeds, actions that stay after them)."""

TIMES = {
    "cpu": ("memory_per_vcpu", "vcpus_max"),
    "network": ("per_function", "per_vcpu"),
    "start": ("fan_out", "warm", "placement", "init_median", "scale_out_rate", "keep_alive"),
    "scheduler": ("vcpus", "bandwidth", "latency"),
}
"""Constants of a world that say how long something takes, by section."""

STORE_TIMES = (
    *("read_median", "write_median", "tail_min", "tail_max"),
    *("aggregate", "service_base", "service_per_float"),
)
"""Those of each channel."""


# --- worlds ------------------------------------------------------------------------------------------


def stragglers(world: World) -> World:
    """The world with noisy functions and pushes."""
    cpu = world.cpu.model_copy(update={"push_noise": NOISE, "function_noise": NOISE})
    return world.model_copy(update={"cpu": cpu, "name": f"{world.name} with stragglers"})


def constants_off(world: World, seed: int) -> World:
    """The world, every constant of `TIMES` and `STORE_TIMES` times a factor of its own, log-uniform."""
    rng = np.random.default_rng(seed)

    def off(section: Any, names: Sequence[str]) -> Any:
        factors = np.exp(rng.uniform(-np.log(OFF), np.log(OFF), len(names))).tolist()
        values = {name: getattr(section, name) * k for name, k in zip(names, factors, strict=True)}
        whole = {name: max(1, round(v)) for name, v in values.items() if name == "memory_per_vcpu"}
        return section.model_copy(update=values | whole)

    changed = {name: off(getattr(world, name), TIMES[name]) for name in TIMES}
    channels = {kind: off(world.channels[kind], STORE_TIMES) for kind in sorted(world.channels)}
    name = f"{world.name} off by {seed}"
    return world.model_copy(update={**changed, "channels": channels, "name": name})


def one_size(world: World) -> World:
    """The world with functions of one memory size."""
    limits = world.limits.model_copy(update={"memory_grid": (ONE_VCPU_MB,)})
    return world.model_copy(update={"limits": limits, "name": f"{world.name} at {ONE_VCPU_MB} MB"})


# --- noisy losses ------------------------------------------------------------------------------------


class NoisyPlatform(TwinPlatform):
    """The twin, its losses estimated on some held-out samples that are drawn anew after every epoch."""

    def __init__(self, workload: Workload, costing: Costing, seed: int) -> None:
        super().__init__(workload, costing, seed)
        self._seed = seed

    def _estimate(self, epoch: int) -> tuple[float, float]:
        data = self._workload.dataset
        rng = np.random.default_rng([self._seed, epoch, 2])  # 0 and 1 are the twin's own streams
        rows = rng.choice(len(data.heldout_labels), HELDOUT, replace=False)
        model, params = self._workload.model, self._twin.params
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            loss, accuracy = model.evaluate(params, data.heldout_features[rows], data.heldout_labels[rows])
        return float(loss), float(accuracy)

    def start(self) -> tuple[float, float]:
        """See `Platform.start`."""
        super().start()
        return self._estimate(0)

    def run_epoch(self, plan: EpochPlan) -> EpochReport:
        """See `Platform.run_epoch`."""
        report = super().run_epoch(plan)
        loss, accuracy = self._estimate(report.epoch)
        return dataclasses.replace(report, loss=loss, accuracy=accuracy)


@dataclass(frozen=True)
class NoisyJob(JobInTwin):
    """A job of the twin with noisy losses."""

    def platform(self, seed: int) -> Platform:
        """See `EvaluationJob.platform`."""
        return NoisyPlatform(self.workload, self.costing, seed)


# --- disturbances ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disturbance:
    """How the truth differs.

    Attributes:
        name: In tables of numbers.
        title: On the page.
        world: The true world, from the rehearsed one; None if it is the same.
        noisy: Whether losses are estimated.
        known: Whether the true world is the one that is rehearsed, too.
    """

    name: str
    title: str
    world: Callable[[World], World] | None = None
    noisy: bool = False
    known: bool = False


NONE = Disturbance("none", "none")
NOISY = Disturbance("noisy-loss", "noisy loss", noisy=True)
DISTURBANCES = (
    NONE,
    NOISY,
    Disturbance("stragglers", "stragglers", stragglers),
    *(
        Disturbance(f"world-{seed}", f"constants off {seed}", functools.partial(constants_off, seed=seed))
        for seed in WORLD_SEEDS
    ),
)
ONE_SIZE = Disturbance("one-size", f"only {ONE_VCPU_MB:,} MB", one_size, known=True)


class DisturbedCase(Case):
    """A case whose truth is disturbed: same job, same dollars, and policies believe the world of before.

    Args:
        planned: The case as it was planned.
        disturbance: How the truth differs.
    """

    def __init__(self, planned: Case, disturbance: Disturbance) -> None:
        job = planned.job
        assert isinstance(job, JobInTwin)
        self.key, self.budget_usd = planned.key, planned.budget_usd
        self._cache, self._planned = planned._cache, planned
        self._known = disturbance.known
        true = job.costing
        if disturbance.world:
            true = make_costing(disturbance.world(true.world), true.job)
        self._believed = true if disturbance.known else job.costing
        self.job = job
        if disturbance is not NONE:
            world, code = true.world.model_dump(mode="json"), Path(__file__).read_bytes()
            truth = {"disturbed": disturbance.name, "world": world, "code": hashlib.sha256(code).hexdigest()}
            made = NoisyJob if disturbance.noisy else JobInTwin
            self.job = made(true, job.training, {**job.identity, **truth}, job.rules, job.workload)

    @functools.cached_property
    def scouted(self) -> Scouted:
        """The epochs that fixed counts need, which hardly depend on the world, at the prices of the truth."""
        return Scouted.from_json(self.job, self._planned.scouted.to_json())

    def episode(self, policy: Policy, seed: int) -> Episode:
        """See `Case.episode`."""
        return self.played(policy, seed)[0]

    def played(self, policy: Policy, seed: int) -> tuple[Episode, float]:
        """An episode, and the exact held-out loss of the model that it ended with."""
        platform = self.job.platform(seed)
        episode = play(platform, policy, self._believed, self.job.training, self.budget_usd)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return episode, self.job.workload.evaluate(platform.params)[0]

    def hindsight(self, planned: Baseline, also: Sequence[Action] = ()) -> Baseline:
        """The best fixed action in truth, on the seeds that choose; without any success, the planned time.

        Args:
            planned: That of the undisturbed world.
            also: Actions of the truth that race too.
        """
        find = self._anew if self._known else self._around
        about = f"hindsight {[str(action) for action in also]}"
        return Baseline(**self.chosen(about, lambda: dataclasses.asdict(find(planned, also))))

    def _anew(self, planned: Baseline, also: Sequence[Action]) -> Baseline:
        """By the search that found the planned one; from the cheapest if the ladder says that none pays."""
        payable = promising(self.scouted, float(self.budget_usd), 1, 1)
        begin = [self.baseline.action] if payable else self._cheapest(PROPOSED)
        return self._raced(planned, [*begin, *also])

    def _around(self, planned: Baseline, also: Sequence[Action]) -> Baseline:
        """From the planned one and what is promising in truth."""
        proposed = promising(self.scouted, float(self.budget_usd), PROPOSED, SIZES_EACH)
        return self._raced(planned, [planned.action, *proposed, *also])

    def _raced(self, planned: Baseline, begin: Sequence[Action]) -> Baseline:
        """A race of these and the neighbours of the first, then of the winner and its neighbours."""
        race, costing = Race(self, FixedPolicy), self.job.costing
        first, _ = race.best(_once(*begin, *near(costing, begin[0])), ROUNDS)
        action, trials = race.best(_once(first, begin[0], *near(costing, first)), ROUNDS)
        reached = bool(trials.success.any())
        return Baseline(
            functions=action.functions,
            memory_mb=action.memory_mb,
            success_rate=trials.success_rate,
            time_s=trials.time_s if reached else planned.time_s,
            cost_usd=float(trials.cost_usd[trials.success].mean()) if reached else planned.cost_usd,
            tried=race.tried,
        )

    def _cheapest(self, count: int) -> list[Action]:
        """The scouted actions that are expected to need the fewest dollars."""
        grid = self.scouted.grid
        needed_usd = np.median(np.stack([run.needed_usd for run in self.scouted.runs()]), axis=0)
        rows, columns = np.unravel_index(np.argsort(needed_usd, axis=None)[:count], needed_usd.shape)
        n, m = grid.functions[rows].tolist(), grid.memory_mb[columns].tolist()
        return [Action(*at) for at in zip(n, m, strict=True)]


def _once(*actions: Action) -> list[Action]:
    return list(dict.fromkeys(actions))
