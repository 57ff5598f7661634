"""A run as it stands on disk, read without touching its folder; read again, only what is new is parsed."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from siren.analysis import records
from siren.analysis.run_folder import EVENTS, LOCK, SUMMARY, RunFolder
from siren.errors import LedgerError, RunFolderError
from siren.money.bill import Bill
from siren.money.ledger import Reservation
from siren.types import BatchRule, ChannelKind, EpochRecord, RunHeader, RunSummary, UpdateRule

LEDGER = "ledger.jsonl"

_NEW_RUN = "restore the file from a copy, or start a new run"


@dataclass(frozen=True)
class Account:
    """What `ledger.jsonl` says.

    Attributes:
        bill: The sum of what was settled.
        reserved: What is set aside for the epoch that runs, if one does.
    """

    bill: Bill = field(default_factory=Bill)
    reserved: Reservation | None = None


@dataclass(frozen=True)
class Run:
    """What there is to see of a run, ended or not.

    Attributes:
        folder: The run folder.
        header: What runs.
        records: The epochs so far.
        initial_loss: Held-out loss of the initial model; NaN where it is not known (yet).
        summary: How it ended; None while it runs, and if it was killed.
        running: Whether a process is at work on it.
        account: Its money.
        system: The folder's `system.json`.
    """

    folder: Path
    header: RunHeader
    records: tuple[EpochRecord, ...]
    initial_loss: float
    summary: RunSummary | None
    running: bool
    account: Account
    system: Mapping[str, Any]

    @property
    def bill(self) -> Mapping[str, Decimal]:
        """Dollars by item."""
        return self.summary.bill if self.summary else self.account.bill

    @property
    def cost_usd(self) -> Decimal:
        """Dollars settled."""
        return self.summary.cost_usd if self.summary else self.account.bill.total

    @property
    def loss(self) -> float:
        """Held-out loss after the last epoch."""
        return self.records[-1].status.report.loss if self.records else self.initial_loss

    @property
    def elapsed_s(self) -> float:
        """Seconds on the platform's clock."""
        if self.summary:
            return self.summary.duration_s
        return self.records[-1].status.elapsed_s if self.records else 0.0


class RunReader:
    """Reads a run folder as often as wanted; never writes there, locks it or mends it.

    Args:
        path: The run folder.

    Raises:
        RunFolderError: It is none, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._folder = RunFolder.open(path.resolve())
        self._records: list[EpochRecord] = []
        self._offset = 0
        self._initial_loss = math.nan
        self._seen: tuple[object, ...] | None = None

    def changed(self) -> bool:
        """Whether anything changed since `read` was called last."""
        return self._state() != self._seen

    def read(self, *, running: bool | None = None) -> Run:
        """What the folder holds now.

        Args:
            running: Whether the run goes on; None to find out.

        Raises:
            RunFolderError: A file of it is damaged; the message names file and line.
        """
        self._seen = self._state()
        if running is None:
            running = is_running(self._folder.path)
        self._read_events()
        summary = None if running else self._summary()
        return Run(
            folder=self._folder.path,
            header=summary.header if summary else header_of(self._folder),
            records=tuple(self._records),
            initial_loss=summary.initial_loss if summary else self._first_loss(),
            summary=summary,
            running=running,
            account=_read_account(self._folder.path / LEDGER),
            system=self._folder.system,
        )

    def _summary(self) -> RunSummary | None:
        """How the run ended; None if the summary is of before it went on, or there is none."""
        if not (self._folder.path / SUMMARY).exists():
            return None
        summary = self._folder.read_summary()
        return summary if summary.epochs == len(self._records) else None

    def _state(self) -> tuple[object, ...]:
        names = (EVENTS, LEDGER, SUMMARY)
        return (*(_mark(self._folder.path / name) for name in names), is_running(self._folder.path))

    def _read_events(self) -> None:
        """Parses the lines that were added; all of them if the file is shorter than it was."""
        path = self._folder.path / EVENTS
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._records, self._offset = [], 0
                file.seek(self._offset)
                data = file.read()
        except OSError as error:
            raise RunFolderError(f"could not read {path}: {error.strerror}; {_NEW_RUN}") from error
        for line in data.split(b"\n")[:-1]:
            try:
                self._records.append(records.record_from_json(records.parse(line)))
            except RunFolderError as error:
                number = len(self._records) + 1
                raise RunFolderError(f"{path}, line {number}: {error}: {_NEW_RUN}") from error
            self._offset += len(line) + 1

    def _first_loss(self) -> float:
        """Held-out loss of the initial model, from any checkpoint."""
        for epoch in reversed(self._folder.checkpoints()):
            if math.isfinite(self._initial_loss):
                break
            # It may be replaced by the next one in this moment.
            with contextlib.suppress(RunFolderError, KeyError, TypeError):
                self._initial_loss = float(self._folder.read_checkpoint(epoch)[1]["run"]["initial_loss"])
        return self._initial_loss


def read_run(path: Path, *, running: bool | None = None) -> Run:
    """What a run folder holds.

    Args:
        path: The run folder.
        running: Whether the run goes on; None to find out.

    Raises:
        RunFolderError: It is none, or is damaged.
    """
    return RunReader(path).read(running=running)


def ended_run(folder: RunFolder, epochs: Sequence[EpochRecord], summary: RunSummary) -> Run:
    """A run that has just ended, without reading back what is known."""
    return Run(
        folder=folder.path.resolve(),
        header=summary.header,
        records=tuple(epochs),
        initial_loss=summary.initial_loss,
        summary=summary,
        running=False,
        account=Account(),
        system=folder.system,
    )


def is_running(folder: Path) -> bool:
    """Whether a process on this machine is at work on the run.

    The lock itself is not tried: who holds it for a moment only to look could stop a run that begins.
    """
    lock = folder / LOCK
    try:
        pid = int(lock.read_text("ascii"))
        since = lock.stat().st_mtime_ns
    except (OSError, ValueError):
        return False
    with contextlib.suppress(OSError):
        if (folder / SUMMARY).stat().st_mtime_ns >= since:
            return False
    return pid > 0 and _is_alive(pid)


def header_of(folder: RunFolder) -> RunHeader:
    """What runs, from the config alone: a run has no other header on disk before it ends.

    Raises:
        RunFolderError: The config is not that of a run.
    """
    config = folder.config
    try:
        workload = config["resolved"]["workload"]
        training, dataset = workload["training"], workload["dataset"]
        return RunHeader(
            workload=Path(config["workload"]).name,
            title=workload["title"],
            dataset=f"{dataset['source']}; held out: {dataset['heldout']}; {dataset['licence']}",
            world=config["resolved"]["world"]["name"],
            platform=config["platform"],
            policy=config["policy"],
            batch_rule=BatchRule(training["batch_rule"]),
            update_rule=UpdateRule(training["update_rule"]),
            channel=ChannelKind(training["channel"]),
            seed=config["seed"],
            budget_usd=config["budget_usd"],
            target_loss=training["target_loss"],
            max_epochs=config["max_epochs"],
            spends_money=config["platform"] == "aws",
            folder=str(folder.path),
            notes=tuple(config["notes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(
            f"{folder.path}/config.json does not say what was trained ({error!r}): {_NEW_RUN}"
        ) from error


def _read_account(path: Path) -> Account:
    """The whole lines of a ledger; `siren.money.Ledger.load` would mend a file that is being written."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return Account()
    except OSError as error:
        raise RunFolderError(f"could not read {path}: {error.strerror}; {_NEW_RUN}") from error
    bill, reserved = Bill(), None
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if entry["record"] == "reserve":
                reserved = Reservation(entry["epoch"], Decimal(entry["usd"]))
                continue
            reserved = None
            if entry["record"] == "settle":
                bill = bill + Bill.from_json(entry["bill"])
        except (ValueError, KeyError, TypeError, InvalidOperation, LedgerError) as error:
            raise RunFolderError(f"{path}, line {number}: {error}: {_NEW_RUN}") from error
    return Account(bill, reserved)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
