"""The pool of model versions gives what a simulation gives that keeps every version."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.twin import replay
from siren.twin.compiled import Compiled
from tests.twin.jobs import CompiledLogistic, logistic_data

DATA = logistic_data(64, 3)
COMPILED = Compiled(CompiledLogistic.kernel, DATA.train_features, DATA.train_labels)
SIZE = 4
START = np.array([0.5, -0.25, 0.125, 1.0], np.float32)


def bent(params, rows):
    """A gradient that depends on the model and on the push, so that no mix-up goes unseen."""
    return 0.0, np.sin(params * np.float32(3) + rows.astype(np.float32).sum()).astype(np.float32)


@st.composite
def traces(draw):
    total = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    lag = draw(st.sampled_from([0, 1, 3, 50]))
    push = rng.permutation(total).astype(np.int64)
    read = np.array([rng.integers(max(0, k - lag), k + 1) for k in range(total)], np.int64)
    rate = rng.random(total)
    return push, read, rate


def keep_everything(push, read, rate, overwrite, gradient):
    """(final model, updates that it does not contain)."""
    versions, contents = [START], [frozenset()]
    for k, (p, r, eta) in enumerate(zip(push.tolist(), read.tolist(), rate.tolist(), strict=True)):
        g = gradient(versions[r], np.array([p], np.int64))
        base = r if overwrite else k
        versions.append(versions[base] - np.float32(eta) * g)
        contents.append(contents[base] | {k})
    return versions[-1], len(push) - len(contents[-1])


def most_alive(read, overwrite):
    """Most versions that a later update still needs at any time, and the one just written."""
    total = len(read)
    kept = set(range(total))
    if overwrite:
        kept, version = set(), total
        while version > 0:
            kept.add(version - 1)
            version = int(read[version - 1])
    needed = {}
    for k in kept:
        for version in (int(read[k]), int(read[k]) if overwrite else k):
            needed[version] = max(needed.get(version, -1), k)
    most = 0
    for k in sorted(kept):
        written = {0} | {j + 1 for j in kept if j < k}
        most = max(most, sum(v in written and needed[v] >= k for v in needed))
    return most + 1


@given(traces(), st.booleans())
def test_the_pool_gives_what_keeping_every_version_gives(trace, overwrite):
    push, read, rate = trace
    program = replay.plan(push, read, rate, overwrite)
    engine = replay.Interpreted(bent)
    bounds = np.arange(len(push) + 1)
    before = START.copy()
    found = engine.replay(program, bounds, np.arange(len(push)), START, replay.empty_sums(SIZE), 1)
    wanted, lost = keep_everything(push, read, rate, overwrite, lambda p, r: bent(p, r)[1])
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(START, before)
    assert program.lost == lost


@given(traces(), st.booleans())
def test_the_compiled_loop_gives_what_keeping_every_version_gives(trace, overwrite):
    push, read, rate = trace
    program = replay.plan(push, read, rate, overwrite)
    rows, bounds = np.arange(len(push)) % 64, np.arange(len(push) + 1)
    found = COMPILED.replay(program, bounds, rows, START, replay.empty_sums(SIZE), 1)
    wanted, _ = keep_everything(push, read, rate, overwrite, lambda p, r: COMPILED.gradient(p, rows[r]))
    np.testing.assert_array_equal(found, wanted)


@given(traces(), st.booleans())
def test_the_pool_holds_no_more_versions_than_are_still_needed(trace, overwrite):
    push, read, rate = trace
    program = replay.plan(push, read, rate, overwrite)
    assert program.slots <= max(1, most_alive(read, overwrite))
    for column in (program.read, program.base, program.write):
        assert ((column >= 0) & (column < program.slots)).all()


@given(traces())
def test_only_overwriting_loses_updates(trace):
    push, read, rate = trace
    assert replay.plan(push, read, rate, False).lost == 0
    sequential = replay.plan(push, np.arange(len(push)), rate, True)
    assert sequential.lost == 0


@pytest.mark.parametrize("overwrite", [False, True])
def test_functions_that_share_the_first_version_share_its_memory(overwrite):
    n = 3000
    zeros = np.zeros(n, np.int64)
    program = replay.plan(np.arange(n), zeros, np.ones(n), overwrite)
    assert program.slots <= 2
    assert program.lost == (n - 1 if overwrite else 0)


def test_memory_follows_the_versions_in_flight():
    total, lag = 5000, 7
    read = np.maximum(np.arange(total) - lag, 0)
    program = replay.plan(np.arange(total), read, np.ones(total), False)
    assert program.slots == lag + 2  # those that are still to be read, and the one being written


@pytest.mark.parametrize("rule", ["chain", "average", "sync"])
def test_nothing_pushed_leaves_the_model_as_it_was(rule):
    engine, empty = replay.Interpreted(bent), np.empty(0, np.int64)
    sums, rate = replay.empty_sums(SIZE), np.empty(0)
    if rule == "chain":
        found = engine.replay(replay.chain(empty, rate), np.arange(3), np.arange(2), START, sums, 1)
    elif rule == "average":
        found = replay.replay_average(
            engine, empty, rate, np.arange(3), np.arange(3), np.arange(2), START, sums
        )
    else:
        found = replay.replay_synchronous(engine, empty, empty, rate, np.arange(3), np.arange(2), START, sums)
    np.testing.assert_array_equal(found, START)
    assert found is not START


def test_averaging_weighs_each_function_by_its_samples():
    first_push, first_sample = np.array([0, 1, 2]), np.array([0, 1, 4])
    rows = np.array([5, 1, 1, 1])
    engine = replay.Interpreted(lambda p, r: (0.0, np.full(SIZE, r[0], np.float32)))
    found = replay.replay_average(
        engine, np.array([0, 1]), np.ones(2), first_push, first_sample, rows, START, replay.empty_sums(SIZE)
    )
    np.testing.assert_allclose(found, START - (1 * 5 + 3 * 1) / 4, rtol=1e-6)


def test_averaging_leaves_out_functions_that_did_not_push():
    first_push = np.array([0, 2, 4, 6])
    engine = replay.Interpreted(bent)
    arguments = (first_push, np.arange(7), np.arange(6), START)
    push = np.array([4, 5, 0, 1])
    found = replay.replay_average(engine, push, np.full(4, 0.1), *arguments, replay.empty_sums(SIZE))
    each = []
    for mine in ([0, 1], [4, 5]):
        params = START
        for p in mine:
            params = params - np.float32(0.1) * bent(params, np.array([p]))[1]
        each.append(params.astype(np.float64))
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-6)


def test_a_synchronous_step_uses_the_mean_gradient_of_its_samples():
    engine = replay.Interpreted(lambda p, r: (0.0, np.full(SIZE, r.mean(), np.float32)))
    push, step = np.array([0, 2, 1]), np.array([0, 0, 1])
    first_sample, rows = np.array([0, 1, 2, 5]), np.array([8, 100, 2, 2, 2])
    found = replay.replay_synchronous(
        engine, push, step, np.ones(3), first_sample, rows, START, replay.empty_sums(SIZE)
    )
    np.testing.assert_allclose(found, START - (8 + 3 * 2) / 4 - 100, rtol=1e-6)


@given(st.integers(1, 30), st.integers(0, 1000), st.integers(0, 2**32))
def test_every_function_gets_the_rows_of_its_own_shard_in_some_order(n, first_row, seed):
    stored = 300
    bounds = np.unique(np.random.default_rng(seed).integers(0, 200, n + 1))
    bounds -= bounds[0]
    rows = replay.shuffle_shards(bounds, first_row, stored, np.random.default_rng(seed))
    for low, high in itertools.pairwise(bounds):
        wanted = (first_row + np.arange(low, high)) % stored
        np.testing.assert_array_equal(np.sort(rows[low:high]), np.sort(wanted))


def test_rows_are_shuffled_evenly():
    counts = np.zeros((4, 4))
    rng = np.random.default_rng(0)
    for _ in range(4000):
        rows = replay.shuffle_shards(np.array([0, 4]), 0, 4, rng)
        counts[np.arange(4), rows] += 1
    assert np.abs(counts / 4000 - 0.25).max() < 0.03
