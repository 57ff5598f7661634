import numpy as np
import pytest

from siren.simulator.sampling import sample_jobs
from siren.simulator.scenarios import load_scenario
from siren.simulator.tables import pool_of


@pytest.fixture(scope="session")
def jobs():
    """Jobs of the family, in all worlds."""
    return sample_jobs(load_scenario("family-2026"), 12, seed=7)


@pytest.fixture(scope="session")
def fitted_jobs():
    return sample_jobs(load_scenario("fitted-2026"), 6, seed=7)


@pytest.fixture(scope="session")
def pool(jobs):
    return pool_of(jobs)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
