"""One job played to its end in memory: a run without its folder."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from siren.errors import ActionError, BudgetError
from siren.loop import JobLoop, Limits
from siren.money.ledger import Ledger
from siren.money.pricer import RunTotals
from siren.platforms.base import Platform
from siren.policies import JobView, Policy, Safeguard
from siren.types import EpochRecord, StopReason
from siren.workloads.spec import TrainingSpec
from siren.worlds.costing import Costing, Outlook

MAX_EPOCHS = 200
"""Epochs after which an episode counts as failed."""


@dataclass(frozen=True)
class Episode:
    """How a job went.

    Attributes:
        stop_reason: Why it ended; an action that cannot be run or paid at all counts as
            `BUDGET_EXHAUSTED` with no epoch.
        duration_s: Its time on the platform's clock.
        cost_usd: What it was billed.
        budget_usd: What it might cost.
        records: Its epochs.
    """

    stop_reason: StopReason
    duration_s: float
    cost_usd: Decimal
    budget_usd: Decimal
    records: tuple[EpochRecord, ...]

    @property
    def success(self) -> bool:
        """Whether the target was reached."""
        return self.stop_reason is StopReason.TARGET_REACHED

    @property
    def overspent_usd(self) -> Decimal:
        """What was billed beyond the budget; never more than 0."""
        return max(self.cost_usd - self.budget_usd, Decimal(0))

    @property
    def losses(self) -> NDArray[np.float64]:
        """Held-out loss after each epoch, (epochs,)."""
        return np.array([record.status.report.loss for record in self.records])


def play(
    platform: Platform,
    policy: Policy,
    costing: Costing,
    training: TrainingSpec,
    budget_usd: Decimal,
    *,
    max_epochs: int = MAX_EPOCHS,
) -> Episode:
    """Plays a job from its start to its end, with the real ledger and the real reservations.

    Args:
        platform: Where it runs; fresh.
        policy: What decides; it is started here, and may have played other jobs before.
        costing: Laws and prices of the job.
        training: How it trains; its target ends the job.
        budget_usd: The budget.
        max_epochs: Epochs after which it is given up.

    Raises:
        WorkloadError, PlatformError: The platform could not run an epoch.
    """
    initial = platform.start()
    outlook = Outlook(platform.clock_s, 1, RunTotals(), budget_usd)
    view = JobView(costing, platform, training, initial[0], outlook, explains=False)
    ledger = Ledger(budget_usd)
    limits = Limits(training.target_loss, max_epochs)
    roll_back = isinstance(policy, Safeguard) and policy.safety.roll_back
    loop = JobLoop(platform, policy, view, ledger, limits, initial, roll_back=roll_back)
    try:
        policy.start(view)
        reason = _train(loop)
    except (ActionError, BudgetError):  # the policy can never run this job, or not within this budget
        reason = StopReason.BUDGET_EXHAUSTED
    return Episode(reason, platform.clock_s, ledger.spent_usd, budget_usd, tuple(loop.records))


def _train(loop: JobLoop) -> StopReason:
    while True:
        ended = loop.ended()
        if ended is not None:
            return ended[0]
        decided = loop.decide()
        if decided is None:
            return StopReason.BUDGET_EXHAUSTED
        loop.book(loop.run(*decided))
