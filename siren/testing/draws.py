"""Random worlds, jobs and policies, for tests of rules that must hold in all of them."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from siren.money.price_book import load_price_book
from siren.money.pricer import Pricer
from siren.policies import (
    AgentPolicy,
    FixedPolicy,
    GreedyPolicy,
    JobView,
    Policy,
    Reference,
    Safeguard,
    Safety,
)
from siren.policies.network import Network
from siren.simulator.observation import OBSERVATION_SIZE
from siren.testing.tiny import tiny_workload
from siren.twin.twin import job_of
from siren.types import Action, BatchRule, ChannelKind, Decision, EpochRecord, UpdateRule
from siren.units import MB_PER_GB
from siren.worlds import World, load_world, world_names
from siren.worlds.costing import Costing
from siren.worlds.laws import RULES_OF_CHANNEL, Job
from siren.worlds.world import Store

PAIRS = sorted((channel, rule) for channel, rules in RULES_OF_CHANNEL.items() for rule in rules)
"""Every update rule over every channel that carries it."""


@functools.cache
def _shipped_worlds() -> tuple[World, ...]:
    return tuple(load_world(name) for name in world_names())


@functools.cache
def pricer_of(architecture: str, granularity_ms: int, init_billed: bool, node: str) -> Pricer:
    """A pricer of us-east-1."""
    return Pricer(
        load_price_book(),
        region="us-east-1",
        architecture=architecture,
        granularity_ms=granularity_ms,
        init_billed=init_billed,
        cache_node=node or None,
    )


def draw_world(rng: random.Random, *, hang_probability: float | None = None) -> World:
    """A shipped world with other limits, laws of time and billing rules."""
    world = rng.choice(_shipped_worlds())
    sizes = [m for m in world.limits.memory_grid if m >= 128]
    grid = tuple(sorted(rng.sample(sizes, min(len(sizes), rng.randint(1, 4)))))
    rungs = tuple(sorted(rng.sample(range(1, 901), rng.randint(1, 8))))
    limits = world.limits.model_copy(
        update={
            "memory_grid": grid,
            "functions_max": rng.choice([1, 2, 5, 12, 24, 1000]),
            "timeout_rungs": rungs,
            "init_max": rng.choice([0.0, 0.5, 10.0]),
        }
    )
    billing = world.billing.model_copy(
        update={
            "architecture": rng.choice(["x86", "arm64"]),
            "granularity": rng.choice([1, 1, 100, 7]),
            "init_billed": rng.random() < 0.7,
            "ephemeral_storage": rng.choice([512, 512, 2048, 10_240]),
            "log_per_invocation": rng.choice([0, 1024, 5_000_000]),
        }
    )
    hang = rng.choice([0.0, 0.02, 0.3, 1.0]) if hang_probability is None else hang_probability
    cpu = world.cpu.model_copy(
        update={
            "hang_probability": hang,
            "push_noise": rng.choice([0.0, 0.03, 1.0]),
            "function_noise": rng.choice([0.0, 0.03, 2.0]),
        }
    )
    start = world.start.model_copy(
        update={
            "init_sigma": rng.choice([0.0, 0.2, 3.0]),
            "fan_out": rng.choice([1.0, 20.0, 600.0]),
            "scale_out_burst": rng.choice([1, 3, 1000]),
            "scale_out_rate": rng.choice([0.5, 100.0]),
            "keep_alive": rng.choice([0.0, 300.0]),
        }
    )
    channels = {kind: _draw_store(rng, store) for kind, store in world.channels.items()}
    changes = {"limits": limits, "billing": billing, "cpu": cpu, "start": start, "channels": channels}
    return world.model_copy(update=changes)


def _draw_store(rng: random.Random, store: Store) -> Store:
    if rng.random() < 0.5:
        return store
    slow = 10 ** rng.uniform(-1, 1.5)
    return store.model_copy(
        update={
            "read_median": store.read_median * slow,
            "write_median": store.write_median * slow,
            "read_sigma": rng.choice([0.0, 0.6, 2.0]),
            "write_sigma": rng.choice([0.0, 0.6, 2.0]),
            "tail_probability": rng.choice([0.0, 0.05]),
            "service_base": store.service_base * slow,
            "parallel_requests": rng.choice([1, 16]),
        }
    )


@functools.cache
def _tiny_job() -> Job:
    return job_of(tiny_workload())


def draw_job(rng: random.Random) -> Job:
    """A job of any size, rule and channel."""
    channel, rule = rng.choice(PAIRS)
    batch_size = rng.choice([1, 4, 10, 60])
    samples = batch_size * rng.randint(1, 60)
    return dataclasses.replace(
        _tiny_job(),
        channel=ChannelKind(channel),
        update_rule=UpdateRule(rule),
        batch_rule=rng.choice(list(BatchRule)),
        samples=samples,
        batch_size=batch_size,
        pushes_per_function=rng.randint(1, min(4, samples)),
        parameters=rng.choice([1, 1000, 1_000_000]),
        dataset_samples=samples * rng.randint(1, 3),
        evaluator_is_function=rng.random() < 0.4,
        seconds_per_sample=10 ** rng.uniform(-6, 0),
        seconds_per_push=rng.choice([0.0, 1e-3, 1.0]),
        sample_bytes=rng.choice([1, 1000, 200_000]),
        evaluate_seconds_per_sample=10 ** rng.uniform(-6, -1),
        import_s=rng.choice([0.0, 0.1, 30.0]),
        runtime_mb=rng.choice([1.0, 100.0]),
    )


def costing_of(world: World, job: Job) -> Costing:
    """Laws and prices, with pricers that are made once."""
    billing, store = world.billing, world.channels[job.channel]
    return Costing(
        world, job, pricer_of(billing.architecture, billing.granularity, billing.init_billed, store.node)
    )


def draw_budget(rng: random.Random, costing: Costing) -> Decimal:
    """A budget that pays from less than one epoch of the job to many; now and then millions."""
    n = rng.randint(1, min(costing.job.functions_max, costing.world.limits.functions_max))
    m, timeout_s = rng.choice(costing.world.limits.memory_grid), costing.world.limits.timeout_rungs[0]
    gb_s = n * m / MB_PER_GB * (timeout_s + costing.world.limits.init_max)
    usd = gb_s * float(costing.pricer.duration_tiers[0].usd) + float(costing.pricer.cache_usd_per_h)
    usd *= 10 ** rng.uniform(-0.1, 1.3)
    if rng.random() < 0.05:
        usd = 10 ** rng.uniform(5, 8.9)
    return Decimal(max(1, math.ceil(usd * 1e6))) / 1_000_000


class RandomPolicy:
    """Takes any action that `--policy` could name, useful or not, as long as its worst case fits.

    Args:
        rng: Source of its choices.
        tries: So many actions are tried before it gives up.
    """

    name = "random"

    def __init__(self, rng: random.Random, tries: int = 4) -> None:
        self._rng, self._tries = rng, tries
        self._job: JobView | None = None

    def start(self, job: JobView) -> None:
        """See `Policy.start`."""
        self._job = job

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """See `Policy.decide`."""
        assert self._job is not None
        for _ in range(self._tries):
            action = self._rng.choice(self._job.actions)
            if self._job.plan(action) is not None:
                return Decision(action, "drawn at random")
        return None


def draw_policy(rng: random.Random, actions: Sequence[Action]) -> Policy:
    """A greedy, a fixed, a learned or a random policy, half of them with safeguards."""
    kind = rng.random()
    policy: Policy = RandomPolicy(rng)
    if kind < 0.2:
        policy = GreedyPolicy()
    elif kind < 0.4:
        policy = FixedPolicy(rng.choice(list(actions)))
    elif kind < 0.48:
        policy = draw_agent(rng, actions)
    if rng.random() < 0.5:
        on = {field.name: rng.random() < 0.6 for field in dataclasses.fields(Safety)}
        policy = Safeguard(policy, Safety(**on))
    return policy


def draw_agent(rng: random.Random, actions: Sequence[Action]) -> AgentPolicy:
    """A linear policy of random weights, with a random reference or the one of the laws."""
    numbers = np.random.default_rng(rng.getrandbits(32))
    weight = numbers.normal(0.0, 0.5, (2, OBSERVATION_SIZE)).astype(np.float32)
    network = Network({"mlp.0.weight": weight, "mlp.0.bias": numbers.normal(0.0, 0.5, 2).astype(np.float32)})
    action = rng.choice(list(actions))
    reference = Reference(
        action.functions, action.memory_mb, 10 ** rng.uniform(-1, 4), 10 ** rng.uniform(-4, 2)
    )
    return AgentPolicy(network, "drawn", reference if rng.random() < 0.7 else None)
