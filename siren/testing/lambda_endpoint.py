"""What a Lambda endpoint promises, as tests that run against any of them.

Inherit them to test one:

    from siren.testing.lambda_endpoint import FunctionConformance
    from siren.testing.lambda_target import Target, lambda_client

    class TestMyEndpoint(FunctionConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def target(cls) -> Iterator[Target]:
            with started() as url:
                yield Target(lambda: lambda_client(url, "key", "secret"), runtime="python3.11")

`FunctionConformance` is about invocations; `siren.testing.lambda_account.ControlConformance` about
functions, versions and limits of an account. What an endpoint is known not to do is named in
`Target.not_enforced`, test by test: those tests are run all the same, and must fail.

Needs pytest and boto3.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from siren.testing.lambda_target import (
    ASYNC_BYTES,
    FUNCTION_TIMEOUT_S,
    PATIENCE_S,
    SYNC_BYTES,
    VCPU_MB,
    Account,
    Conformance,
    Target,
)


class FunctionConformance(Conformance):
    """How invocations behave."""

    @pytest.fixture(scope="class")
    @classmethod
    def function(cls, account: Account) -> str:
        """A function that tests share."""
        return account.create()

    def test_an_invocation_answers_with_what_the_function_returns(
        self, account: Account, function: str
    ) -> None:
        """RequestResponse."""
        answer = account.invoke(function, number=1, text="grüß")
        assert (answer.status, answer.error, answer.version) == (200, None, "$LATEST")
        assert answer.payload["event"] == {"do": "echo", "number": 1, "text": "grüß"}

    def test_the_context_tells_function_and_time(self, account: Account, function: str) -> None:
        """What the runtime is told in headers and variables."""
        answer = account.invoke(function, "context", variables=["AWS_LAMBDA_FUNCTION_NAME", "_HANDLER"])
        told = answer.payload
        assert (told["name"], told["version"], told["memory_mb"]) == (function, "$LATEST", 256)
        assert re.fullmatch(rf"arn:aws:lambda:[a-z0-9-]+:\d{{12}}:function:{function}", told["arn"])
        assert 0 < told["left_ms"] <= FUNCTION_TIMEOUT_S * 1000 + 5
        assert told["variables"] == {"AWS_LAMBDA_FUNCTION_NAME": function, "_HANDLER": "app.handler"}

    def test_caller_and_function_see_the_same_request_id(self, account: Account, function: str) -> None:
        """So that a log line can be traced back."""
        answer = account.invoke(function, "context", variables=[])
        assert answer.payload["request_id"] == answer.request_id

    def test_an_environment_is_used_again(self, account: Account, function: str) -> None:
        """Warm reuse, one invocation after the other."""
        first, second = account.invoke(function), account.invoke(function)
        assert first.payload["pid"] == second.payload["pid"]
        assert second.payload["calls"] == first.payload["calls"] + 1

    def test_an_environment_runs_one_invocation_at_a_time(self, account: Account, function: str) -> None:
        """Concurrent invocations have environments of their own."""
        with ThreadPoolExecutor(3) as threads:
            answers = list(threads.map(lambda _: account.invoke(function, "sleep", s=1.5), range(3)))
        assert len({answer.payload["pid"] for answer in answers}) == 3

    def test_an_environment_stands_still_between_invocations(self, account: Account) -> None:
        """Freezing: a thread that notes the time has a pause as long as ours."""
        function = account.create()
        account.invoke(function, "tick")
        time.sleep(0.4)
        assert account.invoke(function, "tick").payload > 0.3

    def test_an_exception_is_told_and_the_environment_kept(self, account: Account, function: str) -> None:
        """FunctionError."""
        before = account.invoke(function)
        answer = account.invoke(function, "fail", message="on purpose")
        assert (answer.status, answer.error) == (200, "Unhandled")
        assert (answer.payload["errorType"], answer.payload["errorMessage"]) == ("ValueError", "on purpose")
        assert "do_fail" in answer.payload["stackTrace"][-1]
        assert account.invoke(function).payload["pid"] == before.payload["pid"]

    @pytest.mark.parametrize("code", [3, 0])
    def test_a_process_that_ends_is_noticed_at_once(self, account: Account, function: str, code: int) -> None:
        """Runtime.ExitError, not at the timeout, and a new environment afterwards."""
        before = account.invoke(function)
        began = time.monotonic()
        answer = account.invoke(function, "exit", code=code)
        assert time.monotonic() - began < FUNCTION_TIMEOUT_S / 2
        assert (answer.error, answer.payload["errorType"]) == ("Unhandled", "Runtime.ExitError")
        assert account.invoke(function).payload["pid"] != before.payload["pid"]

    @pytest.mark.parametrize(("code", "said"), [(3, "exit status 3"), (0, "without providing a reason")])
    def test_how_a_process_ended_is_told(self, account: Account, function: str, code: int, said: str) -> None:
        """In AWS's words."""
        answer = account.invoke(function, "exit", code=code)
        assert answer.payload["errorMessage"].startswith(
            f"RequestId: {answer.request_id} Error: Runtime exited"
        )
        assert said in answer.payload["errorMessage"]

    def test_a_function_is_ended_at_its_timeout(self, account: Account) -> None:
        """Task timed out, and a new environment afterwards."""
        function = account.create(Timeout=1)
        before = account.invoke(function)
        answer = account.invoke(function, "sleep", s=8)
        assert answer.error == "Unhandled"
        assert "Task timed out after 1.00 seconds" in answer.payload["errorMessage"]
        assert account.invoke(function).payload["pid"] != before.payload["pid"]

    def test_a_function_that_takes_too_much_memory_is_killed(self, account: Account) -> None:
        """By the kernel, not by a MemoryError."""
        function = account.create(MemorySize=128, Timeout=60)
        assert account.invoke(function, "allocate", mb=40).payload == 40 << 20
        answer = account.invoke(function, "allocate", mb=200)
        assert (answer.error, answer.payload["errorType"]) == ("Unhandled", "Runtime.ExitError")
        assert "signal: killed" in answer.payload["errorMessage"]
        assert answer.report["used"] == answer.report["size"] == "128"

    def test_cpu_follows_memory(self, account: Account) -> None:
        """1,769 MB are one vCPU: a quarter of it takes at least four times as long, give or take a period."""
        function = account.create(MemorySize=VCPU_MB // 4, Timeout=60)
        assert account.invoke(function, "burn", cpu_s=0.2).payload > 0.2 * 4 * 0.7

    def test_init_errors_fail_the_invocation(self, account: Account) -> None:
        """And say what is missing."""
        answer = account.invoke(account.create("import no_such_module"))
        assert answer.error == "Unhandled"
        assert "no_such_module" in answer.payload["errorMessage"]

    @pytest.mark.parametrize(
        ("kind", "source"),
        [
            ("Runtime.ImportModuleError", "import no_such_module"),
            ("Runtime.HandlerNotFound", "answer = 42"),
            ("Runtime.UserCodeSyntaxError", "def handler(:"),
            ("Runtime.ExitError", "import os; os._exit(5)"),
        ],
        ids=["import", "handler", "syntax", "exit"],
    )
    def test_init_errors_are_told_by_their_type(self, account: Account, kind: str, source: str) -> None:
        """Where the module cannot be imported, or lacks the handler, or ends the process."""
        answer = account.invoke(account.create(source))
        assert (answer.error, answer.payload["errorType"]) == ("Unhandled", kind)

    def test_the_report_line_bills_init_and_duration_once_rounded_up(self, account: Account) -> None:
        """REPORT of a cold start and of a warm one; LogType=Tail."""
        function = account.create()
        cold, warm = account.invoke(function), account.invoke(function)
        assert cold.report["init"], "a cold start has an Init Duration"
        assert warm.report["init"] is None
        for answer in (cold, warm):
            assert f"START RequestId: {answer.request_id} Version: $LATEST" in answer.log
            assert f"END RequestId: {answer.request_id}" in answer.log
            report = answer.report
            assert (report["id"], report["size"]) == (answer.request_id, "256")
            assert 0 < int(report["used"]) < 256
            billed = math.ceil(float(report["duration"]) + float(report["init"] or 0) - 1e-9)
            assert int(report["billed"]) == billed

    def test_a_timeout_is_billed_whole(self, account: Account) -> None:
        """REPORT of a function that was ended."""
        report = account.invoke(account.create(Timeout=1), "sleep", s=8).report
        assert float(report["duration"]) == 1000
        assert int(report["billed"]) == math.ceil(1000 + float(report["init"]) - 1e-9)
        assert "Status: timeout" in report["rest"]

    def test_what_a_function_prints_is_in_its_log(self, account: Account, function: str) -> None:
        """LogType=Tail."""
        assert "x" * 100 in account.invoke(function, "print", characters=100).log

    def test_the_log_is_cut_at_its_beginning(self, account: Account, function: str) -> None:
        """The last 4 KB, so REPORT survives."""
        answer = account.invoke(function, "print", characters=10_000)
        assert len(answer.log.encode()) == 4096
        assert answer.log.startswith("x")
        assert answer.report["size"] == "256"

    def test_no_log_is_told_unless_it_is_asked_for(self, account: Account, function: str) -> None:
        """LogType."""
        assert "LogResult" not in account.client.invoke(FunctionName=function)

    def test_the_report_can_be_json(self, account: Account) -> None:
        """LoggingConfig."""
        function = account.create(LoggingConfig={"LogFormat": "JSON"})
        for cold in (True, False):
            answer = account.invoke(function)
            last = json.loads(answer.log.strip().splitlines()[-1])
            assert last["type"] == "platform.report"
            record = last["record"]
            metrics = record["metrics"]
            assert (record["requestId"], record["status"]) == (answer.request_id, "success")
            assert metrics["memorySizeMB"] == 256
            assert ("initDurationMs" in metrics) == cold
            billed = math.ceil(metrics["durationMs"] + metrics.get("initDurationMs", 0) - 1e-9)
            assert metrics["billedDurationMs"] == billed

    def test_a_dry_run_runs_nothing(self, account: Account, function: str) -> None:
        """DryRun."""
        before = account.invoke(function).payload["calls"]
        response = account.client.invoke(FunctionName=function, InvocationType="DryRun")
        assert response["StatusCode"] == 204
        assert account.invoke(function).payload["calls"] == before + 1

    def test_payloads_of_6_mb_are_taken(self, account: Account, function: str) -> None:
        """The largest of all."""
        largest = "x" * (SYNC_BYTES - len(json.dumps({"do": "length", "text": ""})))
        assert account.invoke(function, "length", text=largest).payload == len(largest)

    def test_payloads_above_6_mb_are_refused(self, account: Account, function: str) -> None:
        """One byte more than the largest."""
        payload = json.dumps("x" * (SYNC_BYTES - 1))
        refused = account.refused(account.client.invoke, FunctionName=function, Payload=payload)
        assert (refused["code"], refused["status"]) == ("RequestTooLargeException", 413)

    def test_events_above_1_mb_are_refused(self, account: Account, function: str) -> None:
        """Event."""
        arguments = {"FunctionName": function, "InvocationType": "Event"}
        payload = json.dumps("x" * ASYNC_BYTES)
        refused = account.refused(account.client.invoke, Payload=payload, **arguments)
        assert (refused["code"], refused["status"]) == ("RequestTooLargeException", 413)

    def test_answers_above_6_mb_are_errors(self, account: Account, function: str) -> None:
        """Of the function, not of the caller."""
        assert account.invoke(function, "answer", characters=SYNC_BYTES - 2).error is None
        answer = account.invoke(function, "answer", characters=SYNC_BYTES + 1000)
        assert (answer.error, answer.payload["errorType"]) == ("Unhandled", "Function.ResponseSizeTooLarge")

    def test_a_payload_that_is_no_json_is_refused(self, account: Account, function: str) -> None:
        """Before it reaches the function."""
        refused = account.refused(account.client.invoke, FunctionName=function, Payload=b"{no json")
        assert (refused["code"], refused["status"]) == ("InvalidRequestContentException", 400)

    def test_an_event_is_run_later(self, account: Account) -> None:
        """Event: accepted at once, run once."""
        function = account.create()
        account.client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)
        event = json.dumps({"do": "sleep", "s": 0.1})
        response = account.client.invoke(FunctionName=function, InvocationType="Event", Payload=event)
        assert response["StatusCode"] == 202
        assert self._until(account, function, "sleep", 1, PATIENCE_S) == 1

    def test_an_event_that_fails_is_run_three_times(self, account: Account, target: Target) -> None:
        """With the one environment that the function may have."""
        if target.retry_wait_s is None:
            pytest.fail("it waits for too long to be tested")
        function = account.create()
        account.client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)
        account.client.invoke(FunctionName=function, InvocationType="Event", Payload=b'{"do": "fail"}')
        assert self._until(account, function, "fail", 3, target.retry_wait_s) == 3
        time.sleep(0.5)
        assert self._until(account, function, "fail", 4, 0.0) == 3

    @staticmethod
    def _until(account: Account, function: str, what: str, count: int, patience_s: float) -> int:
        """How often the function's one environment did something, once that is often enough."""
        deadline = time.monotonic() + patience_s
        while True:
            found = -1
            with contextlib.suppress(account.client.exceptions.TooManyRequestsException):  # it is busy
                found = int(account.invoke(function, "count", what=what).payload["count"])
            if found >= count or (found >= 0 and time.monotonic() > deadline):
                return found
            assert time.monotonic() < deadline + PATIENCE_S
            time.sleep(0.5)  # the Event needs the one environment, too
