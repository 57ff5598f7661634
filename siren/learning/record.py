"""What a training has reached so far: evaluations, and the checkpoint it can go on from."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load, save

from siren.analysis._disk import Disk
from siren.errors import AgentError
from siren.policies.network import WEIGHTS, Network

CHECKPOINT = "checkpoint.zip"
"""The learner as a zip of Stable-Baselines3, with two entries of Siren's own."""

EVALUATIONS = "evaluations.csv"
_PROGRESS, _BEST = "siren.json", "best.safetensors"


@dataclass(frozen=True)
class Evaluation:
    """A policy on the validation jobs.

    Attributes:
        steps: Steps that it was trained for.
        seconds: Wall-clock seconds of training until then.
        speedup, low, high, success, reference_success: See `Comparison`.
        training_success, training_ratio: Share of successes, and mean failure-counted time over the
            reference time, of the training episodes since the evaluation before; with exploring actions.
    """

    steps: int
    seconds: float
    speedup: float
    low: float
    high: float
    success: float
    reference_success: float
    training_success: float
    training_ratio: float

    @property
    def merit(self) -> tuple[bool, float]:
        """Larger is better: a policy less reliable than the reference action is kept only for want of one."""
        return self.success >= self.reference_success, self.speedup


@dataclass
class Record:
    """The course of a training.

    Attributes:
        steps, seconds: Done so far.
        evaluations: In order.
        best: The policy of the best evaluation, once there is one.
    """

    steps: int = 0
    seconds: float = 0.0
    evaluations: list[Evaluation] = field(default_factory=list)
    best: Network | None = None

    @property
    def best_evaluation(self) -> Evaluation:
        """The evaluation whose policy is kept; the earliest of equals."""
        return max(self.evaluations, key=lambda evaluation: evaluation.merit)

    def add(self, evaluation: Evaluation, network: Network) -> bool:
        """Takes an evaluation in; whether its policy is the best so far."""
        self.evaluations.append(evaluation)
        if self.best_evaluation is not evaluation:
            return False
        self.best = network
        return True


def write_evaluations(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """Writes `evaluations.csv`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([f.name for f in fields(Evaluation)])
    writer.writerows([f"{value:.6g}" if f else value for f, value in _cells(e)] for e in evaluations)
    Disk().replace(folder / EVALUATIONS, text.getvalue().encode())


def _cells(evaluation: Evaluation) -> list[tuple[bool, Any]]:
    return [(isinstance(value, float), value) for value in asdict(evaluation).values()]


@dataclass(frozen=True)
class Checkpoint:
    """What a training goes on from.

    Attributes:
        record: The course until then.
        learner: What the learner saved, a zip.
    """

    record: Record
    learner: bytes


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes the checkpoint of a record with a best policy, whole or not at all."""
    record = checkpoint.record
    assert record.best is not None
    buffer = io.BytesIO()
    buffer.write(checkpoint.learner)
    progress = {
        "steps": record.steps,
        "seconds": record.seconds,
        "evaluations": [asdict(evaluation) for evaluation in record.evaluations],
    }
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(_PROGRESS, json.dumps(progress))
        archive.writestr(_BEST, save(record.best.tensors))
    Disk().replace(folder / CHECKPOINT, buffer.getvalue())


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint of an agent folder; None if the training was killed before its first one.

    Raises:
        AgentError: The training has ended, or the checkpoint is damaged.
    """
    path = folder / CHECKPOINT
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            progress = json.loads(archive.read(_PROGRESS))
            best = Network(load(archive.read(_BEST)))
        evaluations = [Evaluation(**row) for row in progress["evaluations"]]
        record = Record(int(progress["steps"]), float(progress["seconds"]), evaluations, best)
        return Checkpoint(record, data)
    except FileNotFoundError as error:
        if (folder / WEIGHTS).exists():
            raise AgentError(
                f"the training in {folder} has ended, there is no {CHECKPOINT} to go on from: start a new one"
            ) from error
        return None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, SafetensorError) as error:
        raise AgentError(f"{path} is damaged ({error}): start the training anew") from error
