"""AWS in this process: moto, with the few things that it lacks put in by hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from siren._roots import root_folder
from siren.platforms.aws.api import Api
from siren.platforms.aws.names import Names
from siren.platforms.package import Package, aws_target, build_package, local_target

REGION = "us-east-1"
ACCOUNT = "123456789012"
PARAMETER_OPERATIONS = (
    "CreateCacheParameterGroup",
    "DeleteCacheParameterGroup",
    "DescribeCacheParameterGroups",
    "DescribeCacheParameters",
    "ModifyCacheCluster",
    "ModifyCacheParameterGroup",
)
REDIS = "siren-cache.abc.0001.use1.cache.amazonaws.com"


class SharedSession:
    """A boto3 session that makes each client once for all tests: making one takes longer than a test.

    Its clients are real ones, which check every request by AWS's models. moto has no GetAccountSettings, no
    nodes in a cache, no cache parameter groups, and deletes no cache subnet group: that is answered by the
    `Cloud` of the test.
    """

    def __init__(self) -> None:
        import boto3
        from botocore.awsrequest import AWSResponse

        self.cloud: Cloud | None = None
        self.region_name = REGION
        self._session = boto3.Session(region_name=REGION)
        self._clients: dict[str, Any] = {}
        self._response = AWSResponse
        events = self._session.events
        events.register("before-parameter-build", self._record)
        events.register_first("before-call", self._fail)
        events.register("before-call.lambda.GetAccountSettings", self._account_settings)
        events.register("after-call.elasticache.DescribeCacheClusters", self._complete_clusters)
        for operation in PARAMETER_OPERATIONS:
            events.register(f"before-call.elasticache.{operation}", self._parameters)
        events.register("before-call.elasticache.ListTagsForResource", self._parameters_tags)
        events.register("before-call.elasticache.DeleteCacheSubnetGroup", self._delete_subnet_group)

    def client(self, service: str, config: Any = None) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(service, config=config)
        return self._clients[service]

    def get_partition_for_region(self, region: str) -> str:
        return str(self._session.get_partition_for_region(region))

    def _record(self, model: Any, **_: Any) -> None:
        assert self.cloud is not None
        self.cloud.operations.append((model.service_model.service_name, model.name))

    def _fail(self, model: Any, **_: Any) -> Any:
        assert self.cloud is not None
        faults = self.cloud.faults.get(model.name, [])
        if not faults:
            return None
        code, message = faults.pop(0)
        return self._response("", 400, {}, None), {"Error": {"Code": code, "Message": message}}

    def _account_settings(self, **_: Any) -> Any:
        assert self.cloud is not None
        return self._response("", 200, {}, None), {"AccountLimit": dict(self.cloud.limit)}

    def _complete_clusters(self, parsed: dict[str, Any], **_: Any) -> None:
        assert self.cloud is not None
        for cluster in parsed.get("CacheClusters", []):
            cluster["CacheNodes"] = [{"Endpoint": {"Address": REDIS, "Port": 6379}}]
            made = _clusters()[cluster["CacheClusterId"]]
            name = made.cache_parameter_group_name or "default.redis7"
            cluster["CacheParameterGroup"] = {"CacheParameterGroupName": name}

    def _parameters(self, model: Any, params: dict[str, Any], **_: Any) -> Any:
        """Cache parameter groups: requests come as AWS would get them, form fields."""
        assert self.cloud is not None
        if failure := self._fail(model):  # which is asked after this
            return failure
        groups, body = self.cloud.parameter_groups, params["body"]
        name, answer = body["CacheParameterGroupName"], dict[str, Any]()
        if model.name == "ModifyCacheCluster":
            assert body["ApplyImmediately"] == "true"
            _clusters()[body["CacheClusterId"]].cache_parameter_group_name = name
        elif model.name == "CreateCacheParameterGroup":
            if name in groups:
                return self._refused("CacheParameterGroupAlreadyExists")
            groups[name] = {"maxmemory-policy": "volatile-lru", "timeout": "0"}
            self.cloud.parameter_tags[name] = {
                "Key": body["Tags.Tag.1.Key"],
                "Value": body["Tags.Tag.1.Value"],
            }
        elif name not in groups:
            return self._refused("CacheParameterGroupNotFound")
        elif model.name == "ModifyCacheParameterGroup":
            first = "ParameterNameValues.ParameterNameValue.1."
            groups[name][body[f"{first}ParameterName"]] = body[f"{first}ParameterValue"]
        elif model.name == "DescribeCacheParameterGroups":
            answer = {"CacheParameterGroups": [{"CacheParameterGroupName": name}]}
        elif model.name == "DescribeCacheParameters":
            listed = groups[name].items()
            answer = {"Parameters": [{"ParameterName": k, "ParameterValue": v} for k, v in listed]}
        elif any(cluster.cache_parameter_group_name == name for cluster in _clusters().values()):
            return self._refused("InvalidCacheParameterGroupState")
        else:
            del groups[name]
        return self._response("", 200, {}, None), answer

    def _parameters_tags(self, params: dict[str, Any], **_: Any) -> Any:
        assert self.cloud is not None
        prefix, _, name = params["body"]["ResourceName"].rpartition(":")
        if not prefix.endswith(":parametergroup"):
            return None
        tag = self.cloud.parameter_tags.get(name)
        return self._response("", 200, {}, None), {"TagList": [tag] if tag else []}

    def _refused(self, code: str) -> Any:
        return self._response("", 400, {}, None), {"Error": {"Code": code, "Message": "no"}}

    def _delete_subnet_group(self, params: dict[str, Any], **_: Any) -> Any:
        name = params["body"]["CacheSubnetGroupName"]
        if _backend().cache_subnet_groups.pop(name, None) is not None:
            return self._response("", 200, {}, None), {}
        return self._refused("CacheSubnetGroupNotFoundFault")


def _backend() -> Any:
    from moto.elasticache.models import elasticache_backends

    return elasticache_backends[ACCOUNT][REGION]


def _clusters() -> dict[str, Any]:
    return dict(_backend().cache_clusters)


class Cloud:
    """One account of moto's.

    Attributes:
        api: What the code under test gets. Its sleep lets deletions end: moto never ends that of a cache,
            and knows no interfaces that Lambda makes.
        operations: What was asked through it, as (service, operation).
        limit: The account's.
        interfaces: IDs of network interfaces that Lambda will remove.
        parameter_groups, parameter_tags: Parameters and tag of the account's cache parameter groups, by name.
        faults: (code, message) of the errors that the next requests of an operation get.
        slept: Seconds that somebody waited.
    """

    def __init__(self, shared: SharedSession) -> None:
        self.operations: list[tuple[str, str]] = []
        self.limit = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}
        self.interfaces: list[str] = []
        self.parameter_groups: dict[str, dict[str, str]] = {}
        self.parameter_tags: dict[str, dict[str, str]] = {}
        self.faults: dict[str, list[tuple[str, str]]] = {}
        self.slept: list[float] = []
        self.api = Api(shared, self._sleep)
        shared.cloud = self

    def client(self, service: str) -> Any:
        """A client whose requests are not recorded."""
        if service not in _CLIENTS:
            import boto3

            _CLIENTS[service] = boto3.client(service, region_name=REGION)
        return _CLIENTS[service]

    def changes(self) -> list[str]:
        """Operations so far that were not mere look-ups."""
        reading = ("Get", "List", "Describe", "Head")
        return [name for _, name in self.operations if not name.startswith(reading)]

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        clusters = _backend().cache_clusters
        for name in [name for name, it in clusters.items() if it.cache_cluster_status == "deleting"]:
            del clusters[name]
        for interface in self.interfaces:
            self.client("ec2").delete_network_interface(NetworkInterfaceId=interface)
        self.interfaces.clear()


_CLIENTS: dict[str, Any] = {}


@pytest.fixture(scope="session")
def shared_session() -> SharedSession:
    pytest.importorskip("moto")  # before the first client, which it must be able to stop
    return SharedSession()


@pytest.fixture
def cloud(shared_session: SharedSession) -> Iterator[Cloud]:
    import moto

    with moto.mock_aws(config={"lambda": {"use_docker": False}}):
        yield Cloud(shared_session)


@pytest.fixture
def names() -> Names:
    return Names("siren", REGION, ACCOUNT)


@pytest.fixture(scope="session")
def package() -> Package:
    """A small package that says it is for AWS."""
    built = build_package(root_folder("workloads") / "mlp-mnist", local_target())
    return dataclasses.replace(built, target=aws_target())


@pytest.fixture
def other_package(package: Package) -> Callable[[bytes], Package]:
    """Packages with other code."""
    return lambda extra: dataclasses.replace(package, content=package.content + extra)
