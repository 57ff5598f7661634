"""Small jobs in plain worlds: what the tests of the twin, its rules and its laws run."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from pathlib import Path

import numpy as np

from siren.money.price_book import load_price_book
from siren.money.pricer import Pricer, RunTotals
from siren.twin.twin import Twin, job_of
from siren.types import Action, BatchRule, ChannelKind, UpdateRule
from siren.workloads.protocol import Dataset
from siren.workloads.spec import WorkloadSpec
from siren.workloads.workload import Workload
from siren.worlds import World, load_world
from siren.worlds.costing import Costing, EpochPlan, Outlook

ASYNCHRONOUS = (UpdateRule.OVERWRITE, UpdateRule.ADDITIVE, UpdateRule.STALENESS, UpdateRule.CAS)
LONG_S = 900


class Logistic:
    """Logistic regression without a kernel: the interpreted engine runs it."""

    def __init__(self, inputs):
        self.layout = {"weight": (inputs,), "intercept": (1,)}
        self.size = inputs + 1

    def init(self, rng):
        return rng.normal(0, 0.1, self.size).astype(np.float32)

    def loss_and_grad(self, params, features, labels):
        z = features @ params[:-1] + params[-1]
        error = (0.5 + 0.5 * np.tanh(z / 2) - labels) / np.float32(len(labels))
        gradient = np.empty_like(params)
        np.matmul(error, features, out=gradient[:-1])
        gradient[-1] = error.sum()
        return float((np.logaddexp(0, z) - labels * z).mean()), gradient

    def evaluate(self, params, features, labels):
        z = features @ params[:-1] + params[-1]
        return float((np.logaddexp(0, z) - labels * z).mean()), float(((z > 0) == labels).mean())


class CompiledLogistic(Logistic):
    """The same with a kernel: the compiled engine runs it."""

    @staticmethod
    def kernel(params, features, labels, rows, gradient):
        inputs = features.shape[1]
        scale = np.float32(1.0 / rows.shape[0])
        gradient[:] = 0
        loss = 0.0
        for row in rows:
            z = params[inputs]
            for i in range(inputs):
                z += features[row, i] * params[i]
            tail = math.exp(-abs(z))
            loss += max(z, 0.0) - labels[row] * z + math.log(1.0 + tail)
            error = np.float32((1.0 if z > 0.0 else tail) / (1.0 + tail) - labels[row]) * scale
            for i in range(inputs):
                gradient[i] += error * features[row, i]
            gradient[inputs] += error
        return loss / rows.shape[0]


def logistic_data(
    samples: int, inputs: int, heldout: int = 200, seed: int = 0, spread: float = 1.0
) -> Dataset:
    """Correlated features of mean square 1 and labels that a noisy linear rule gives."""
    rng = np.random.default_rng(seed)
    rows = samples + heldout
    mixing = rng.normal(size=(inputs, inputs)) * np.arange(1, inputs + 1) ** -spread
    features = (rng.normal(size=(rows, inputs)) @ mixing.T).astype(np.float32)
    features /= features.std(axis=0)
    z = features @ rng.normal(size=inputs) / math.sqrt(inputs)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(np.float32)
    return Dataset(
        np.ascontiguousarray(features[:samples]),
        labels[:samples],
        np.ascontiguousarray(features[samples:]),
        labels[samples:],
        2,
        "generated for tests",
    )


def small_workload(
    *, samples: int = 240, inputs: int = 5, kernel: bool = False, data: Dataset | None = None, **training
) -> Workload:
    """A logistic regression; keyword arguments go into the `[training]` section."""
    settings = {
        "target_loss": 0.1,
        "batch_size": 4,
        "pushes_per_function": 3,
        "learning_rate": 0.3,
        "channel": ChannelKind.MEMORY,
        **training,
    }
    spec = WorkloadSpec.model_validate(
        {
            "title": "small",
            "dataset": {"source": "model.py", "heldout": "generated", "licence": "none"},
            "training": settings,
            "cost": {
                "seconds_per_sample": 1e-3,
                "seconds_per_push": 2e-3,
                "evaluate_seconds_per_sample": 1e-5,
                "parallel_fraction": 0.5,
                "sample_bytes": 1000,
                "import_s": 0.1,
                "runtime_mb": 30,
                "package_mb": 10,
                "measured": "made up",
            },
        }
    )
    data = data or logistic_data(samples, inputs)
    model = (CompiledLogistic if kernel else Logistic)(data.train_features.shape[1])
    return Workload("small", spec, model, data, Path())


def ideal(world: World) -> World:
    """The world without noise, faults, waiting or start-up times, and with enough bandwidth."""
    cpu = world.cpu.model_copy(update={"push_noise": 0.0, "function_noise": 0.0, "hang_probability": 0.0})
    start = world.start.model_copy(
        update={
            "fan_out": 1e12,
            "warm": 0.0,
            "placement": 0.0,
            "init_median": 0.0,
            "init_sigma": 0.0,
            "scale_out_burst": 10**6,
        }
    )
    s3 = world.channels[ChannelKind.S3].model_copy(
        update={"read_median": 0.0, "write_median": 0.0, "tail_probability": 0.0, "aggregate": 1e18}
    )
    network = world.network.model_copy(update={"per_function": 1e15, "per_vcpu": 1e15})
    return world.model_copy(
        update={
            "cpu": cpu,
            "start": start,
            "network": network,
            "channels": {**world.channels, ChannelKind.S3: s3},
        }
    )


def make_costing(workload: Workload, world: World | str = "aws-2026", **job) -> Costing:
    """Laws and prices of the workload; keyword arguments change the job as the laws see it."""
    world = load_world(world) if isinstance(world, str) else world
    stated = dataclasses.replace(job_of(workload), **job)
    billing, node = world.billing, world.channels[stated.channel].node
    pricer = Pricer(
        load_price_book(),
        region=billing.region,
        architecture=billing.architecture,
        granularity_ms=billing.granularity,
        init_billed=billing.init_billed,
        cache_node=node or None,
    )
    return Costing(world, stated, pricer)


def make_twin(workload: Workload, world: World | str = "aws-2026", seed: int = 0, **job) -> Twin:
    """A twin of the workload."""
    return Twin(workload, make_costing(workload, world, **job), seed)


def plan_of(action: Action, timeout_s: int = LONG_S, deadline_s: float | None = None) -> EpochPlan:
    """A plan whose worst case nobody asks for."""
    deadline_s = timeout_s - 0.25 if deadline_s is None else deadline_s
    return EpochPlan(action, timeout_s, deadline_s, Decimal(1000))


def first_outlook() -> Outlook:
    """A run before its first epoch, with money enough."""
    return Outlook(0.0, 1, RunTotals(), Decimal(10**6))


class NoGradients:
    """An engine that leaves the model alone: for tests of times and money."""

    def __init__(self, size: int) -> None:
        self._size = size

    def gradient(self, params, rows):
        return np.zeros(self._size, np.float32)

    def replay(self, program, first_sample, rows, params, sums, stride):
        return params.copy()


def timing_twin(workload: Workload, world: World | str = "aws-2026", seed: int = 0, **job) -> Twin:
    """A twin that computes times and bills, and no gradients."""
    twin = make_twin(workload, world, seed, **job)
    twin._engine = NoGradients(workload.size)
    return twin


def rules_of(batch_rule: BatchRule, update_rule: UpdateRule) -> dict[str, object]:
    """Keyword arguments of `small_workload`."""
    return {"batch_rule": batch_rule, "update_rule": update_rule}
