"""Grid search that pays for itself: trials of a few counts first, then the best of them.

What a user does without knowing the job: one epoch from the initial model on each of a few counts of
functions with about one vCPU, all at the same time, every dollar of them from the job's own budget.
Then the whole job, from its start, on the count whose trial promised the earliest end that what is left
can pay. The trials' models are thrown away. They and the run share one cache, paid by the run.
"""

from __future__ import annotations

import dataclasses
from decimal import Decimal

from siren.evaluation.case import Case
from siren.evaluation.episode import Episode, play
from siren.policies import FixedPolicy
from siren.types import Action, StopReason

COUNTS = (4, 8, 16, 32, 64, 128)
"""Functions that are tried, as far as the job and the world allow them."""


def play_grid_search(case: Case, seed: int) -> Episode:
    """The trials and the run; its time is that of the longest trial and of the run."""
    trials: dict[Action, Episode] = {}
    left_usd = case.budget_usd
    for action in _actions(case):
        trial = _played(case, action, seed, left_usd, max_epochs=1)
        left_usd -= trial.cost_usd - _cache_usd(trial)
        if trial.records:
            trials[action] = trial
    spent_s = max((trial.duration_s for trial in trials.values()), default=0.0)
    chosen = _promising(case, trials, left_usd)
    if chosen is None:
        nothing = StopReason.BUDGET_EXHAUSTED
        return Episode(nothing, spent_s, case.budget_usd - left_usd, case.budget_usd, ())
    run = _played(case, chosen, seed, left_usd)
    cost_usd = case.budget_usd - left_usd + run.cost_usd
    duration_s = spent_s + run.duration_s
    return dataclasses.replace(run, duration_s=duration_s, cost_usd=cost_usd, budget_usd=case.budget_usd)


def _cache_usd(trial: Episode) -> Decimal:
    """What a trial was billed for its cache: one cache serves all of them and the run, which pays for it."""
    return sum((record.status.bill["cache"] for record in trial.records), Decimal(0))


def _actions(case: Case) -> list[Action]:
    costing = case.job.costing
    limits, one_vcpu = costing.world.limits, costing.world.cpu.memory_per_vcpu
    memory_mb = min(limits.memory_grid, key=lambda m: abs(m - one_vcpu))
    most = min(costing.job.functions_max, limits.functions_max)
    counts = [n for n in COUNTS if n <= most] or [most]
    return [Action(n, memory_mb) for n in counts]


def _played(
    case: Case, action: Action, seed: int, budget_usd: Decimal, max_epochs: int | None = None
) -> Episode:
    """A run of one action; one that cannot be paid has no epochs."""
    if budget_usd <= 0:
        return Episode(StopReason.BUDGET_EXHAUSTED, 0.0, Decimal(0), budget_usd, ())
    platform, job = case.job.platform(seed), case.job
    limit = {} if max_epochs is None else {"max_epochs": max_epochs}
    return play(platform, FixedPolicy(action), job.costing, job.training, budget_usd, **limit)


def _promising(case: Case, trials: dict[Action, Episode], left_usd: Decimal) -> Action | None:
    """The action with the earliest end that fits, if progress goes on as in its trial; else the cheapest."""
    initial, target = case.job.platform(0).start()[0], case.job.training.target_loss
    ends: list[tuple[bool, float, Action]] = []
    for action, trial in trials.items():
        fall = initial - float(trial.losses[0])
        if not fall > 0:
            continue
        epochs = max((initial - target) / fall, 1.0)
        cost_usd = epochs * float(trial.cost_usd)
        fits = cost_usd <= float(left_usd)
        ends.append((not fits, epochs * trial.duration_s if fits else cost_usd, action))
    return min(ends, key=lambda end: end[:2])[2] if ends else None
