"""The cost of an epoch beyond its workers' own compute: `python experiments/bench/epoch_overhead.py`.

Warm epochs of a small job on the local platform, by number of functions and by rule and channel. Overhead is
the wall time of `run_epoch` less the longest compute time of a function: launching, storage, barriers,
collecting and evaluating. CPU is that of the client: the manager with its invoker, and the evaluation.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

import tyro

from siren.platforms.local import LocalSite
from siren.platforms.manager.epoch_report import Course
from siren.platforms.manager.platform import FunctionPlatform
from siren.twin.twin import job_of
from siren.types import Action, EpochReport
from siren.workloads.registry import load_workload
from siren.worlds import load_world
from siren.worlds.costing import LIFETIMES, EpochPlan, make_costing

TIMEOUT_S = 120
UNLIMITED = Decimal(10**6)


@dataclass(frozen=True)
class BenchConfig:
    """Measure what an epoch takes beside its gradients."""

    workload: str = "softmax-digits"
    """What is trained."""

    memory_mb: int = 1769
    """Memory of the functions."""

    functions: tuple[int, ...] = (1, 4, 16)
    """Numbers of functions."""

    pairs: tuple[str, ...] = (
        "additive/redis",
        "average/redis",
        "sync/redis",
        "average/s3",
        "cas/s3",
        "sync/s3",
    )
    """Update rules with their channels."""

    repeats: int = 7
    """Warm epochs of each; medians are printed."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object."""


@dataclass(frozen=True)
class Epoch:
    """One epoch: wall seconds, the longest compute of a function, CPU seconds of the client."""

    report: EpochReport
    wall_s: float
    longest_s: float
    cpu_s: float


class SharedSite(LocalSite):
    """A site that outlasts the platforms that use it."""

    def close(self) -> None:
        """Does nothing: see `end`."""

    def end(self) -> None:
        """What `close` does otherwise."""
        super().close()


class Watched(FunctionPlatform):
    """A platform that remembers how its last epoch went, function by function."""

    course: Course | None = None

    def _advance(self, course: Course) -> EpochReport:
        self.course = course
        return super()._advance(course)

    def timed(self, plan: EpochPlan) -> Epoch:
        """Runs an epoch."""
        wall, cpu = time.perf_counter(), time.process_time()
        report = self.run_epoch(plan)
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        assert self.course is not None
        members = self.course.outcome.members
        assert report.unfinished == 0
        longest_s = max(sum(status.compute_s for status in member.statuses) for member in members)
        return Epoch(report, wall_s, longest_s, cpu_s)


def measure(site: SharedSite, config: BenchConfig, pair: str, functions: int) -> dict[str, float]:
    """Medians of warm epochs of one rule over one channel at one number of functions."""
    rule, channel = pair.split("/")
    workload = load_workload(config.workload, overrides={"update_rule": rule, "channel": channel})
    costing = make_costing(load_world("local"), job_of(workload), lifetimes_max=LIFETIMES)
    platform = Watched(workload, costing, 0, site, f"bench-{rule}-{channel}-{functions}")
    platform.start()
    plan = EpochPlan(Action(functions, config.memory_mb), TIMEOUT_S, TIMEOUT_S - 1.0, UNLIMITED)
    platform.run_epoch(plan)
    epochs = [platform.timed(plan) for _ in range(config.repeats)]
    platform.close()
    name = f"{pair}, n={functions}"
    return {
        f"{name}, epoch s": statistics.median(epoch.wall_s for epoch in epochs),
        f"{name}, longest compute s": statistics.median(epoch.longest_s for epoch in epochs),
        f"{name}, overhead s": statistics.median(epoch.wall_s - epoch.longest_s for epoch in epochs),
        f"{name}, client CPU s": statistics.median(epoch.cpu_s for epoch in epochs),
        f"{name}, invocations": statistics.median(epoch.report.usage.requests for epoch in epochs),
        f"{name}, S3 requests": statistics.median(
            epoch.report.usage.s3_puts + epoch.report.usage.s3_gets for epoch in epochs
        ),
    }


def main(config: BenchConfig) -> int:
    """Measures; returns the exit code."""
    found: dict[str, float] = {}
    site = SharedSite(load_workload(config.workload).folder)
    try:
        for pair in config.pairs:
            for functions in config.functions:
                found |= measure(site, config, pair, functions)
    finally:
        site.end()
    if config.as_json:
        json.dump(found, sys.stdout, indent=2)
        return 0
    for name, value in found.items():
        print(f"{name:45s} {value:12,.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(BenchConfig)))
