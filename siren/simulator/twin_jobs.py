"""Jobs with real gradients: a workload by name, or one of a generated family, with its reference."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from siren.errors import UsageError
from siren.simulator.job import ActionGrid, EpisodeSpec, fixed_runs
from siren.simulator.sampling import costing_of
from siren.simulator.scenarios import Range
from siren.simulator.small_models import Softmax, largest_curvature, make_dataset
from siren.simulator.tables import Pool, pool_of_spec
from siren.twin.environments import Environments
from siren.twin.twin import Twin, job_of
from siren.types import Action, BatchRule, ChannelKind, UpdateRule
from siren.workloads.registry import load_workload
from siren.workloads.spec import WorkloadSpec
from siren.workloads.workload import Workload
from siren.worlds.costing import EpochPlan

Floats = NDArray[np.float64]

LADDER_COUNTS = 6
"""Function counts that a reference is looked for among."""

LADDER_MOST = 64
"""The largest of them: small jobs that many functions share are all overhead."""

LADDER_EPOCHS = 30
"""Epochs that each of them is followed for."""

ATTEMPTS = 50
"""Draws after which the family counts as empty."""

RATE = Range(low=0.004, high=0.12)
DAMPED_RATE = Range(low=0.01, high=0.4)
SAMPLES = (1024, 1536, 2048)
PUSHES_PER_FUNCTION = (2, 4, 8)
PUSHES = (64, 128, 256)
COMPUTE_S = Range(low=15.0, high=400.0)
TARGET_GAP = Range(low=0.01, high=0.1)
BUDGET_RATIO = Range(low=1.1, high=3.0)
"""The family: learning rate x largest curvature, sizes, seconds of an epoch at one vCPU, target over the
best tail loss per initial gap, budget over the cheapest fixed one (facts/scheduling.md, second round)."""


@dataclass(frozen=True)
class TwinJob:
    """A job that the twin runs.

    Attributes:
        twin: The twin, to be set back by `rewind` before every episode.
        spec: The job, its goal and its reference.
    """

    twin: Twin
    spec: EpisodeSpec

    @functools.cached_property
    def grid(self) -> ActionGrid:
        """What the laws expect of every action."""
        return ActionGrid.of(self.spec.costing)

    @functools.cached_property
    def pool(self) -> Pool:
        """The tables of an episode."""
        return pool_of_spec(self.spec)


def rewind(twin: Twin, seed: int) -> None:
    """Sets a twin back to its start, with another seed."""
    twin.seed = seed
    twin.params = twin.workload.init(seed)
    twin.clock_s, twin.epoch = 0.0, 0
    twin.environments = Environments(twin.world.start)


def loss_curve(twin: Twin, action: Action, epochs: int, target: float = -np.inf) -> Floats:
    """Held-out losses of a fixed action without a budget, the initial one first, up to the target."""
    timeout_s = twin.world.limits.timeout_rungs[-1]
    plan = EpochPlan(action, timeout_s, float(timeout_s), Decimal(0))
    losses = [twin.workload.evaluate(twin.params)[0]]
    while len(losses) <= epochs and losses[-1] > target and np.isfinite(losses[-1]):
        losses.append(twin.run_epoch(plan).loss)
    return np.array(losses)


def named_job(
    workload: str,
    *,
    world: str = "aws-2026",
    overrides: Mapping[str, object] | None = None,
    functions_ref: int = 10,
    memory_ref_mb: int | None = None,
    budget_usd: float | None = None,
) -> TwinJob:
    """A workload with a reference run of (n_ref, m_ref), which is carried out once.

    Args:
        workload, overrides: See `siren.workloads.registry.load_workload`.
        world: The world.
        functions_ref: n_ref.
        memory_ref_mb: m_ref; by default the world's size with about one vCPU.
        budget_usd: By default twice what the reference run needs.

    Raises:
        UsageError: The reference does not reach the target within the epochs of an episode.
    """
    loaded = load_workload(workload, overrides=overrides)
    twin = Twin(loaded, costing_of(world, job_of(loaded)), seed=0)
    memory_mb = memory_ref_mb or _about_one_vcpu(twin)
    action = Action(functions_ref, memory_mb)
    twin.check_action(action)
    target = loaded.spec.training.target_loss
    losses = loss_curve(twin, action, LADDER_EPOCHS, target)
    if not losses[-1] <= target:
        raise UsageError(
            f"{workload} does not reach {target:g} within {LADDER_EPOCHS} epochs of {action}: it is at "
            f"{losses[-1]:.4g}; choose another functions_ref, or an easier target_loss"
        )
    grid = ActionGrid.of(twin.costing)
    curves = np.tile(losses, (len(grid.functions), 1))
    runs = fixed_runs(grid, curves, target)
    at = int(np.abs(grid.functions - functions_ref).argmin()), grid.memory_mb.tolist().index(memory_mb)
    spec = EpisodeSpec(
        costing=twin.costing,
        initial_loss=float(losses[0]),
        target_loss=target,
        budget_usd=budget_usd if budget_usd is not None else 2 * float(runs.needed_usd[at]),
        functions_ref=functions_ref,
        memory_ref_mb=memory_mb,
        reference_s=float(runs.duration_s[at]),
        reference_usd=float(runs.cost_usd[at]),
    )
    return TwinJob(twin, spec)


def _about_one_vcpu(twin: Twin) -> int:
    grid = np.array(twin.world.limits.memory_grid)
    return int(grid[np.abs(grid - twin.world.cpu.memory_per_vcpu).argmin()])


def family_job(rng: np.random.Generator, world: str = "aws-2026") -> TwinJob:
    """A generated small job with the fastest fixed action of a short ladder as its reference.

    Raises:
        UsageError: No draw gave a job that a fixed action finishes.
    """
    for _ in range(ATTEMPTS):
        job = _attempt(rng, world)
        if job is not None:
            return job
    raise UsageError(
        f"{ATTEMPTS} generated jobs could not be finished in world {world}: choose another world"
    )


def _attempt(rng: np.random.Generator, world: str) -> TwinJob | None:
    workload = family_workload(rng)
    twin = Twin(workload, costing_of(world, job_of(workload)), seed=int(rng.integers(1 << 31)))
    memory_mb = _about_one_vcpu(twin)
    full = ActionGrid.of(twin.costing)
    size = full.memory_mb.tolist().index(memory_mb)
    usable = np.flatnonzero(full.allowed[:, size] & (full.functions <= LADDER_MOST))
    if not len(usable):
        return None
    tried = usable[np.unique(np.linspace(len(usable) // 4, len(usable) - 1, LADDER_COUNTS).astype(int))]
    grid = ActionGrid(twin.costing, full.functions[tried], full.memory_mb)
    curves = np.full((len(tried), LADDER_EPOCHS + 1), np.inf)
    for k, n in enumerate(grid.functions.tolist()):
        rewind(twin, twin.seed)
        losses = loss_curve(twin, Action(n, memory_mb), LADDER_EPOCHS)
        curves[k, : len(losses)] = np.where(np.isfinite(losses), losses, np.inf)
    initial = float(curves[0, 0])
    best = float(np.median(curves[:, -LADDER_EPOCHS // 4 :], axis=1).min())
    target = best + TARGET_GAP.draw(rng) * (initial - best)
    if not best < 0.97 * initial:
        return None
    runs = fixed_runs(grid, curves, target)
    needed, duration = runs.needed_usd[:, size], runs.duration_s[:, size]
    if not np.isfinite(needed.min()) or runs.epochs[needed.argmin()] < 3:
        return None
    budget_usd = float(BUDGET_RATIO.draw(rng) * needed.min())
    at = int(np.where(needed <= budget_usd, duration, np.inf).argmin())
    spec = EpisodeSpec(
        costing=twin.costing,
        initial_loss=initial,
        target_loss=target,
        budget_usd=budget_usd,
        functions_ref=int(grid.functions[at]),
        memory_ref_mb=memory_mb,
        reference_s=float(duration[at]),
        reference_usd=float(runs.cost_usd[at, size]),
    )
    return TwinJob(twin, spec)


def family_workload(rng: np.random.Generator) -> Workload:
    """A generated workload: logistic or softmax regression, either batch rule, additive or damped."""
    samples, classes = int(rng.choice(SAMPLES)), int(rng.choice([2, 2, 3, 5]))
    inputs = int(rng.integers(8, 25)) if classes == 2 else int(rng.integers(8, 17))
    data = make_dataset(rng, samples=samples, heldout=512, inputs=inputs, classes=classes)
    damped = rng.random() < 0.3
    rate = (DAMPED_RATE if damped else RATE).draw(rng) / largest_curvature(data)
    per_sample_s = COMPUTE_S.draw(rng) / samples
    spec = WorkloadSpec.model_validate(
        {
            "title": "a generated job",
            "dataset": {"source": "model.py", "heldout": "512 generated samples", "licence": "none"},
            "training": {
                "target_loss": 1.0,  # the episode's own target is that of its spec
                "batch_rule": BatchRule.SPLIT if rng.random() < 0.6 else BatchRule.CONSTANT,
                "batch_size": samples // int(rng.choice(PUSHES)),
                "pushes_per_function": int(rng.choice(PUSHES_PER_FUNCTION)),
                "update_rule": UpdateRule.STALENESS if damped else UpdateRule.ADDITIVE,
                "channel": ChannelKind.REDIS,
                "learning_rate": rate,
                "staleness_scale": float(Range(low=8.0, high=40.0).draw(rng)),
            },
            "cost": {
                "seconds_per_sample": per_sample_s,
                "evaluate_seconds_per_sample": per_sample_s / 5,
                "parallel_fraction": float(rng.uniform(0.0, 0.9)),
                "sample_bytes": 4 * inputs + 4,
                "import_s": 0.4,
                "runtime_mb": 61.0,
                "package_mb": 48.0,
                "measured": "drawn at random",
            },
        }
    )
    return Workload("generated", spec, Softmax(inputs, classes), data, Path(__file__).parent)
