"""What the gradient statistics of an epoch tell of a job."""

from __future__ import annotations

import math

from siren.hsp.rules import damped_rate
from siren.types import EpochReport, UpdateRule
from siren.workloads.spec import TrainingSpec
from siren.worlds.laws import BARRIER_RULES, Job


def noise_gain(training: TrainingSpec, job: Job, epoch: int, functions: int, staleness: float) -> float:
    """What the trace of the covariance of gradients is multiplied by to give the noise floor.

    SGD of a small rate settles at the excess rate x trace / 4; averaging over functions divides it.
    """
    rate = training.rate(epoch, job.samples / float(job.pushes(functions)))
    if job.update_rule is UpdateRule.STALENESS:
        rate = float(damped_rate(rate, staleness, training.staleness_scale))
    return rate / (4 * (functions if job.update_rule in BARRIER_RULES else 1))


def noise_floor(training: TrainingSpec, job: Job, report: EpochReport) -> float:
    """The excess at which SGD of the epoch's batch and rate would settle.

    Returns:
        0 where the gradients do not tell.
    """
    trace = report.gradients.mean_square_norm - report.gradients.square_norm_of_mean
    if not (math.isfinite(trace) and trace > 0 and report.pushes > 0):
        return 0.0
    n, staleness = report.action.functions, report.mean_staleness
    return trace * noise_gain(training, job, report.epoch, n, staleness)
