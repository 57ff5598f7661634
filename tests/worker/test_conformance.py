"""The worker computes what the twin computes: the same rows, order, rates and staleness."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from siren.hsp import rules
from siren.twin import replay
from siren.worker import loop
from siren.worker.messages import RULES
from siren.worker.outcome import epoch_outcome
from tests.worker.servers import Cluster, make_cluster, together

ASYNCHRONOUS = ("overwrite", "additive", "staleness", "cas")
PAIRS = [(rule, channel) for channel in sorted(RULES) for rule in sorted(RULES[channel])]


class Turns:
    """Lets (worker, "get" or "push") happen in a given order only."""

    def __init__(self, order: list[tuple[int, str]]) -> None:
        self._order = order
        self._next = 0
        self._condition = threading.Condition()

    @contextmanager
    def turn(self, worker: int, what: str) -> Iterator[None]:
        with self._condition:
            ok = self._condition.wait_for(lambda: self._order[self._next] == (worker, what), timeout=20)
            assert ok, f"{worker} waits for its {what} while it is the turn of {self._order[self._next]}"
        yield
        with self._condition:
            self._next += 1
            self._condition.notify_all()


def play(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, order: list[tuple[int, str]]) -> list:
    """Runs all workers at once, their reads and pushes in that order."""
    turns, real_run = Turns(order), loop._asynchronous

    def run(work, shared, update):
        real_get, worker = shared.get, work.task.worker

        def get():
            with turns.turn(worker, "get"):
                return real_get()

        def push(read, gradient, index):
            with turns.turn(worker, "push"):
                shared.get = real_get  # what compare-and-swap reads again belongs to this turn
                try:
                    return update(read, gradient, index)
                finally:
                    shared.get = get

        shared.get = get
        try:
            return real_run(work, shared, push)
        finally:
            shared.get = real_get

    monkeypatch.setattr(loop, "_asynchronous", run)
    return cluster.run_all()


def random_order(quota: list[int], seed: int) -> list[tuple[int, str]]:
    """An interleaving of every worker's reads and pushes."""
    rng, left = np.random.default_rng(seed), {i: 2 * n for i, n in enumerate(quota)}
    order = []
    while any(left.values()):
        i = int(rng.choice([i for i, n in left.items() if n]))
        order.append((i, "push" if left[i] % 2 else "get"))
        left[i] -= 1
    return order


def expected_of(cluster: Cluster, order: list[tuple[int, str]]) -> tuple[np.ndarray, list[int], int]:
    """(model, staleness of every push, updates lost) by the twin's own replay."""
    split, task = cluster.split, cluster.tasks[0]
    done, read, push, version = dict.fromkeys(range(task.functions), 0), {}, [], []
    for worker, what in order:
        if what == "get":
            read[worker] = len(push)
        else:
            push.append(int(split.first_push[worker]) + done[worker])
            version.append(read[worker])
            done[worker] += 1
    staleness = np.arange(len(push)) - np.array(version)
    rate = np.full(len(push), task.rate)
    if task.rule == "staleness":
        rate = np.asarray(rules.damped_rate(task.rate, staleness, task.staleness_scale))
    program = replay.plan(np.array(push), np.array(version), rate, task.rule == "overwrite")
    engine = replay.Interpreted(cluster.workload.loss_and_grad)
    sums = replay.empty_sums(task.size)
    params = engine.replay(program, split.first_sample, cluster.rows, cluster.params, sums, 1)
    return params, staleness.tolist(), int(program.lost)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("rule", "channel"), [p for p in PAIRS if p[0] in ASYNCHRONOUS])
def test_any_interleaving_gives_the_model_of_the_twin(monkeypatch, s3_url, redis_url, rule, channel, seed):
    cluster = make_cluster(s3_url, redis_url if channel == "redis" else None, rule)
    order = random_order([len(t.batches) for t in cluster.tasks], seed)
    statuses = play(monkeypatch, cluster, order)
    params, staleness, lost = expected_of(cluster, order)
    outcome = epoch_outcome(cluster.store, cluster.tasks[0], statuses)
    assert {s.state for s in statuses} == {"done"}
    if rule == "staleness":
        np.testing.assert_allclose(outcome.params, params, rtol=2e-6, atol=2e-7)
    else:
        np.testing.assert_array_equal(outcome.params, params)
    assert (outcome.pushes, outcome.lost) == (8, lost)
    if (rule, channel) == ("overwrite", "s3"):
        assert {s.staleness_sum for s in statuses} == {None}
    else:
        assert sum(s.staleness_sum for s in statuses) == sum(staleness)
    if rule == "cas":
        assert sum(s.retries for s in statuses) == np.count_nonzero(staleness)


@pytest.mark.parametrize(("rule", "channel"), PAIRS)
def test_one_function_is_plain_sgd(s3_url, redis_url, rule, channel):
    cluster = make_cluster(s3_url, redis_url if channel == "redis" else None, rule, functions=1)
    status = cluster.run(0)
    params = cluster.params.copy()
    for low, high in zip(cluster.split.first_sample, cluster.split.first_sample[1:], strict=False):
        gradient = cluster.workload.loss_and_grad(params, cluster.rows[low:high])[1]
        rules.step(params, gradient, 0.5, params)
    outcome = epoch_outcome(cluster.store, cluster.tasks[0], [status])
    np.testing.assert_allclose(outcome.params, params, rtol=2e-6, atol=2e-7)
    assert (status.state, status.position, status.pushes, outcome.pushes) == ("done", 8, 8, 8)
    assert status.samples == status.loaded_rows == 80


@pytest.mark.parametrize("batch_rule", ["constant", "split"])
@pytest.mark.parametrize("channel", ["s3", "redis"])
def test_average_is_that_of_the_twin_whoever_ends_first(s3_url, redis_url, channel, batch_rule):
    cluster = make_cluster(
        s3_url, redis_url if channel == "redis" else None, "average", batch_rule=batch_rule, functions=3
    )
    statuses = cluster.run_all()
    split = cluster.split
    expected = replay.replay_average(
        replay.Interpreted(cluster.workload.loss_and_grad),
        np.arange(split.pushes),
        np.full(split.pushes, 0.5),
        split.first_push,
        split.first_sample,
        cluster.rows,
        cluster.params,
        replay.empty_sums(cluster.tasks[0].size),
    )
    outcome = epoch_outcome(cluster.store, cluster.tasks[0], statuses)
    np.testing.assert_allclose(outcome.params, expected, rtol=2e-6, atol=2e-7)
    if channel == "s3":
        np.testing.assert_array_equal(outcome.params, expected)


@pytest.mark.parametrize("batch_rule", ["constant", "split"])
@pytest.mark.parametrize("channel", ["s3", "redis"])
def test_sync_is_that_of_the_twin_whoever_comes_first(s3_url, redis_url, channel, batch_rule):
    cluster = make_cluster(
        s3_url, redis_url if channel == "redis" else None, "sync", batch_rule=batch_rule, functions=3
    )
    statuses = cluster.run_all()
    split = cluster.split
    step = np.concatenate([np.arange(n) for n in np.diff(split.first_push)])
    order = np.argsort(step, kind="stable")
    expected = replay.replay_synchronous(
        replay.Interpreted(cluster.workload.loss_and_grad),
        np.arange(split.pushes)[order],
        step[order],
        np.full(split.pushes, 0.5),
        split.first_sample,
        cluster.rows,
        cluster.params,
        replay.empty_sums(cluster.tasks[0].size),
    )
    outcome = epoch_outcome(cluster.store, cluster.tasks[0], statuses)
    assert {s.state for s in statuses} == {"done"}
    np.testing.assert_allclose(outcome.params, expected, rtol=3e-6, atol=3e-7)
    if channel == "s3":
        np.testing.assert_array_equal(outcome.params, expected)
    assert outcome.pushes == split.pushes


@pytest.mark.parametrize(("rule", "channel"), PAIRS)
def test_concurrent_duplicates_count_every_update_once(s3_url, redis_url, rule, channel):
    url = redis_url if channel == "redis" else None
    cluster = make_cluster(s3_url, url, rule)
    statuses = together([lambda i=i: cluster.run(i) for i in range(3) for _ in range(2)])
    outcome = epoch_outcome(cluster.store, cluster.tasks[0], newest(statuses))
    if outcome is None:
        collected = cluster.run(0, kind="collect", attempt=1)
        outcome = epoch_outcome(cluster.store, cluster.tasks[0], [*newest(statuses), collected])
    assert outcome.pushes == 8
    if rule != "overwrite":
        assert outcome.lost == 0
    if rule in {"additive", "staleness", "cas"}:
        assert sum(s.pushes for s in statuses) == 8
    if rule in {"average", "sync"}:
        alone = make_cluster(s3_url, url, rule)
        once = epoch_outcome(alone.store, alone.tasks[0], alone.run_all())
        np.testing.assert_allclose(outcome.params, once.params, rtol=3e-6, atol=3e-7)


def newest(statuses):
    """One status a worker: that of the duplicate which saw most."""
    return {s.worker: s for s in sorted(statuses, key=lambda s: (bool(s.model_key), s.version))}.values()
