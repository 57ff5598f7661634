"""A worker that dies at any request, and is invoked again, counts every update once."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import redis

from siren.worker.environment import Environment
from siren.worker.messages import RULES, Task
from siren.worker.outcome import epoch_outcome
from tests.worker.servers import Cluster, client_of, cold_environment, make_cluster, together

PAIRS = [(rule, channel) for channel in sorted(RULES) for rule in sorted(RULES[channel])]


class Died(BaseException):
    """The process is gone; no code of the worker may catch it."""


class Fuse:
    """Ends the worker when the server has carried out its k-th request.

    To die before the next request leaves the same behind.
    """

    def __init__(self, request: int) -> None:
        self._counted = itertools.count(1)
        self._request = request
        self.blown = False

    def call(self, request: Any) -> Any:
        number = next(self._counted)
        try:
            return request()
        finally:
            if number == self._request:
                self.blown = True
                raise Died


def mortal(task: Task, fuse: Fuse, s3: Any) -> Environment:
    """An environment whose requests pass through the fuse."""

    class Redis(redis.Redis):
        def execute_command(self, *args: Any, **options: Any) -> Any:
            return fuse.call(lambda: super(Redis, self).execute_command(*args, **options))

    class S3:
        meta = s3.meta

        def __getattr__(self, name: str) -> Any:
            return lambda **arguments: fuse.call(lambda: getattr(s3, name)(**arguments))

    environment = Environment()
    environment._s3[task.region, task.s3_url] = S3()
    if task.redis_url:
        environment._redis[task.redis_url] = Redis.from_url(task.redis_url, protocol=2)
    return environment


def finish_after_death(cluster: Cluster, request: int, s3: Any) -> tuple[list, bool]:
    """(statuses, whether it died) when worker 0's first attempt dies at a request."""
    fuse = Fuse(request)

    def first() -> Any:
        try:
            return cluster.run(0, mortal(cluster.tasks[0], fuse, s3))
        except Died:
            return cluster.run(0, attempt=1)

    if cluster.tasks[0].rule == "sync":
        return together([first, lambda: cluster.run(1)]), fuse.blown
    return [first(), cluster.run(1)], fuse.blown


@pytest.mark.parametrize(("rule", "channel"), PAIRS)
def test_a_death_at_any_request_loses_and_doubles_nothing(monkeypatch, s3_url, redis_url, rule, channel):
    monkeypatch.setattr("siren.channels.redis._SEED_LOCK_MS", 50)
    url, s3 = redis_url if channel == "redis" else None, client_of(s3_url)
    alone = make_cluster(s3_url, url, rule, 2, samples=40)
    calm = [alone.run(0), alone.run(1)] if rule != "sync" else alone.run_all()
    expected = epoch_outcome(alone.store, alone.tasks[0], calm)
    request, died = 0, True
    while died:
        request += 1
        cluster = make_cluster(s3_url, url, rule, 2, samples=40)
        statuses, died = finish_after_death(cluster, request, s3)
        outcome = epoch_outcome(cluster.store, cluster.tasks[0], statuses)
        if outcome is None:  # whoever saw the last push died before it said so
            statuses.append(cluster.run(0, kind="collect", attempt=2))
            outcome = epoch_outcome(cluster.store, cluster.tasks[0], statuses)
        np.testing.assert_allclose(outcome.params, expected.params, rtol=3e-6, atol=3e-7)
        assert (outcome.pushes, outcome.lost) == (4, 0)
    assert request > 4


def test_a_lost_model_in_redis_is_noticed(s3_url, redis_url):
    cluster = make_cluster(s3_url, redis_url, "additive", 2)
    task = cluster.tasks[0]
    environment = cold_environment(task)
    client = environment.redis(redis_url)
    first = cluster.run(0, environment)
    client.delete(*client.keys(f"siren:{{{task.run}}}:*"))
    statuses = [first, cluster.run(1)]
    assert epoch_outcome(cluster.store, task, statuses) is None
    statuses.append(cluster.run(0, kind="collect", attempt=1))
    with pytest.raises(RuntimeError, match="the store lost some"):
        epoch_outcome(cluster.store, task, statuses)
