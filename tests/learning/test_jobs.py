import functools

import numpy as np
import pytest

from siren.learning import jobs as learning_jobs
from siren.learning.episodes import play
from siren.learning.jobs import Part, joined, sample_pool
from siren.simulator.sampling import sample_jobs
from siren.simulator.scenarios import load_scenario
from siren.simulator.tables import pool_of

FAMILY = functools.partial(sample_jobs, load_scenario("family-2026"))


def test_joined_pools_play_as_their_parts(jobs):
    """Worlds differ in their memory sizes, so that tables are padded."""
    parts, together = [pool_of(jobs[:1]), pool_of(jobs[1:2])], pool_of(jobs[:2])
    whole = joined(parts)
    for name, expected in together._asdict().items():
        found = getattr(whole, name)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
    actions = np.array([[0.8, -0.7], [-0.5, 0.9]], np.float32)
    played = [play(pool, lambda seen, _: actions, 1, seed=2) for pool in (whole, together)]
    np.testing.assert_array_equal(played[0].time_ratio, played[1].time_ratio)


def test_parts_share_no_job_and_seeds_repeat_them(monkeypatch):
    monkeypatch.setattr(learning_jobs, "CHUNK", 2)
    told = []
    first = sample_pool(FAMILY, Part.TRAINING, 0, 3, told.append)
    again = sample_pool(FAMILY, Part.TRAINING, 0, 2)
    other = sample_pool(FAMILY, Part.VALIDATION, 0, 2)
    assert told == [2, 3]
    np.testing.assert_array_equal(first.facts[:2], again.facts)
    assert not np.isin(other.facts[:, 0], first.facts[:, 0]).any()


@pytest.mark.parametrize("count", [1, 3])
def test_a_pool_has_as_many_jobs_as_wanted(count):
    assert len(sample_pool(FAMILY, Part.TEST, 0, count).facts) == count


def test_other_processes_sample_the_same_jobs(monkeypatch):
    monkeypatch.setattr(learning_jobs, "CHUNK", 1)
    alone = sample_pool(FAMILY, Part.TRAINING, 0, 2)
    monkeypatch.setattr(learning_jobs, "WORTH_PROCESSES", 2)
    monkeypatch.setattr(learning_jobs.os, "cpu_count", lambda: 2)
    together = sample_pool(FAMILY, Part.TRAINING, 0, 2)
    for name, expected in alone._asdict().items():
        np.testing.assert_array_equal(getattr(together, name), expected)
