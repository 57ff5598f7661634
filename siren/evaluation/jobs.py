"""The jobs of an evaluation: named workloads, or the held-out jobs of a generated family."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import siren
from siren.errors import UsageError
from siren.evaluation import seeds
from siren.platforms.base import Platform
from siren.platforms.twin import TwinPlatform
from siren.simulator.job import ActionGrid, SimulatedJob
from siren.simulator.platform import SimulatedPlatform, training_of
from siren.simulator.sampling import costing_of, sample_job
from siren.simulator.scenarios import (
    Scenario,
    SgdScenario,
    load_scenario,
    load_sgd_scenario,
    scenario_names,
)
from siren.simulator.twin_jobs import family_job
from siren.twin.twin import job_of
from siren.types import BatchRule, UpdateRule
from siren.workloads.registry import find_folder, load_workload
from siren.workloads.spec import TrainingSpec
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing

SIMULATOR, TWIN = "simulator", "twin"
PLATFORMS = (SIMULATOR, TWIN)

FAMILY = "family"
"""Stands for the platform's standard family."""

FAMILIES = {SIMULATOR: "family-2026", TWIN: "small-2026"}

MIXED = "mixed"
"""The rule of a cell whose jobs have several."""

DECISIVE = (
    *("hsp", "money", "twin", "workloads", "worlds", "loop.py", "platforms/base.py", "platforms/twin.py"),
    *(f"evaluation/{name}.py" for name in ("baseline", "case", "episode", "jobs", "seeds")),
    *(f"policies/{name}.py" for name in ("base", "fixed")),
    *("simulator/core.py", "simulator/fitted.py", "simulator/job.py", "simulator/platform.py"),
    *("simulator/quadratic.py", "simulator/sampling.py", "simulator/scenarios.py", "simulator/search.py"),
    *("simulator/sensors.py", "simulator/small_models.py", "simulator/tables.py", "simulator/twin_jobs.py"),
)
"""What of Siren's code decides how a job goes under a fixed action, so that other code may change without
that baselines are chosen anew."""


@dataclass(frozen=True)
class JobKey:
    """Which job; enough to build it in any process.

    Attributes:
        platform: `simulator` or `twin`.
        workload: A workload's name or folder, or a scenario's name or file.
        world: A world's name or file.
        batch_rule, update_rule: None for the workload's, or the family's mixture.
        index: Number of a generated job; 0 for a workload.
        generated: Whether it is one of a family.
    """

    platform: str
    workload: str
    world: str
    batch_rule: str | None
    update_rule: str | None
    index: int
    generated: bool


@dataclass(frozen=True)
class EvaluationJob(ABC):
    """A job that can be played any number of times.

    Attributes:
        costing: Laws and prices.
        training: How it trains, with the target that ends it.
        identity: What it is, as JSON; equal for equal jobs only.
        rules: (batch rule, update rule), for the report.
    """

    costing: Costing
    training: TrainingSpec
    identity: dict[str, Any]
    rules: tuple[str, str]

    @abstractmethod
    def platform(self, seed: int) -> Platform:
        """A fresh platform."""


@dataclass(frozen=True)
class JobInSimulator(EvaluationJob):
    """A job of the simulator.

    Attributes:
        job: The job.
    """

    job: SimulatedJob

    def platform(self, seed: int) -> Platform:
        """See `EvaluationJob.platform`."""
        return SimulatedPlatform(self.job, seed)


@dataclass(frozen=True)
class JobInTwin(EvaluationJob):
    """A job of the twin.

    Attributes:
        workload: What it trains.
    """

    workload: Workload

    def platform(self, seed: int) -> Platform:
        """See `EvaluationJob.platform`."""
        return TwinPlatform(self.workload, self.costing, seed)


AnyScenario = TypeVar("AnyScenario", Scenario, SgdScenario)


def keys_of(
    platform: str, workload: str, world: str, rules: tuple[str | None, str | None], jobs: range
) -> list[JobKey]:
    """The jobs that a cell stands for; `jobs` are the numbers of generated ones.

    Raises:
        UsageError: There is no such workload, or it does not go with the platform.
        WorkloadError: Its folder is no workload's.
    """
    batch_rule, update_rule = rules
    name = FAMILIES[platform] if workload == FAMILY else workload
    scenario = _is_scenario(name)
    if platform == SIMULATOR and not scenario:
        raise UsageError(
            f"--workloads {workload}: the simulator plays generated families: choose {FAMILY} or one of "
            f"{', '.join(scenario_names())}, or --platform twin for a workload with its real gradients"
        )
    if scenario:  # an unknown or unfit one is refused now
        (load_scenario if platform == SIMULATOR else load_sgd_scenario)(name)
    else:
        find_folder(name)
    numbers = jobs if scenario else range(1)
    return [JobKey(platform, name, world, batch_rule, update_rule, k, scenario) for k in numbers]


def _is_scenario(name: str) -> bool:
    return name.endswith(".toml") or name in (*scenario_names(), *scenario_names(sgd=True))


@functools.lru_cache(maxsize=4)
def build(key: JobKey) -> EvaluationJob:
    """The job; built anew in every process, and always the same.

    Raises:
        UsageError, WorkloadError, DatasetError: There is no such job.
    """
    if not key.generated:
        return _named(key)
    rng = np.random.default_rng(seeds.job_seed(key.index))
    rules = key.batch_rule or MIXED, key.update_rule or MIXED
    scenario: Scenario | SgdScenario
    if key.platform == SIMULATOR:
        scenario = _restricted(load_scenario(key.workload), key)
        job = sample_job(scenario, rng, key.world)
        identity = _identity(key, job.spec.costing, scenario.model_dump(mode="json"))
        return JobInSimulator(job.spec.costing, training_of(job), identity, rules, job)
    scenario = _restricted(load_sgd_scenario(key.workload), key)
    made = family_job(scenario, rng, key.world)
    training = made.twin.workload.spec.training.model_copy(update={"target_loss": made.spec.target_loss})
    identity = _identity(key, made.spec.costing, scenario.model_dump(mode="json"))
    return JobInTwin(made.spec.costing, training, identity, rules, made.twin.workload)


def _restricted(scenario: AnyScenario, key: JobKey) -> AnyScenario:
    """The family with one rule where the key names one."""
    changes: dict[str, object] = {}
    if key.batch_rule is not None:
        changes["batch_rules"] = {BatchRule(key.batch_rule): 1.0}
    if key.update_rule is not None:
        changes["update_rules"] = {UpdateRule(key.update_rule): 1.0}
    return scenario.model_copy(update=changes)


def _named(key: JobKey) -> EvaluationJob:
    overrides = {"batch_rule": key.batch_rule, "update_rule": key.update_rule}
    workload = load_workload(key.workload, overrides=overrides)
    costing = costing_of(key.world, job_of(workload))
    training = workload.spec.training
    content = {
        "spec": workload.spec.model_dump(mode="json"),
        "model.py": hashlib.sha256((workload.folder / "model.py").read_bytes()).hexdigest(),
        "data": _data_digest(workload),
    }
    rules = str(training.batch_rule), str(training.update_rule)
    return JobInTwin(costing, training, _identity(key, costing, content), rules, workload)


def _data_digest(workload: Workload) -> str:
    digest, data = hashlib.blake2b(), workload.dataset
    for array in (data.train_features, data.train_labels, data.heldout_features, data.heldout_labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _identity(key: JobKey, costing: Costing, content: dict[str, Any]) -> dict[str, Any]:
    world = costing.world.model_dump(mode="json")
    return {"key": dataclasses.asdict(key), "world": world, "content": content}


@functools.cache
def code_digest(parts: tuple[str, ...] = ("",)) -> str:
    """What changes when files of Siren's package do that decide results.

    Args:
        parts: Files and folders of the package; all of it by default.
    """
    package, digest = Path(siren.__file__).parent, hashlib.blake2b(digest_size=16)
    for part in sorted(parts):
        found = (package / part).rglob("*") if (package / part).is_dir() else [package / part]
        for path in sorted(p for p in found if p.suffix in (".py", ".json")):
            digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()


def digest_of(identity: object) -> str:
    """A short name for a JSON value."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def grid_of(job: EvaluationJob) -> ActionGrid:
    """Expectations over every action of the job."""
    return ActionGrid.of(job.costing)
