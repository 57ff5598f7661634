"""Our endpoint, and an independent one, against the conformance suites."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from siren.platforms.endpoint.client import Credentials, LocalEndpoint
from siren.platforms.endpoint.settings import RUNTIME
from siren.platforms.processes import free_ports, start_child
from siren.platforms.storage import start_s3
from siren.testing.lambda_account import ControlConformance
from siren.testing.lambda_endpoint import FunctionConformance
from siren.testing.lambda_target import Account, Target, lambda_client

Upload = Callable[[bytes], tuple[str, str]]
SHORT = ("--retry-delays", "0.05", "0.1")
MINISTACK = "SIREN_MINISTACK_PYTHON"
# AWS's runtime client behind the Runtime API of ministack, which has runtimes of its own as well.
BOOTSTRAP = f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -m awslambdaric $_HANDLER\n"

# What ministack 1.5.33 does not do of what AWS does. Each must fail: what it learns comes off the list.
FUNCTIONS_OF_MINISTACK = {
    "a_function_that_takes_too_much_memory_is_killed": "memory has no limit",
    "a_payload_that_is_no_json_is_refused": "any payload is taken",
    "a_timeout_is_billed_whole": "there are no REPORT lines",
    "an_environment_stands_still_between_invocations": "nothing is frozen",
    "answers_above_6_mb_are_errors": "answers have no limit",
    "caller_and_function_see_the_same_request_id": "they see two",
    "cpu_follows_memory": "CPU has no limit",
    "events_above_1_mb_are_refused": "payloads have no limit",
    "how_a_process_ended_is_told": "exit codes and signals are not told",
    "init_errors_are_told_by_their_type": "all are Runtime.Unknown",
    "payloads_above_6_mb_are_refused": "payloads have no limit",
    "the_log_is_cut_at_its_beginning": "there are no REPORT lines",
    "the_report_can_be_json": "there are no REPORT lines",
    "the_report_line_bills_init_and_duration_once_rounded_up": "there are no REPORT lines",
}
CONTROL_OF_MINISTACK = {
    "a_hundred_stay_unreserved": "all concurrency can be reserved",
    "latest_goes_with_its_function_only": "it is taken for the function",
    "limits_of_a_configuration_hold": "memory and timeout have no upper limit",
    "only_the_expected_code_is_published": "CodeSha256 is not compared",
    "reserved_variables_are_refused": "all variables can be set",
}


def target_of(endpoint: LocalEndpoint, **settings: Any) -> Target:
    own = endpoint.credentials
    return Target(
        lambda: lambda_client(endpoint.url, own.access_key, own.secret_key),
        RUNTIME,
        retry_wait_s=10.0,
        **settings,
    )


@contextlib.contextmanager
def uploads(
    url: str, access_key: str, secret_key: str, bucket: str
) -> Iterator[Callable[[bytes], tuple[str, str]]]:
    """Puts packages into a bucket."""
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )

    def upload(package: bytes) -> tuple[str, str]:
        client.put_object(Bucket=bucket, Key="code/one.zip", Body=package)
        return bucket, "code/one.zip"

    with contextlib.closing(client):
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=bucket)
        yield upload


@contextlib.contextmanager
def ministack(folder: Path) -> Iterator[str]:
    """The url of a running ministack, an emulator that others wrote."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environment = {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "HOME": str(folder),
        "LAMBDA_ASYNC_RETRY_BASE_SECONDS": "0.1",
        "PATH": os.defpath,
        "TMPDIR": str(folder),
    }

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/_ministack/health", timeout=2) as response:
                return response.status == 200
        except OSError:
            return False

    command = [os.environ[MINISTACK], "-m", "ministack"]
    log = folder / "ministack.log"
    with start_child(command, name="ministack", env=environment, cwd=folder, log=log, grace_s=1.0) as child:
        child.wait_until(ready, 60)
        yield url


class TestOurs(FunctionConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Iterator[Target]:
        with LocalEndpoint(options=SHORT) as endpoint:
            yield target_of(endpoint)


@pytest.fixture(scope="module")
def without_cgroups() -> Iterator[Account]:
    """An account of our endpoint where it can write no cgroups."""
    with LocalEndpoint(options=(*SHORT, "--no-cgroups")) as endpoint:
        account = Account(target_of(endpoint))
        yield account
        account.close()


@pytest.mark.parametrize(
    "name",
    [
        "a_function_that_takes_too_much_memory_is_killed",
        "an_environment_stands_still_between_invocations",
        "cpu_follows_memory",
        "init_errors_fail_the_invocation",
        "the_report_line_bills_init_and_duration_once_rounded_up",
    ],
)
def test_without_cgroups_all_of_it_is_enforced_too(without_cgroups, name):
    getattr(FunctionConformance(), f"test_{name}")(without_cgroups)


class TestOurControl(ControlConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, tmp_path_factory) -> Iterator[Target]:
        server = start_s3(tmp_path_factory.mktemp("s3"), "packages")
        credentials = Credentials(*server.credentials)
        with (
            server.child,
            uploads(server.url, credentials.access_key, credentials.secret_key, server.bucket) as upload,
            LocalEndpoint(credentials, server.url, options=SHORT) as endpoint,
        ):
            yield target_of(endpoint, upload=upload)


def test_there_is_an_independent_endpoint():
    if MINISTACK not in os.environ:
        pytest.skip(f"{MINISTACK} does not name the interpreter of a virtual environment with ministack")
    subprocess.run([os.environ[MINISTACK], "-c", "import ministack"], check=True)


class TestMinistack(FunctionConformance):
    __test__ = MINISTACK in os.environ

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, tmp_path_factory) -> Iterator[Target]:
        with ministack(tmp_path_factory.mktemp("ministack")) as url:
            yield Target(
                lambda: lambda_client(url, "test", "test"),
                "provided.al2023",
                bootstrap=BOOTSTRAP,
                not_enforced=FUNCTIONS_OF_MINISTACK,
                retry_wait_s=10.0,
            )


class TestMinistackControl(ControlConformance):
    __test__ = MINISTACK in os.environ

    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, tmp_path_factory) -> Iterator[Target]:
        with (
            ministack(tmp_path_factory.mktemp("ministack")) as url,
            uploads(url, "test", "test", "packages") as upload,
        ):
            yield Target(
                lambda: lambda_client(url, "test", "test"),
                "provided.al2023",
                bootstrap=BOOTSTRAP,
                not_enforced=CONTROL_OF_MINISTACK,
                upload=upload,
            )
