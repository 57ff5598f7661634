"""Who wins a rehearsal: candidates on the seeds that all of them played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from siren.rehearsal.stage import Candidate, Trial
from siren.simulator.search import FAILURE

BETTER = 0.98
"""A proposal must take less than this share of the best fixed action's time."""

LEAST_SEEDS = 4
"""Fresh seeds without which no proposal is preferred to the best fixed action."""


@dataclass(frozen=True)
class Standing:
    """How a candidate did on the seeds that decided.

    Attributes:
        candidate: The candidate.
        episodes, successes: How many.
        duration_s: Mean time of its successes; None without any.
        low_s, high_s: 10th and 90th percentile of them.
        cost_usd: Mean dollars of its episodes.
        score_s: Mean time, a failure counted as `FAILURE` times the best fixed action's; what was
            expected, if no episode was played.
    """

    candidate: Candidate
    episodes: int
    successes: int
    duration_s: float | None
    low_s: float | None
    high_s: float | None
    cost_usd: float
    score_s: float


def standings_of(candidates: Sequence[Candidate], trials: Sequence[Trial]) -> list[Standing]:
    """How candidates did on the seeds that all of them played; the first one is the yardstick of failures."""
    names = [candidate.name for candidate in candidates]
    played = {name: {t.seed: t for t in trials if t.candidate == name} for name in names}
    common = sorted(set.intersection(*(set(by_seed) for by_seed in played.values())))
    if not common:
        return []
    rows = {name: [played[name][seed] for seed in common] for name in names}
    times = {name: [trial.duration_s for trial in rows[name] if trial.success] for name in names}
    known = [float(np.mean(times[name])) for name in names if times[name]]
    failure_s = FAILURE * (known[0] if known else 1.0)
    return [standing_of(candidate, rows[candidate.name], failure_s) for candidate in candidates]


def counted_s(trials: Sequence[Trial], failure_s: float) -> float:
    """Mean time, a failure counted as `failure_s`."""
    return float(np.mean([trial.duration_s if trial.success else failure_s for trial in trials]))


def standing_of(candidate: Candidate, trials: Sequence[Trial], failure_s: float) -> Standing:
    """How a candidate did, a failure counted as `failure_s`."""
    times = np.array([trial.duration_s for trial in trials if trial.success])
    low_s, high_s = np.quantile(times, (0.1, 0.9)).tolist() if len(times) else (None, None)
    return Standing(
        candidate=candidate,
        episodes=len(trials),
        successes=len(times),
        duration_s=float(times.mean()) if len(times) else None,
        low_s=low_s,
        high_s=high_s,
        cost_usd=float(np.mean([trial.cost_usd for trial in trials])),
        score_s=counted_s(trials, failure_s),
    )


def choose(standings: Sequence[Standing]) -> tuple[Candidate, str]:
    """The winner, and why."""
    fixed, *others = standings
    if fixed.episodes == 0:
        return fixed.candidate, "there was no time to compare anything with it"
    if fixed.episodes < LEAST_SEEDS:
        return fixed.candidate, f"there was no time to compare anything with it on {LEAST_SEEDS} fresh seeds"
    better = [s for s in others if s.score_s < BETTER * fixed.score_s and s.successes >= fixed.successes]
    if not better:
        seeds = f"on {fixed.episodes} fresh seeds"
        return fixed.candidate, f"no proposal was faster than the best fixed action {seeds}"
    best = min(better, key=lambda s: s.score_s)
    ratio = fixed.score_s / best.score_s
    return best.candidate, (
        f"{ratio:.2f} times faster than the best fixed action on {best.episodes} fresh seeds, "
        f"{best.successes} of them reached the target (fixed: {fixed.successes})"
    )
