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

import time
from collections.abc import Mapping
from dataclasses import asdict

from siren.analysis.page.write import leave_report
from siren.analysis.run_folder import RunFolder
from siren.errors import BudgetError, PlatformError, RunFolderError, UsageError, WorkloadError
from siren.loop import JobLoop, Limits, Progress
from siren.money.bill import Bill
from siren.money.ledger import Ledger
from siren.platforms.base import Platform
from siren.policies import FixedPolicy, JobView, Policy
from siren.types import Comparison, EpochRecord, RunHeader, RunObserver, RunSummary, StopReason


class Trainer:
    """Runs one job to its end.

    Attributes:
        interrupted: Set it, e.g. from a signal handler, to end the run after its epoch.
        committing: An epoch is being written; do not raise now.
        ended: No further epoch will run.

    Args:
        platform: Where epochs run.
        policy: What decides.
        view: The job as the policy, already started, sees it.
        ledger: The account; one that was loaded continues a run.
        folder: The run folder, locked by the caller.
        observer: Told what happens.
        header: What the run is.
        limits: Where it stops.
        layout: The model's tensors, for the saved model.
        initial: Held-out (loss, accuracy) of the initial model.
        roll_back: See `JobLoop`.
    """

    def __init__(
        self,
        *,
        platform: Platform,
        policy: Policy,
        view: JobView,
        ledger: Ledger,
        folder: RunFolder,
        observer: RunObserver,
        header: RunHeader,
        limits: Limits,
        layout: Mapping[str, tuple[int, ...]],
        initial: tuple[float, float],
        roll_back: bool = False,
    ) -> None:
        self._loop = JobLoop(platform, policy, view, ledger, limits, initial, roll_back=roll_back)
        self._platform, self._ledger, self._folder = platform, ledger, folder
        self._observer, self._header, self._layout = observer, header, layout
        self._wall_s = 0.0
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
            summary = self._to_the_end()
        except BaseException:
            leave_report(self._folder, self._loop.records, None)
            raise
        leave_report(self._folder, self._loop.records, summary)
        self._observer.finished(summary)
        return summary

    def _to_the_end(self) -> RunSummary:
        """Trains, and writes down how that ended."""
        try:
            self._observer.started(self._header, tuple(self._loop.records), self._loop.progress.initial_loss)
            reason, detail = self._train()
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
        self._platform.restore(tensors, state["platform"])
        self._wall_s = state["wall_s"]
        progress = Progress(**state["run"])
        if progress.best_epoch == len(records):  # killed before it was saved, perhaps
            self._save_model(len(records), progress.best_loss)
            best = self._platform.params.copy()
        else:
            best = self._folder.read_model()[0]
        self._loop.resume(list(records), progress, best)

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

    def _train(self) -> tuple[StopReason, str]:
        loop, paused = self._loop, self._loop.paused()
        while True:
            ended = loop.ended()
            if ended is not None:
                return ended
            if paused:
                self._observer.note(paused)
                paused = ""
            if self.interrupted:
                return StopReason.INTERRUPTED, "interrupted; nothing is lost"
            decided = loop.decide()
            if decided is None:
                return StopReason.BUDGET_EXHAUSTED, _shortage(loop.policy, loop.view)
            self._observer.epoch_started(loop.epoch, decided[0])
            record = loop.run(*decided)
            if loop.progress.rolled_back_epoch == loop.epoch:
                best = loop.progress.best_epoch
                self._observer.note(f"epoch {loop.epoch} diverged: going on with the model of epoch {best}")
            self.committing = True
            self._commit(record)
            self.committing = False
            self._observer.epoch_ended(record)

    def _commit(self, record: EpochRecord) -> None:
        report, progress = record.status.report, self._loop.progress
        self._checkpoint(report.epoch)
        self._folder.append(record)
        if progress.best_epoch == report.epoch:
            self._save_model(report.epoch, report.loss)
        self._loop.book(record)

    def _checkpoint(self, epoch: int) -> None:
        tensors, state = self._platform.save()
        now = time.monotonic()
        self._wall_s += now - self._began
        self._began = now
        run = asdict(self._loop.progress)
        self._folder.write_checkpoint(
            epoch, tensors, {"platform": dict(state), "run": run, "wall_s": self._wall_s}
        )

    def _save_model(self, epoch: int, loss: float) -> None:
        metadata = {"workload": self._header.workload, "epoch": str(epoch), "heldout_loss": repr(loss)}
        self._folder.write_model(self._platform.params, self._layout, metadata)

    def _summary(self, reason: StopReason, detail: str) -> RunSummary:
        progress, records = self._loop.progress, self._loop.records
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
            wall_s=self._wall_s + time.monotonic() - self._began,
            comparison=self._kept_comparison(),
        )

    def _kept_comparison(self) -> Comparison | None:
        """What the run was compared with when it ended before, unless it has trained on since."""
        try:
            earlier = self._folder.read_summary()
        except RunFolderError:  # it never ended, or that summary is damaged and written anew
            return None
        return earlier.comparison if earlier.epochs == len(self._loop.records) else None


def preflight(policy: Policy, view: JobView) -> None:
    """Refuses a run that could not launch its first epoch, before anything is written or paid.

    Args:
        policy: What will decide.
        view: The job, before its first epoch.

    Raises:
        ActionError: The policy can never run this job.
        BudgetError: The budget cannot pay one useful epoch.
    """
    if isinstance(policy, FixedPolicy):
        policy.start(view)
    actions = [policy.action] if isinstance(policy, FixedPolicy) else view.actions
    if actions and not any(view.plan(action) is not None for action in actions):
        raise BudgetError(f"the budget cannot pay one epoch: {_shortage(policy, view)}")
    policy.start(view)


def _shortage(policy: Policy, view: JobView) -> str:
    """What is left and what the cheapest useful epoch may cost, in a sentence."""
    needed = view.cheapest_usd([policy.action] if isinstance(policy, FixedPolicy) else view.actions)
    return (
        f"${view.outlook.left_usd:.6f} is left, and the cheapest epoch that policy {policy.name} may "
        f"choose can cost ${needed:.6f} at worst; give a larger budget, or an easier target"
    )
