"""Every error that AWS documents for a request ends as one of ours, and says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from siren.errors import MissingExtraError, PlatformError, SirenError, UsageError
from siren.platforms.aws.api import ABSENT, Api, RequestError, make_session, permission

boto3 = pytest.importorskip("boto3")
import botocore.session  # noqa: E402 - after the skip
from botocore.exceptions import (  # noqa: E402
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.stub import Stubber  # noqa: E402

OPERATIONS = {
    "ec2": "AuthorizeSecurityGroupIngress CreateSecurityGroup CreateSubnet CreateVpc CreateVpcEndpoint "
    "DeleteSecurityGroup DeleteSubnet DeleteVpc DeleteVpcEndpoints DescribeAvailabilityZones "
    "DescribeNetworkInterfaces DescribeRouteTables DescribeSecurityGroups DescribeSubnets "
    "DescribeVpcEndpoints DescribeVpcs",
    "elasticache": "CreateCacheCluster CreateCacheParameterGroup CreateCacheSubnetGroup DeleteCacheCluster "
    "DeleteCacheParameterGroup DeleteCacheSubnetGroup DescribeCacheClusters DescribeCacheParameterGroups "
    "DescribeCacheParameters DescribeCacheSubnetGroups ListTagsForResource ModifyCacheCluster "
    "ModifyCacheParameterGroup",
    "iam": "CreateRole DeleteRole DeleteRolePolicy GetRole GetRolePolicy PutRolePolicy "
    "UpdateAssumeRolePolicy",
    "lambda": "CreateFunction DeleteFunction GetAccountSettings GetFunction GetFunctionConfiguration "
    "ListVersionsByFunction PublishVersion PutFunctionConcurrency TagResource UpdateFunctionCode "
    "UpdateFunctionConfiguration",
    "logs": "CreateLogGroup DeleteLogGroup DescribeLogGroups ListTagsForResource PutRetentionPolicy",
    "s3": "AbortMultipartUpload CreateBucket DeleteBucket DeleteObjects GetBucketEncryption "
    "GetBucketLifecycleConfiguration GetBucketOwnershipControls GetBucketPolicy GetBucketTagging "
    "GetPublicAccessBlock HeadObject ListMultipartUploads ListObjectsV2 PutBucketEncryption "
    "PutBucketLifecycleConfiguration PutBucketOwnershipControls PutBucketPolicy PutBucketTagging PutObject "
    "PutPublicAccessBlock",
    "sts": "GetCallerIdentity",
}
"""All that deploy and teardown ask; `test_deploy.py` checks that there is nothing else."""
COMMON = (
    "AccessDenied",
    "ExpiredToken",
    "InternalError",
    "ServiceUnavailable",
    "Throttling",
    "RequestLimitExceeded",
)
"""Errors that any service may answer (AWS general reference, common errors, 2026)."""

session = botocore.session.get_session()


def documented() -> list[tuple[str, str, str]]:
    """(service, operation, error code) of botocore's models, and the common ones."""
    cases = []
    for service, names in OPERATIONS.items():
        model = session.get_service_model(service)
        for name in names.split():
            shapes = model.operation_model(name).error_shapes
            codes = [shape.metadata.get("error", {}).get("code", shape.name) for shape in shapes]
            cases += [(service, name, code) for code in (*codes, *COMMON)]
    return cases


@pytest.fixture(scope="module")
def api() -> Api:
    return Api(boto3.Session(region_name="us-east-1"), sleep=lambda seconds: None)


def snake(client: Any, operation: str) -> str:
    return next(ours for ours, theirs in client.meta.method_to_api_mapping.items() if theirs == operation)


def required(service: str, operation: str) -> dict[str, Any]:
    """Arguments that the model asks for; the stub checks them."""
    shape = session.get_service_model(service).operation_model(operation).input_shape
    return {name: _example(shape.members[name]) for name in (shape.required_members if shape else ())}


def _example(shape: Any) -> Any:
    match shape.type_name:
        case "structure":
            return {name: _example(shape.members[name]) for name in shape.required_members}
        case "list":
            return [_example(shape.member)]
        case "map":
            return {"key": "value"}
        case "integer" | "long":
            return max(1, shape.metadata.get("min", 1))
        case "boolean":
            return True
        case "blob":
            return b"1"
        case _:
            return (shape.enum or ["x" * max(20, shape.metadata.get("min", 20))])[0]


@pytest.mark.parametrize("service", OPERATIONS)
def test_every_documented_error_says_what_to_do(api: Api, service: str) -> None:
    client = api.client(service)
    for owner, operation, code in documented():
        if owner != service:
            continue
        method = snake(client, operation)
        with Stubber(client) as stub:
            stub.add_client_error(
                method, code, "AWS's own words", expected_params=required(service, operation)
            )
            with pytest.raises(RequestError) as caught:
                api.call(service, method, **required(service, operation))
        assert caught.value.code == code
        assert caught.value.permission == permission(service, operation)
        text = str(caught.value)
        assert caught.value.permission in text or "credentials" in text
        assert any(
            hint in text for hint in ("run the same command again", "permission added", "renew", "quota")
        ), text
        assert "\n" not in text
        assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("AccessDenied", r"AWS denies lambda:GetFunction \(.*\): have that permission added"),
        ("AccessDeniedException", "--print-policy --policy-of deployer"),
        ("UnauthorizedOperation", "have that permission added"),
        ("ExpiredToken", "does not accept your credentials .* renew them"),
        ("TooManyRequestsException", r"busy with lambda:GetFunction .*wait a minute"),
        ("ServiceException", "failed at lambda:GetFunction .*again later"),
        ("CodeStorageExceededException", "exceed a quota .*Service Quotas"),
        (
            "InvalidParameterValueException",
            r"refuses lambda:GetFunction \(InvalidParameterValueException: words\)",
        ),
    ],
)
def test_errors_are_explained_by_their_kind(api: Api, code: str, hint: str) -> None:
    with Stubber(api.client("lambda")) as stub:
        stub.add_client_error("get_function", code, "words")
        with pytest.raises(RequestError, match=hint):
            api.call("lambda", "get_function", FunctionName="f")


@pytest.mark.parametrize("code", sorted(ABSENT))
def test_what_does_not_exist_is_none(api: Api, code: str) -> None:
    with Stubber(api.client("lambda")) as stub:
        stub.add_client_error("get_function", code)
        assert api.find("lambda", "get_function", FunctionName="f") is None


def test_other_errors_are_not_taken_for_absence(api: Api) -> None:
    with Stubber(api.client("lambda")) as stub:
        stub.add_client_error("get_function", "AccessDeniedException")
        with pytest.raises(RequestError) as caught:
            api.find("lambda", "get_function", FunctionName="f")
    assert caught.value.denied


def test_errors_of_a_listing_are_explained_too(api: Api) -> None:
    with Stubber(api.client("logs")) as stub:
        stub.add_client_error("describe_log_groups", "AccessDeniedException", "no")
        with pytest.raises(RequestError, match="denies logs:DescribeLogGroups"):
            list(api.items("logs", "describe_log_groups", "logGroups"))


@pytest.mark.parametrize(
    ("error", "kind", "hint"),
    [
        (NoCredentialsError(), UsageError, "run `aws configure` or set AWS_PROFILE"),
        (
            EndpointConnectionError(endpoint_url="https://x"),
            PlatformError,
            "no answer to sts:GetCallerIdentity",
        ),
        (ReadTimeoutError(endpoint_url="https://x"), PlatformError, "check the network"),
    ],
)
def test_without_an_answer_it_says_why(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[SirenError], hint: str
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(api.client("sts"), "get_caller_identity", fail)
    with pytest.raises(kind, match=hint):
        api.account()


def test_a_refusal_that_passes_is_waited_for() -> None:
    slept: list[float] = []
    api = Api(boto3.Session(region_name="us-east-1"), slept.append)
    with Stubber(api.client("lambda")) as stub:
        for _ in range(3):
            stub.add_client_error("tag_resource", "ResourceConflictException")
        stub.add_response("tag_resource", {})
        arguments = {"Resource": "arn:aws:lambda:us-east-1:123456789012:function:f", "Tags": {"a": "b"}}
        api.call_until(
            "lambda", "tag_resource", lambda e: e.code == "ResourceConflictException", 60.0, **arguments
        )
    assert slept == [1.0, 2.0, 4.0]


def test_a_refusal_that_stays_ends_the_wait() -> None:
    slept: list[float] = []
    api = Api(boto3.Session(region_name="us-east-1"), slept.append)
    with Stubber(api.client("sts")) as stub:
        for _ in range(10):
            stub.add_client_error("get_caller_identity", "Throttling")
        with pytest.raises(RequestError):
            api.call_until("sts", "get_caller_identity", lambda e: True, 20.0)
        with pytest.raises(RequestError):
            api.call_until("sts", "get_caller_identity", lambda e: False, 20.0)
    assert slept == [1.0, 2.0, 4.0, 8.0, 10.0]


def test_a_wait_has_an_end() -> None:
    slept: list[float] = []
    api = Api(boto3.Session(region_name="us-east-1"), slept.append)
    with pytest.raises(PlatformError, match=r"waited 1 minutes until it rains: run the same command again"):
        api.wait("it rains", lambda: False, 60.0, 20.0)
    assert sum(slept) == 60.0
    api.wait("it is day", lambda: True, 0.0, 1.0)


def test_no_region_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(UsageError, match="no AWS region is given: add --region"):
        make_session(None)
    assert make_session("eu-central-1").region_name == "eu-central-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert Api(make_session(None)).region == "eu-north-1"


def test_regions_and_profiles_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no AWS region 'nowhere'"):
        make_session("nowhere")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UsageError, match=r"nobody.*AWS_PROFILE"):
        make_session("us-east-1")


def test_without_boto3_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(MissingExtraError, match=r"\[aws\]"):
        make_session("us-east-1")


def test_other_partitions_have_other_arns() -> None:
    assert Api(make_session("cn-north-1")).partition == "aws-cn"
    assert Api(make_session("us-east-1")).partition == "aws"
