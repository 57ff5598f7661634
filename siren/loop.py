"""An epoch of a job, from decision to record, without a disk: what every kind of run goes through."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from siren.errors import ActionError, SirenError
from siren.money.amounts import ZERO, exact, usd_text
from siren.money.bill import Bill
from siren.money.ledger import Ledger
from siren.money.pricer import RunTotals
from siren.platforms.base import Platform
from siren.policies.base import JobView, Policy
from siren.types import Decision, EpochRecord, EpochReport, EpochStatus, StopReason, Usage
from siren.units import SECONDS_PER_HOUR
from siren.worlds.costing import EpochPlan, Outlook

EXPLODED = 20.0
"""A held-out loss above this multiple of the initial one counts as divergence."""

ROLL_BACKS = 3
"""A run that diverges again after so many roll-backs is given up."""


@dataclass(frozen=True)
class Limits:
    """Where a run stops on its own.

    Attributes:
        target_loss: Held-out loss at which the job is done.
        max_epochs: Most epochs.
        max_time_s: No epoch starts after so many seconds on the platform's clock.
    """

    target_loss: float
    max_epochs: int
    max_time_s: float = math.inf


@dataclass
class Progress:
    """What a loop knows beside its records.

    Attributes:
        initial_loss, initial_accuracy: Held-out, of the initial model.
        best_loss, best_epoch: Of the best model so far; epoch 0 is the initial one.
        roll_backs: How often the model was set back to the best one.
        rolled_back_epoch: The last epoch after which it was; 0 if none.
    """

    initial_loss: float
    initial_accuracy: float
    best_loss: float
    best_epoch: int = 0
    roll_backs: int = 0
    rolled_back_epoch: int = 0


class JobLoop:
    """The state of a job and the steps of its epochs, in the order `ended`, `decide`, `run`, `book`.

    Attributes:
        records: The epochs so far.
        totals: What they were billed for.
        progress: See `Progress`.

    Args:
        platform: Where epochs run.
        policy: What decides; already started.
        view: The job as the policy sees it.
        ledger: The account.
        limits: Where it stops.
        initial: Held-out (loss, accuracy) of the initial model.
        roll_back: Whether a model that diverged is set back to the best one, and training goes on.
    """

    def __init__(
        self,
        platform: Platform,
        policy: Policy,
        view: JobView,
        ledger: Ledger,
        limits: Limits,
        initial: tuple[float, float],
        *,
        roll_back: bool = False,
    ) -> None:
        self.platform, self.policy, self.view, self.ledger = platform, policy, view, ledger
        self.limits = limits
        self.records: list[EpochRecord] = []
        self.totals = RunTotals()
        self.progress = Progress(*initial, initial[0])
        self._roll_back = roll_back
        self._best: NDArray[np.float32] | None = None

    def resume(self, records: list[EpochRecord], progress: Progress, best: NDArray[np.float32]) -> None:
        """Goes on after these epochs; the platform is restored already."""
        self.records, self.progress, self._best = records, progress, best
        for record in records:
            self.totals = self.totals.after(record.status.report.usage)

    @property
    def epoch(self) -> int:
        """Number of the next epoch; 1 is the first."""
        return len(self.records) + 1

    def ended(self) -> tuple[StopReason, str] | None:
        """Why the job is over, if it is; asked before every epoch."""
        limits, progress = self.limits, self.progress
        loss = self.records[-1].status.report.loss if self.records else progress.initial_loss
        if loss <= limits.target_loss:
            return (
                StopReason.TARGET_REACHED,
                f"held-out loss {loss:.4g} is at or below {limits.target_loss:.4g}",
            )
        if self._diverged(loss) and not 0 < len(self.records) == progress.rolled_back_epoch:
            return StopReason.DIVERGED, (
                f"held-out loss {loss:.4g} after epoch {len(self.records)}: lower the learning rate, "
                "use fewer functions, or damp updates with --update-rule staleness"
            )
        if len(self.records) >= limits.max_epochs:
            return StopReason.LIMIT_REACHED, f"--max-epochs {limits.max_epochs} reached"
        if self.platform.clock_s >= limits.max_time_s:
            return StopReason.LIMIT_REACHED, f"--max-time {limits.max_time_s:g} s reached"
        paused = self.paused()
        if paused and self.view.costing.idle_usd(self.outlook) > self.ledger.left_usd:
            return StopReason.BUDGET_EXHAUSTED, (
                f"{paused}, and ${usd_text(self.ledger.left_usd)} is left: end the cache with `python -m "
                "siren.teardown` if it is on AWS, which bills it on, and start a new run"
            )
        return None

    def paused(self) -> str:
        """What the cache cost while nothing was trained for an hour or longer; empty if it was not so."""
        outlook = self.outlook
        hours = outlook.idle_s / SECONDS_PER_HOUR
        owed_usd = self.view.costing.idle_usd(outlook) if hours >= 1 else ZERO
        if not owed_usd:
            return ""
        return (
            f"the cache ran on for {hours:,.1f} h in which nothing was trained: its hours that are not in "
            f"the ledger yet cost ${usd_text(owed_usd)}"
        )

    @property
    def outlook(self) -> Outlook:
        """Where the run stands."""
        platform = self.platform
        return Outlook(platform.clock_s, self.epoch, self.totals, self.ledger.left_usd, platform.idle_s)

    def decide(self) -> tuple[Decision, EpochPlan] | None:
        """What the policy wants next, with its reservation; None if nothing useful can be paid."""
        self.view.outlook = self.outlook
        self.view.learn(self.records)
        decision = self.policy.decide(self.records)
        plan = self.view.plan(decision.action) if decision else None
        return None if decision is None or plan is None else (decision, plan)

    def run(self, decision: Decision, plan: EpochPlan) -> EpochRecord:
        """Reserves, runs the epoch, prices it, and sets the model back if it diverged.

        Nothing is settled yet: an epoch counts once its record is kept, and `book` follows that.

        Raises:
            ActionError, WorkloadError, PlatformError: The reservation is closed.
        """
        if self._best is None:
            self._best = self.platform.params.copy()
        self.ledger.reserve(self.epoch, plan.reserve_usd)
        try:
            report = self.platform.run_epoch(plan)
        except ActionError:  # refused before anything was launched
            self.ledger.release_for_replay()
            raise
        except SirenError as error:
            self._abandon(error.unlaunched)
            raise
        except BaseException:
            self._abandon()
            raise
        status = self._status(report, plan)
        self._judge(report)
        return EpochRecord(decision, plan.timeout_s, plan.reserve_usd, status)

    def book(self, record: EpochRecord) -> None:
        """Settles the epoch's bill and adds it to the records."""
        self.ledger.settle(self.epoch, Bill(record.status.bill))
        self.records.append(record)
        self.totals = self.totals.after(record.status.report.usage)

    def _abandon(self, unlaunched: Usage | None = None) -> None:
        """Closes the reservation of an epoch that failed: in full, unless it is known what was used."""
        if self.ledger.open_reservation is None:
            return
        if self.platform.replays:
            self.ledger.release_for_replay()
        elif unlaunched is None:
            self.ledger.charge_worst_case()
        else:
            bill = self.view.costing.pricer.price_epoch(unlaunched, previous=self.totals)
            self.ledger.charge_failed(bill.total)

    def _status(self, report: EpochReport, plan: EpochPlan) -> EpochStatus:
        bill = self.view.costing.pricer.price_epoch(report.usage, previous=self.totals)
        with exact():
            left_usd = self.ledger.left_usd + plan.reserve_usd - bill.total
        return EpochStatus(
            report=report,
            cost_usd=bill.total,
            bill=dict(bill),
            budget_left_usd=left_usd,
            elapsed_s=self.platform.clock_s,
        )

    def _diverged(self, loss: float) -> bool:
        highest = EXPLODED * max(self.progress.initial_loss, self.limits.target_loss)
        return not (math.isfinite(loss) and loss <= highest)

    def _judge(self, report: EpochReport) -> None:
        """Keeps the best model; takes it up again after divergence."""
        progress = self.progress
        if report.loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = report.loss, report.epoch
            self._best = self.platform.params.copy()
        elif self._roll_back and self._diverged(report.loss) and progress.roll_backs < ROLL_BACKS:
            assert self._best is not None
            self.platform.set_params(self._best)
            progress.roll_backs, progress.rolled_back_epoch = progress.roll_backs + 1, report.epoch
