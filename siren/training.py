"""The loop of a run: state -> policy -> action -> ledger reserves -> platform runs -> bill settled.

The order in which an epoch reaches the disk makes a kill at any moment harmless:

    1. the reservation, in `ledger.jsonl`
    2. the epoch runs
    3. the checkpoint
    4. the epoch's line in `events.jsonl`: the commit
    5. the model, if it is the best one so far
    6. the settlement, in `ledger.jsonl`

On resume an epoch without its line did not happen: a platform that replays it bit for bit gives
the reservation back, any other charges it in full. An epoch with its line is settled if that is
still to be done.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from siren.analysis.run_folder import RunFolder
from siren.errors import ActionError, BudgetError, PlatformError, RunFolderError, UsageError, WorkloadError
from siren.money.amounts import exact
from siren.money.bill import Bill
from siren.money.ledger import Ledger
from siren.money.pricer import RunTotals
from siren.platforms.base import Platform
from siren.policies import FixedPolicy, JobView, Policy
from siren.types import (
    EpochRecord,
    EpochReport,
    EpochStatus,
    RunHeader,
    RunObserver,
    RunSummary,
    StopReason,
)
from siren.worlds.costing import Costing, EpochPlan, Outlook

log = logging.getLogger(__name__)

EXPLODED = 20.0
"""A held-out loss above this multiple of the initial one counts as divergence."""


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
class _Progress:
    """What the loop keeps beside the records, saved with every checkpoint."""

    initial_loss: float
    initial_accuracy: float
    best_loss: float
    best_epoch: int
    wall_s: float

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Trainer:
    """Runs one job to its end.

    Attributes:
        interrupted: Set it, e.g. from a signal handler, to end the run after its epoch.
        committing: An epoch is being written; do not raise now.
        ended: No further epoch will run.

    Args:
        platform: Where epochs run.
        policy: What decides.
        costing: Laws and prices of the job.
        view: The job as the policy, already started, sees it.
        ledger: The account; one that was loaded continues a run.
        folder: The run folder, locked by the caller.
        observer: Told what happens.
        header: What the run is.
        limits: Where it stops.
        layout: The model's tensors, for the saved model.
        initial: Held-out (loss, accuracy) of the initial model.
    """

    def __init__(
        self,
        *,
        platform: Platform,
        policy: Policy,
        costing: Costing,
        view: JobView,
        ledger: Ledger,
        folder: RunFolder,
        observer: RunObserver,
        header: RunHeader,
        limits: Limits,
        layout: Mapping[str, tuple[int, ...]],
        initial: tuple[float, float],
    ) -> None:
        self._platform, self._policy, self._costing = platform, policy, costing
        self._view, self._ledger, self._folder = view, ledger, folder
        self._observer, self._header, self._limits, self._layout = observer, header, limits, layout
        self._records: list[EpochRecord] = []
        self._totals = RunTotals()
        self._progress = _Progress(*initial, initial[0], 0, 0.0)
        self.interrupted = False
        self.committing = False
        self.ended = False
        self._began = time.monotonic()

    def run(self) -> RunSummary:
        """Trains until the target, the budget or a limit is reached.

        Raises:
            RunFolderError: The run folder is damaged or cannot be written.
        """
        self._begin()
        try:
            self._observer.started(self._header, tuple(self._records), self._progress.initial_loss)
            reason, detail = self._loop()
        except (UsageError, WorkloadError) as error:
            reason, detail = StopReason.USAGE_ERROR, str(error)
        except PlatformError as error:
            reason, detail = StopReason.PLATFORM_FAILURE, str(error)
        except KeyboardInterrupt:
            reason, detail = StopReason.INTERRUPTED, "interrupted inside an epoch, which will be run again"
        finally:
            self.ended = True
            self._observer.close()
        summary = self._summary(reason, detail)
        self._folder.write_summary(summary)
        self._observer.finished(summary)
        return summary

    def _begin(self) -> None:
        """Starts the platform, or takes up where the run folder ends."""
        # An epoch that was lost on a platform that cannot replay it is paid, and has no line.
        records = self._folder.events(outside_usd=self._ledger.bill["unconfirmed"])
        self._check_account(records)
        if not records and 0 not in self._folder.checkpoints():
            self._checkpoint(0)
        tensors, state = self._folder.read_checkpoint(len(records))
        self._settle_open(records)
        self._records = list(records)
        for record in records:
            self._totals = self._totals.after(record.status.report.usage)
        self._platform.restore(tensors, state["platform"])
        self._progress = _Progress(**state["run"])
        if self._progress.best_epoch == len(records):  # killed before it was saved, perhaps
            self._save_model(len(records), self._progress.best_loss)

    def _check_account(self, records: tuple[EpochRecord, ...]) -> None:
        """Refuses a ledger and events that are not of one moment, before anything is written."""
        settled, reserved = self._ledger.settled, self._ledger.open_reservation
        cure = "restore both from one copy, or start a new run"
        for epoch, record in enumerate(records, start=1):
            if epoch in settled and settled[epoch] != Bill(record.status.bill):
                raise RunFolderError(
                    f"{self._folder.path}: ledger.jsonl and events.jsonl have different bills for epoch "
                    f"{epoch}: {cure}"
                )
            if epoch not in settled and (reserved is None or reserved.epoch != epoch):
                raise RunFolderError(
                    f"{self._folder.path}: ledger.jsonl has no entry for epoch {epoch}, "
                    f"events.jsonl has: {cure}"
                )
        confirmed = [epoch for epoch, bill in settled.items() if not bill["unconfirmed"]]
        if max(confirmed, default=0) > len(records):
            raise RunFolderError(
                f"{self._folder.path}: ledger.jsonl has {max(confirmed)} epochs, events.jsonl "
                f"{len(records)}: {cure}"
            )

    def _settle_open(self, records: tuple[EpochRecord, ...]) -> None:
        """Closes what a killed process left open in the ledger."""
        open_reservation = self._ledger.open_reservation
        if open_reservation is None:
            return
        if open_reservation.epoch <= len(records):
            bill = Bill(records[open_reservation.epoch - 1].status.bill)
            self._ledger.settle(open_reservation.epoch, bill)
        elif self._platform.replays:
            self._ledger.release_for_replay()
        else:
            self._ledger.charge_worst_case()

    def _loop(self) -> tuple[StopReason, str]:
        view = self._view
        while True:
            ended = self._ended()
            if ended is not None:
                return ended
            view.outlook = self._outlook()
            decision = self._policy.decide(self._records)
            plan = view.plan(decision.action) if decision else None
            if decision is None or plan is None:
                return StopReason.BUDGET_EXHAUSTED, _shortage(self._policy, view)
            epoch = len(self._records) + 1
            self._observer.epoch_started(epoch, decision)
            self._ledger.reserve(epoch, plan.reserve_usd)
            try:
                report = self._platform.run_epoch(plan)
            except ActionError:  # refused before anything was launched
                self._ledger.release_for_replay()
                raise
            except BaseException:
                self._abandon()
                raise
            record = EpochRecord(decision, plan.timeout_s, plan.reserve_usd, self._status(report, plan))
            self.committing = True
            self._commit(record)
            self.committing = False
            self._observer.epoch_ended(record)

    def _abandon(self) -> None:
        """Closes the reservation of an epoch that failed."""
        if self._ledger.open_reservation is None:
            return
        if self._platform.replays:
            self._ledger.release_for_replay()
        else:
            self._ledger.charge_worst_case()

    def _status(self, report: EpochReport, plan: EpochPlan) -> EpochStatus:
        bill = self._costing.pricer.price_epoch(report.usage, previous=self._totals)
        with exact():
            left_usd = self._ledger.left_usd + plan.reserve_usd - bill.total
        return EpochStatus(
            report=report,
            cost_usd=bill.total,
            bill=dict(bill),
            budget_left_usd=left_usd,
            elapsed_s=self._platform.clock_s,
        )

    def _commit(self, record: EpochRecord) -> None:
        report = record.status.report
        if report.loss < self._progress.best_loss:
            self._progress.best_loss, self._progress.best_epoch = report.loss, report.epoch
        self._checkpoint(report.epoch)
        self._folder.append(record)
        if self._progress.best_epoch == report.epoch:
            self._save_model(report.epoch, report.loss)
        self._ledger.settle(report.epoch, Bill(record.status.bill))
        self._records.append(record)
        self._totals = self._totals.after(report.usage)

    def _checkpoint(self, epoch: int) -> None:
        tensors, state = self._platform.save()
        now = time.monotonic()
        self._progress.wall_s += now - self._began
        self._began = now
        self._folder.write_checkpoint(
            epoch, tensors, {"platform": dict(state), "run": self._progress.to_json()}
        )

    def _save_model(self, epoch: int, loss: float) -> None:
        metadata = {"workload": self._header.workload, "epoch": str(epoch), "heldout_loss": repr(loss)}
        self._folder.write_model(self._platform.params, self._layout, metadata)

    def _outlook(self) -> Outlook:
        return Outlook(self._platform.clock_s, len(self._records) + 1, self._totals, self._ledger.left_usd)

    def _ended(self) -> tuple[StopReason, str] | None:
        """Why the run is over, if it is; asked before every epoch."""
        limits, records = self._limits, self._records
        loss = records[-1].status.report.loss if records else self._progress.initial_loss
        elapsed_s = self._platform.clock_s
        if loss <= limits.target_loss:
            return (
                StopReason.TARGET_REACHED,
                f"held-out loss {loss:.4g} is at or below {limits.target_loss:.4g}",
            )
        if not (
            np.isfinite(loss) and loss <= EXPLODED * max(self._progress.initial_loss, limits.target_loss)
        ):
            return StopReason.DIVERGED, (
                f"held-out loss {loss:.4g} after epoch {len(records)}: lower the learning rate, "
                "use fewer functions, or damp updates with --update-rule staleness"
            )
        if self.interrupted:
            return StopReason.INTERRUPTED, "interrupted; nothing is lost"
        if len(records) >= limits.max_epochs:
            return StopReason.LIMIT_REACHED, f"--max-epochs {limits.max_epochs} reached"
        if elapsed_s >= limits.max_time_s:
            return StopReason.LIMIT_REACHED, f"--max-time {limits.max_time_s:g} s reached"
        return None

    def _summary(self, reason: StopReason, detail: str) -> RunSummary:
        progress, records = self._progress, self._records
        last = records[-1].status.report if records else None
        return RunSummary(
            header=self._header,
            stop_reason=reason,
            stop_detail=detail,
            cost_usd=self._ledger.spent_usd,
            bill=dict(self._ledger.bill),
            initial_loss=progress.initial_loss,
            final_loss=last.loss if last else progress.initial_loss,
            final_accuracy=last.accuracy if last else progress.initial_accuracy,
            best_loss=progress.best_loss,
            best_epoch=progress.best_epoch,
            epochs=len(records),
            duration_s=self._platform.clock_s,
            wall_s=progress.wall_s + time.monotonic() - self._began,
        )


def preflight(policy: Policy, view: JobView) -> None:
    """Refuses a run that could not launch its first epoch, before anything is written or paid.

    Args:
        policy: What will decide.
        view: The job, before its first epoch.

    Raises:
        ActionError: The policy can never run this job.
        BudgetError: The budget cannot pay one useful epoch.
    """
    policy.start(view)
    actions = [policy.action] if isinstance(policy, FixedPolicy) else view.actions
    if not any(view.plan(action) is not None for action in actions):
        raise BudgetError(f"the budget cannot pay one epoch: {_shortage(policy, view)}")


def _shortage(policy: Policy, view: JobView) -> str:
    """What is left and what the cheapest useful epoch may cost, in a sentence."""
    needed = view.cheapest_usd([policy.action] if isinstance(policy, FixedPolicy) else view.actions)
    return (
        f"${view.outlook.left_usd:.6f} is left, and the cheapest epoch that policy {policy.name} may "
        f"choose can cost ${needed:.6f} at worst; give a larger budget, or an easier target"
    )
