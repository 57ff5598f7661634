"""Draws jobs of a scenario: every number at random, kept if a fixed action can finish the job."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from siren.errors import ActionError, ChannelError, UsageError
from siren.money.price_book import load_price_book
from siren.money.pricer import Pricer
from siren.simulator.fitted import SpotDnn
from siren.simulator.job import (
    ActionGrid,
    EpisodeSpec,
    FixedRuns,
    SimulatedJob,
    fixed_runs,
    mean_losses,
)
from siren.simulator.quadratic import Quadratic
from siren.simulator.scenarios import FittedRanges, GoalRanges, QuadraticRanges, Range, Scenario, weighted
from siren.types import BatchRule, ChannelKind, UpdateRule
from siren.worlds import World, load_world
from siren.worlds.costing import Costing
from siren.worlds.laws import RULES_OF_CHANNEL, Job

Floats = NDArray[np.float64]

ATTEMPTS = 500
"""Draws after which a scenario counts as one that holds no job."""

LOOK_AHEAD = 100
"""Epochs that fixed actions are followed for."""

REDIS_SHARE = 0.5
"""How often a job whose rule runs over either channel uses Redis."""


@functools.cache
def _world(name: str) -> World:
    return load_world(name)


@functools.cache
def _pricer(world: str, node: str) -> Pricer:
    billing = _world(world).billing
    return Pricer(
        load_price_book(),
        region=billing.region,
        architecture=billing.architecture,
        granularity_ms=billing.granularity,
        init_billed=billing.init_billed,
        cache_node=node or None,
    )


def costing_of(world: str, job: Job) -> Costing:
    """Laws and prices of a job in a world.

    Raises:
        UnknownNameError, WorldError: There is no such world.
        ChannelError: The world's channel cannot carry the job's update rule.
    """
    loaded = _world(world)
    if job.channel not in loaded.channels or job.update_rule not in RULES_OF_CHANNEL[job.channel]:
        raise ChannelError(
            f"update rule {job.update_rule} cannot run over channel {job.channel} in world {loaded.name}: "
            "choose channel redis, which carries every rule"
        )
    return Costing(loaded, job, _pricer(world, loaded.channels[job.channel].node))


def sample_job(scenario: Scenario, rng: np.random.Generator, world: str | None = None) -> SimulatedJob:
    """One job of the family.

    Args:
        scenario: The family.
        rng: Source of all choices.
        world: The world to use; by default one of the scenario's.

    Raises:
        UsageError: The scenario's ranges hold no job that a fixed action finishes in the wanted epochs.
    """
    for _ in range(ATTEMPTS):
        job = _attempt(scenario, rng, world)
        if job is not None:
            return job
    raise UsageError(
        f"{ATTEMPTS} draws of scenario {scenario.name} gave no job that a fixed action finishes within "
        f"{scenario.convergence.epochs.low:g} to {scenario.convergence.epochs.high:g} epochs: "
        "widen its ranges"
    )


def sample_jobs(
    scenario: Scenario, count: int, seed: int | list[int], world: str | None = None
) -> list[SimulatedJob]:
    """`count` jobs of the family; equal seeds give equal jobs.

    Raises:
        UsageError: See `sample_job`.
    """
    return [sample_job(scenario, np.random.default_rng(seed), world) for seed in _seeds(seed, count)]


def _seeds(seed: int | list[int], count: int) -> list[list[int]]:
    base = [seed] if isinstance(seed, int) else seed
    return [[*base, k] for k in range(count)]


def _attempt(scenario: Scenario, rng: np.random.Generator, world: str | None) -> SimulatedJob | None:
    name = world or str(rng.choice(scenario.worlds))
    job, reference_batch = _draw_job(scenario, rng)
    grid = ActionGrid.of(costing_of(name, job))
    try:
        grid.allowed  # noqa: B018 - raises for a job that fits no action
    except ActionError:
        return None
    initial = 1.0 / (1.0 - scenario.convergence.lowest_share.draw(rng))  # the initial excess is 1
    dynamics = _draw_dynamics(scenario, rng, job, reference_batch, initial - 1.0)
    delay = grid.delay(float(grid.memory_mb[len(grid.memory_mb) // 2]))
    excess = mean_losses(dynamics, grid, delay, 1.0, LOOK_AHEAD)
    gap = scenario.convergence.target_gap.draw(rng)
    best = 0.0 if isinstance(dynamics, SpotDnn) else float(excess[:, -LOOK_AHEAD // 4 :].mean(axis=1).min())
    target = best + gap
    runs = fixed_runs(grid, excess, target)
    losses = initial, initial - 1.0 + target
    spec = goal_of(scenario.goal, scenario.convergence.epochs, rng, grid, runs, losses)
    return None if spec is None else SimulatedJob(spec, dynamics)


def _draw_job(scenario: Scenario, rng: np.random.Generator) -> tuple[Job, float]:
    """(the job as the laws see it, its reference batch)."""
    work = scenario.work
    update_rule = UpdateRule(weighted(scenario.update_rules, rng))
    batch_rule = BatchRule(weighted(scenario.batch_rules, rng))
    batch = work.batch_size.draw_count(rng)
    samples = batch * work.pushes.draw_count(rng)
    overhead, compute_s = work.push_overhead.draw(rng), work.compute_s.draw(rng)
    per_sample_s = compute_s / samples
    carriers = [c for c in (ChannelKind.S3, ChannelKind.REDIS) if update_rule in RULES_OF_CHANNEL[c]]
    s3 = carriers == [ChannelKind.S3] or (ChannelKind.S3 in carriers and rng.random() >= REDIS_SHARE)
    job = Job(
        update_rule=update_rule,
        batch_rule=batch_rule,
        channel=ChannelKind.S3 if s3 else ChannelKind.REDIS,
        samples=samples,
        batch_size=batch,
        pushes_per_function=min(work.pushes_per_function.draw_count(rng), samples),
        parameters=work.parameters.draw_count(rng),
        heldout_samples=max(1, round(work.heldout_share.draw(rng) * samples)),
        dataset_samples=samples,
        evaluator_is_function=False,
        seconds_per_sample=per_sample_s * (1 - overhead),
        seconds_per_push=per_sample_s * overhead * batch,
        evaluate_seconds_per_sample=per_sample_s * work.evaluate_share.draw(rng),
        parallel_fraction=work.parallel_fraction.draw(rng),
        sample_bytes=work.sample_bytes.draw_count(rng),
        import_s=work.import_s.draw(rng),
        runtime_mb=work.runtime_mb.draw(rng),
    )
    return job, float(batch)


def _draw_dynamics(
    scenario: Scenario, rng: np.random.Generator, job: Job, batch: float, lowest: float
) -> Quadratic | SpotDnn:
    """Dynamics with an initial excess of 1."""
    ranges = scenario.convergence
    if isinstance(ranges, QuadraticRanges):
        rate, floor = ranges.rate.draw(rng), ranges.floor.draw(rng)
        model = Quadratic(
            rate=rate,
            spectrum=ranges.spectrum.draw(rng),
            energy=ranges.energy.draw(rng),
            noise=1.0,
            excess=1.0,
            reference_batch=batch,
        )
        h = model.rates
        unit = float((h / (4 - 2 * h)).sum()) / batch  # stationary excess of plain SGD per unit of s2
        return Quadratic(
            rate, model.spectrum, model.energy, floor / unit, 1.0, batch, 0.0, staleness_scale=20.0
        )
    assert isinstance(ranges, FittedRanges)
    pushes = job.samples / batch
    # 1 / x grows by 1 within the epochs that halve an excess of 1.
    scale = pushes * ranges.halving_epochs.draw(rng)
    return SpotDnn(0.0, 0.0, scale, 1.0, lowest, ranges.noise.draw(rng))


def goal_of(
    goal: GoalRanges,
    epochs: Range,
    rng: np.random.Generator,
    grid: ActionGrid,
    runs: FixedRuns,
    losses: tuple[float, float],
) -> EpisodeSpec | None:
    """Draws the budget and the reference of a job.

    Args:
        goal: Where they are drawn from.
        epochs: What the cheapest fixed action must take.
        rng: Source of all choices.
        grid: The job's actions.
        runs: What each fixed action takes.
        losses: (initial, target).

    Returns:
        None if no fixed action finishes the job in so many epochs.
    """
    ratio, wrong = goal.budget_ratio.draw(rng), goal.reference_noise.draw(rng)
    shift = wrong * rng.standard_normal()
    cheapest = np.unravel_index(np.argmin(runs.needed_usd), runs.needed_usd.shape)
    if not np.isfinite(runs.needed_usd[cheapest]):
        return None
    if not epochs.low <= runs.epochs[cheapest[0]] <= epochs.high:
        return None
    budget_usd = float(ratio * runs.needed_usd[cheapest])
    affordable = np.where(runs.needed_usd <= budget_usd, runs.duration_s, np.inf)
    at = np.unravel_index(np.argmin(affordable), affordable.shape)
    functions = float(grid.functions[at[0]])
    return EpisodeSpec(
        costing=grid.costing,
        initial_loss=losses[0],
        target_loss=losses[1],
        budget_usd=budget_usd,
        functions_ref=int(np.clip(round(functions * np.exp(shift)), 1, grid.functions[-1])),
        memory_ref_mb=int(grid.memory_mb[at[1]]),
        reference_s=float(runs.duration_s[at]),
        reference_usd=float(runs.cost_usd[at]),
    )
