"""Siren's toy example: the job, and the schedule of functions that the slides call X."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from siren.analysis.asynchrony import changed_costing, changed_workload, floor_limited_job
from siren.policies.base import JobView, affordable
from siren.types import Action, Decision, EpochRecord
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing

HIGGS_ROWS = 11_000_000
"""Rows of HIGGS (UCI repository)."""

SECONDS_PER_ROW = 80.0 * 10 / (10 * HIGGS_ROWS)
"""Logistic regression on HIGGS with 10 Lambda functions, 10 epochs: 80 s of compute (LambdaML, SIGMOD 2021;
recalled, not read again)."""

BYTES_PER_ROW = 116
"""As in workloads/logreg-higgs."""

EVALUATE_S = 1e-6
"""To evaluate one of the 4,000 held-out samples."""

MEMORY_MB = 1769
"""Memory of a function: one vCPU."""


def toy_job(gap: float, **training: Any) -> tuple[Workload, Costing, float]:
    """(workload, laws and prices, least possible loss) of the toy example.

    Logistic regression that stands for HIGGS: real SGD on 102,400 generated samples of 28 features. A sample
    takes the time and the bytes of 107 rows of HIGGS, so that all take those of its 11 million rows; an
    epoch is a quarter of them. Mini-batches are divided over functions (`split`, 4 pushes each).

    Args:
        gap: The target's loss above the least possible one.
        training: Other settings of the training.
    """
    base, best_loss, _ = floor_limited_job()
    workload = changed_workload(base, target_loss=best_loss + gap, **training)
    rows = HIGGS_ROWS / len(workload.dataset.train_features)
    costing = changed_costing(
        workload,
        seconds_per_sample=rows * SECONDS_PER_ROW,
        sample_bytes=round(rows * BYTES_PER_ROW),
        evaluate_seconds_per_sample=EVALUATE_S,
    )
    return workload, costing, best_loss


class SlidesSchedule:
    """X of the slides: 120 functions in the first epoch, 20 after that, 10 in the last.

    Which epoch is the last is known only afterwards: 10 are taken once another fall of the loss like that of
    the epoch before would reach the target.
    """

    name = "slides"

    def start(self, job: JobView) -> None:
        """See `Policy.start`."""
        self._job = job

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """See `Policy.decide`."""
        losses = [self._job.initial_loss, *(record.status.report.loss for record in history)]
        last = len(losses) > 2 and 2 * losses[-1] - losses[-2] <= self._job.training.target_loss
        functions = 120 if not history else 10 if last else 20
        action = affordable(self._job, Action(functions, MEMORY_MB))
        return None if action is None else Decision(action, "schedule of Siren's slides")
