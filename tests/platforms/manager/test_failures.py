"""What a function's error means, in Lambda's words of different years."""

from __future__ import annotations

import json

import pytest

from siren.platforms.manager.failures import Cause, failure_of
from siren.platforms.manager.report_line import Report


def report(max_memory_mb: int = 40, status: str = "") -> Report:
    return Report("id", 1.0, 1, 128, max_memory_mb, 0.0, status)


def error(kind: str, message: str = "", trace: list[str] | None = None) -> bytes:
    return json.dumps({"errorType": kind, "errorMessage": message, "stackTrace": trace or []}).encode()


MODEL = [
    '  File "/var/task/siren/worker/loop.py", line 9, in run\n',
    '  File "/var/task/workload/model.py", line 3',
]
WORKER = ['  File "/var/task/siren/worker/loop.py", line 9, in run\n']


@pytest.mark.parametrize(
    ("payload", "told", "cause"),
    [
        (error("Runtime.OutOfMemory", "signal: killed"), report(), Cause.MEMORY),
        (error("Runtime.ExitError", "signal: killed"), report(128), Cause.MEMORY),
        (error("Runtime.ExitError", "signal: killed"), report(127), Cause.KILLED),
        (error("Runtime.ExitError", "exit status 1"), None, Cause.KILLED),
        (error("MemoryError", "", MODEL), report(), Cause.MEMORY),
        (error("", "2026-11-22T10:00:00.000Z 8f50 Task timed out after 3.00 seconds"), None, Cause.TIMEOUT),
        (error("Sandbox.Timedout", "Error: Task timed out after 3.00 seconds"), report(), Cause.TIMEOUT),
        (error("", ""), report(status="timeout"), Cause.TIMEOUT),
        (error("ClientError", "SlowDown", WORKER), report(), Cause.STORE),
        (error("ReadTimeoutError", "", WORKER), report(), Cause.STORE),
        (error("StoreBusyError", "busy", WORKER), report(), Cause.STORE),
        (error("StoreError", "no room", WORKER), report(), Cause.WORKER),
        (error("ZeroDivisionError", "division by zero", MODEL), report(), Cause.MODEL),
        (error("ZeroDivisionError", "division by zero", WORKER), report(), Cause.WORKER),
        (error("MessageError", "the task lacks 'rate'", WORKER), report(), Cause.WORKER),
        (b"\xff", report(), Cause.WORKER),
        (b"[]", report(), Cause.WORKER),
    ],
)
def test_the_cause_is_found(payload: bytes, told: Report | None, cause: Cause):
    assert failure_of(payload, told, 128).cause is cause


def test_only_what_may_pass_is_repeated():
    assert {cause for cause in Cause if cause.repeatable} == {Cause.TIMEOUT, Cause.KILLED, Cause.STORE}


def test_the_detail_is_one_short_line():
    failure = failure_of(error("ValueError", "a\nb" * 1000), None, 128)
    assert failure.detail.startswith("ValueError: a b")
    assert len(failure.detail) <= 400
    assert "\n" not in failure.detail
