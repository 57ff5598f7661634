"""All parts of a deployment, in the order in which they are made, or removed."""

from __future__ import annotations

from collections.abc import Mapping

from siren.platforms.aws.api import Api
from siren.platforms.aws.bucket import Bucket
from siren.platforms.aws.cache import Cache
from siren.platforms.aws.function import Function
from siren.platforms.aws.log_group import LogGroup
from siren.platforms.aws.names import Names
from siren.platforms.aws.network import VPC_CIDR, Network
from siren.platforms.aws.part import Part, Settings
from siren.platforms.aws.role import Role
from siren.platforms.aws.versions import PublishedVersions, describe
from siren.platforms.package import Package

ANYTHING = Settings(redis=True, cache_node="", concurrency=0, log_days=0, run_days=0)
"""Settings of parts that are only removed."""


def parts_to_make(
    api: Api, names: Names, settings: Settings, package: Package
) -> tuple[list[Part], Function]:
    """The parts in the order of their making, and the function among them."""
    network = Network(api, names) if settings.redis else None
    cache = Cache(api, names, settings, network) if network else None
    function = Function(api, names, settings, package, network, cache)
    parts: list[Part] = [
        Bucket(api, names, settings),
        LogGroup(api, names, settings),
        Role(api, names, settings),
    ]
    parts += [part for part in (network, cache) if part is not None]
    parts.append(function)
    if settings.versions:
        parts.append(PublishedVersions(api, names, settings, package.sha256_base64, function))
    return parts, function


def parts_to_remove(api: Api, names: Names, *, redis: bool) -> list[Part]:
    """The parts in the order of their removal.

    The role is last: Lambda gives the network interfaces back with it.

    Args:
        api: AWS.
        names: The deployment.
        redis: Whether there may be a cache and a network.
    """
    network = Network(api, names)
    parts: list[Part] = [Function(api, names, ANYTHING, None)]
    if redis:
        parts += [Cache(api, names, ANYTHING, network), network]
    return [*parts, LogGroup(api, names, ANYTHING), Bucket(api, names, ANYTHING), Role(api, names, ANYTHING)]


def details(settings: Settings, package: Package) -> Mapping[str, str]:
    """What each part is, by its kind."""
    size = f"{package.zipped_bytes:,} B zipped ({package.unzipped_bytes:,} B unzipped)"
    compiled = "with bytecode" if package.bytecode else "without bytecode"
    target = f"{package.target.runtime} on {package.target.lambda_architecture}"
    return {
        "bucket": f"private, encrypted, TLS only; objects of runs expire after {settings.run_days} days",
        "log group": f"kept for {settings.log_days} days",
        "role": "reads data/, reads and writes runs/, writes its log" + (", joins the VPC" * settings.redis),
        "network": f"VPC {VPC_CIDR}, a private subnet in one zone, S3 endpoint, security group",
        "cache": f"one {settings.cache_node} node, reached only by the function; refuses writes when full",
        "function": f"{target}, {size}, {compiled}; at most {settings.concurrency} at once",
        "versions": "; ".join(map(describe, settings.versions)),
    }
