"""Warm environments: who starts cold, who holds its shard, and how fast new ones may start."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.twin.environments import Environments
from siren.worlds import load_world

START = load_world("aws-2026").start
VERSION = (512, 30)
A, B, C, D = ((low, 10) for low in (0, 10, 20, 30))


def environments(**changes) -> Environments:
    return Environments(START.model_copy(update=changes))


def epoch(pool: Environments, shards, begun_s, ended_s, killed=(), version=VERSION):
    placement = pool.place(version, list(shards), begun_s)
    pool.release(version, list(shards), ended_s, set(killed))
    return placement


def test_first_functions_start_cold_and_load_their_shards():
    placement = epoch(environments(), [A, B, C], 0, 10)
    assert placement.cold.all()
    assert placement.load.all()


def test_functions_of_the_same_shards_find_them_warm_and_loaded():
    pool = environments()
    epoch(pool, [A, B, C], 0, 10)
    placement = epoch(pool, [A, B, C], 20, 30)
    assert not placement.cold.any()
    assert not placement.load.any()


def test_a_warm_environment_of_another_shard_is_used_and_loads():
    pool = environments()
    epoch(pool, [A, B], 0, 10)
    placement = epoch(pool, [B, C, D], 20, 30)
    assert placement.cold.tolist().count(True) == 1
    assert placement.load.tolist() == [False, True, True]
    assert sorted(pool.warm(VERSION, 30)) == [B, C, D]


def test_an_environment_is_gone_after_its_keep_alive():
    pool = environments(keep_alive=100.0)
    epoch(pool, [A], 0, 10)
    assert pool.warm(VERSION, 110.0) == [A]
    assert pool.warm(VERSION, 110.1) == []
    assert epoch(pool, [A], 110.1, 120).cold.all()


def test_idle_environments_age_while_others_work():
    pool = environments(keep_alive=100.0)
    epoch(pool, [A, B], 0, 10)
    epoch(pool, [A], 80, 90)
    assert pool.warm(VERSION, 150.0) == [A]


def test_versions_do_not_share_environments():
    pool = environments()
    epoch(pool, [A], 0, 10)
    for other in ((1024, 30), (512, 60)):
        assert pool.warm(other, 20) == []
        assert epoch(pool, [A], 20, 30, version=other).cold.all()


def test_the_environment_of_a_killed_function_is_gone():
    pool = environments()
    epoch(pool, [A, B, C], 0, 10, killed=[B])
    assert sorted(pool.warm(VERSION, 20)) == [A, C]
    placement = epoch(pool, [A, B, C], 20, 30)
    assert placement.cold.tolist() == [False, True, False]


def test_new_environments_above_the_burst_wait_for_the_refill():
    pool = environments(scale_out_burst=3, scale_out_rate=2.0)
    placement = epoch(pool, [(i, 1) for i in range(7)], 0, 10)
    np.testing.assert_allclose(placement.wait_s, [0, 0, 0, 0.5, 1.0, 1.5, 2.0])


def test_the_allowance_refills_up_to_the_burst():
    pool = environments(scale_out_burst=3, scale_out_rate=2.0)
    epoch(pool, [(i, 1) for i in range(3)], 0, 0.5)
    soon = epoch(pool, [(i, 1) for i in range(3, 9)], 0.5, 2)  # three warm ones, three new, one allowed
    np.testing.assert_allclose(np.sort(soon.wait_s), [0, 0, 0, 0, 0.5, 1.0])
    late = epoch(pool, [(i, 1) for i in range(100, 110)], 1000, 1001)
    np.testing.assert_allclose(np.sort(late.wait_s)[-7:], np.arange(1, 8) / 2)


def test_warm_functions_never_wait():
    pool = environments(scale_out_burst=1, scale_out_rate=0.1)
    epoch(pool, [A, B, C], 0, 30)
    assert epoch(pool, [A, B, C], 31, 40).wait_s.max() == 0


steps = st.lists(
    st.tuples(
        st.sampled_from([(512, 30), (1024, 30)]),
        st.integers(1, 12),
        st.integers(0, 5),
        st.floats(0, 400),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=6,
)


def play(pool: Environments, plays, clock_s=0.0):
    """Runs epochs of (version, functions, first shard, pause, killed); returns placements and the clock."""
    placements = []
    for version, n, first, pause_s, dead in plays:
        clock_s += pause_s
        shards = [((first + i) * 10, 10) for i in range(n)]
        placements.append(epoch(pool, shards, clock_s, clock_s + 5, shards[:dead], version))
        clock_s += 5
    return placements, clock_s


@given(steps)
def test_every_function_is_cold_or_warm_and_holds_its_shard_only_if_warm(plays):
    pool, clock_s = environments(), 0.0
    for version, n, first, pause_s, dead in plays:
        clock_s += pause_s
        shards = [((first + i) * 10, 10) for i in range(n)]
        held = pool.warm(version, clock_s)
        placement = epoch(pool, shards, clock_s, clock_s + 5, shards[:dead], version)
        clock_s += 5
        assert placement.cold.sum() == max(0, n - len(held))
        assert (placement.load | ~placement.cold).all()
        np.testing.assert_array_equal(~placement.load, [s in held for s in shards])
        alive = pool.warm(version, clock_s)
        assert len(alive) == len(set(alive)) <= max(n, len(held)) - min(dead, n)  # idle ones may expire
        assert set(shards[dead:]) <= set(alive)


@given(steps, steps)
def test_saving_and_restoring_changes_nothing(before, after):
    pool = environments(scale_out_burst=4, scale_out_rate=0.5)
    _, clock_s = play(pool, before)
    table, scalars = pool.save()
    other = environments(scale_out_burst=4, scale_out_rate=0.5)
    other.restore(table.copy(), dict(scalars))
    for version in ((512, 30), (1024, 30)):
        assert other.warm(version, clock_s) == pool.warm(version, clock_s)
    for mine, others in zip(play(pool, after, clock_s)[0], play(other, after, clock_s)[0], strict=True):
        for a, b in zip(mine, others, strict=True):
            np.testing.assert_array_equal(a, b)


def test_restoring_forgets_what_was_there():
    pool, empty = environments(), environments()
    epoch(pool, [A, B], 0, 10)
    pool.restore(*empty.save())
    assert pool.warm(VERSION, 10) == []


@pytest.mark.parametrize("wait", [0.0, 299.0])
def test_warm_environments_keep_within_their_keep_alive(wait):
    pool = environments(keep_alive=300.0)
    epoch(pool, [A], 0, 10)
    assert not epoch(pool, [A], 10 + wait, 400).cold.any()
