"""What a policy will take: whole episodes in the twin on seeds that chose nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from siren.errors import BudgetError
from siren.money.pricer import RunTotals
from siren.planning.bands import Band, Chance, band_of, chance_of
from siren.platforms.twin import TwinPlatform
from siren.policies import JobView, Safeguard, Safety
from siren.rehearsal.rehearse import Rehearsal
from siren.rehearsal.stage import Candidate, Stage, Trial
from siren.rehearsal.workers import StageSettings, Workers
from siren.types import Decision
from siren.worlds.costing import Outlook

PREDICTION_SEED = 30_000_000
"""Seeds of predictions: neither those of proposals nor those of the selection."""

EPISODES = 40
"""Episodes of a policy, as far as time allows."""

LONGEST_S = 86_400.0
"""An episode that takes longer than a day is not waited for."""


@dataclass(frozen=True)
class Prediction:
    """What a policy is expected to take for a budget.

    Attributes:
        policy: Its name.
        episodes, successes: Of how many episodes this was learned.
        time_s: Of runs that reach the target; None if none did.
        cost_usd: Of all runs.
        chance: Of reaching the target within the budget.
    """

    policy: str
    episodes: int
    successes: int
    time_s: Band | None
    cost_usd: Band
    chance: Chance


@dataclass(frozen=True)
class FirstAction:
    """What a policy would do first.

    Attributes:
        functions, memory_mb: The action.
        reason: Why, in the policy's words.
        duration_s, cost_usd: What the laws expect of its first epoch; None where it predicts nothing.
        reserve_usd: What that epoch may cost at most.
    """

    functions: int
    memory_mb: int
    reason: str
    duration_s: float | None
    cost_usd: float | None
    reserve_usd: Decimal


def rehearsed_stage(
    whole: Stage, settings: StageSettings | None, found: Rehearsal
) -> tuple[Stage, StageSettings | None]:
    """The stage that a rehearsal played on, and how another process makes it."""
    if found.share >= 1:
        return whole, settings
    stage = Stage(whole.workload, whole.costing, found.share, whole.clock)
    if settings is None:
        return stage, None
    named = StageSettings(
        settings.workload, settings.overrides, settings.world, found.share, profile=settings.profile
    )
    return stage, named


def play_fresh(
    stage: Stage,
    settings: StageSettings | None,
    candidates: Sequence[Candidate],
    budget_usd: Decimal,
    target_loss: float,
    seconds: float,
    *,
    episodes: int = EPISODES,
    report: Callable[[str], None] = lambda text: None,
) -> list[Trial]:
    """Plays candidates on the prediction's seeds; what has begun is waited for, so that slow runs count.

    Args:
        stage: What the rehearsal played on, see `rehearsed_stage`.
        settings: How another process makes it; None to work in this process alone.
        candidates: Policies with different names.
        budget_usd: The budget.
        target_loss: The target that was rehearsed.
        seconds: No episode begins after so many.
        episodes: How many of each at most.
        report: Told what happens.
    """
    report(f"predictions: {', '.join(c.name for c in candidates)}")
    pool = Workers(stage, settings, stage.clock() + LONGEST_S)
    seeds = range(PREDICTION_SEED, PREDICTION_SEED + episodes)
    calls = ((c, budget_usd, target_loss, seed) for seed in seeds for c in candidates)
    try:
        return list(pool.each("trial", calls, stage.clock() + seconds))
    finally:
        pool.close()


def prediction_of(policy: str, trials: Sequence[Trial]) -> Prediction:
    """What the episodes of a policy tell, among those of others.

    Raises:
        BudgetError: There are none.
    """
    trials = [trial for trial in trials if trial.candidate == policy]
    cost_usd = band_of([trial.cost_usd for trial in trials])
    if cost_usd is None:
        raise BudgetError(
            f"there was no time to play one run of {policy} on this machine: give more --seconds"
        )
    times = [trial.duration_s for trial in trials if trial.success]
    return Prediction(
        policy=policy,
        episodes=len(trials),
        successes=len(times),
        time_s=band_of(times),
        cost_usd=cost_usd,
        chance=chance_of(len(times), len(trials)),
    )


def first_action(stage: Stage, candidate: Candidate, budget_usd: Decimal) -> FirstAction:
    """What a policy does before anything is known of a run, and why.

    Raises:
        BudgetError: The budget cannot pay a useful epoch.
        ActionError: The policy can never run this job.
    """
    workload, costing = stage.workload, stage.costing
    platform = TwinPlatform(workload, costing, seed=0)
    outlook = Outlook(0.0, 1, RunTotals(), budget_usd)
    view = JobView(costing, platform, workload.spec.training, platform.start()[0], outlook)
    policy = Safeguard(candidate.policy(), Safety())
    policy.start(view)
    decision: Decision | None = policy.decide(())
    plan = view.plan(decision.action) if decision else None
    if decision is None or plan is None:
        raise BudgetError(f"${budget_usd:f} cannot pay one useful epoch of {candidate.name}: give more")
    expected = decision.forecast
    return FirstAction(
        functions=decision.action.functions,
        memory_mb=decision.action.memory_mb,
        reason=decision.reason,
        duration_s=expected.duration_s if expected else None,
        cost_usd=expected.cost_usd if expected else None,
        reserve_usd=plan.reserve_usd,
    )
