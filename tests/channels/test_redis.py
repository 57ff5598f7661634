"""What the scripts do in a real server."""

from __future__ import annotations

import contextlib
import itertools
import time

import numpy as np
import pytest
from redis.exceptions import ResponseError

from siren.channels import redis as redis_module
from siren.channels.base import StoreBusyError, StoreError
from siren.channels.redis import BLOCK_BYTES, CHUNK, RedisModel, redis_client
from siren.hsp import rules
from siren.worker.messages import MessageError
from tests.worker.servers import together

_runs = itertools.count()


@pytest.fixture
def client(redis_url):
    with redis_client(redis_url) as client:
        yield client


def seeded(client, size, functions=2, seed=0):
    params = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    model = RedisModel(client, f"channel-{next(_runs)}", 1, 0, size, functions)
    model.seed(lambda: params)
    return model, params


@pytest.mark.parametrize(
    "size", [1, CHUNK - 1, CHUNK, CHUNK + 1, BLOCK_BYTES // 4, BLOCK_BYTES // 4 + 3, 5000]
)
def test_adding_rounds_as_numpy_does_at_any_size(client, size):
    model, params = seeded(client, size)
    gradient = np.random.default_rng(1).normal(size=size).astype(np.float32)
    for index in range(3):
        scaled = gradient * np.float32(0.1)
        push = model.add(0, index, index, scaled, 1.0, 0.0)
        assert (push.applied, push.version, push.staleness) == (True, index + 1, 0)
        rules.step(params, gradient.copy(), 0.1, params)
    found = model.get()
    np.testing.assert_array_equal(found.params, params)
    assert (found.version, found.contained, found.applied.tolist()) == (3, 3, [3, 0])


def test_an_epoch_removes_what_the_one_before_left(client):
    run, params = f"channel-{next(_runs)}", np.ones(10, np.float32)

    def keys() -> set[str]:
        return {
            key.decode().rpartition(":")[0].rpartition(":")[2] for key in client.keys(f"siren:{{{run}}}:*")
        }

    other = RedisModel(client, f"channel-{next(_runs)}", 1, 1, 10, 1)
    other.seed(lambda: params)
    for epoch, launch in [(1, 1), (1, 2), (2, 3), (3, 4)]:  # the first one fails and is launched again
        model = RedisModel(client, run, epoch, launch, 10, 1)
        model.seed(lambda: params)
        model.contribute(0, 0, params.copy(), 5, 2, 0.0)
        assert keys() == {f"{epoch}-{launch}"}
    late = RedisModel(client, run, 2, 3, 10, 1)  # a function of an epoch that is over
    late.seed(lambda: params)
    assert keys() == {"2-3", "3-4"}
    assert model.get().version == 1
    assert other.get().version == 0


def test_staleness_damps_the_rate_where_it_is_known(client):
    model, params = seeded(client, 300)
    gradient = np.ones(300, np.float32)
    for index in range(4):
        push = model.add(0, index, 0, gradient, 0.5, 2.0)
        assert push.staleness == index
        rules.step(params, gradient.copy(), rules.damped_rate(0.5, index, 2.0), params)
    np.testing.assert_allclose(model.get().params, params, rtol=1e-6)


def test_a_push_that_was_counted_is_not_counted_again(client):
    model, _ = seeded(client, 10)
    assert model.add(1, 0, 0, np.ones(10, np.float32), 1.0, 0.0).applied
    again = model.add(1, 0, 0, np.ones(10, np.float32), 1.0, 0.0)
    assert (again.applied, again.conflict, again.version) == (False, False, 1)
    assert model.add(0, 0, 1, np.ones(10, np.float32), 1.0, 0.0).applied
    assert model.get().version == 2


def test_overwriting_loses_what_came_between_and_counts_it(client):
    model, params = seeded(client, 10)
    first, second = model.get(), model.get()
    assert model.write(0, 0, first, params + 1).staleness == 0
    assert model.write(1, 0, second, params + 2).staleness == 1
    found = model.get()
    np.testing.assert_array_equal(found.params, params + 2)
    assert (found.version, found.contained, found.applied.tolist()) == (2, 1, [0, 1])


def test_pushes_at_the_same_time_all_count(client, redis_url):
    model, params = seeded(client, 200, functions=4)

    def push(worker):
        with redis_client(redis_url) as own:
            mine = RedisModel(own, model._name.split("{")[1].split("}")[0], 1, 0, 200, 4)
            for index in range(25):
                mine.add(worker, index, mine.get().version, np.ones(200, np.float32), 1.0, 0.0)

    together([lambda i=i: push(i) for i in range(4)])
    found = model.get()
    assert (found.version, found.applied.tolist()) == (100, [25] * 4)
    np.testing.assert_allclose(found.params, params - 100, rtol=1e-5)


def test_only_one_start_is_seeded(client):
    model, params = seeded(client, 10)
    model.seed(lambda: pytest.fail("the model is there"))
    np.testing.assert_array_equal(model.get().params, params)
    assert 0 < client.ttl(model._keys[0]) <= 6 * 3600


def test_a_model_of_another_size_is_refused(client):
    model, _ = seeded(client, 10)
    other = RedisModel(client, model._name.split("{")[1].split("}")[0], 1, 0, 11, 2)
    with pytest.raises(MessageError, match="not a model of 11"):
        other.get()
    with pytest.raises(MessageError, match="not of 11 parameters"):
        other.add(0, 0, 0, np.ones(11, np.float32), 1.0, 0.0)
    with pytest.raises(MessageError, match="not of 11 parameters"):
        other.contribute(0, 0, np.ones(11, np.float32), 5, 2, 0.1)


def test_a_cache_that_forgot_is_noticed(client):
    model, _ = seeded(client, 10)
    model.add(0, 0, 0, np.ones(10, np.float32), 1.0, 0.0)
    client.delete(*model._keys)
    for call in (model.get, model.version, lambda: model.add(0, 1, 1, np.ones(10, np.float32), 1.0, 0.0)):
        with pytest.raises(StoreError, match="noeviction"):
            call()
    model.seed(lambda: np.zeros(10, np.float32))
    with pytest.raises(StoreError, match="noeviction"):
        model.get()


def test_vectors_are_sent_as_they_are(client):
    """hiredis, which would copy them, only reads answers."""
    connection = client.connection_pool.get_connection()
    try:
        vector = memoryview(bytes(10_000))
        assert any(part is vector for part in connection.pack_command("SET", "key", vector))
    finally:
        client.connection_pool.release(connection)


@pytest.mark.parametrize("part", [0, 1])
def test_a_start_of_which_a_part_was_evicted_is_noticed(client, part):
    model, _ = seeded(client, 10)
    client.delete(model._keys[part])
    with pytest.raises(StoreError, match="noeviction"):
        model.seed(lambda: pytest.fail("it cannot be put there while the other part is"))


def test_a_start_that_nobody_brings_is_not_waited_for_for_ever(client, monkeypatch):
    monkeypatch.setattr(redis_module, "SEED_S", 0.05)
    model = RedisModel(client, f"channel-{next(_runs)}", 1, 0, 10, 2)
    client.set(model._lock_key, b"1")
    with pytest.raises(StoreError, match=r"was not in Redis after .*run the epoch again"):
        model.seed(lambda: pytest.fail("another worker loads it"))
    client.delete(model._lock_key)
    model.seed(lambda: np.ones(10, np.float32))
    assert model.get().version == 0


def test_a_start_that_is_not_finite_is_refused_and_a_diverged_model_is_told_apart(client):
    model, _ = seeded(client, 10)
    model.add(0, 0, 0, np.full(10, np.nan, np.float32), 1.0, 0.0)
    with pytest.raises(MessageError, match="training diverged"):
        model.get()
    start = RedisModel(client, "not-finite", 1, 0, 3, 1)
    start.seed(lambda: np.array([0, np.inf, 0], np.float32))
    with pytest.raises(MessageError, match="starts with NaN"):
        start.get()


@contextlib.contextmanager
def configured(client, name, value):
    """The server with another setting."""
    before = client.config_get(name)[name]
    client.config_set(name, value)
    try:
        yield
    finally:
        client.config_set(name, before)


def test_a_server_that_is_busy_with_a_script_is_waited_for(client, redis_url):
    model, params = seeded(client, 10)

    def occupy():
        with redis_client(redis_url) as own:
            own.eval("local x = 0 for i = 1, 1e7 do x = x + i end return 1", 0)

    with configured(client, "busy-reply-threshold", 10):
        together([occupy, *[model.get] * 3])
        assert model.add(0, 0, 0, np.ones(10, np.float32), 1.0, 0.0).applied
    np.testing.assert_array_equal(model.get().params, params - 1)


def test_a_busy_server_is_not_waited_for_beyond_the_callers_time(client, redis_url):
    model, params = seeded(client, 10)
    hurried = RedisModel(client, model._name.split("{")[1].split("}")[0], 1, 0, 10, 2, lambda: 0.2)

    def occupy():
        with redis_client(redis_url) as own, pytest.raises(ResponseError, match="killed"):
            own.eval("while true do end", 0)

    def give_up():
        for _ in range(1000):
            try:
                client.ping()
                time.sleep(0.01)
            except ResponseError:
                break  # the script runs
        try:
            with pytest.raises(StoreBusyError, match=r"busy with scripts until .*run the epoch again"):
                hurried.add(0, 0, 0, np.ones(10, np.float32), 1.0, 0.0)
        finally:
            client.script_kill()

    with configured(client, "busy-reply-threshold", 10):
        together([occupy, give_up])
    np.testing.assert_array_equal(model.get().params, params)


def test_a_full_server_is_an_error_and_nothing_is_half_done(client):
    model, params = seeded(client, 5000)
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with configured(client, "maxmemory", 1):
        for write in (
            lambda: model.add(0, 0, 0, np.ones(5000, np.float32), 1.0, 0.0),
            lambda: model.contribute(0, 0, np.ones(5000, np.float32), 5, 2, 0.1),
            lambda: model.write(0, 0, model.get(), params + 1),
            lambda: RedisModel(client, "full", 1, 0, 5000, 2).seed(lambda: params),
        ):
            with pytest.raises(StoreError, match=r"Redis has no room for .*more memory"):
                write()
        np.testing.assert_array_equal(model.get().params, params)
    assert model.get().version == 0


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_sum_that_was_evicted_is_noticed_by_the_next_contribution(client, rate):
    model, params = seeded(client, 10, functions=3)
    model.contribute(0, 0, np.ones(10, np.float32), 5, 3, rate)
    client.delete(model._keys[2])
    with pytest.raises(StoreError, match="noeviction"):
        model.contribute(1, 0, np.ones(10, np.float32), 5, 3, rate)
    np.testing.assert_array_equal(model.get().params, params)
