"""Versions are found, published once, and refused if they are not what was asked for."""

from __future__ import annotations

import boto3
import pytest
from botocore.stub import ANY, Stubber

from siren.errors import PlatformError
from siren.platforms.backend import Backend
from siren.platforms.manager.versions import Versions

SHA = "c2hhMjU2IG9mIHRoZSBwYWNrYWdlLCBiYXNlNjQ9PT0="
NAME = "siren-worker"
BACKEND = Backend("aws", "us-east-1", "b", NAME, None, None, None, ("a", "b", ""), "", "python3.13", True)
ARN = f"arn:aws:lambda:us-east-1:000000000000:function:{NAME}"


def configuration(version: str = "1", memory_mb: int = 1769, timeout_s: int = 10, sha: str = SHA, **more):
    return {
        "FunctionName": NAME,
        "FunctionArn": f"{ARN}:{version}",
        "Version": version,
        "MemorySize": memory_mb,
        "Timeout": timeout_s,
        "CodeSha256": sha,
        **more,
    }


@pytest.fixture
def stubbed():
    client = boto3.client("lambda", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stub:
        yield stub, Versions(BACKEND, SHA, client)
        stub.assert_no_pending_responses()


def listed(stub: Stubber, *versions: dict) -> None:
    stub.add_response("list_versions_by_function", {"Versions": list(versions)}, {"FunctionName": NAME})


def published(stub: Stubber, memory_mb: int, timeout_s: int, answer: dict) -> None:
    update = {"FunctionName": NAME, "MemorySize": memory_mb, "Timeout": timeout_s}
    stub.add_response("update_function_configuration", configuration("$LATEST"), update)
    ready = {"Configuration": configuration("$LATEST", State="Active", LastUpdateStatus="Successful")}
    stub.add_response("get_function", ready, {"FunctionName": NAME})
    publish = {"FunctionName": NAME, "CodeSha256": SHA, "Description": ANY}
    stub.add_response("publish_version", answer, publish)
    stub.add_response(
        "get_function_configuration",
        configuration(answer["Version"], State="Active"),
        {"FunctionName": NAME, "Qualifier": answer["Version"]},
    )


def test_versions_that_exist_are_used_and_latest_never(stubbed):
    stub, versions = stubbed
    listed(stub, configuration("$LATEST", 512, 3), configuration("4", 1769, 10))
    assert versions.arn(1769, 10) == f"{ARN}:4"
    assert versions.arn(1769, 10) == f"{ARN}:4"


def test_a_version_of_other_code_is_not_used_and_a_new_one_is_published_once(stubbed):
    stub, versions = stubbed
    listed(stub, configuration("4", 1769, 10, "b3RoZXIgY29kZQ=="))
    published(stub, 1769, 10, configuration("5", 1769, 10))
    assert versions.arn(1769, 10) == f"{ARN}:5"
    assert versions.arn(1769, 10) == f"{ARN}:5"
    published(stub, 512, 10, configuration("6", 512, 10))
    assert versions.arn(512, 10) == f"{ARN}:6"


@pytest.mark.parametrize(
    "answer", [configuration("5", 512), configuration("5", timeout_s=3), configuration("5", sha="b3RoZXI=")]
)
def test_a_version_that_somebody_else_made_meanwhile_is_refused(stubbed, answer):
    stub, versions = stubbed
    listed(stub)
    published(stub, 1769, 10, answer)
    with pytest.raises(PlatformError, match="something else changes this function"):
        versions.arn(1769, 10)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ResourceNotFoundException", 404),
        ("InvalidParameterValueException", 400),
        ("TooManyRequestsException", 429),
        ("ServiceException", 500),
    ],
)
def test_an_error_of_a_listing_is_the_platforms(stubbed, code, status):
    stub, versions = stubbed
    stub.add_client_error("list_versions_by_function", code, "no", status)
    with pytest.raises(PlatformError, match=code):
        versions.arn(1769, 10)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("CodeVerificationFailedException", 400),
        ("InvalidCodeSignatureException", 400),
        ("PreconditionFailedException", 412),
        ("ResourceConflictException", 409),
    ],
)
def test_an_error_of_an_update_is_the_platforms(stubbed, code, status):
    stub, versions = stubbed
    listed(stub)
    stub.add_client_error("update_function_configuration", code, "no", status)
    with pytest.raises(PlatformError, match=code):
        versions.arn(1769, 10)


def test_code_that_changed_between_is_refused_by_lambda_itself(stubbed):
    stub, versions = stubbed
    listed(stub)
    stub.add_response("update_function_configuration", configuration("$LATEST"))
    ready = {"Configuration": configuration("$LATEST", State="Active", LastUpdateStatus="Successful")}
    stub.add_response("get_function", ready)
    stub.add_client_error("publish_version", "InvalidParameterValueException", "CodeSHA256 is different", 400)
    with pytest.raises(PlatformError, match="CodeSHA256 is different"):
        versions.arn(1769, 10)
