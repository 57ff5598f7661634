"""How the functions of one epoch start on the twin: fan-out, placement, initialisation, shard."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from siren.hsp.quotas import Quotas
from siren.twin.environments import Placement
from siren.types import ChannelKind
from siren.worlds import events
from siren.worlds.costing import EpochPlan
from siren.worlds.laws import EpochLaws, Job
from siren.worlds.world import World


@dataclass(frozen=True)
class Launch:
    """How the functions of one epoch started.

    Attributes:
        began_s: (n,) When a function's handler began, its initialisation done.
        init_s: (n,) Its initialisation; 0 for a warm start.
        load_s: (n,) Time to load its shard; 0 where the environment holds it.
        starts: The same for the event kernels.
    """

    began_s: NDArray[np.float64]
    init_s: NDArray[np.float64]
    load_s: NDArray[np.float64]
    starts: events.Starts


def launch(
    world: World,
    job: Job,
    plan: EpochPlan,
    split: Quotas,
    placement: Placement,
    laws: EpochLaws,
    rng: np.random.Generator,
) -> Launch:
    """Draws the start of every function of an epoch.

    Args:
        world, job: What runs where.
        plan: The action, the workers' deadline and the platform's timeout.
        split: The quotas.
        placement: Where the functions run.
        laws: The laws at this action.
        rng: Source of all noise.
    """
    start, cpu, n = world.start, world.cpu, plan.action.functions
    init_s = start.init_median * np.exp(start.init_sigma * rng.standard_normal(n)) + job.import_s
    init_s = np.where(placement.cold, np.minimum(init_s, world.limits.init_max), 0.0)
    began_s = np.arange(n) / start.fan_out + placement.wait_s
    began_s += np.where(placement.cold, start.placement + init_s, start.warm)
    s3 = events.latency_of(world.channels[ChannelKind.S3], read=True)
    load_s = events.draw_latencies(rng, s3, n) + float(laws.load_s)
    # A worker that is still loading at its deadline stops there.
    load_s = np.where(placement.load, np.minimum(load_s, plan.deadline_s), 0.0)
    sigma2 = math.log1p(cpu.function_noise**2)
    slowness = np.exp(math.sqrt(sigma2) * rng.standard_normal(n) - sigma2 / 2)
    hangs = np.full(n, -1, np.int64)
    if cpu.hang_probability > 0:
        hung = np.flatnonzero(rng.random(n) < cpu.hang_probability)
        hangs[hung] = rng.integers(split.first_push[hung], split.first_push[hung + 1])
    starts = events.Starts(
        began_s + load_s, began_s + plan.deadline_s, began_s + plan.timeout_s, slowness, hangs
    )
    return Launch(began_s, init_s, load_s, starts)
