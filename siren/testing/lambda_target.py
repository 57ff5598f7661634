"""Lambda endpoints under test: what is known of one, and what tests do with it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_lambda.type_defs import FunctionConfigurationResponseTypeDef, WaiterConfigTypeDef

HANDLER = Path(__file__).with_name("_lambda_handler.py")
SYNC_BYTES = 6 << 20
ASYNC_BYTES = 1 << 20
VCPU_MB = 1769
FUNCTION_TIMEOUT_S = 10
PATIENCE_S = 20.0
SHORT_WAITS: WaiterConfigTypeDef = {"Delay": 0.2, "MaxAttempts": 300}  # type: ignore[typeddict-item]
"""botocore's waiters take fractions of a second, too."""
TIMED = ("cpu_follows_memory",)
"""A busy machine can make these pass where nothing is enforced."""
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
        bootstrap: Script that runs the handler, where the runtime is not Python's own (`provided.al2023`).
        upload: Puts a package where it can fetch it from; its bucket and key. None: not to be had.
        retry_wait_s: How long it takes at most until an Event was tried three times; None: too long.
    """

    client: Callable[[], LambdaClient]
    runtime: str
    role: str = "arn:aws:iam::000000000000:role/siren-worker"
    not_enforced: Mapping[str, str] = field(default_factory=dict)
    bootstrap: str | None = None
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


def zipped(source: str, bootstrap: str | None = None) -> bytes:
    """A code package of one module, `app`, and a script that starts it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in (("app.py", source), ("bootstrap", bootstrap)):
            if text is not None:
                member = zipfile.ZipInfo(name)
                member.external_attr = 0o755 << 16
                archive.writestr(member, text)
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
        package = self.package(HANDLER.read_text(encoding="utf-8") if source is None else source)
        given = {"Handler": "app.handler", "Timeout": FUNCTION_TIMEOUT_S, "MemorySize": 256, **settings}
        given.setdefault("Code", {"ZipFile": package})
        self.client.create_function(
            FunctionName=name,
            Runtime=self.target.runtime,  # type: ignore[arg-type]
            Role=self.target.role,
            **given,
        )
        self._made.append(name)
        self.client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=SHORT_WAITS)
        return name

    def package(self, source: str) -> bytes:
        """A code package with this module."""
        return zipped(source, self.target.bootstrap)

    def configure(self, name: str, **settings: Any) -> None:
        """Changes a function's configuration, and waits until that is done."""
        self.client.update_function_configuration(FunctionName=name, **settings)
        self.settle(name)

    def settle(self, name: str) -> None:
        """Waits until an update is done."""
        self.client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=SHORT_WAITS)

    def publish(self, name: str, **settings: Any) -> FunctionConfigurationResponseTypeDef:
        """Publishes a version, and waits until it is active."""
        version = self.client.publish_version(FunctionName=name, **settings)
        waiter = self.client.get_waiter("published_version_active")
        waiter.wait(FunctionName=name, Qualifier=version["Version"], WaiterConfig=SHORT_WAITS)
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
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=name not in TIMED))

    def test_only_tests_are_named_as_not_enforced(self, target: Target) -> None:
        """A name that is no test would hide nothing, and say nothing."""
        assert {f"test_{name}" for name in target.not_enforced} <= set(dir(type(self)))
