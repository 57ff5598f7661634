"""What conditional writes promise on a real server, and what a store without them is told."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from botocore.exceptions import ClientError, FlexibleChecksumError, ReadTimeoutError
from botocore.hooks import HierarchicalEmitter

from siren.channels.base import ChannelProperties, StoreError
from siren.channels.objects import Origin, start_object
from siren.channels.probe import probe_store
from siren.channels.redis import RedisModel
from siren.channels.s3 import READ_ATTEMPTS, ObjectStore, RequestsSpentError, S3Model, s3_client
from siren.testing.faults.store import FaultyStore, StoreFault
from siren.worker.messages import MessageError
from tests.worker.servers import BUCKET, client_of, together

ORIGIN = Origin("races", 1, 0, 50, 4)


class Lenient:
    """An S3 client whose server ignores some conditions, as several do."""

    def __init__(self, ignores):
        self.ignores = ignores
        self.objects = {}
        self.count = 0
        self.meta = SimpleNamespace(events=HierarchicalEmitter())

    def put_object(self, Bucket, Key, Body, **condition):
        self.meta.events.emit("before-send.s3.PutObject", request=None)
        etag = self.objects.get(Key, (None, None))[1]
        stale = "IfMatch" in condition and condition["IfMatch"] != etag and "IfMatch" not in self.ignores
        exists = "IfNoneMatch" in condition and etag is not None and "IfNoneMatch" not in self.ignores
        if stale or exists:
            raise ClientError(
                {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": {"HTTPStatusCode": 412}},
                "PutObject",
            )
        self.count += 1
        self.objects[Key] = Body, f'"{self.count}"'
        return {"ETag": f'"{self.count}"'}

    def get_object(self, Bucket, Key):
        self.meta.events.emit("before-send.s3.GetObject", request=None)
        if Key not in self.objects:
            raise ClientError({"ResponseMetadata": {"HTTPStatusCode": 404}}, "GetObject")
        body, etag = self.objects[Key]
        return {"Body": io.BytesIO(body), "ETag": etag, "ContentLength": len(body)}


@pytest.fixture
def store(s3_url):
    return ObjectStore(client_of(s3_url), BUCKET, ("runs/races/",))


def test_the_server_of_the_tests_enforces_conditions(store):
    properties = probe_store(store, "runs/races/probe")
    assert properties.compare_and_swap
    properties.require("cas", 4_000_000)


@pytest.mark.parametrize("ignored", ["IfMatch", "IfNoneMatch"])
def test_a_store_that_accepts_a_stale_write_is_refused_for_cas(ignored):
    properties = probe_store(ObjectStore(Lenient({ignored}), BUCKET, ("p/",)), "p/probe")
    assert not properties.compare_and_swap
    with pytest.raises(StoreError, match="older version"):
        properties.require("cas", 100)
    properties.require("average", 100)
    assert probe_store(ObjectStore(Lenient(set()), BUCKET, ("p/",)), "p/probe").compare_and_swap


class Forgetful(Lenient):
    """Answers to writes get lost, so the client repeats them."""

    def put_object(self, **arguments):
        super().put_object(**arguments)
        return super().put_object(**arguments)


class Closed(Lenient):
    """Refuses every condition."""

    def put_object(self, Bucket, Key, Body, **condition):
        return super().put_object(Bucket, Key, Body, IfMatch="never")


def test_a_store_whose_answers_get_lost_is_not_taken_for_one_that_refuses():
    assert probe_store(ObjectStore(Forgetful(set()), BUCKET, ("p/",)), "p/probe").compare_and_swap
    assert not probe_store(ObjectStore(Forgetful({"IfMatch"}), BUCKET, ("p/",)), "p/probe").compare_and_swap
    with pytest.raises(StoreError, match="use another S3 server"):
        probe_store(ObjectStore(Closed(set()), BUCKET, ("p/",)), "p/probe")


def test_what_a_channel_cannot_carry_is_refused():
    with pytest.raises(StoreError, match="choose the channel redis"):
        S3Model.properties.require("additive", 100)
    RedisModel.properties.require("staleness", 100)
    with pytest.raises(StoreError, match="536,870,912"):
        RedisModel.properties.require("additive", 536_870_913)
    assert ChannelProperties(True, True, 8).max_bytes == 8


def test_racing_workers_all_swap_in_their_updates(store):
    store.put("runs/races/model.npz", start_object(ORIGIN, np.zeros(50, np.float32)))

    def worker(number):
        model, retries = S3Model(store, ORIGIN, "runs/races/model.npz"), 0
        for index in range(10):
            while True:
                read = model.get()
                push = model.swap(number, index, read, read.params + 1)
                if push.applied:
                    break
                assert push.conflict
                retries += 1
        return retries

    retries = together([lambda i=i: worker(i) for i in range(4)])
    found = S3Model(store, ORIGIN, "runs/races/model.npz").get()
    assert (found.version, found.contained, found.applied.tolist()) == (40, 40, [10] * 4)
    np.testing.assert_array_equal(found.params, 40)
    assert sum(retries) > 0
    assert store.puts == 41 + sum(retries)


def test_a_missing_or_foreign_object_is_refused(store):
    assert store.get("runs/races/nothing", 10) is None
    with pytest.raises(StoreError, match="is missing"):
        S3Model(store, ORIGIN, "runs/races/nothing").get()
    assert store.put("runs/races/nothing", b"x", if_match='"abc"') is None
    store.put("runs/races/big", b"0" * 100)
    with pytest.raises(MessageError, match="at most 10"):
        store.get("runs/races/big", 10)
    assert store.get_range("runs/races/big", 98, 2) == b"00"
    with pytest.raises(MessageError, match="stage the training set again"):
        store.get_range("runs/races/big", 98, 4)


@pytest.mark.parametrize(
    "key", ["runs/other/x", "runs/races/../other/x", "runs/races//x", "runs/races/.x", "", "runs/races/a b"]
)
def test_a_key_outside_the_run_is_refused(store, key):
    with pytest.raises(MessageError, match="touches only its own"):
        store.get(key, 10)
    with pytest.raises(MessageError, match="touches only its own"):
        store.put(key, b"")


class Breaking(Lenient):
    """Bodies break off, or arrive changed, a few times."""

    left = 0
    error = ReadTimeoutError(endpoint_url="http://127.0.0.1")

    def get_object(self, **arguments):
        answer = super().get_object(**arguments)
        if self.left:
            self.left -= 1

            def read():
                raise self.error

            answer["Body"].read = read
        return answer


@pytest.mark.parametrize("error", [Breaking.error, FlexibleChecksumError(error_msg="another checksum")])
def test_a_body_that_breaks_off_or_arrives_changed_is_read_again(monkeypatch, error):
    monkeypatch.setattr("siren.channels.s3.time.sleep", lambda seconds: None)

    class Body(io.BytesIO):
        pass

    client = Breaking(set())
    client.error = error
    monkeypatch.setattr("tests.channels.test_s3.io.BytesIO", Body)
    store = ObjectStore(client, BUCKET, ("p/",))
    store.put("p/x", b"1")
    client.left = READ_ATTEMPTS - 1
    assert store.get("p/x", 10).body == b"1"
    assert store.gets == READ_ATTEMPTS
    client.left = READ_ATTEMPTS
    with pytest.raises(type(error)):
        store.get("p/x", 10)


# --- how often it is asked -------------------------------------------------------------------------


@pytest.fixture
def faulty(s3_url, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    with FaultyStore(s3_url) as faulty:
        yield faulty


def test_requests_that_the_client_repeats_are_counted(faulty):
    store = ObjectStore(s3_client("us-east-1", faulty.url), BUCKET, ("runs/races/",))
    refused = faulty.inject(StoreFault("503", every=3))
    broken = faulty.inject(StoreFault("reset done", method="PUT", every=4))
    cut = faulty.inject(StoreFault("cut", method="GET", every=5))
    for number in range(10):
        assert store.put(f"runs/races/counted-{number}", b"12345678")
        assert store.get(f"runs/races/counted-{number}", 8).body == b"12345678"
    assert min(refused.injected, broken.injected, cut.injected) > 1
    assert {"PUT": store.puts, "GET": store.gets} == dict(faulty.seen)
    assert store.puts > 10


def test_a_store_is_not_asked_more_often_than_it_may_be(faulty):
    client = s3_client("us-east-1", faulty.url)
    store = ObjectStore(client, BUCKET, ("runs/races/",), puts_max=4, gets_max=2)
    store.put("runs/races/limited", b"1")
    assert not store.spent
    faulty.inject(StoreFault("503"))
    with pytest.raises(RequestsSpentError, match=r"asked 4 times \(puts\)"):
        store.put("runs/races/limited", b"2")
    assert store.spent
    assert (store.puts, store.gets, dict(faulty.seen)) == (4, 0, {"PUT": 4})
    faulty.clear()
    assert ObjectStore(client, BUCKET, ("runs/races/",)).get("runs/races/limited", 1).body == b"1"
