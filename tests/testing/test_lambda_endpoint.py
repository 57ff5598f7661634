"""Our endpoint, and an independent one, against the conformance suite."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import boto3
import pytest

from siren.platforms.endpoint.client import Credentials, LocalEndpoint
from siren.platforms.endpoint.settings import RUNTIME
from siren.platforms.storage import start_s3
from siren.testing.lambda_endpoint import (
    ControlConformance,
    FunctionConformance,
    Target,
    lambda_client,
)

SHORT = ("--retry-delays", "0.05", "0.1")


def target_of(endpoint: LocalEndpoint, **settings: object) -> Target:
    own = endpoint.credentials
    return Target(
        lambda: lambda_client(endpoint.url, own.access_key, own.secret_key),
        RUNTIME,
        retry_wait_s=10.0,
        **settings,
    )


class TestOurs(FunctionConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Iterator[Target]:
        with LocalEndpoint(options=SHORT) as endpoint:
            yield target_of(endpoint)


class TestOursWithoutCgroups(FunctionConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls) -> Iterator[Target]:
        with LocalEndpoint(options=(*SHORT, "--no-cgroups")) as endpoint:
            yield target_of(endpoint)


class TestOurControl(ControlConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def target(cls, tmp_path_factory) -> Iterator[Target]:
        server = start_s3(tmp_path_factory.mktemp("s3"), "packages")
        client = boto3.client(
            "s3",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id=server.credentials[0],
            aws_secret_access_key=server.credentials[1],
        )

        def upload(package: bytes) -> tuple[str, str]:
            client.put_object(Bucket=server.bucket, Key="code/one.zip", Body=package)
            return server.bucket, "code/one.zip"

        with (
            server.child,
            contextlib.closing(client),
            LocalEndpoint(Credentials(*server.credentials), server.url, options=SHORT) as endpoint,
        ):
            yield target_of(endpoint, upload=upload)
