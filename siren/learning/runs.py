"""Reads recorded runs, and fits a simulated job to the runs of each job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from siren.analysis.run_folder import CHECKPOINTS, CONFIG, RunFolder
from siren.errors import RunFolderError, UsageError
from siren.learning.neighbourhood import FittedJob
from siren.settings import saved_settings
from siren.simulator.fitting import Setting, Trace, excess_of, fit_quadratic
from siren.types import EpochReport
from siren.workloads.spec import TrainingSpec
from siren.worlds.costing import make_costing
from siren.worlds.laws import Job
from siren.worlds.refit import Scales, fit_scales, scaled
from siren.worlds.world import RESOLVED, World

LEAST_EPOCHS = 3
"""Epochs that a run must have before it diverged, if it did: fewer do not tell how it converges."""

_JOB = TypeAdapter(Job)


@dataclass(frozen=True)
class RecordedRun:
    """What a run folder tells.

    Attributes:
        name: Of the folder.
        training: How the job trains; its target is the run's.
        world, job: Where it ran, and what.
        initial_loss: Held-out.
        reports: Its epochs.
    """

    name: str
    training: TrainingSpec
    world: World
    job: Job
    initial_loss: float
    reports: tuple[EpochReport, ...]

    @property
    def trace(self) -> Trace:
        """Counts of functions and losses of its epochs."""
        losses = np.array([self.initial_loss, *(report.loss for report in self.reports)])
        return Trace(np.array([r.action.functions for r in self.reports], np.int64), losses)

    @property
    def course(self) -> tuple[int, int]:
        """(middle count of functions, epochs to the best loss)."""
        trace = self.trace
        best = int(np.nanargmin(trace.losses))
        return round(float(np.median(trace.functions[: max(best, 1)]))), best

    @property
    def shortcoming(self) -> str:
        """Why nothing can be learned from it; empty if something can."""
        losses = self.trace.losses
        if len(self.reports) < LEAST_EPOCHS:
            return f"it has {len(self.reports)} epochs, fewer than {LEAST_EPOCHS}"
        if not np.nanmin(losses) < losses[0]:
            return "its loss never fell below the initial one"
        if len(excess_of(self.trace, float(np.nanmin(losses)))) <= LEAST_EPOCHS:
            return f"it diverged within {LEAST_EPOCHS} epochs"
        return ""


def read_run(path: Path) -> RecordedRun:
    """The run of that folder, whether or not it has ended.

    Raises:
        RunFolderError: The folder is missing or damaged, or of a version that did not record the job.
    """
    folder = RunFolder.open(path)
    settings = saved_settings(folder.config, str(path), {})
    missing = [name for name in ("workload", "world", "job") if name not in settings.resolved]
    if missing:
        raise RunFolderError(
            f"{path / CONFIG} does not tell the {' and the '.join(missing)} that ran: "
            "run the job again with this version of Siren"
        )
    try:
        training = TrainingSpec.model_validate(settings.resolved["workload"]["training"])
        world = World.model_validate(settings.resolved["world"], context=RESOLVED)
        job = _JOB.validate_python(settings.resolved["job"])
    except (ValidationError, KeyError, TypeError) as error:
        reason = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else repr(error)
        raise RunFolderError(
            f"{path / CONFIG} is damaged (resolved: {reason}): leave this run out, or restore the file"
        ) from None
    saved = folder.checkpoints()
    if not saved:
        raise RunFolderError(
            f"{path / CHECKPOINTS} has no checkpoint, which tells the initial loss: "
            "leave this run out, or restore the folder"
        )
    initial_loss = float(folder.read_checkpoint(saved[-1])[1]["run"]["initial_loss"])
    # An epoch that was lost may be charged beside those that count; what it cost does not matter here.
    records = folder.events(outside_usd=settings.budget_usd)
    reports = tuple(record.status.report for record in records)
    return RecordedRun(path.resolve().name, training, world, job, initial_loss, reports)


def fit_runs(paths: Sequence[Path]) -> tuple[tuple[FittedJob, ...], list[str]]:
    """Fits a simulated job to all runs of each job.

    Args:
        paths: Run folders.

    Returns:
        (the jobs in the order of their first runs, a sentence for each run that tells too little).

    Raises:
        RunFolderError: See `read_run`.
        UsageError: No run tells enough.
    """
    groups: dict[tuple[TrainingSpec, str, Job], list[RecordedRun]] = {}
    notes = []
    for run in map(read_run, dict.fromkeys(path.resolve() for path in paths)):
        if run.shortcoming:
            notes.append(f"run {run.name} is left out: {run.shortcoming}")
            continue
        training = run.training.model_copy(update={"target_loss": 1.0})  # that of each run is its own
        key = training, run.world.model_dump_json(), run.job
        groups.setdefault(key, []).append(run)
    if not groups:
        raise UsageError(f"no run tells enough to learn from ({'; '.join(notes)}): record longer runs")
    return tuple(map(_fit, groups.values())), notes


def _fit(runs: Sequence[RecordedRun]) -> FittedJob:
    first, traces = runs[0], [run.trace for run in runs]
    laws = make_costing(first.world, first.job)
    scales = _mean([fit_scales(laws, run.reports) for run in runs])
    measured = scaled(laws, scales)
    counts = np.unique(np.concatenate([trace.functions for trace in traces]))
    memory_mb = float(np.median([r.action.memory_mb for run in runs for r in run.reports]))
    setting = Setting.of(measured.world, measured.job, first.training, counts.tolist(), memory_mb)
    return FittedJob(
        runs=tuple(run.name for run in runs),
        world=first.world,
        job=first.job,
        scales=scales,
        dynamics=fit_quadratic(traces, setting),
        initial_loss=float(np.mean([run.initial_loss for run in runs])),
        courses=tuple(run.course for run in runs),
    )


def _mean(scales: Sequence[Scales]) -> Scales:
    logs = np.log([[s.compute, s.store] for s in scales])
    return Scales(*np.exp(logs.mean(axis=0)).tolist())
