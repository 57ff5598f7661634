"""Each part of a deployment alone: AWS's refusals, races, and what only larger packages need."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from siren.errors import PlatformError, UsageError
from siren.platforms.aws.api import Api, RequestError
from siren.platforms.aws.bucket import Bucket
from siren.platforms.aws.cache import Cache
from siren.platforms.aws.deployment import read_deployment
from siren.platforms.aws.function import ENVIRONMENT, Function
from siren.platforms.aws.log_group import RETENTION_DAYS, LogGroup
from siren.platforms.aws.names import TAG, Names
from siren.platforms.aws.network import Network, NetworkIds
from siren.platforms.aws.part import Part, Settings
from siren.platforms.aws.policies import trust_policy
from siren.platforms.aws.role import Role
from siren.platforms.package import DIRECT_BYTES, Package
from siren.teardown import TeardownConfig
from siren.teardown import main as tear_down
from tests.platforms.aws.conftest import Cloud

boto3 = pytest.importorskip("boto3")
from botocore.stub import Stubber  # noqa: E402 - after the skip

S3 = Settings(redis=False, cache_node="", concurrency=10, log_days=7, run_days=30)
REDIS = dataclasses.replace(S3, redis=True, cache_node="cache.t4g.small")

Maker = Callable[[], Part]


@pytest.fixture
def function(cloud: Cloud, names: Names, package: Package) -> Function:
    """The function of a deployment whose role and bucket are there."""
    Bucket(cloud.api, names, S3).apply()
    Role(cloud.api, names, S3).apply()
    return Function(cloud.api, names, S3, package)


@pytest.fixture
def network(cloud: Cloud, names: Names) -> Network:
    network = Network(cloud.api, names)
    network.apply()
    return network


def test_a_role_that_lambda_does_not_know_yet_is_waited_for(cloud: Cloud, function: Function) -> None:
    code = "InvalidParameterValueException"
    cloud.faults["CreateFunction"] = [
        (code, "The role defined for the function cannot be assumed by Lambda."),
        (code, "The provided execution role does not have permissions to call CreateNetworkInterface on EC2"),
    ]
    function.apply()
    assert cloud.slept == [1.0, 2.0]
    assert function.differences() == []


def test_another_invalid_parameter_is_not_waited_for(cloud: Cloud, function: Function) -> None:
    cloud.faults["CreateFunction"] = [("InvalidParameterValueException", "Unzipped size must be smaller")]
    with pytest.raises(RequestError, match=r"refuses lambda:CreateFunction .*Unzipped size must be smaller"):
        function.apply()
    assert cloud.slept == []


def test_a_change_under_way_is_waited_for(
    cloud: Cloud, function: Function, names: Names, other_package: Callable[[bytes], Package]
) -> None:
    function.apply()
    cloud.faults["UpdateFunctionCode"] = [("ResourceConflictException", "An update is in progress")] * 2
    newer = Function(cloud.api, names, S3, other_package(b"new"))
    newer.apply()
    assert cloud.slept == [1.0, 2.0]
    assert newer.differences() == []


def test_a_function_that_cannot_run_is_reported(
    cloud: Cloud, function: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    function.apply()
    call = cloud.api.call

    def failed(service: str, operation: str, **arguments: Any) -> Any:
        answer = call(service, operation, **arguments)
        if operation == "get_function_configuration":
            return {**answer, "State": "Failed", "StateReason": "no addresses are left in the subnet"}
        return answer

    monkeypatch.setattr(cloud.api, "call", failed)
    with pytest.raises(
        PlatformError, match=r"no addresses are left in the subnet\): run `python -m siren.teardown"
    ):
        function.apply()


def test_large_packages_go_through_the_bucket(
    cloud: Cloud, function: Function, names: Names, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siren.platforms.package.DIRECT_BYTES", 10_000)
    assert package.needs_s3
    cloud.client("s3").delete_bucket_policy(Bucket=names.bucket)  # moto denies whatever its conditions are
    function.apply()
    stored = cloud.client("s3").get_object(Bucket=names.bucket, Key=package.key)["Body"].read()
    assert stored == package.content
    assert function.differences() == []
    assert DIRECT_BYTES > 10_000
    cloud.operations.clear()
    function.remove()
    function.apply()
    assert "PutObject" not in cloud.changes()  # it is there already


@pytest.mark.parametrize("kind", ["bucket", "role", "log group", "function", "cache parameters", "cache"])
def test_who_was_faster_is_no_error_if_it_is_ours(
    cloud: Cloud,
    names: Names,
    function: Function,
    network: Network,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = Cache(cloud.api, names, REDIS, network)
    part, operation, code = {
        "bucket": (Bucket(cloud.api, names, S3), "create_bucket", "BucketAlreadyOwnedByYou"),
        "role": (Role(cloud.api, names, S3), "create_role", "EntityAlreadyExists"),
        "log group": (LogGroup(cloud.api, names, S3), "create_log_group", "ResourceAlreadyExistsException"),
        "function": (function, "create_function", "ResourceConflictException"),
        "cache parameters": (cache, "create_cache_parameter_group", "CacheParameterGroupAlreadyExists"),
        "cache": (cache, "create_cache_cluster", "CacheClusterAlreadyExists"),
    }[kind]
    part.remove()
    call = cloud.api.call

    def lose(service: str, asked: str, **arguments: Any) -> Any:
        answer = call(service, asked, **arguments)
        if asked != operation:
            return answer
        if kind == "bucket":  # the winner tags it at once
            tags = [{"Key": TAG, "Value": "siren"}]
            cloud.client("s3").put_bucket_tagging(Bucket=names.bucket, Tagging={"TagSet": tags})
        raise RequestError("somebody else made it", code, f"{service}:{asked}", "it exists")

    monkeypatch.setattr(cloud.api, "call", lose)
    part.apply()
    assert part.differences() == []


def test_a_bucket_of_another_account_is_named(cloud: Cloud, names: Names) -> None:
    cloud.faults["CreateBucket"] = [("BucketAlreadyExists", "not available")]
    with pytest.raises(
        UsageError, match=r"siren-123456789012-us-east-1 belongs to another account: choose another"
    ):
        Bucket(cloud.api, names, S3).apply()


def test_buckets_elsewhere_name_their_region(cloud: Cloud) -> None:
    seen: list[dict[str, Any]] = []
    frankfurt = Names("siren", "eu-central-1", "123456789012")
    cloud.faults["CreateBucket"] = [("AccessDenied", "no")]
    call = cloud.api.call

    def watch(service: str, operation: str, **arguments: Any) -> Any:
        seen.append({operation: arguments})
        return call(service, operation, **arguments)

    cloud.api.call = watch  # type: ignore[method-assign]
    with pytest.raises(RequestError, match="denies s3:CreateBucket"):
        Bucket(cloud.api, frankfurt, S3).apply()
    made = seen[-1]["create_bucket"]
    assert made["CreateBucketConfiguration"] == {"LocationConstraint": "eu-central-1"}
    assert made["ObjectOwnership"] == "BucketOwnerEnforced"


def test_every_request_to_the_bucket_names_its_owner(cloud: Cloud, names: Names) -> None:
    call, owners = cloud.api.call, []

    def watch(service: str, operation: str, **arguments: Any) -> Any:
        if operation != "create_bucket":
            owners.append(arguments.get("ExpectedBucketOwner"))
        return call(service, operation, **arguments)

    cloud.api.call = watch  # type: ignore[method-assign]
    bucket = Bucket(cloud.api, names, S3)
    bucket.apply()
    bucket.remove()
    assert set(owners) == {"123456789012"}


def test_objects_that_are_not_deleted_are_reported(
    cloud: Cloud, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = Bucket(cloud.api, names, S3)
    bucket.apply()
    cloud.client("s3").delete_bucket_policy(Bucket=names.bucket)
    cloud.client("s3").put_object(Bucket=names.bucket, Key="runs/a", Body=b"1")
    call = cloud.api.call

    def refuse(service: str, operation: str, **arguments: Any) -> Any:
        if operation == "delete_objects":
            return {"Errors": [{"Key": "runs/a", "Code": "InternalError", "Message": "sorry"}]}
        return call(service, operation, **arguments)

    monkeypatch.setattr(cloud.api, "call", refuse)
    with pytest.raises(RequestError, match=r"S3 does not delete runs/a \(InternalError\)"):
        bucket.remove()


def test_more_objects_than_one_request_takes_are_removed(
    cloud: Cloud, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siren.platforms.aws.bucket._DELETE_AT_ONCE", 3)
    bucket = Bucket(cloud.api, names, S3)
    bucket.apply()
    cloud.client("s3").delete_bucket_policy(Bucket=names.bucket)
    for index in range(7):
        cloud.client("s3").put_object(Bucket=names.bucket, Key=f"runs/{index}", Body=b"1")
    assert bucket.contents() == (7, 7)
    bucket.remove()
    assert not bucket.exists()
    assert cloud.operations.count(("s3", "DeleteObjects")) == 3


def test_a_trust_policy_that_was_widened_is_narrowed(cloud: Cloud, names: Names) -> None:
    role = Role(cloud.api, names, S3)
    role.apply()
    open_to_all = json.dumps(trust_policy(Names("siren", "us-east-1", "999999999999")))
    cloud.client("iam").update_assume_role_policy(RoleName=names.role, PolicyDocument=open_to_all)
    assert role.differences() == ["trust policy"]
    role.apply()
    assert role.differences() == []


def test_a_role_that_others_use_is_not_forced(cloud: Cloud, names: Names) -> None:
    role = Role(cloud.api, names, S3)
    role.apply()
    cloud.faults["DeleteRole"] = [("DeleteConflict", "must detach all policies first")]
    with pytest.raises(
        RequestError, match=r"refuses iam:DeleteRole \(DeleteConflict: must detach all policies"
    ):
        role.remove()


def test_network_pieces_are_made_once_and_found_again(cloud: Cloud, names: Names, network: Network) -> None:
    first = network.ids()
    assert network.differences() == []
    ec2 = cloud.client("ec2")
    assert first is not None
    ec2.delete_subnet(SubnetId=first.subnet)
    (endpoint,) = ec2.describe_vpc_endpoints()["VpcEndpoints"]
    ec2.delete_vpc_endpoints(VpcEndpointIds=[endpoint["VpcEndpointId"]])
    assert network.ids() is None
    assert len(network.differences() or []) == 2
    network.apply()
    assert network.differences() == []
    assert len(ec2.describe_vpcs(Filters=[{"Name": f"tag:{TAG}", "Values": ["siren"]}])["Vpcs"]) == 1


def test_pieces_that_are_still_in_use_are_given_time(cloud: Cloud, network: Network) -> None:
    busy = ("DependencyViolation", "resource has a dependent object")
    cloud.faults |= {"DeleteSecurityGroup": [busy] * 2, "DeleteVpc": [busy]}
    network.remove()
    assert not network.exists()
    assert cloud.slept == [1.0, 2.0, 1.0]


def test_two_networks_of_one_name_are_not_guessed_between(cloud: Cloud, network: Network) -> None:
    second = cloud.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    cloud.client("ec2").create_tags(Resources=[second], Tags=[{"Key": TAG, "Value": "siren"}])
    with pytest.raises(UsageError, match=r"2 resources \(VPC\) carry the tag siren:deployment = siren"):
        network.differences()


def test_an_endpoint_that_stays_is_reported(
    cloud: Cloud, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = cloud.api.call

    def refuse(service: str, operation: str, **arguments: Any) -> Any:
        if operation == "delete_vpc_endpoints":
            return {"Unsuccessful": [{"Error": {"Code": "InvalidVpcEndpoint.NotFound", "Message": "?"}}]}
        return call(service, operation, **arguments)

    monkeypatch.setattr(cloud.api, "call", refuse)
    with pytest.raises(RequestError, match=r"EC2 does not delete vpce-\w+ \(InvalidVpcEndpoint.NotFound\)"):
        network.remove()


def test_a_region_without_a_zone_has_no_place_for_a_cache(
    cloud: Cloud, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = cloud.api.call

    def no_zone(service: str, operation: str, **arguments: Any) -> Any:
        if operation == "describe_availability_zones":
            return {"AvailabilityZones": [{"ZoneId": "use1-az1", "State": "impaired"}]}
        return call(service, operation, **arguments)

    monkeypatch.setattr(cloud.api, "call", no_zone)
    with pytest.raises(PlatformError, match="us-east-1 has no zone for a subnet: choose another --region"):
        Network(cloud.api, names).apply()


def test_a_cache_of_another_size_is_not_replaced(cloud: Cloud, names: Names, network: Network) -> None:
    Cache(cloud.api, names, REDIS, network).apply()
    larger = dataclasses.replace(REDIS, cache_node="cache.r6g.large")
    with pytest.raises(UsageError, match=r"is a cache.t4g.small, the world asks for cache.r6g.large: run"):
        Cache(cloud.api, names, larger, network).differences()


def test_a_foreign_cache_is_left_alone(cloud: Cloud, names: Names, network: Network) -> None:
    cloud.client("elasticache").create_cache_cluster(
        CacheClusterId=names.cache, Engine="redis", CacheNodeType="cache.t4g.small", NumCacheNodes=1
    )
    cache = Cache(cloud.api, names, REDIS, network)
    with pytest.raises(UsageError, match="the cache siren-cache exists and does not carry the tag"):
        cache.apply()
    assert not cache.exists()


def test_a_foreign_cache_survives_the_removal_of_what_is_ours_beside_it(
    cloud: Cloud, names: Names, network: Network
) -> None:
    elasticache = cloud.client("elasticache")
    elasticache.create_cache_cluster(
        CacheClusterId=names.cache, Engine="redis", CacheNodeType="cache.t4g.small", NumCacheNodes=1
    )
    cloud.parameter_groups[names.cache] = {}
    cloud.parameter_tags[names.cache] = {"Key": TAG, "Value": "siren"}
    cache = Cache(cloud.api, names, REDIS, network)
    assert cache.exists()
    cache.remove()
    assert cloud.parameter_groups == {}
    (left,) = elasticache.describe_cache_clusters()["CacheClusters"]
    assert left["CacheClusterStatus"] == "available"
    assert not cache.exists()


def test_a_full_cache_refuses_and_never_evicts(cloud: Cloud, names: Names, network: Network) -> None:
    cache = Cache(cloud.api, names, REDIS, network)
    cloud.operations.clear()
    cache.apply()
    assert cache.differences() == []
    assert cloud.parameter_groups[names.cache]["maxmemory-policy"] == "noeviction"
    assert cloud.changes() == [  # it has the parameters from the beginning
        "CreateCacheParameterGroup",
        "ModifyCacheParameterGroup",
        "CreateCacheSubnetGroup",
        "CreateCacheCluster",
    ]
    (made,) = cloud.client("elasticache").describe_cache_clusters()["CacheClusters"]
    assert made["EngineVersion"] == "7.1"
    cloud.parameter_groups[names.cache]["maxmemory-policy"] = "allkeys-lru"
    assert cache.differences() == ["maxmemory-policy"]
    cloud.operations.clear()
    cache.apply()
    assert cache.differences() == []
    assert cloud.changes() == ["ModifyCacheParameterGroup"]


def test_a_cache_of_an_earlier_siren_is_given_the_parameters(
    cloud: Cloud, names: Names, network: Network
) -> None:
    cloud.client("elasticache").create_cache_cluster(
        CacheClusterId=names.cache,
        Engine="redis",
        CacheNodeType="cache.t4g.small",
        NumCacheNodes=1,
        Tags=[{"Key": TAG, "Value": "siren"}],
    )
    cache = Cache(cloud.api, names, REDIS, network)
    assert cache.differences() == ["parameter group"]
    cloud.operations.clear()
    cache.apply()
    assert cache.differences() == []
    assert cloud.changes() == ["CreateCacheParameterGroup", "ModifyCacheParameterGroup", "ModifyCacheCluster"]


def test_a_foreign_parameter_group_is_neither_used_nor_removed(
    cloud: Cloud, names: Names, network: Network
) -> None:
    cloud.parameter_groups[names.cache] = {"maxmemory-policy": "allkeys-lru"}
    cache = Cache(cloud.api, names, REDIS, network)
    with pytest.raises(UsageError, match="the cache parameter group siren-cache exists and does not carry"):
        cache.apply()
    assert not cache.exists()
    cache.remove()
    assert cloud.parameter_groups == {names.cache: {"maxmemory-policy": "allkeys-lru"}}


def test_a_teardown_that_was_interrupted_finds_what_is_left_of_a_cache(
    cloud: Cloud, names: Names, network: Network
) -> None:
    cache = Cache(cloud.api, names, REDIS, network)
    cache.apply()
    cloud.faults["DeleteCacheParameterGroup"] = [("InvalidCacheParameterGroupState", "still in use")]
    with pytest.raises(RequestError, match="refuses elasticache:DeleteCacheParameterGroup"):
        cache.remove()
    assert cache.exists()
    cache.remove()
    assert not cache.exists()
    assert cloud.parameter_groups == {}


def test_the_caches_url_is_in_the_functions_environment(
    names: Names, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Word for word what Lambda is asked: Stubber compares, and checks it by botocore's model."""
    api = Api(boto3.Session(region_name="us-east-1"))
    network, cache = Network(api, names), Cache(api, names, REDIS, Network(api, names))
    monkeypatch.setattr(network, "ids", lambda: NetworkIds("subnet-1", "sg-1"))
    monkeypatch.setattr(cache, "url", lambda: "redis://cache:6379")
    configuration = {
        "Runtime": "python3.13",
        "Handler": "siren.worker.handler.handler",
        "Role": names.role_arn,
        "VpcConfig": {"SecurityGroupIds": ["sg-1"], "SubnetIds": ["subnet-1"]},
        "Environment": {
            "Variables": {
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "SIREN_REDIS_URL": "redis://cache:6379",
            }
        },
    }
    tags = {TAG: "siren", "siren:bucket": names.bucket, "siren:redis": "redis://cache:6379"}
    own = {"FunctionName": names.function}
    ready = {"State": "Active", "LastUpdateStatus": "Successful"}
    made = {**configuration, "CodeSha256": package.sha256_base64, "Architectures": ["x86_64"]}
    found = {"Configuration": made, "Tags": tags, "Concurrency": {"ReservedConcurrentExecutions": 10}}
    stale = {**found, "Configuration": {**made, "Environment": {"Variables": dict(ENVIRONMENT)}}}
    create = {
        **own,
        **configuration,
        "Description": "Worker of Siren",
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
        "Code": {"ZipFile": package.content},
        "Tags": tags,
    }
    function = Function(api, names, REDIS, package, network, cache)
    with Stubber(api.client("lambda")) as stub:
        stub.add_client_error("get_function", "ResourceNotFoundException", expected_params=own)
        stub.add_response("create_function", {}, create)
        stub.add_response("get_function_configuration", ready, own)
        stub.add_response("get_function", found, own)
        function.apply()
        stub.assert_no_pending_responses()
        # One that was deployed before it had the variable is corrected, and its versions are republished.
        stub.add_response("get_function", stale, own)
        stub.add_response("get_function_configuration", ready, own)
        stub.add_response("get_function", stale, own)
        stub.add_response("update_function_configuration", {}, {**own, **configuration})
        stub.add_response("get_function_configuration", ready, own)
        stub.add_response("list_versions_by_function", {"Versions": [{"Version": "3"}]}, own)
        stub.add_response("delete_function", {}, {**own, "Qualifier": "3"})
        function.apply()
        stub.assert_no_pending_responses()


def test_a_cache_that_never_comes_up_ends_the_wait(
    cloud: Cloud, names: Names, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(cloud.api, names, REDIS, network)
    monkeypatch.setattr(cache, "url", lambda: None)
    with pytest.raises(
        PlatformError, match="waited 30 minutes until the cache is available: run the same command"
    ):
        cache.apply()
    assert sum(cloud.slept) == 1800.0


def test_an_incomplete_deployment_is_not_run_on(cloud: Cloud, function: Function, names: Names) -> None:
    with pytest.raises(
        PlatformError, match=r"no deployment named siren is in us-east-1: run `python -m siren.deploy"
    ):
        read_deployment(cloud.api, "siren")
    function.apply()
    cloud.client("lambda").delete_function_concurrency(FunctionName=names.function)
    with pytest.raises(PlatformError, match="is not complete"):
        read_deployment(cloud.api, "siren")
    cloud.client("lambda").untag_resource(Resource=names.function_arn, TagKeys=[TAG])
    with pytest.raises(PlatformError, match="no deployment named siren"):
        read_deployment(cloud.api, "siren")


def test_teardown_works_without_the_right_to_see_networks(cloud: Cloud, names: Names) -> None:
    Role(cloud.api, names, S3).apply()
    denied = [("UnauthorizedOperation", "not you")]
    cloud.faults |= {"DescribeVpcs": denied, "DescribeCacheClusters": [("AccessDenied", "not you")]}
    err = io.StringIO()
    assert tear_down(TeardownConfig(yes=True), io.StringIO(), err, io.StringIO(), cloud.api) == 0
    assert "not looked for a network: AWS denies ec2:DescribeVpcs" in err.getvalue()
    assert not Role(cloud.api, names, S3).exists()


def test_retention_days_are_those_that_the_api_takes() -> None:
    pytest.importorskip("boto3")
    import botocore.session

    model = botocore.session.get_session().get_service_model("logs")
    member = model.operation_model("PutRetentionPolicy").input_shape.members["retentionInDays"]
    listed = re.search(r"Possible values are: ([0-9, and]+)", member.documentation)
    assert listed is not None
    assert [int(days) for days in re.findall("[0-9]+", listed[1])] == list(RETENTION_DAYS)
