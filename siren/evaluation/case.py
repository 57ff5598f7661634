"""A case: a job with a budget, and what is chosen for it in hindsight."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Any

from siren.evaluation import baseline
from siren.evaluation.cache import ChoiceCache
from siren.evaluation.episode import Episode, play
from siren.evaluation.jobs import (
    DECISIVE,
    EvaluationJob,
    JobInSimulator,
    JobKey,
    build,
    code_digest,
)
from siren.policies import Policy, Reference
from siren.simulator.bound import lower_bound
from siren.simulator.job import SimulatedJob
from siren.simulator.quadratic import Quadratic

CENTS = Decimal("1e-9")
"""What a budget is rounded up to."""


@dataclass(frozen=True)
class CaseKey:
    """Which case.

    Attributes:
        job: The job.
        budget_ratio: Budget over the cheapest with which a fixed action is expected to finish.
    """

    job: JobKey
    budget_ratio: float


@dataclass(frozen=True)
class CaseFacts:
    """What the report needs to know of a case.

    Attributes:
        budget_usd: The budget.
        baseline: The best fixed action in hindsight.
        bound_s, bound_failure_s: Lower bound on E[time] + bound_failure_s x P(failure); None if unknown.
        rules: (batch rule, update rule).
        world: The world's name.
    """

    budget_usd: Decimal
    baseline: baseline.Baseline
    bound_s: float | None
    bound_failure_s: float | None
    rules: tuple[str, str]
    world: str


class Case:
    """A job with a budget, ready to be played.

    Attributes:
        key: Which case.
        job: The job.
        budget_usd: The budget.

    Args:
        key: Which case.
        cache: Where choices are kept.
    """

    def __init__(self, key: CaseKey, cache: ChoiceCache) -> None:
        self.key = key
        self.job: EvaluationJob = build(key.job)
        self._cache = cache
        cheapest_usd = Decimal(repr(self.scouted.cheapest_usd))
        ratio = Decimal(repr(key.budget_ratio))
        self.budget_usd = (cheapest_usd * ratio).quantize(CENTS, rounding=ROUND_UP)

    @functools.cached_property
    def scouted(self) -> baseline.Scouted:
        """How many epochs fixed actions need; the same for every budget."""
        about = {"what": "scouted", "job": self.job.identity, "code": code_digest(DECISIVE)}
        kept = self._cache.get(about, lambda: baseline.scout(self.job).to_json())
        return baseline.Scouted.from_json(self.job, kept)

    @functools.cached_property
    def baseline(self) -> baseline.Baseline:
        """The best fixed action in hindsight."""
        kept = self.chosen("best-fixed", lambda: dataclasses.asdict(baseline.best_fixed(self)))
        return baseline.Baseline(**kept)

    def chosen(
        self, what: str, find: Callable[[], dict[str, Any]], code: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """What was chosen for this case under that name before, or is found now.

        Args:
            what: The name.
            find: Chooses; the result is JSON.
            code: Files of the package that decide the choice, beside `siren.evaluation.jobs.DECISIVE`.
        """
        about = {
            "what": what,
            "job": self.job.identity,
            "budget_usd": str(self.budget_usd),
            "code": code_digest((*DECISIVE, *code)),
        }
        return self._cache.get(about, find)

    def episode(self, policy: Policy, seed: int) -> Episode:
        """Plays the case once."""
        platform = self.job.platform(seed)
        return play(platform, policy, self.job.costing, self.job.training, self.budget_usd)

    @property
    def reference(self) -> Reference:
        """The best fixed action as what a learned policy acts relative to."""
        best = self.baseline
        return Reference(best.functions, best.memory_mb, best.time_s, best.cost_usd)

    @property
    def simulated(self) -> SimulatedJob:
        """The simulated job with this budget; only for the simulator."""
        assert isinstance(self.job, JobInSimulator)
        spec = dataclasses.replace(self.job.job.spec, budget_usd=float(self.budget_usd))
        return dataclasses.replace(self.job.job, spec=spec)

    def bound(self) -> tuple[float | None, float | None]:
        """(seconds, what a failure must count as beside its own time) of the lower bound, if there is one."""
        if not isinstance(self.job, JobInSimulator) or not isinstance(self.job.job.dynamics, Quadratic):
            return None, None

        def find() -> dict[str, Any]:
            found = lower_bound(self.simulated, self.baseline.failure_s)
            return {"seconds": found.seconds, "failure_s": found.failure_s}

        kept = self.chosen("bound", find, ("simulator/bound.py",))
        return kept["seconds"], kept["failure_s"]

    def facts(self) -> CaseFacts:
        """What the report needs to know."""
        rules, world = self.job.rules, self.job.costing.world.name
        return CaseFacts(self.budget_usd, self.baseline, *self.bound(), rules, world)
