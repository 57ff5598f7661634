"""Each fault happens to the invocations that it is meant for, and is counted."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from siren.errors import PlatformError
from siren.platforms.endpoint.errors import ApiError
from siren.platforms.endpoint.faults import Faults


def injected(endpoint) -> list[int]:
    return [fault["injected"] for fault in endpoint.faults()]


def test_a_fault_lets_some_go_first_and_happens_so_often(endpoint, account, function):
    endpoint.inject("throttle", function=function, after=1, count=2)
    endpoint.inject("throttle", function="another")
    assert account.invoke(function).error is None
    for _ in range(2):
        refused = account.refused(account.client.invoke, FunctionName=function)
        assert (refused["code"], refused["status"]) == ("TooManyRequestsException", 429)
        assert refused["Reason"] == "ConcurrentInvocationLimitExceeded"
        assert refused["retryAfterSeconds"] == "1"
    assert account.invoke(function).error is None
    assert injected(endpoint) == [2, 0]


@pytest.mark.parametrize(("kind", "status"), [("error500", 500), ("error503", 503)])
def test_the_service_fails(endpoint, account, function, kind, status):
    endpoint.inject(kind)
    with pytest.raises(ClientError) as caught:
        account.client.invoke(FunctionName=function)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert account.invoke(function).error is None


def test_a_response_is_lost_after_the_work_was_done(endpoint, account, function):
    calls = account.invoke(function).payload["calls"]
    endpoint.inject("drop_response")
    with pytest.raises(ConnectionClosedError):
        account.invoke(function)
    assert account.invoke(function).payload["calls"] == calls + 2


def test_an_event_is_delivered_twice(endpoint, account, function):
    endpoint.inject("duplicate")
    before = endpoint.about()["started"]
    assert account.invoke(function, "sleep", s=0.5).error is None
    assert endpoint.about()["started"] == before + 1, "both ran at once, in an environment each"
    pids = {account.invoke(function).payload["pid"] for _ in range(3)}
    assert len(pids) == 1


@pytest.mark.parametrize(
    ("kind", "type_", "used"), [("kill", "Runtime.ExitError", False), ("oom", "Runtime.OutOfMemory", True)]
)
def test_a_process_is_killed_in_the_middle(endpoint, account, function, kind, type_, used):
    endpoint.inject(kind, delay_s=0.2)
    began = time.monotonic()
    answer = account.invoke(function, "sleep", s=8)
    assert time.monotonic() - began < 5
    assert answer.payload["errorType"] == "Runtime.ExitError"
    assert "signal: killed" in answer.payload["errorMessage"]
    assert float(answer.report["duration"]) >= 200
    assert f"Error Type: {type_}" in answer.report["rest"]
    assert (answer.report["used"] == answer.report["size"]) == used
    assert account.invoke(function).error is None


def test_an_invocation_is_late(endpoint, account, function):
    endpoint.inject("delay", delay_s=0.3)
    began = time.monotonic()
    answer = account.invoke(function)
    assert time.monotonic() - began >= 0.3
    assert float(answer.report["duration"]) < 300


def test_a_throttled_event_is_run_later(endpoint, account):
    name = account.create()
    endpoint.inject("throttle", function=name)
    account.client.invoke(FunctionName=name, InvocationType="Event", Payload=b'{"do": "echo"}')
    deadline = time.monotonic() + 30
    while account.invoke(name, "count", what="echo").payload["count"] < 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert injected(endpoint) == [1]


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "flood"},
        {"kind": "kill", "when": 3},
        {"kind": "kill", "delay_s": -1},
        {"kind": "kill", "injected": 1},
        {"kind": "kill", "delay_s": "soon"},
    ],
)
def test_what_is_no_fault_is_refused(fault):
    with pytest.raises(ApiError, match="fault"):
        Faults().add(fault)


def test_faults_must_be_allowed(start):
    with start() as (endpoint, _), pytest.raises(PlatformError, match=r"start with --faults"):
        endpoint.inject("kill")


def test_faults_need_the_secret(endpoint):
    request = urllib.request.Request(f"{endpoint.url}/_siren/faults", json.dumps({"kind": "kill"}).encode())
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as error:
        assert error.code == 403
    assert endpoint.faults() == []
