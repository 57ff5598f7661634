"""Trains an agent: rollouts, evaluations, checkpoints, and what is kept of them."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from siren.errors import MissingExtraError
from siren.learning.episodes import (
    FAILURE_RATIO,
    Act,
    Comparison,
    Episodes,
    acting,
    compare,
    play,
    play_reference,
)
from siren.learning.jobs import Part, Source, joined, sample_pool
from siren.learning.learners import (
    freeze_actor,
    give_network,
    load_learner,
    make_learner,
    network_of,
    save_learner,
)
from siren.learning.neighbourhood import FittedJob, Neighbourhood
from siren.learning.recipe import Recipe
from siren.learning.record import Checkpoint, Evaluation, Record, write_checkpoint, write_evaluations
from siren.learning.wrappers import SCALING, FailureReturn, HeldActions, ScaledState, scaled
from siren.policies.agent import agent_folder
from siren.policies.network import Network, Spaces, load_network, save_network
from siren.simulator.observation import SIREN_NAMES
from siren.simulator.sampling import sample_jobs
from siren.simulator.scenarios import load_scenario
from siren.simulator.tables import Fact, Pool
from siren.simulator.vector import HspVecEnv

try:
    import tensorboard  # type: ignore[import-untyped]  # noqa: F401 - Stable-Baselines3 looks for it
    import torch
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as error:  # pragma: no cover - depends on what is installed
    raise MissingExtraError(error.name or "stable-baselines3", "train") from error

TENSORBOARD = "tensorboard"

THREADS = 1
"""Threads of torch: with layers this small a second one made training slower (experiments/LOG.md)."""

NOISE_SEED = {Part.VALIDATION: 11, Part.TEST: 12}
"""Seeds of the noise of evaluations."""


@dataclass(frozen=True)
class Progress:
    """A training after a rollout.

    Attributes:
        steps, total: Done and wanted.
        steps_per_s: Since this process began to train.
        success, ratio: Of the training episodes since the last evaluation, see `Evaluation`; not a
            number before the first.
        left_s: Expected seconds until the end.
    """

    steps: int
    total: int
    steps_per_s: float
    success: float
    ratio: float
    left_s: float


class Display(Protocol):
    """Who shows a training."""

    def sampled(self, what: str, done: int, total: int) -> None:
        """So many jobs are ready."""

    def stepped(self, progress: Progress) -> None:
        """A rollout ended."""

    def evaluated(self, evaluation: Evaluation, kept: bool) -> None:
        """A policy was evaluated, and kept as the best so far or not."""


@dataclass(frozen=True)
class Jobs:
    """Jobs of a training, as tables; see `Part`.

    Attributes:
        training, validation: Of the family and, in the share of the recipe, near recorded runs.
        test: Of the family.
        near: Test jobs near recorded runs; None if there are none.
    """

    training: Pool
    validation: Pool
    test: Pool
    near: Pool | None = None


def sample_training(recipe: Recipe, display: Display, fitted: Sequence[FittedJob] = ()) -> Jobs:
    """Samples the jobs of a recipe.

    Args:
        recipe: How many of what.
        display: Shows the progress.
        fitted: The recorded jobs; those of a recipe without `runs` are none.

    Raises:
        SirenError: The scenario does not exist, or holds no job, or none is near the recorded ones.
    """
    scenario, wanted = load_scenario(recipe.scenario), recipe.evaluation
    family: Source = functools.partial(sample_jobs, scenario)

    def sampled(source: Source, part: Part, seed: int, count: int, what: str = "") -> Pool:
        def tell(done: int) -> None:
            display.sampled(f"{part.name.lower()}{what}", done, count)

        return sample_pool(source, part, seed, count, tell)

    if recipe.runs is None:
        return Jobs(
            sampled(family, Part.TRAINING, recipe.seed, recipe.jobs),
            sampled(family, Part.VALIDATION, 0, wanted.jobs),
            sampled(family, Part.TEST, 0, wanted.test_jobs),
        )
    share, near = recipe.runs.share, Neighbourhood(tuple(fitted), scenario.goal, recipe.runs.spread)

    def mixed(part: Part, seed: int, count: int) -> Pool:
        around = round(share * count)
        pools = [
            sampled(source, part, seed, some, what)
            for source, some, what in ((family, count - around, ""), (near, around, " (near the runs)"))
            if some
        ]
        return joined(pools)

    return Jobs(
        mixed(Part.TRAINING, recipe.seed, recipe.jobs),
        mixed(Part.VALIDATION, 0, wanted.jobs),
        sampled(family, Part.TEST, 0, wanted.test_jobs),
        sampled(near, Part.TEST, 0, wanted.test_jobs, " (near the runs)"),
    )


def start_network(recipe: Recipe) -> Network:
    """The network that a recipe's training starts from.

    Raises:
        UnknownNameError, AgentError: See `AgentPolicy.load`.
    """
    return load_network(agent_folder(recipe.start))[0]


def make_environment(recipe: Recipe, pool: Pool, seed: int) -> VecEnv:
    """The environments that a learner sees."""
    env: VecEnv = HspVecEnv(pool, recipe.optimiser.environments, seed, recipe.observation)
    if recipe.observation == "siren":
        return ScaledState(env)
    return HeldActions(FailureReturn(env, recipe.failure_ratio), recipe.network.hold)


def export(recipe: Recipe, learner: BaseAlgorithm) -> Network:
    """The learner's policy as it is shipped."""
    return network_of(learner, recipe.network.hold if recipe.observation == "default" else (0.0, 0.0))


class Judge:
    """Plays jobs with networks and compares them with the reference action.

    Args:
        recipe: What the networks see, and how often they play.
        pool: The jobs.
        part: What the jobs are for.
    """

    def __init__(self, recipe: Recipe, pool: Pool, part: Part) -> None:
        self._siren, self._repeats = recipe.observation == "siren", recipe.evaluation.repeats
        self._pool, self._seed = pool, NOISE_SEED[part]
        self._reference = play_reference(pool, self._repeats, self._seed)

    def compare(self, network: Network) -> Comparison:
        """The network on all jobs."""
        return compare(self._play(network), self._reference)

    def compare_by_rule(self, network: Network) -> Iterator[tuple[str, Comparison]]:
        """The network on all jobs, on those under each batch rule, and under additive updates or not."""
        episodes, facts = self._play(network), self._pool.facts
        split, adds = facts[:, Fact.SPLIT] > 0, facts[:, Fact.ADDS] > 0
        groups = (
            ("all jobs", np.ones(len(facts), np.bool_)),
            ("split batches", split),
            ("constant batches", ~split),
            ("additive updates", adds),
            ("other updates", ~adds),
        )
        for name, which in groups:
            if which.any():
                yield name, compare(episodes, self._reference, which)

    def _play(self, network: Network) -> Episodes:
        act = acting(network)
        chosen: Act = (lambda seen, running: act(scaled(seen), running)) if self._siren else act
        return play(self._pool, chosen, self._repeats, self._seed, self._siren)


def train(
    recipe: Recipe, folder: Path, jobs: Jobs, display: Display, resumed: Checkpoint | None = None
) -> Record:
    """Trains until the recipe's steps are done; the folder holds the best policy at any time.

    Args:
        recipe: What to train.
        folder: The agent folder, which exists.
        jobs: See `sample_training`.
        display: Shows the progress.
        resumed: The checkpoint to go on from, see `read_checkpoint`.

    Raises:
        AgentError: The checkpoint does not fit the recipe.
    """
    torch.set_num_threads(THREADS)
    record, seed = resumed.record if resumed else Record(), recipe.seed
    if resumed:
        # Other noise than at the start: the same jobs in the same order would be seen twice.
        seed = int(np.random.SeedSequence([recipe.seed, record.steps]).generate_state(1)[0])
    learner = make_learner(recipe, make_environment(recipe, jobs.training, seed), seed)
    if resumed:
        load_learner(learner, resumed.learner, record.steps)
    elif recipe.start:
        give_network(learner, start_network(recipe))
    learner.set_logger(Logger(str(folder), [TensorBoardOutputFormat(str(folder / TENSORBOARD))]))
    judge = Judge(recipe, jobs.validation, Part.VALIDATION)
    course = _Course(recipe, folder, judge, record, display)
    try:
        if record.steps < recipe.steps:
            learner.learn(recipe.steps - record.steps, course, log_interval=10, reset_num_timesteps=False)
            course.evaluate()
    finally:
        learner.logger.close()
    return record


class _Course(BaseCallback):
    """Evaluates and saves between rollouts, and tells the display."""

    def __init__(self, recipe: Recipe, folder: Path, judge: Judge, record: Record, display: Display) -> None:
        super().__init__()
        self._recipe, self._folder, self._judge = recipe, folder, judge
        self._record, self._display = record, display
        self._began_s, self._first = time.monotonic() - record.seconds, record.steps
        self._since_s = time.monotonic()
        self._successes: list[bool] = []
        self._ratios: list[float] = []

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "is_success" in info:
                self._successes.append(info["is_success"])
                self._ratios.append(info["time_ratio"] if info["is_success"] else FAILURE_RATIO)
        return True

    def _on_rollout_start(self) -> None:
        if self._recipe.optimiser.warm_up:
            freeze_actor(self.model, self.num_timesteps < self._recipe.optimiser.warm_up)
        done = [evaluation.steps for evaluation in self._record.evaluations]
        if not done or self.num_timesteps >= done[-1] + self._recipe.evaluation.every:
            self.evaluate()
        self._tell()

    def evaluate(self) -> None:
        """Evaluates the present policy and writes a checkpoint."""
        record, network = self._record, export(self._recipe, self.model)
        record.steps, record.seconds = self.num_timesteps, time.monotonic() - self._began_s
        found, (success, ratio) = self._judge.compare(network), self._training()
        evaluation = Evaluation(
            steps=record.steps,
            seconds=record.seconds,
            speedup=found.speedup,
            low=found.low,
            high=found.high,
            success=found.success,
            reference_success=found.reference_success,
            training_success=success,
            training_ratio=ratio,
        )
        kept = record.add(evaluation, network)
        write_checkpoint(self._folder, Checkpoint(record, save_learner(self.model)))
        if kept:
            save_agent(self._folder, self._recipe, network, {"validation_speedup": found.speedup})
        write_evaluations(self._folder, record.evaluations)
        for name in ("speedup", "success", "training_success", "training_ratio"):
            self.logger.record(f"siren/{name}", getattr(evaluation, name))
        self.logger.dump(self.num_timesteps)
        self._successes.clear()
        self._ratios.clear()
        self._display.evaluated(evaluation, kept)

    def _training(self) -> tuple[float, float]:
        if not self._ratios:
            return float("nan"), float("nan")
        return float(np.mean(self._successes)), float(np.mean(self._ratios))

    def _tell(self) -> None:
        steps, total = self.num_timesteps, self._recipe.steps
        rate = (steps - self._first) / max(time.monotonic() - self._since_s, 1e-9)
        left_s = (total - steps) / rate if rate > 0 else float("nan")
        self._display.stepped(Progress(steps, total, rate, *self._training(), left_s))


def save_agent(folder: Path, recipe: Recipe, network: Network, facts: dict[str, Any]) -> None:
    """Writes the policy with what its numbers mean and where they come from.

    An agent of the paper's observation names that observation, and is refused by `load_network`.
    """
    spaces, facts = Spaces(), {**facts, "algorithm": str(recipe.algorithm), "seed": recipe.seed}
    if recipe.observation == "siren":
        spaces = Spaces(observation=SIREN_NAMES, functions_span=0.0, memory_span=0.0)
        facts |= {"scaling": SCALING, "actions": "linear from the least to the most, as in the paper"}
    save_network(folder, network, spaces, facts)
