"""The VPC of a deployment with a cache: a private subnet, a way to S3, nothing to the internet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from siren.errors import PlatformError, UsageError
from siren.platforms.aws.api import Api, RequestError
from siren.platforms.aws.names import TAG, Names
from siren.platforms.aws.part import tag_list
from siren.platforms.aws.policies import endpoint_policy

VPC_CIDR = "10.83.0.0/16"
SUBNET_CIDR = "10.83.0.0/20"
"""One subnet, and with it one zone. What functions and a cache in different zones send each other costs
$0.01 per GB each way (price book, `transfer.cross_az`), and no ledger would know it; one node is in one zone
anyway."""
REDIS_PORT = 6379
INTERFACES_S = 45 * 60.0
"""Lambda removes the network interfaces of a deleted function within 20 minutes, in some cases later."""
_PAUSE_S = 15.0


@dataclass(frozen=True)
class NetworkIds:
    """What the function and the cache must name.

    Attributes:
        subnet: ID of the subnet.
        security_group: ID of the group that function and cache share.
    """

    subnet: str
    security_group: str

    @property
    def vpc_config(self) -> dict[str, list[str]]:
        """As a function's configuration names them."""
        return {"SecurityGroupIds": [self.security_group], "SubnetIds": [self.subnet]}


class Network:
    """See `Part`. Its pieces are found by their tag.

    Args:
        api: AWS.
        names: The deployment.
    """

    kind = "network"

    def __init__(self, api: Api, names: Names) -> None:
        self.name = names.cache
        self._api = api
        self._names = names
        self._tagged = [{"Name": f"tag:{TAG}", "Values": [names.deployment]}]

    def differences(self) -> list[str] | None:
        """See `Part.differences`."""
        vpc = self._vpc()
        if vpc is None:
            return None
        found = [] if SUBNET_CIDR in self._subnets() else ["subnet"]
        endpoint = self._endpoint()
        if endpoint is None:
            found.append("S3 endpoint")
        group = self._group()
        if group is None or not group["IpPermissions"]:
            found.append("security group")
        return found

    def ids(self) -> NetworkIds | None:
        """What others must name; None while something is missing."""
        subnet, group = self._subnets().get(SUBNET_CIDR), self._group()
        return None if subnet is None or group is None else NetworkIds(subnet, str(group["GroupId"]))

    def apply(self) -> None:
        """See `Part.apply`."""
        vpc = self._vpc() or self._create("vpc", "create_vpc", CidrBlock=VPC_CIDR)["Vpc"]
        vpc_id = str(vpc["VpcId"])
        self._api.wait("the VPC is available", lambda: self._available(vpc_id), 300.0, 2.0)
        if SUBNET_CIDR not in self._subnets():
            zone = self._zone()
            self._create(
                "subnet", "create_subnet", VpcId=vpc_id, CidrBlock=SUBNET_CIDR, AvailabilityZoneId=zone
            )
        if self._endpoint() is None:
            self._create(
                "vpc-endpoint",
                "create_vpc_endpoint",
                VpcId=vpc_id,
                VpcEndpointType="Gateway",
                ServiceName=f"com.amazonaws.{self._names.region}.s3",
                RouteTableIds=[self._main_route_table(vpc_id)],
                PolicyDocument=json.dumps(endpoint_policy(self._names)),
            )
        self._apply_group(vpc_id)

    def exists(self) -> bool:
        """See `Part.exists`."""
        return self._vpc() is not None

    def remove(self) -> None:
        """See `Part.remove`: once Lambda has given its network interfaces back."""
        vpc = self._vpc()
        if vpc is None:
            return
        inside = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
        self._api.wait(
            "Lambda has removed its network interfaces",
            lambda: not self._list("describe_network_interfaces", "NetworkInterfaces", inside),
            INTERFACES_S,
            _PAUSE_S,
        )
        if (endpoint := self._endpoint()) is not None:
            self._remove_endpoint(str(endpoint["VpcEndpointId"]))
        if (group := self._group()) is not None:
            self._remove("delete_security_group", GroupId=group["GroupId"])
        for subnet in self._subnets().values():
            self._remove("delete_subnet", SubnetId=subnet)
        self._remove("delete_vpc", VpcId=vpc["VpcId"])

    def _apply_group(self, vpc_id: str) -> None:
        group = self._group()
        if group is None:
            description = "Workers and cache of Siren"
            group = self._create(
                "security-group",
                "create_security_group",
                GroupName=self.name,
                Description=description,
                VpcId=vpc_id,
            )
        elif group["IpPermissions"]:
            return
        pair = [{"GroupId": group["GroupId"]}]
        rule = {"IpProtocol": "tcp", "FromPort": REDIS_PORT, "ToPort": REDIS_PORT, "UserIdGroupPairs": pair}
        self._api.call(
            "ec2", "authorize_security_group_ingress", GroupId=group["GroupId"], IpPermissions=[rule]
        )

    def _zone(self) -> str:
        """ID of the zone to use.

        An ID means the same zone for every account, a name does not. The first one of a region has all node
        types, which cannot be said of us-east-1's use1-az3.
        """
        filters = [{"Name": "zone-type", "Values": ["availability-zone"]}]
        zones = self._api.call("ec2", "describe_availability_zones", Filters=filters)["AvailabilityZones"]
        ids = sorted(str(zone["ZoneId"]) for zone in zones if zone["State"] == "available")
        if not ids:
            raise PlatformError(f"{self._names.region} has no zone for a subnet: choose another --region")
        return ids[0]

    def _main_route_table(self, vpc_id: str) -> str:
        filters = [{"Name": "vpc-id", "Values": [vpc_id]}, {"Name": "association.main", "Values": ["true"]}]
        return str(self._list("describe_route_tables", "RouteTables", filters)[0]["RouteTableId"])

    def _available(self, vpc_id: str) -> bool:
        vpcs = self._list("describe_vpcs", "Vpcs", [{"Name": "vpc-id", "Values": [vpc_id]}])
        return bool(vpcs) and vpcs[0]["State"] == "available"

    def _vpc(self) -> Mapping[str, Any] | None:
        return self._only("VPC", self._list("describe_vpcs", "Vpcs", self._tagged))

    def _subnets(self) -> dict[str, str]:
        """IDs of our subnets by CIDR."""
        subnets = self._list("describe_subnets", "Subnets", self._tagged)
        return {subnet["CidrBlock"]: subnet["SubnetId"] for subnet in subnets}

    def _endpoint(self) -> Mapping[str, Any] | None:
        endpoints = self._list("describe_vpc_endpoints", "VpcEndpoints", self._tagged)
        gone = ("deleting", "deleted")
        return self._only("VPC endpoint", [e for e in endpoints if e["State"].lower() not in gone])

    def _group(self) -> Mapping[str, Any] | None:
        return self._only(
            "security group", self._list("describe_security_groups", "SecurityGroups", self._tagged)
        )

    def _only(self, kind: str, found: list[Any]) -> Mapping[str, Any] | None:
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} resources ({kind}) carry the tag {TAG} = {self._names.deployment}: take it "
                "off those that Siren did not make, or choose another --name"
            )
        return found[0] if found else None

    def _list(self, operation: str, key: str, filters: list[dict[str, Any]]) -> list[Any]:
        return list(self._api.items("ec2", operation, key, Filters=filters))

    def _create(self, kind: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
        tags = tag_list({**self._names.tags, "Name": self.name})
        specification = [{"ResourceType": kind, "Tags": tags}]
        return self._api.call("ec2", operation, TagSpecifications=specification, **arguments)

    def _remove_endpoint(self, endpoint_id: str) -> None:
        answer = self._api.call("ec2", "delete_vpc_endpoints", VpcEndpointIds=[endpoint_id])
        for failed in answer.get("Unsuccessful", []):
            reason = failed["Error"]
            raise RequestError(
                f"EC2 does not delete {endpoint_id} ({reason['Code']}): run the same command again",
                reason["Code"],
                "ec2:DeleteVpcEndpoints",
                reason.get("Message", ""),
            )
        self._api.wait("the S3 endpoint is gone", lambda: self._endpoint() is None, 600.0, _PAUSE_S)

    def _remove(self, operation: str, **arguments: Any) -> None:
        """Deletes a piece; what still depends on it is given time to go."""
        self._api.call_until("ec2", operation, lambda e: e.code == "DependencyViolation", 600.0, **arguments)
