"""Ideas 1 and 5: the learning rate, and the batch rule, as a third action."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from decimal import Decimal

from experiments._ideas import Job, Player, Results, Vector, floor_job, ramp, searched, shapes
from siren.evaluation.baseline import Race, near
from siren.evaluation.entrants import KINDS
from siren.evaluation.episode import Episode, play
from siren.platforms.twin import TwinPlatform
from siren.policies import FixedPolicy, JobView, Policy, Safeguard, Safety
from siren.policies.two_phase import TwoPhasePolicy
from siren.rehearsal.search import SIZE, linear
from siren.simulator.observation import GAP_MIN, LOG_SCALE
from siren.twin.twin import Twin, job_of
from siren.types import Action, BatchRule, Decision, EpochRecord, EpochReport
from siren.workloads.spec import TrainingSpec
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing, EpochPlan, make_costing

RATE_SPAN = 2.0
"""A third action of 1 multiplies the learning rate by e^2, as the first does with n."""

WIDEST = 10.0
"""No rate is beyond this multiple of the workload's, or below its inverse."""

SEARCHES = {
    "search (n, m)": (True, False),
    "search (n, m, rate)": (True, True),
    "search (rate)": (False, True),
}
"""Whether a search has weights for n and m, and for the rate."""

RATE_SHAPES = ((2.0, 0.5), (1.0, 0.5), (1.0, 0.25), (3.0, 1.0), (4.0, 0.5))
"""Factors on the rate, at the start and near the target, that race beside the shapes of n."""

FACTORS, COUNTS = (0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.8), (0.5, 0.71, 1.0, 1.41, 2.0, 2.8)
"""Fixed factors on the rate and on the best fixed n that are tried together."""

ROUNDS = ((4, 10), (12, 4))
"""See `siren.evaluation.baseline.Effort`; 24 seeds in the end."""


def changed(workload: Workload, training: TrainingSpec) -> Workload:
    """The workload trained otherwise."""
    spec = workload.spec.model_copy(update={"training": training})
    return Workload(workload.name, spec, workload.model, workload.dataset, workload.folder)


# --- the learning rate -------------------------------------------------------------------------------


class RatedPlatform(TwinPlatform):
    """A twin whose learning rate may change from epoch to epoch."""

    def set_training(self, training: TrainingSpec) -> None:
        """The next epochs train like this."""
        self._twin.workload = changed(self._workload, training)


class Rated:
    """A policy that multiplies the learning rate as well, by exp(2 (w log_gap + bias)).

    The factors are `learning_rate_steps` of the training that the view names, so that the noise floor that
    the policy reads from gradients follows them.

    Args:
        policy: Decides n and m.
        weights: (w, bias).
        platform: Where the epochs run.
    """

    def __init__(self, policy: Policy, weights: Vector, platform: RatedPlatform) -> None:
        self.name = policy.name
        self._policy, self._weights, self._platform = policy, weights, platform
        self._job: JobView | None = None
        self._last = 1.0

    def start(self, job: JobView) -> None:
        """See `Policy.start`."""
        self._job = job
        self._policy.start(job)

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """See `Policy.decide`."""
        job = self._job
        assert job is not None
        decision = self._policy.decide(history)
        loss = history[-1].status.report.loss if history else job.initial_loss
        factor = self._factor(loss, job)
        steps = (*job.training.learning_rate_steps, (len(history) + 1, factor / self._last))
        job.training = job.training.model_copy(update={"learning_rate_steps": steps})
        self._platform.set_training(job.training)
        self._last = factor
        return decision

    def _factor(self, loss: float, job: JobView) -> float:
        target = job.training.target_loss
        gap = max((loss - target) / (job.initial_loss - target), GAP_MIN) if math.isfinite(loss) else 1.0
        seen = min(max(math.log(gap) / LOG_SCALE, -1.0), 1.0)
        factor = math.exp(RATE_SPAN * (self._weights[0] * seen + self._weights[1]))
        return min(max(factor, 1 / WIDEST), WIDEST)


def rated_episode(job: Job, policy: Policy, weights: Vector, seed: int, *, guarded: bool) -> Episode:
    """One episode of a policy with a third action."""
    twin = job.twin
    platform = RatedPlatform(twin.workload, twin.costing, seed)
    rated: Policy = Rated(policy, weights, platform)
    if guarded:
        rated = Safeguard(rated, Safety())
    return play(platform, rated, twin.costing, twin.training, job.case.budget_usd)


class _Rates:
    """Fixed (n, m, factor), as `siren.evaluation.baseline.Race` plays them."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def episode(self, policy: Policy, seed: int) -> Episode:
        """See `siren.evaluation.baseline.Playable`."""
        assert isinstance(policy, _FixedRate)
        return rated_episode(self._job, policy, (0.0, policy.bias), seed, guarded=False)


class _FixedRate(FixedPolicy):
    def __init__(self, candidate: tuple[Action, float]) -> None:
        super().__init__(candidate[0])
        self.bias = math.log(candidate[1]) / RATE_SPAN


def best_rated(job: Job, *, fast: bool) -> tuple[Player, str]:
    """The best fixed (n, m, factor on the rate), by races on the 24 seeds that choose."""
    best, race = job.case.baseline.action, Race(_Rates(job), _FixedRate)
    counts, factors = (COUNTS[2:3], FACTORS[2:4]) if fast else (COUNTS, FACTORS)
    rounds, last = (((1, 1),), 2) if fast else (ROUNDS, 24)
    grid = itertools.product(counts, factors)
    first, _ = race.best([(_scaled(best, x), y) for x, y in grid], rounds, last)
    around = [(action, first[1]) for action in near(job.twin.costing, first[0])]
    around += [(first[0], first[1] * x) for x in (0.84, 1.19)]
    (action, factor), _ = race.best([first, *(around[:1] if fast else around)], rounds, last)
    policy = _FixedRate((action, factor))
    return lambda seed: _Rates(job).episode(policy, seed), f"{action}, rate x {factor:.3g}"


def _scaled(action: Action, factor: float) -> Action:
    return Action(max(1, round(action.functions * factor)), action.memory_mb)


def search_rated(job: Job, seconds: float, arm: str) -> tuple[Player, str]:
    """A search for a linear policy around the best fixed action.

    Args:
        job: The job.
        seconds: Processor seconds.
        arm: Which outputs have weights, of `SEARCHES`.
    """
    reference, (acts, rates) = job.case.reference, SEARCHES[arm]

    def episode(vector: Vector | None, seed: int) -> Episode:
        if vector is None:
            return job.case.episode(FixedPolicy(reference.action), seed)
        own = vector[:SIZE] if acts else [0.0] * SIZE
        pair = vector[-2:] if rates else (0.0, 0.0)
        return rated_episode(job, linear("linear", own, reference).policy(), pair, seed, guarded=True)

    starts = shapes(SIZE + 2 if rates else SIZE) if acts else {}
    if rates:
        zeros = [0.0] * SIZE if acts else []
        for early, late in RATE_SHAPES:
            starts[f"rate {early:g}-{late:g}"] = [*zeros, *ramp(early, late, RATE_SPAN)]
    vector, name = searched(episode, reference.duration_s, seconds, starts)
    if rates and vector is not None:
        name += f"; rate {vector[-2]:+.2f} log_gap {vector[-1]:+.2f}"
    found = None if vector is None else [float(x) for x in vector]
    return lambda seed: episode(found, seed), name


def rate(results: Results, count: int, *, fast: bool) -> None:
    """Idea 1."""
    seconds = 0.5 if fast else 35.0
    for name in ("higgs",) if fast else ("softmax", "higgs"):
        job = floor_job(name)
        results.best_fixed(job, count)
        results.cell("best fixed (n, m, rate)", job, lambda job=job: best_rated(job, fast=fast), count)
        for arm in SEARCHES:
            results.cell(arm, job, lambda job=job, arm=arm: search_rated(job, seconds, arm), count)


# --- the batch rule ----------------------------------------------------------------------------------

BATCHES, LATER, EARLIER = (64, 128, 256), (1.0, 1.5, 2.2), (1.0, 1.5, 2.2)
"""Mini-batches of the constant phase, and factors on the best fixed n in it and before it."""

SWITCHES = (0.3, 0.1, 0.03)
"""Shares of the initial gap at which the rule changes."""

CONSTANT_COUNTS = (0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.8)
"""Factors on the best fixed n under `constant` throughout."""


def constant(job: Job, batch: int) -> tuple[Workload, Costing]:
    """The job with constant mini-batches, with its laws."""
    twin = job.twin
    update = {"batch_rule": BatchRule.CONSTANT, "batch_size": batch}
    workload = changed(twin.workload, twin.training.model_copy(update=update))
    return workload, make_costing(twin.costing.world, job_of(workload))


class SwitchingPlatform(TwinPlatform):
    """A twin whose mini-batches keep their size once the gap has shrunk to a share of the initial one.

    Reservations and forecasts stay those of `split`.

    Args:
        job: The job.
        batch: Of the second phase.
        switch: The share.
        seed: Of the run.
    """

    def __init__(self, job: Job, batch: int, switch: float, seed: int) -> None:
        super().__init__(job.twin.workload, job.twin.costing, seed)
        self._later: Twin | None = Twin(*constant(job, batch), seed)
        self._target = job.twin.training.target_loss
        gap = self.start()[0] - self._target
        self._level = self._target + switch * gap

    def run_epoch(self, plan: EpochPlan) -> EpochReport:
        """See `Platform.run_epoch`."""
        report = super().run_epoch(plan)
        if self._later is not None and report.loss <= self._level:
            self._later.restore(*self._twin.save())
            self._twin, self._later = self._later, None
        return report


Switched = tuple[Action, Action, int, float]
"""(first, second, mini-batch of the second phase, switch)."""


class _SwitchedPolicy(TwoPhasePolicy):
    def __init__(self, candidate: Switched) -> None:
        first, second, self.batch, switch = candidate
        super().__init__(first, second, switch)


class _Switching:
    def __init__(self, job: Job) -> None:
        self._job = job

    def episode(self, policy: Policy, seed: int) -> Episode:
        assert isinstance(policy, _SwitchedPolicy)
        job, twin = self._job, self._job.twin
        platform = SwitchingPlatform(job, policy.batch, policy.switch, seed)
        return play(platform, policy, twin.costing, twin.training, job.case.budget_usd)


def best_switched(job: Job, *, fast: bool) -> tuple[Player, str]:
    """The best of the schedules that go over to constant mini-batches."""
    best = job.case.baseline.action
    parts = [EARLIER, LATER, BATCHES, SWITCHES]
    grid = itertools.product(*([part[1:2] for part in parts] if fast else parts))
    most = job.twin.workload.samples
    candidates: list[Switched] = [
        (_scaled(best, x), _scaled(best, y), batch, switch)
        for x, y, batch, switch in grid
        if round(best.functions * y) * batch <= most
    ]
    race = Race(_Switching(job), _SwitchedPolicy)
    chosen, _ = race.best(candidates, ((1, 1),) if fast else ROUNDS, 2 if fast else 24)
    policy = _SwitchedPolicy(chosen)
    name = f"{chosen[0]} split, {chosen[1]} constant {chosen[2]} below {chosen[3]:g}"
    return lambda seed: _Switching(job).episode(policy, seed), name


class _Constant:
    def __init__(self, job: Job) -> None:
        self._budget_usd: Decimal = job.case.budget_usd
        self._made = {batch: constant(job, batch) for batch in BATCHES}

    def episode(self, policy: Policy, seed: int) -> Episode:
        assert isinstance(policy, _ConstantPolicy)
        workload, costing = self._made[policy.batch]
        platform = TwinPlatform(workload, costing, seed)
        return play(platform, policy, costing, workload.spec.training, self._budget_usd)


class _ConstantPolicy(FixedPolicy):
    def __init__(self, candidate: tuple[Action, int]) -> None:
        super().__init__(candidate[0])
        self.batch = candidate[1]


def best_constant(job: Job) -> tuple[Player, str]:
    """The best fixed action and mini-batch under `constant` throughout."""
    best, playable = job.case.baseline.action, _Constant(job)
    grid = itertools.product(CONSTANT_COUNTS, BATCHES)
    most = job.twin.workload.samples
    candidates = [(_scaled(best, x), batch) for x, batch in grid if round(best.functions * x) * batch <= most]
    race = Race(playable, _ConstantPolicy)
    chosen, _ = race.best(candidates, ROUNDS)
    around = [(action, chosen[1]) for action in near(playable._made[chosen[1]][1], chosen[0])]
    chosen, _ = race.best([chosen, *around], ROUNDS)
    policy = _ConstantPolicy(chosen)
    return lambda seed: playable.episode(policy, seed), f"{chosen[0]}, constant {chosen[1]}"


def best_two_phase(job: Job) -> tuple[Player, str]:
    """The two phases of `siren.evaluate`, under `split` alone."""
    make = KINDS["two-phase"].make
    assert make is not None
    policy = make(job.case, "")
    return lambda seed: job.case.episode(policy, seed), policy.name


def batch(results: Results, count: int, *, fast: bool) -> None:
    """Idea 5."""
    for name in ("higgs",) if fast else ("softmax", "higgs"):
        job = floor_job(name)
        results.best_fixed(job, count)
        results.cell("split, then constant", job, lambda job=job: best_switched(job, fast=fast), count)
        if not fast:
            results.cell("two phases, split", job, lambda job=job: best_two_phase(job), count)
            results.cell("constant throughout", job, lambda job=job: best_constant(job), count)
