"""The cache: one Redis node in the deployment's VPC, its subnet group and its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siren.errors import UsageError
from siren.platforms.aws.api import TAKEN, Api, RequestError
from siren.platforms.aws.names import Names
from siren.platforms.aws.network import REDIS_PORT, Network
from siren.platforms.aws.part import Settings, check_ours, is_ours, tag_list, tag_mapping

ENGINE, ENGINE_VERSION, FAMILY = "redis", "7.1", "redis7"
"""What the price of the node is for; the last Redis that ElastiCache has, and the parameters of its kind
(Amazon ElastiCache user guide, supported engines, 2026)."""
PARAMETERS = {"maxmemory-policy": "noeviction"}
"""A full node refuses writes. By default (`volatile-lru`) it would drop models, whose keys expire."""
CREATION_S = 30 * 60.0
_PAUSE_S = 15.0


class Cache:
    """See `Part`. Parameters in it are scratch: no replica, no snapshot.

    Args:
        api: AWS.
        names: The deployment.
        settings: What it should be like.
        network: Where it is.
    """

    kind = "cache"

    def __init__(self, api: Api, names: Names, settings: Settings, network: Network) -> None:
        self.name = names.cache
        self._api = api
        self._names = names
        self._node = settings.cache_node
        self._network = network
        self._arn = names.regional("elasticache", f"cluster:{self.name}")
        self._subnets_arn = names.regional("elasticache", f"subnetgroup:{self.name}")
        self._parameters_arn = names.regional("elasticache", f"parametergroup:{self.name}")

    def differences(self) -> list[str] | None:
        """See `Part.differences`."""
        cluster = self._cluster()
        if cluster is None:
            return None
        check_ours(self.kind, self.name, self._names, self._tags(self._arn))
        if cluster["CacheNodeType"] != self._node:
            raise UsageError(
                f"the cache {self.name} is a {cluster['CacheNodeType']}, the world asks for "
                f"{self._node}: run `python -m siren.teardown --name {self._names.deployment}` first, or use "
                "a world with that node"
            )
        found = [] if cluster["CacheClusterStatus"] == "available" else ["not available yet"]
        if not self._has_our_parameters(cluster):
            return [*found, "parameter group"]
        return found + self._wrong_parameters()

    def apply(self) -> None:
        """See `Part.apply`: waits until it can be used."""
        missing = self.differences() is None  # one that is not ours is refused before anything is made
        self._apply_parameters()
        if missing:
            self._create()
            self.differences()  # somebody else may have been faster
        self._wait()
        cluster = self._cluster()
        if cluster is not None and not self._has_our_parameters(cluster):
            group = {"CacheParameterGroupName": self.name, "ApplyImmediately": True}
            self._api.call("elasticache", "modify_cache_cluster", CacheClusterId=self.name, **group)
            self._wait()

    def url(self) -> str | None:
        """`redis://host:port`; None while it is not available."""
        cluster = self._cluster()
        if cluster is None or cluster["CacheClusterStatus"] != "available":
            return None
        endpoints = [node["Endpoint"] for node in cluster.get("CacheNodes", []) if "Endpoint" in node]
        return f"redis://{endpoints[0]['Address']}:{endpoints[0]['Port']}" if endpoints else None

    def exists(self) -> bool:
        """See `Part.exists`."""
        cluster = self._cluster() is not None and is_ours(self._names, self._tags(self._arn))
        return cluster or self._subnet_group_is_ours() or self._parameter_group_is_ours()

    def remove(self) -> None:
        """See `Part.remove`: waits until it is gone, which takes minutes."""
        cluster = self._cluster()
        going = cluster is not None and cluster["CacheClusterStatus"] == "deleting"
        # A group of ours may be all that is left of a deployment, beside somebody else's cache.
        if cluster is not None and not going and is_ours(self._names, self._tags(self._arn)):
            self._api.call("elasticache", "delete_cache_cluster", CacheClusterId=self.name)
            going = True
        if going:
            self._api.wait("the cache is gone", lambda: self._cluster() is None, CREATION_S, _PAUSE_S)
        if self._subnet_group_is_ours():
            self._api.find("elasticache", "delete_cache_subnet_group", CacheSubnetGroupName=self.name)
        if self._parameter_group_is_ours():
            self._api.find("elasticache", "delete_cache_parameter_group", CacheParameterGroupName=self.name)

    def _wait(self) -> None:
        self._api.wait("the cache is available", lambda: self.url() is not None, CREATION_S, _PAUSE_S)

    def _apply_parameters(self) -> None:
        """Makes the parameter group, or corrects what it says."""
        if self._parameter_group():
            check_ours("cache parameter group", self.name, self._names, self._tags(self._parameters_arn))
        else:
            self._make(
                "create_cache_parameter_group",
                CacheParameterGroupName=self.name,
                CacheParameterGroupFamily=FAMILY,
                Description="Siren",
                Tags=tag_list(self._names.tags),
            )
        if self._wrong_parameters():
            values = [{"ParameterName": key, "ParameterValue": value} for key, value in PARAMETERS.items()]
            self._api.call(
                "elasticache",
                "modify_cache_parameter_group",
                CacheParameterGroupName=self.name,
                ParameterNameValues=values,
            )

    def _wrong_parameters(self) -> list[str]:
        """Names of the parameters that our group has otherwise."""
        listed = self._api.items(
            "elasticache", "describe_cache_parameters", "Parameters", CacheParameterGroupName=self.name
        )
        found = {each["ParameterName"]: each.get("ParameterValue") for each in listed}
        return [name for name, value in PARAMETERS.items() if found.get(name) != value]

    def _has_our_parameters(self, cluster: Mapping[str, Any]) -> bool:
        return bool(cluster["CacheParameterGroup"]["CacheParameterGroupName"] == self.name)

    def _create(self) -> None:
        ids = self._network.ids()
        assert ids is not None, "the network comes first"
        tags = tag_list(self._names.tags)
        if self._subnet_group():
            check_ours("cache subnet group", self.name, self._names, self._tags(self._subnets_arn))
        else:
            self._make(
                "create_cache_subnet_group",
                CacheSubnetGroupName=self.name,
                CacheSubnetGroupDescription="Siren",
                SubnetIds=[ids.subnet],
                Tags=tags,
            )
        self._make(
            "create_cache_cluster",
            CacheClusterId=self.name,
            Engine=ENGINE,
            EngineVersion=ENGINE_VERSION,
            CacheParameterGroupName=self.name,
            CacheNodeType=self._node,
            NumCacheNodes=1,
            Port=REDIS_PORT,
            CacheSubnetGroupName=self.name,
            SecurityGroupIds=[ids.security_group],
            SnapshotRetentionLimit=0,
            Tags=tags,
        )

    def _make(self, operation: str, **arguments: Any) -> None:
        try:
            self._api.call("elasticache", operation, **arguments)
        except RequestError as error:
            if error.code not in TAKEN:
                raise

    def _cluster(self) -> Mapping[str, Any] | None:
        answer = self._api.find(
            "elasticache", "describe_cache_clusters", CacheClusterId=self.name, ShowCacheNodeInfo=True
        )
        return answer["CacheClusters"][0] if answer and answer["CacheClusters"] else None

    def _subnet_group(self) -> bool:
        answer = self._api.find("elasticache", "describe_cache_subnet_groups", CacheSubnetGroupName=self.name)
        return bool(answer and answer["CacheSubnetGroups"])

    def _subnet_group_is_ours(self) -> bool:
        return self._subnet_group() and is_ours(self._names, self._tags(self._subnets_arn))

    def _parameter_group(self) -> bool:
        answer = self._api.find(
            "elasticache", "describe_cache_parameter_groups", CacheParameterGroupName=self.name
        )
        return bool(answer and answer["CacheParameterGroups"])

    def _parameter_group_is_ours(self) -> bool:
        return self._parameter_group() and is_ours(self._names, self._tags(self._parameters_arn))

    def _tags(self, arn: str) -> dict[str, str]:
        answer = self._api.find("elasticache", "list_tags_for_resource", ResourceName=arn)
        return tag_mapping(list(answer["TagList"])) if answer else {}
