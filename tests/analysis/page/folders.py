"""Run folders of made-up runs, at any moment of their lives."""

from __future__ import annotations

import dataclasses
import json
import os
from decimal import Decimal
from pathlib import Path

import numpy as np

from siren.analysis.page.source import LEDGER
from siren.analysis.run_folder import LOCK, RunFolder
from siren.types import EpochRecord, RunSummary, StopReason
from tests.analysis import samples

CONFIG = {
    "budget_usd": Decimal("2.00"),
    "workload": "mlp-mnist",
    "platform": "twin",
    "policy": "greedy",
    "seed": 1,
    "max_epochs": 200,
    "notes": [],
    "resolved": {
        "workload": {
            "title": "Perceptron on MNIST",
            "dataset": {"source": "mnist", "heldout": "10,000 images", "licence": "CC BY-SA 3.0"},
            "training": {
                "target_loss": 0.08,
                "batch_rule": "constant",
                "update_rule": "additive",
                "channel": "redis",
            },
        },
        "world": {"name": "aws-2026"},
    },
}
SYSTEM = {
    "argv": ["/somewhere/siren/run.py", "--budget", "2.00", "--workload", "my job"],
    "commit": "0123456789abcdef",
    "dirty": False,
    "python": "3.11.7",
    "time_utc": "2026-11-22T06:30:12+00:00",
    "versions": {"numpy": "2.4.6", "torch": None},
}
INITIAL_LOSS = 2.3


def begun(path: Path, **config: object) -> RunFolder:
    """The folder of a run whose first epoch is still to come."""
    folder = RunFolder.create(path, {**CONFIG, **config}, SYSTEM)
    (path / LEDGER).touch()
    state = {"run": {"initial_loss": INITIAL_LOSS}}
    folder.write_checkpoint(0, {"params": np.zeros(2, np.float32)}, state)
    return folder


def run_epochs(folder: RunFolder, records: tuple[EpochRecord, ...]) -> None:
    """Adds epochs, with the ledger's lines, as the trainer does."""
    for record in records:
        epoch = record.status.report.epoch
        reserve(folder, epoch, record.reserved_usd)
        folder.append(record)
        bill = {item: str(usd) for item, usd in record.status.bill.items()}
        _enter(folder, {"record": "settle", "epoch": epoch, "bill": bill})


def reserve(folder: RunFolder, epoch: int, usd: Decimal) -> None:
    """Sets dollars aside: the epoch runs."""
    _enter(folder, {"record": "reserve", "epoch": epoch, "usd": str(usd)})


def _enter(folder: RunFolder, entry: dict[str, object]) -> None:
    with (folder.path / LEDGER).open("a") as file:
        file.write(json.dumps(entry) + "\n")


def hold(folder: RunFolder, pid: int | None = None) -> None:
    """Leaves in the folder what a process that runs it does."""
    (folder.path / LOCK).write_text(f"{os.getpid() if pid is None else pid}\n")


def ended(
    path: Path,
    records: tuple[EpochRecord, ...],
    reason: StopReason = StopReason.TARGET_REACHED,
    **changes: object,
) -> RunSummary:
    """The folder of a run that ended after these epochs; returns its summary.

    Args:
        path: The folder.
        records: The epochs.
        reason: Why it ended.
        changes: Changes of the header.
    """
    folder = begun(path)
    run_epochs(folder, records)
    summary = samples.summary(records, reason, folder=str(path), **changes)
    summary = dataclasses.replace(summary, initial_loss=INITIAL_LOSS)
    folder.write_summary(summary)
    return summary
