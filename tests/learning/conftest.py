import dataclasses

import numpy as np
import pytest

from siren.learning.recipe import EvaluationSection, NetworkSection, OptimiserSection, Recipe
from siren.simulator.sampling import sample_jobs
from siren.simulator.scenarios import load_scenario
from siren.simulator.tables import pool_of


@pytest.fixture(scope="session")
def tiny():
    """A recipe that is done in a second."""
    return Recipe(
        steps=600,
        jobs=4,
        network=NetworkSection(layers=(8, 8), lstm=8),
        optimiser=OptimiserSection(environments=8, rollout=16, minibatch=64, passes=2, anneal=False),
        evaluation=EvaluationSection(every=200, jobs=4, test_jobs=4, repeats=1),
    )


@pytest.fixture(scope="session")
def jobs():
    return sample_jobs(load_scenario("family-2026"), 6, seed=3)


@pytest.fixture(scope="session")
def pool(jobs):
    return pool_of(jobs)


@pytest.fixture(scope="session")
def misjudged_pool(jobs):
    """Jobs whose budget allows far more functions than their reference has."""
    specs = [
        dataclasses.replace(job.spec, functions_ref=max(1, job.spec.functions_ref // 5), budget_usd=100.0)
        for job in jobs
    ]
    return pool_of([dataclasses.replace(job, spec=spec) for job, spec in zip(jobs, specs, strict=True)])


@pytest.fixture
def rng():
    return np.random.default_rng(0)
