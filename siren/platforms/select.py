"""The platform that a run names, for one job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from siren.errors import UnknownNameError, WorldError
from siren.platforms.base import Platform
from siren.platforms.local import LocalSite
from siren.platforms.manager.aws_site import AwsSite
from siren.platforms.manager.platform import FunctionPlatform
from siren.platforms.processes import usable_cores
from siren.platforms.twin import TwinPlatform
from siren.twin.twin import job_of
from siren.types import ChannelKind
from siren.units import counted
from siren.workloads.workload import Workload
from siren.worlds import World
from siren.worlds.costing import LIFETIMES, Costing, make_costing

PLATFORMS = ("twin", "local", "aws")
WORLDS = {"twin": "aws-2026", "local": "local", "aws": "aws-2026"}
"""The world of a run that names none."""


@dataclass(frozen=True)
class Selected:
    """A platform with the laws and prices that hold on it.

    Attributes:
        platform: Not started yet.
        costing: Laws and prices.
        notes: Lines that the user must see.
    """

    platform: Platform
    costing: Costing
    notes: tuple[str, ...] = ()


def check_platform(name: str) -> None:
    """Refuses a platform that does not exist.

    Raises:
        UnknownNameError: Names those that do.
    """
    if name not in PLATFORMS:
        raise UnknownNameError("platform", name, PLATFORMS)


def select_platform(
    name: str, workload: Workload, world: World, seed: int, *, run_name: str, deployment: str
) -> Selected:
    """The platform of that name.

    Args:
        name: One of `PLATFORMS`.
        workload, world: What runs on what.
        seed: Of the run.
        run_name: What the run is called in a bucket.
        deployment: Which one, on `aws`.

    Raises:
        ChannelError, PriceError: See `make_costing`.
        WorldError: The world bills as AWS does not.
        UsageError, PlatformError: There is no such deployment.
    """
    if name == "twin":
        costing = make_costing(world, job_of(workload))
        return Selected(TwinPlatform(workload, costing, seed), costing)
    if name == "local":
        costing = make_costing(world, job_of(workload), lifetimes_max=LIFETIMES)
        redis = costing.job.channel is ChannelKind.REDIS
        site = LocalSite(
            workload.folder,
            region=world.billing.region,
            redis=redis,
            environments=world.limits.functions_max,
        )
        note = (
            f"this machine has {counted(usable_cores(), 'core')}: more functions at once take turns "
            "(oversubscribed), and their times are not Lambda's"
        )
        return Selected(FunctionPlatform(workload, costing, seed, site, run_name), costing, (note,))
    return _aws(workload, world, seed, run_name, deployment)


def _aws(workload: Workload, world: World, seed: int, run_name: str, deployment: str) -> Selected:
    billing = world.billing
    if billing.granularity != 1 or not billing.init_billed:
        raise WorldError(
            f"world {world.name} bills as AWS no longer does, so its reservations would not hold: use "
            "--world aws-2026, or a copy of it"
        )
    site = AwsSite(workload.folder, deployment, billing.region, billing.architecture)
    found = site.find()
    notes: tuple[str, ...] = ()
    if found.concurrency < world.limits.functions_max:
        limits = world.limits.model_copy(update={"functions_max": found.concurrency})
        world = world.model_copy(update={"limits": limits})
        notes = (
            f"at most {found.concurrency} functions at once: the deployment {deployment} reserves no more",
        )
    costing = make_costing(world, job_of(workload), lifetimes_max=LIFETIMES)
    return Selected(FunctionPlatform(workload, costing, seed, site, run_name), costing, notes)


def facts_of(platform: Platform) -> dict[str, Any]:
    """What a run folder's `system.json` should say of where the run's functions are."""
    return dict(platform.facts) if isinstance(platform, FunctionPlatform) else {}
