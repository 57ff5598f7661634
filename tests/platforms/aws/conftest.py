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
REDIS = "siren-cache.abc.0001.use1.cache.amazonaws.com"


class SharedSession:
    """A boto3 session that makes each client once for all tests: making one takes longer than a test.

    Its clients are real ones, which check every request by AWS's models. moto has no GetAccountSettings, no
    nodes in a cache, and deletes no cache subnet group: that is answered by the `Cloud` of the test.
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
        events.register("after-call.elasticache.DescribeCacheClusters", self._add_nodes)
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

    @staticmethod
    def _add_nodes(parsed: dict[str, Any], **_: Any) -> None:
        for cluster in parsed.get("CacheClusters", []):
            cluster["CacheNodes"] = [{"Endpoint": {"Address": REDIS, "Port": 6379}}]

    def _delete_subnet_group(self, params: dict[str, Any], **_: Any) -> Any:
        from moto.elasticache.models import elasticache_backends

        name = params["body"]["CacheSubnetGroupName"]
        if elasticache_backends[ACCOUNT][REGION].cache_subnet_groups.pop(name, None) is not None:
            return self._response("", 200, {}, None), {}
        error = {"Code": "CacheSubnetGroupNotFoundFault", "Message": name}
        return self._response("", 404, {}, None), {"Error": error}


class Cloud:
    """One account of moto's.

    Attributes:
        api: What the code under test gets. Its sleep lets deletions end: moto never ends that of a cache,
            and knows no interfaces that Lambda makes.
        operations: What was asked through it, as (service, operation).
        limit: The account's.
        interfaces: IDs of network interfaces that Lambda will remove.
        faults: (code, message) of the errors that the next requests of an operation get.
        slept: Seconds that somebody waited.
    """

    def __init__(self, shared: SharedSession) -> None:
        self.operations: list[tuple[str, str]] = []
        self.limit = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}
        self.interfaces: list[str] = []
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
        from moto.elasticache.models import elasticache_backends

        self.slept.append(seconds)
        clusters = elasticache_backends[ACCOUNT][REGION].cache_clusters
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
