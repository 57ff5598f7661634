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
from siren.simulator.scenarios import Counts, SgdCostRanges, SgdScenario, weighted
from siren.simulator.small_models import Softmax, largest_curvature, make_dataset
from siren.simulator.tables import Pool, pool_of_spec
from siren.twin.environments import Environments
from siren.twin.twin import Twin, job_of
from siren.types import Action, ChannelKind, UpdateRule
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

DEFAULT_WORLD = "aws-2026"
"""Where a workload runs if nothing else is said."""

ATTEMPTS = 50
"""Draws after which a family counts as empty."""


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
    world: str = DEFAULT_WORLD,
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


def family_job(scenario: SgdScenario, rng: np.random.Generator, world: str | None = None) -> TwinJob:
    """A generated small job with the fastest fixed action of a short ladder as its reference.

    Args:
        scenario: The family.
        rng: Source of all choices.
        world: The world to use; by default one of the scenario's.

    Raises:
        UsageError: No draw gave a job that a fixed action finishes.
    """
    for _ in range(ATTEMPTS):
        job = _attempt(scenario, rng, world or str(rng.choice(scenario.worlds)))
        if job is not None:
            return job
    raise UsageError(
        f"{ATTEMPTS} draws of scenario {scenario.name} gave no job that a fixed action finishes within "
        f"{LADDER_EPOCHS} epochs: widen its ranges, or choose another world"
    )


def _attempt(scenario: SgdScenario, rng: np.random.Generator, world: str) -> TwinJob | None:
    workload = family_workload(scenario, rng)
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
    target = best + scenario.goal.target_gap.draw(rng) * (initial - best)
    if not best < 0.97 * initial:
        return None
    runs = fixed_runs(grid, curves, target)
    needed, duration = runs.needed_usd[:, size], runs.duration_s[:, size]
    if not np.isfinite(needed.min()) or runs.epochs[needed.argmin()] < 3:
        return None
    budget_usd = float(scenario.goal.budget_ratio.draw(rng) * needed.min())
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


def family_workload(scenario: SgdScenario, rng: np.random.Generator) -> Workload:
    """A generated workload: logistic or softmax regression under rules of the family."""
    data, training = scenario.data, scenario.training
    samples, classes = _one_of(data.samples, rng), _one_of(data.classes, rng)
    inputs = (data.inputs if classes == 2 else data.inputs_of_more).draw_count(rng)
    dataset = make_dataset(
        rng,
        samples=samples,
        heldout=_one_of(data.heldout, rng),
        inputs=inputs,
        classes=classes,
        spectrum=data.spectrum.draw(rng),
        distance=data.distance.draw(rng),
        wrong_labels=data.wrong_labels.draw(rng),
    )
    update_rule = UpdateRule(weighted(scenario.update_rules, rng))
    rates = training.damped_rate if update_rule is UpdateRule.STALENESS else training.rate
    settings = {
        "target_loss": 1.0,  # the episode's own target is that of its spec
        "batch_rule": weighted(scenario.batch_rules, rng),
        "batch_size": max(1, samples // _one_of(training.pushes, rng)),
        "pushes_per_function": _one_of(training.pushes_per_function, rng),
        "update_rule": update_rule,
        "channel": ChannelKind.REDIS,
        "learning_rate": rates.draw(rng) / largest_curvature(dataset),
        "staleness_scale": training.staleness_scale.draw(rng),
    }
    spec = WorkloadSpec.model_validate(
        {
            "title": "a generated job",
            "dataset": {"source": "model.py", "heldout": "generated samples", "licence": "none"},
            "training": settings,
            "cost": _cost(scenario.cost, rng, samples, inputs),
        }
    )
    return Workload("generated", spec, Softmax(inputs, classes), dataset, Path(__file__).parent)


def _cost(ranges: SgdCostRanges, rng: np.random.Generator, samples: int, inputs: int) -> dict[str, object]:
    """The `[cost]` section of a generated workload."""
    per_sample_s = ranges.compute_s.draw(rng) / samples
    return {
        "seconds_per_sample": per_sample_s,
        "evaluate_seconds_per_sample": per_sample_s * ranges.evaluate_share.draw(rng),
        "parallel_fraction": ranges.parallel_fraction.draw(rng),
        "sample_bytes": 4 * inputs + 4,
        "import_s": ranges.import_s.draw(rng),
        "runtime_mb": ranges.runtime_mb.draw(rng),
        "package_mb": ranges.runtime_mb.high,
        "measured": "drawn at random",
    }


def _one_of(counts: Counts, rng: np.random.Generator) -> int:
    return int(rng.choice(counts))
