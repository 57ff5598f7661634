"""A worker stops itself before its deadline and goes on where it was."""

from __future__ import annotations

import numpy as np
import pytest

from siren.channels.s3 import S3Model
from siren.worker import handler
from siren.worker.messages import RULES
from siren.worker.outcome import epoch_outcome
from siren.worker.progress import MARGIN_S, Deadline
from tests.worker.servers import make_cluster, together

PAIRS = [(rule, channel) for channel in sorted(RULES) for rule in sorted(RULES[channel])]


class AfterTwoPushes(Deadline):
    """Comes when two pushes are done, however fast the machine is."""

    begun = 0

    def near(self, push_s: float = -1.0) -> bool:
        if push_s < 0:
            return super().near()
        self.begun += 1
        return self.begun > 2


@pytest.mark.parametrize(("rule", "channel"), PAIRS)
def test_attempts_that_are_too_short_add_up_to_the_whole_epoch(monkeypatch, s3_url, redis_url, rule, channel):
    url = redis_url if channel == "redis" else None
    cluster, calm = (make_cluster(s3_url, url, rule, 2, samples=120) for _ in range(2))
    once = calm.run_all() if rule == "sync" else [calm.run(0), calm.run(1)]
    monkeypatch.setattr(handler, "Deadline", AfterTwoPushes)

    def to_the_end(worker):
        position, stops = 0, []
        for attempt in range(12):
            status = cluster.run(worker, attempt=attempt, position=position)
            position = status.position
            stops.append((status.state, position))
            if status.state == "done":
                assert stops == [("unfinished", 2), ("unfinished", 4), ("done", 6)]
                return status
        raise AssertionError(stops)

    calls = [lambda: to_the_end(0), lambda: to_the_end(1)]
    statuses = together(calls) if rule == "sync" else [call() for call in calls]
    outcome = epoch_outcome(cluster.store, cluster.tasks[0], statuses)
    expected = epoch_outcome(calm.store, calm.tasks[0], once)
    np.testing.assert_allclose(outcome.params, expected.params, rtol=3e-6, atol=3e-7)
    assert (outcome.pushes, outcome.lost) == (12, 0)


@pytest.mark.parametrize(("rule", "channel"), PAIRS)
def test_without_time_nothing_is_pushed(s3_url, redis_url, rule, channel):
    cluster = make_cluster(s3_url, redis_url if channel == "redis" else None, rule, 2)
    status = cluster.run(0, deadline_s=0.0)
    assert (status.state, status.position, status.pushes) == ("unfinished", 0, 0)


@pytest.mark.parametrize("channel", ["s3", "redis"])
def test_a_function_does_not_wait_longer_at_a_barrier_than_it_has(s3_url, redis_url, channel):
    cluster = make_cluster(s3_url, redis_url if channel == "redis" else None, "sync", 2)
    status = cluster.run(1, deadline_s=1.0)
    assert (status.state, status.position, status.pushes) == ("unfinished", 0, 1)


@pytest.mark.parametrize("rule", ["overwrite", "cas"])
def test_a_function_stops_when_it_has_asked_s3_as_often_as_it_may_and_goes_on(s3_url, rule):
    cluster = make_cluster(s3_url, None, rule, 1)
    quota = len(cluster.tasks[0].batches)
    first = cluster.run(0, s3_puts=2)
    assert (first.state, first.position, first.pushes, first.s3_puts) == ("unfinished", 2, 2, 2)
    second = cluster.run(0, attempt=1, position=2, s3_puts=quota)
    assert (second.state, second.position, second.pushes) == ("done", quota, quota - 2)
    assert epoch_outcome(cluster.store, cluster.tasks[0], [second]).pushes == quota


def test_retries_of_compare_and_swap_end_with_the_requests_that_are_set_aside(monkeypatch, s3_url):
    def always_conflicting(model, worker, index, read, params):
        return swap(model, worker, index, read._replace(token='"stale"'), params)

    swap = S3Model.swap
    cluster = make_cluster(s3_url, None, "cas", 1)
    monkeypatch.setattr(S3Model, "swap", always_conflicting)
    status = cluster.run(0, s3_puts=5)
    assert (status.state, status.position, status.pushes) == ("unfinished", 0, 0)
    assert (status.s3_puts, status.retries) == (5, 5)


def test_a_barrier_is_asked_no_more_often_than_is_set_aside(s3_url):
    cluster = make_cluster(s3_url, None, "sync", 2)
    status = cluster.run(1, s3_gets=8)
    assert (status.state, status.pushes, status.s3_gets) == ("unfinished", 1, 8)


def test_the_platforms_own_timeout_counts():
    class Context:
        @staticmethod
        def get_remaining_time_in_millis():
            return 1250

    assert 0.9 < Deadline(100.0, Context()).left_s <= 1.0
    assert Deadline(0.5, Context()).left_s <= 0.5
    assert Deadline(MARGIN_S / 2).near()
    assert not Deadline(1.0).near(0.5)
    assert Deadline(1.0).near(0.7)


def test_functions_that_never_end_leave_the_model_of_the_others(s3_url):
    cluster = make_cluster(s3_url, None, "average", 2)
    statuses = [cluster.run(0), cluster.run(1, deadline_s=0.0)]
    assert [s.state for s in statuses] == ["done", "unfinished"]
    outcome = epoch_outcome(cluster.store, cluster.tasks[0], statuses)
    alone = epoch_outcome(cluster.store, cluster.tasks[0], statuses[:1])
    np.testing.assert_array_equal(outcome.params, alone.params)
    assert outcome.pushes == 4
