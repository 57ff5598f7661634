"""The reference run of a job, which learned policies act relative to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from siren.errors import ActionError
from siren.policies.base import JobView, affordable
from siren.policies.greedy import UNKNOWN_EPOCHS, GreedyPolicy
from siren.simulator.job import EpisodeSpec
from siren.types import Action


@dataclass(frozen=True)
class Reference:
    """A fixed action that finishes the job, with what it is expected to take.

    Attributes:
        functions, memory_mb: n_ref and m_ref.
        duration_s, cost_usd: Of the whole run at that action.
    """

    functions: int
    memory_mb: int
    duration_s: float
    cost_usd: float

    @property
    def action(self) -> Action:
        """The action."""
        return Action(self.functions, self.memory_mb)

    def spec(self, job: JobView) -> EpisodeSpec:
        """The episode that a learned policy plays: the job with its whole budget, and this reference."""
        return EpisodeSpec(
            costing=job.costing,
            initial_loss=job.initial_loss,
            target_loss=job.training.target_loss,
            budget_usd=float(job.outlook.left_usd),
            functions_ref=self.functions,
            memory_ref_mb=self.memory_mb,
            reference_s=self.duration_s,
            reference_usd=self.cost_usd,
        )


def guess_reference(job: JobView) -> Reference:
    """A reference from the laws alone, for a job that was not rehearsed.

    It is the greedy policy's first action, or the nearest that can be paid, for as many epochs as
    greedy takes an unknown job to need.

    Raises:
        ActionError: No action can run the job, or be paid.
    """
    greedy = GreedyPolicy()
    greedy.start(job)
    decision = greedy.decide(())
    action = decision.action if decision else affordable(job, job.actions[0])
    if action is None:
        raise ActionError("no action of this job fits the budget: give a larger one")
    p = job.predict([action])
    cost_usd = float(job.cost_usd(p, UNKNOWN_EPOCHS)[0])
    n, m = action.functions, action.memory_mb
    return Reference(n, m, UNKNOWN_EPOCHS * float(p.duration_s[0]), min(cost_usd, math.inf))
