"""What a Lambda endpoint promises, as tests that run against any of them.

Inherit them to test one:

    from siren.testing.lambda_endpoint import FunctionConformance, Target

    class TestMyEndpoint(FunctionConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def target(cls) -> Iterator[Target]:
            with started() as url:
                yield Target(lambda: lambda_client(url, "key", "secret"), runtime="python3.11")

`FunctionConformance` is about invocations, `ControlConformance` about functions, versions and limits
of an account. What an endpoint is known not to do is named in `Target.not_enforced`, test by test: those
tests are run all the same, and must fail.

Needs pytest and boto3.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import math
import re
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_lambda.type_defs import FunctionConfigurationResponseTypeDef

HANDLER = Path(__file__).with_name("_lambda_handler.py")
SYNC_BYTES = 6 << 20
ASYNC_BYTES = 1 << 20
VCPU_MB = 1769
FUNCTION_TIMEOUT_S = 10
PATIENCE_S = 20.0
# Facts/aws.md 1.6: fields are separated by tabs, and further ones may follow.
REPORT = re.compile(
    r"REPORT RequestId: (?P<id>[0-9a-f-]{36})\tDuration: (?P<duration>\d+\.\d+|\d+) ms\t"
    r"Billed Duration: (?P<billed>\d+) ms\tMemory Size: (?P<size>\d+) MB\tMax Memory Used: (?P<used>\d+) MB\t"
    r"(?:Init Duration: (?P<init>\d+\.\d+|\d+) ms\t)?(?P<rest>.*)"
)


@dataclass(frozen=True)
class Target:
    """An endpoint under test.

    Attributes:
        client: A new client of it.
        runtime: What its functions run on.
        role: ARN of a role that they may have.
        not_enforced: What it is known not to do: a test's name without `test_`, and why.
        upload: Puts a package where it can fetch it from; its bucket and key. None: not to be had.
        retry_wait_s: How long it takes at most until an Event was tried three times; None: too long.
    """

    client: Callable[[], LambdaClient]
    runtime: str
    role: str = "arn:aws:iam::000000000000:role/siren-worker"
    not_enforced: Mapping[str, str] = field(default_factory=dict)
    upload: Callable[[bytes], tuple[str, str]] | None = None
    retry_wait_s: float | None = None


@dataclass(frozen=True)
class Answer:
    """What an invocation gave."""

    status: int
    error: str | None
    version: str | None
    payload: Any
    log: str
    request_id: str

    @property
    def report(self) -> re.Match[str]:
        """The REPORT line."""
        found = REPORT.search(self.log)
        assert found, f"no REPORT line in {self.log!r}"
        return found


def lambda_client(url: str, access_key: str, secret_key: str, region: str = "us-east-1") -> LambdaClient:
    """A client that asks once, and waits for longer than a function of these tests may run."""
    return boto3.client(
        "lambda",
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=60, max_pool_connections=50),
    )


def zipped(source: str, name: str = "app.py") -> bytes:
    """A code package of one module."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), source)
    return content.getvalue()


def sha256(package: bytes) -> str:
    """A package's `CodeSha256`."""
    return base64.b64encode(hashlib.sha256(package).digest()).decode()


class Account:
    """Makes functions, invokes them, and deletes them all in the end."""

    def __init__(self, target: Target) -> None:
        self.target, self.client = target, target.client()
        self._made: list[str] = []

    def create(self, source: str | None = None, **settings: Any) -> str:
        """A function that is active; its name."""
        name = f"siren-test-{uuid.uuid4().hex[:12]}"
        package = zipped(source if source is not None else HANDLER.read_text(encoding="utf-8"))
        given = {"Handler": "app.handler", "Timeout": FUNCTION_TIMEOUT_S, "MemorySize": 256, **settings}
        given.setdefault("Code", {"ZipFile": package})
        self.client.create_function(
            FunctionName=name,
            Runtime=self.target.runtime,  # type: ignore[arg-type]
            Role=self.target.role,
            **given,
        )
        self._made.append(name)
        self.client.get_waiter("function_active_v2").wait(FunctionName=name)
        return name

    def configure(self, name: str, **settings: Any) -> None:
        """Changes a function's configuration, and waits until that is done."""
        self.client.update_function_configuration(FunctionName=name, **settings)
        self.client.get_waiter("function_updated_v2").wait(FunctionName=name)

    def publish(self, name: str, **settings: Any) -> FunctionConfigurationResponseTypeDef:
        """Publishes a version, and waits until it is active."""
        version = self.client.publish_version(FunctionName=name, **settings)
        waiter = self.client.get_waiter("published_version_active")
        waiter.wait(FunctionName=name, Qualifier=version["Version"], WaiterConfig={"Delay": 1})
        return version

    def invoke(self, name: str, do: str = "echo", qualifier: str | None = None, **event: Any) -> Answer:
        """RequestResponse, with the end of the log."""
        extra = {"Qualifier": qualifier} if qualifier else {}
        payload = json.dumps({"do": do, **event}).encode()
        response = self.client.invoke(FunctionName=name, Payload=payload, LogType="Tail", **extra)  # type: ignore[arg-type]
        return Answer(
            response["StatusCode"],
            response.get("FunctionError"),
            response.get("ExecutedVersion"),
            json.loads(response["Payload"].read() or b"null"),
            base64.b64decode(response.get("LogResult", "")).decode(errors="replace"),
            response["ResponseMetadata"]["RequestId"],
        )

    def refused(self, call: Callable[..., object], **arguments: Any) -> dict[str, Any]:
        """The response of a call that must be refused."""
        with pytest.raises(ClientError) as caught:
            call(**arguments)
        response: dict[str, Any] = caught.value.response  # type: ignore[assignment]
        return {
            "code": response["Error"]["Code"],
            "status": response["ResponseMetadata"]["HTTPStatusCode"],
            **response,
        }

    def close(self) -> None:
        """Deletes what was made."""
        for name in self._made:
            try:
                self.client.delete_function(FunctionName=name)
            except self.client.exceptions.ResourceNotFoundException:
                continue
        self.client.close()


class Conformance:
    """What both suites need; override the fixture `target`, of class scope."""

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Iterator[Target]:
        """What is tested."""
        raise NotImplementedError("override the fixture `target`")

    @pytest.fixture(scope="class")
    @classmethod
    def account(cls, target: Target) -> Iterator[Account]:
        """The endpoint's account."""
        account = Account(target)
        yield account
        account.close()

    @pytest.fixture(autouse=True)
    def _expected(self, request: pytest.FixtureRequest, target: Target) -> None:
        """A test that is named as not enforced must fail."""
        name = request.node.originalname.removeprefix("test_")
        if name in target.not_enforced:
            reason = f"not enforced: {target.not_enforced[name]}"
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    def test_only_tests_are_named_as_not_enforced(self, target: Target) -> None:
        """A name that is no test would hide nothing, and say nothing."""
        suites = (FunctionConformance, ControlConformance)
        names = {
            name.removeprefix("test_") for suite in suites for name in dir(suite) if name.startswith("test_")
        }
        assert set(target.not_enforced) <= names


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

    def test_the_context_tells_function_request_and_time(self, account: Account, function: str) -> None:
        """What awslambdaric is told in headers and variables."""
        answer = account.invoke(function, "context", variables=["AWS_LAMBDA_FUNCTION_NAME", "_HANDLER", "TZ"])
        told = answer.payload
        assert told["request_id"] == answer.request_id == answer.report["id"]
        assert (told["name"], told["version"], told["memory_mb"]) == (function, "$LATEST", 256)
        assert re.fullmatch(rf"arn:aws:lambda:[a-z0-9-]+:\d{{12}}:function:{function}", told["arn"])
        assert 0 < told["left_ms"] <= FUNCTION_TIMEOUT_S * 1000 + 5
        assert told["variables"] == {
            "AWS_LAMBDA_FUNCTION_NAME": function,
            "_HANDLER": "app.handler",
            "TZ": ":UTC",
        }

    def test_an_environment_is_used_again(self, account: Account, function: str) -> None:
        """Warm reuse, one invocation after the other."""
        first, second = account.invoke(function), account.invoke(function)
        assert first.payload["pid"] == second.payload["pid"]
        assert second.payload["calls"] == first.payload["calls"] + 1

    def test_an_environment_runs_one_invocation_at_a_time(self, account: Account, function: str) -> None:
        """Concurrent invocations have environments of their own."""
        with ThreadPoolExecutor(3) as threads:
            answers = list(threads.map(lambda _: account.invoke(function, "sleep", s=0.7), range(3)))
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

    @pytest.mark.parametrize(("code", "said"), [(3, "exit status 3"), (0, "without providing a reason")])
    def test_a_process_that_ends_is_noticed_at_once(
        self, account: Account, function: str, code: int, said: str
    ) -> None:
        """Runtime.ExitError, and not at the timeout."""
        before = account.invoke(function)
        began = time.monotonic()
        answer = account.invoke(function, "exit", code=code)
        assert time.monotonic() - began < FUNCTION_TIMEOUT_S / 2
        assert (answer.error, answer.payload["errorType"]) == ("Unhandled", "Runtime.ExitError")
        assert said in answer.payload["errorMessage"]
        assert account.invoke(function).payload["pid"] != before.payload["pid"]

    def test_a_function_is_ended_at_its_timeout(self, account: Account) -> None:
        """Task timed out, and a new environment afterwards."""
        function = account.create(Timeout=1)
        before = account.invoke(function)
        answer = account.invoke(function, "sleep", s=8)
        assert answer.error == "Unhandled"
        assert "Task timed out after 1.00 seconds" in answer.payload["errorMessage"]
        assert float(answer.report["duration"]) >= 1000
        assert account.invoke(function).payload["pid"] != before.payload["pid"]

    def test_a_function_that_takes_too_much_memory_is_killed(self, account: Account) -> None:
        """By the kernel, not by a MemoryError."""
        function = account.create(MemorySize=128)
        assert account.invoke(function, "allocate", mb=40).payload == 40 << 20
        answer = account.invoke(function, "allocate", mb=400)
        assert (answer.error, answer.payload["errorType"]) == ("Unhandled", "Runtime.ExitError")
        assert "signal: killed" in answer.payload["errorMessage"]
        assert answer.report["used"] == answer.report["size"] == "128"

    def test_cpu_follows_memory(self, account: Account) -> None:
        """1,769 MB are one vCPU: a quarter of it takes at least four times as long, give or take a period."""
        function = account.create(MemorySize=VCPU_MB // 4)
        assert account.invoke(function, "burn", cpu_s=0.2).payload > 0.2 * 4 * 0.7

    def test_init_errors_are_told(self, account: Account) -> None:
        """Where the module cannot be imported, or lacks the handler, or ends the process."""
        cases = {
            "Runtime.ImportModuleError": "import no_such_module",
            "Runtime.HandlerNotFound": "answer = 42",
            "Runtime.UserCodeSyntaxError": "def handler(:",
            "Runtime.ExitError": "import os; os._exit(5)",
        }
        for kind, source in cases.items():
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

    def test_payloads_up_to_6_mb_are_taken(self, account: Account, function: str) -> None:
        """The largest, and one byte more."""
        shell = len(json.dumps({"do": "length", "text": ""}))
        largest = "x" * (SYNC_BYTES - shell)
        assert account.invoke(function, "length", text=largest).payload == len(largest)
        payload = json.dumps({"do": "length", "text": largest + "x"})
        refused = account.refused(account.client.invoke, FunctionName=function, Payload=payload)
        assert (refused["code"], refused["status"]) == ("RequestTooLargeException", 413)

    def test_events_up_to_1_mb_are_taken(self, account: Account, function: str) -> None:
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
            time.sleep(0.2)  # the Event needs the one environment, too


class ControlConformance(Conformance):
    """How functions are made, changed, limited and deleted."""

    @pytest.fixture
    def function(self, account: Account) -> str:
        """A function of this test."""
        return account.create()

    def test_a_new_function_is_told_as_it_was_asked_for(self, account: Account) -> None:
        """CreateFunction, GetFunction, GetFunctionConfiguration."""
        package = zipped("def handler(event, context): return 1")
        name = account.create(
            Code={"ZipFile": package},
            Description="a test",
            MemorySize=512,
            Timeout=7,
            Environment={"Variables": {"COLOUR": "red"}},
            Tags={"project": "siren"},
        )
        told = account.client.get_function(FunctionName=name)
        configuration = told["Configuration"]
        assert (configuration["FunctionName"], configuration["Version"]) == (name, "$LATEST")
        assert (configuration["MemorySize"], configuration["Timeout"]) == (512, 7)
        assert (configuration["Handler"], configuration["Description"]) == ("app.handler", "a test")
        assert (configuration["CodeSha256"], configuration["CodeSize"]) == (sha256(package), len(package))
        assert configuration["Environment"]["Variables"] == {"COLOUR": "red"}
        assert (configuration["State"], configuration["LastUpdateStatus"]) == ("Active", "Successful")
        assert told["Tags"] == {"project": "siren"}
        alone = account.client.get_function_configuration(FunctionName=configuration["FunctionArn"])
        assert alone["RevisionId"] == configuration["RevisionId"]

    def test_variables_reach_the_function(self, account: Account) -> None:
        """Environment."""
        name = account.create(Environment={"Variables": {"COLOUR": "red"}})
        assert account.invoke(name, "context", variables=["COLOUR"]).payload["variables"] == {"COLOUR": "red"}

    def test_reserved_variables_are_refused(self, account: Account) -> None:
        """What Lambda itself sets."""
        self._refused_creation(account, Environment={"Variables": {"AWS_REGION": "elsewhere"}})

    @pytest.mark.parametrize("setting", [{"MemorySize": 10_241}, {"Timeout": 901}])
    def test_limits_of_a_configuration_hold(self, account: Account, setting: dict[str, int]) -> None:
        """botocore's model allows more: that is for other kinds of functions."""
        self._refused_creation(account, **setting)

    def test_a_package_that_is_no_zip_is_refused(self, account: Account) -> None:
        """InvalidParameterValueException."""
        self._refused_creation(account, Code={"ZipFile": b"no zip"})

    def test_a_name_is_taken_once(self, account: Account, function: str) -> None:
        """ResourceConflictException."""
        refused = account.refused(
            account.client.create_function,
            FunctionName=function,
            Runtime=account.target.runtime,
            Role=account.target.role,
            Handler="app.handler",
            Code={"ZipFile": zipped("")},
        )
        assert (refused["code"], refused["status"]) == ("ResourceConflictException", 409)

    def test_what_does_not_exist_is_not_found(self, account: Account, function: str) -> None:
        """ResourceNotFoundException."""
        client = account.client
        for call, arguments in (
            (client.get_function, {"FunctionName": "no-such-function"}),
            (client.invoke, {"FunctionName": "no-such-function"}),
            (client.delete_function, {"FunctionName": "no-such-function"}),
            (client.invoke, {"FunctionName": function, "Qualifier": "77"}),
        ):
            refused = account.refused(call, **arguments)
            assert (refused["code"], refused["status"]) == ("ResourceNotFoundException", 404)

    def test_new_code_runs_after_an_update(self, account: Account, function: str) -> None:
        """UpdateFunctionCode: no environment of the old code is used again."""
        assert account.invoke(function).error is None
        package = zipped("def handler(event, context): return 'new'")
        told = account.client.update_function_code(FunctionName=function, ZipFile=package)
        assert told["CodeSha256"] == sha256(package)
        account.client.get_waiter("function_updated_v2").wait(FunctionName=function)
        assert account.invoke(function).payload == "new"

    def test_code_can_come_from_s3(self, account: Account, target: Target, function: str) -> None:
        """S3Bucket and S3Key; what is not there is refused."""
        if target.upload is None:
            pytest.fail("no package can be uploaded")
        package = zipped("def handler(event, context): return 'from S3'")
        bucket, key = target.upload(package)
        account.client.update_function_code(FunctionName=function, S3Bucket=bucket, S3Key=key)
        account.client.get_waiter("function_updated_v2").wait(FunctionName=function)
        assert account.invoke(function).payload == "from S3"
        arguments = {"FunctionName": function, "S3Bucket": bucket, "S3Key": "no-such-key"}
        refused = account.refused(account.client.update_function_code, **arguments)
        assert refused["code"] == "InvalidParameterValueException"

    def test_a_version_keeps_its_configuration(self, account: Account, function: str) -> None:
        """PublishVersion; invoked by qualifier and by its ARN."""
        account.configure(function, MemorySize=300)
        first = account.publish(function)
        account.configure(function, MemorySize=400)
        second = account.publish(function)
        assert (first["Version"], second["Version"]) == ("1", "2")
        assert first["FunctionArn"].endswith(f":function:{function}:1")
        for version, memory_mb in ((first, 300), (second, 400)):
            number = version["Version"]
            by_arn = account.invoke(version["FunctionArn"], "context", variables=[])
            by_qualifier = account.invoke(function, "context", number, variables=[])
            for answer in (by_arn, by_qualifier):
                assert answer.version == answer.payload["version"] == number
                assert answer.payload["memory_mb"] == int(answer.report["size"]) == memory_mb
            assert by_arn.payload["arn"] == version["FunctionArn"]

    def test_nothing_new_is_published_twice(self, account: Account, function: str) -> None:
        """The version that there is comes back."""
        assert account.publish(function)["Version"] == account.publish(function)["Version"] == "1"

    def test_only_the_expected_code_is_published(self, account: Account, function: str) -> None:
        """CodeSha256 and RevisionId."""
        client = account.client
        refused = account.refused(client.publish_version, FunctionName=function, CodeSha256=sha256(b"other"))
        assert refused["code"] == "InvalidParameterValueException"
        refused = account.refused(
            client.update_function_configuration,
            FunctionName=function,
            RevisionId=str(uuid.uuid4()),
            Timeout=5,
        )
        assert (refused["code"], refused["status"]) == ("PreconditionFailedException", 412)

    def test_versions_are_listed_and_deleted_one_by_one(self, account: Account, function: str) -> None:
        """ListVersionsByFunction, DeleteFunction with Qualifier."""
        account.publish(function)
        account.configure(function, Timeout=9)
        account.publish(function)
        assert self._versions(account, function) == ["$LATEST", "1", "2"]
        account.client.delete_function(FunctionName=function, Qualifier="1")
        assert self._versions(account, function) == ["$LATEST", "2"]
        refused = account.refused(account.client.delete_function, FunctionName=function, Qualifier="$LATEST")
        assert refused["code"] == "InvalidParameterValueException"
        account.client.delete_function(FunctionName=function)
        refused = account.refused(account.client.get_function, FunctionName=function)
        assert refused["code"] == "ResourceNotFoundException"

    def test_reserved_concurrency_is_a_ceiling(self, account: Account, function: str) -> None:
        """One of two at once is throttled, with the reason."""
        client = account.client
        client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=1)
        assert client.get_function_concurrency(FunctionName=function)["ReservedConcurrentExecutions"] == 1
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(account.invoke, function, "sleep", s=1.5)
            time.sleep(0.7)
            refused = account.refused(client.invoke, FunctionName=function)
            assert running.result().error is None
        self._check_throttle(refused)
        client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=0)
        self._check_throttle(account.refused(client.invoke, FunctionName=function))
        client.delete_function_concurrency(FunctionName=function)
        assert account.invoke(function).error is None

    def test_a_hundred_stay_unreserved(self, account: Account, function: str) -> None:
        """Of the account's concurrency, which GetAccountSettings tells."""
        client = account.client
        limit = client.get_account_settings()["AccountLimit"]
        most = limit["ConcurrentExecutions"]
        client.put_function_concurrency(FunctionName=function, ReservedConcurrentExecutions=10)
        left = client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
        assert left == limit["UnreservedConcurrentExecutions"] - 10
        refused = account.refused(
            client.put_function_concurrency, FunctionName=function, ReservedConcurrentExecutions=most - 99
        )
        assert (refused["code"], refused["status"]) == ("InvalidParameterValueException", 400)

    def test_tags_can_be_changed(self, account: Account, function: str) -> None:
        """TagResource, UntagResource, ListTags."""
        client = account.client
        arn = client.get_function_configuration(FunctionName=function)["FunctionArn"]
        client.tag_resource(Resource=arn, Tags={"project": "siren", "run": "one"})
        client.untag_resource(Resource=arn, TagKeys=["run"])
        assert client.list_tags(Resource=arn)["Tags"] == {"project": "siren"}

    def _refused_creation(self, account: Account, **settings: Any) -> None:
        with pytest.raises(ClientError) as caught:
            account.create(**settings)
        assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"

    def _versions(self, account: Account, function: str) -> list[str]:
        pages = account.client.get_paginator("list_versions_by_function").paginate(FunctionName=function)
        return [version["Version"] for page in pages for version in page["Versions"]]

    def _check_throttle(self, refused: dict[str, Any]) -> None:
        assert (refused["code"], refused["status"]) == ("TooManyRequestsException", 429)
        assert refused["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
