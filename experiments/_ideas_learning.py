"""Ideas 2, 3, 4 and 6: PPO on real SGD, gradient sensors, refitting during a run, and recurrent policies."""

from __future__ import annotations

import contextlib
import csv
import functools
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from experiments._ideas import Job, Player, Results, noisy_job, report
from experiments._ideas_search import fitted_job
from experiments._pages import (
    append_rows,
    commit,
)
from siren.evaluation.episode import Episode, play
from siren.learning.jobs import Part, sample_pool
from siren.learning.learners import freeze_actor, give_network, make_learner, network_of
from siren.learning.recipe import (
    Algorithm,
    EvaluationSection,
    NetworkSection,
    OptimiserSection,
    Recipe,
)
from siren.learning.training import THREADS, Judge, export, make_environment, start_network
from siren.learning.wrappers import FailureReturn, HeldActions
from siren.policies import AgentPolicy, GreedyPolicy, JobView, Policy, Reference, Safeguard, Safety
from siren.policies.agent import DEFAULT_AGENT
from siren.policies.network import Network
from siren.policies.planner import PlannerPolicy
from siren.simulator.job import ActionGrid, SimulatedJob
from siren.simulator.planner import Planner
from siren.simulator.quadratic import Quadratic
from siren.simulator.sampling import sample_jobs
from siren.simulator.scenarios import load_scenario, load_sgd_scenario
from siren.simulator.twin_env import HspTwinEnv
from siren.simulator.twin_jobs import TwinJob, family_job
from siren.types import BatchRule, Decision, EpochRecord, EpochReport
from siren.worlds.costing import Costing
from siren.worlds.refit import Scales, scaled

HELD_OUT = tuple(range(300, 316))
"""Numbers of the jobs of `noisy-2026` that policies meet without a rehearsal."""

SENSED = HELD_OUT[:8]
"""Those on which a sensor is cut."""

AS_IT_IS, CUT, TUNED, ALONE, ALONE_CUT = (
    "default-2026",
    "without gap_over_floor",
    "after PPO on real SGD",
    "default-2026, told nothing",
    "told nothing, without gap_over_floor",
)

# --- PPO on real SGD ---------------------------------------------------------------------------------

JOB_SEED, FAMILIES, ENVIRONMENTS, JOBS_EACH = 41_000_000, ("noisy-2026", "small-2026"), 8, 4
"""Training jobs: under `split`, by turns of the two families; every environment has its own."""

TUNING = Recipe(
    start=DEFAULT_AGENT,
    steps=40_960,
    network=NetworkSection(log_std=-2.6),
    optimiser=OptimiserSection(
        environments=ENVIRONMENTS,
        rollout=128,
        minibatch=256,
        passes=6,
        learning_rate=3e-4,
        anneal=True,
        warm_up=6_144,
    ),
)
"""As `siren.learning.recipe.FINE_TUNING`, for fewer and slower environments."""


def training_jobs(count: int, seed: int) -> list[TwinJob]:
    """Generated jobs with real gradients, by turns of the families."""
    scenarios = [
        load_sgd_scenario(name).model_copy(update={"batch_rules": {BatchRule.SPLIT: 1.0}})
        for name in FAMILIES
    ]
    return [
        family_job(scenarios[k % len(scenarios)], np.random.default_rng([seed, k]), "aws-2026")
        for k in range(count)
    ]


class _Frozen(BaseCallback):
    """Lets the critic learn alone at first, and counts what episodes bring."""

    def __init__(self, warm_up: int) -> None:
        super().__init__()
        self._warm_up = warm_up
        self.successes: list[bool] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.successes.append(bool(info["is_success"]))
        return True

    def _on_rollout_start(self) -> None:
        freeze_actor(self.model, self.num_timesteps < self._warm_up)


@functools.lru_cache(maxsize=1)
def tuned(fast: bool) -> tuple[Network, str]:
    """The shipped agent after PPO on real SGD in the twin, and how much of it there was."""
    torch.set_num_threads(THREADS)
    began_s = time.process_time()
    recipe = TUNING.model_copy(update={"steps": 1024}) if fast else TUNING
    jobs = training_jobs(ENVIRONMENTS * (1 if fast else JOBS_EACH), JOB_SEED)
    sampled_s = time.process_time() - began_s
    own = [jobs[k::ENVIRONMENTS] for k in range(ENVIRONMENTS)]
    made = [lambda some=some: Monitor(HspTwinEnv(jobs=some)) for some in own]
    env: VecEnv = FailureReturn(DummyVecEnv(made), recipe.failure_ratio)
    network = start_network(recipe)
    learner = make_learner(recipe, HeldActions(env, network.hold), recipe.seed)
    give_network(learner, network)
    callback = _Frozen(recipe.optimiser.warm_up)
    learner.learn(recipe.steps, callback)
    cpu_s, done, tenth = time.process_time() - began_s, callback.successes, len(callback.successes) // 10
    shares = [f"{np.mean(part):.3f}" for part in (done[:tenth], done[-tenth:])]
    told = (
        f"{learner.num_timesteps} epochs of {len(jobs)} jobs in {len(done)} episodes; success of the first "
        f"and of the last tenth {' and '.join(shares)}; {cpu_s:.0f} s, {sampled_s:.0f} of them for the jobs"
    )
    report(told)
    return network_of(learner, network.hold), told


class _NoFloor(AgentPolicy):
    """An agent that is not told the noise floor: `gap_over_floor` is 0, as before the first epoch."""

    def _floor(self, report: EpochReport) -> float:
        return 0.0


def agent(job: Job, network: Network, kind: type[AgentPolicy], reference: Reference | None) -> Player:
    """An agent without a rehearsal."""
    policy = Safeguard(kind(network, "agent", reference), Safety())
    return lambda seed: job.case.episode(policy, seed)


def gradient(results: Results, count: int, *, fast: bool) -> None:
    """Idea 2."""
    network, told = tuned(fast)
    for index in HELD_OUT[:1] if fast else HELD_OUT:
        job = noisy_job(index)
        results.best_fixed(job, count)
        for arm, own, how in ((AS_IT_IS, start_network(TUNING), ""), (TUNED, network, told)):
            reference = job.case.reference
            results.cell(
                arm,
                job,
                lambda job=job, own=own, how=how, r=reference: (agent(job, own, AgentPolicy, r), how),
                count,
            )


def sensors(results: Results, count: int, *, fast: bool) -> None:
    """Idea 3."""
    network = start_network(TUNING)
    for index in HELD_OUT[:1] if fast else SENSED:
        job = noisy_job(index)
        results.best_fixed(job, count)
        told: Reference | None = job.case.reference
        for arm, kind, reference in (
            (AS_IT_IS, AgentPolicy, told),
            (CUT, _NoFloor, told),
            (ALONE, AgentPolicy, None),
            (ALONE_CUT, _NoFloor, None),
        ):
            results.cell(
                arm, job, lambda job=job, k=kind, r=reference: (agent(job, network, k, r), ""), count
            )


# --- refitting during a run --------------------------------------------------------------------------

GREEDY_JOBS, PLANNER_JOBS, PLANNER_SEEDS = (302, 303), (302,), 6
"""A decision of the planner takes a quarter of a second, so it plays less."""

GREEDY_BUDGET = 3
"""Greedy hardly ever finishes with the budget of the others, so it gets so many times as much."""

BELIEFS = {
    "right": Scales(),
    "slow store": Scales(compute=1 / 1.6, store=1.6),
    "fast store": Scales(compute=1.6, store=1 / 1.6),
}
"""What the policy takes the laws of time to be, over what they are."""


class RefittedPlanner(PlannerPolicy):
    """A planner that takes over what the run tells of the laws of time.

    Args:
        job: The fitted job.
        belief: The laws before the run.
    """

    def __init__(self, job: SimulatedJob, belief: Costing) -> None:
        super().__init__(planner_of(job, belief))
        self._fitted, self._belief, self._scales = job, belief, Scales()

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """See `Policy.decide`."""
        assert self._job is not None
        if self._job.scales != self._scales:
            self._scales = self._job.scales
            self._planner = planner_of(self._fitted, scaled(self._belief, self._scales))
        return super().decide(history)


def planner_of(job: SimulatedJob, costing: Costing) -> Planner:
    """The planner of a fitted job under other laws."""
    spec, model = job.spec, job.dynamics
    assert isinstance(model, Quadratic)
    target = max(spec.target_loss - spec.initial_loss + model.excess, 1e-6)
    return Planner(model, ActionGrid.of(costing), target, float(spec.memory_ref_mb))


@contextlib.contextmanager
def learning(on: bool) -> Iterator[None]:
    """Whether views refit the laws of time."""
    if on:
        yield
        return
    with mock.patch.object(JobView, "learn", return_value=None):
        yield


def believing(job: Job, belief: Costing, policy: Policy, *, refits: bool, times: int = 1) -> Player:
    """A policy whose laws of time are those, on the job as it is, with so many times the budget."""
    guarded = Safeguard(policy, Safety())

    def player(seed: int) -> Episode:
        platform = job.twin.platform(seed)
        with learning(refits):
            return play(platform, guarded, belief, job.twin.training, times * job.case.budget_usd)

    return player


def refit(results: Results, count: int, *, fast: bool) -> None:
    """Idea 4."""
    names = tuple(BELIEFS)[:2] if fast else tuple(BELIEFS)
    for index in GREEDY_JOBS[:1] if fast else GREEDY_JOBS:
        job = noisy_job(index)
        results.best_fixed(job, count)
        for name, refits in itertools.product(names, (True, False)):
            belief = scaled(job.twin.costing, BELIEFS[name])
            player = believing(job, belief, GreedyPolicy(), refits=refits, times=GREEDY_BUDGET)
            results.cell(_arm("greedy", name, refits), job, lambda player=player: (player, ""), count)
    for index in () if fast else PLANNER_JOBS:
        job = noisy_job(index)
        model = fitted_job(job)
        for name, refits in (("slow store", True), ("slow store", False)):
            belief = scaled(job.twin.costing, BELIEFS[name])
            player = believing(job, belief, RefittedPlanner(model, belief), refits=refits)
            arm = _arm("planner", name, refits)
            results.cell(arm, job, lambda player=player: (player, ""), PLANNER_SEEDS)


def _arm(policy: str, belief: str, refits: bool) -> str:
    return f"{policy}, laws {belief}, {'refitted' if refits else 'kept'}"


# --- recurrent policies ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """A training in the simulator and what came of it; see `siren.learning.episodes.Comparison`."""

    algorithm: str
    seed: int
    steps: int
    cpu_s: float
    speedup: float
    low: float
    high: float
    success: float
    reference_success: float
    commit: str


def recurrent(path: Path, *, fast: bool) -> None:
    """Idea 6: PPO and RecurrentPPO for equally many steps in the simulator."""
    torch.set_num_threads(THREADS)
    known = read_trained(path)
    recipe = Recipe(
        steps=2048 if fast else 49_152,
        jobs=10 if fast else 150,
        optimiser=OptimiserSection(environments=64, minibatch=512, passes=4, anneal=True),
        network=NetworkSection(log_std=-2.0),
        evaluation=EvaluationSection(jobs=5 if fast else 80, repeats=2),
    )
    source = functools.partial(sample_jobs, load_scenario(recipe.scenario))
    training = sample_pool(source, Part.TRAINING, 0, recipe.jobs)
    judge = Judge(recipe, sample_pool(source, Part.VALIDATION, 0, recipe.evaluation.jobs), Part.VALIDATION)
    for seed in (0,):
        for algorithm in (Algorithm.PPO, Algorithm.RECURRENT_PPO):
            if any((row.algorithm, row.seed) == (str(algorithm), seed) for row in known):
                continue
            own, began_s = recipe.model_copy(update={"algorithm": algorithm}), time.process_time()
            learner = make_learner(own, make_environment(own, training, seed), seed)
            learner.learn(own.steps)
            cpu_s = time.process_time() - began_s
            c = judge.compare(export(own, learner))
            found = c.speedup, c.low, c.high, c.success, c.reference_success
            row = Trained(str(algorithm), seed, learner.num_timesteps, cpu_s, *found, commit())
            append_rows(path, [asdict(row)])
            report(str(row))


def read_trained(path: Path) -> list[Trained]:
    """The rows of a file; none if it does not exist."""
    if not path.exists():
        return []
    kinds = {"int": int, "float": float, "str": str}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Trained(**{f.name: kinds[str(f.type)](line[f.name]) for f in fields(Trained)})
            for line in csv.DictReader(file)
        ]
