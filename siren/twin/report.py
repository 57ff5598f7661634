"""What an epoch on the twin tells and what it would be billed for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from siren.hsp.quotas import Quotas
from siren.money.billed_time import billed_ms, billed_ms_array
from siren.twin import replay
from siren.twin.environments import Placement
from siren.twin.launch import Launch
from siren.types import EpochReport, GradientStatistics, UpdateRule, Usage
from siren.units import MS_PER_S
from siren.worlds import events
from siren.worlds.costing import Costing, EpochPlan
from siren.worlds.laws import BARRIER_RULES, EpochLaws, egress_bytes, memory_needed_mb, s3_requests


@dataclass(frozen=True)
class Outcome:
    """What the gradients of an epoch led to.

    Attributes:
        loss, accuracy: Held-out.
        lost: Updates that the final model does not contain.
        sums: Gradient statistics.
    """

    loss: float
    accuracy: float
    lost: int
    sums: replay.Sums


@dataclass(frozen=True)
class Course:
    """The course of one epoch, from plan to outcome.

    Attributes:
        epoch: 1 for the first.
        began_s: The run's clock at its launch.
        plan, split, placement, launch, laws: How it was laid out.
        trace: What happened when.
        outcome: What it led to.
    """

    epoch: int
    began_s: float
    plan: EpochPlan
    split: Quotas
    placement: Placement
    launch: Launch
    laws: EpochLaws
    trace: events.Trace
    outcome: Outcome


def report(costing: Costing, course: Course) -> EpochReport:
    """The epoch's report."""
    job, trace, launch = costing.job, course.trace, course.launch
    action, n = course.plan.action, course.plan.action.functions
    times = launch.began_s, launch.load_s, trace.fetch_s, trace.compute_s, trace.update_s
    start_s, load_s, fetch_s, compute_s, update_s = (float(x.sum()) / n for x in times)
    merge_s = float(course.laws.merge_s) if job.update_rule is UpdateRule.AVERAGE else 0.0
    evaluate_s = merge_s + float(course.laws.evaluate_s)
    duration_s = trace.barrier_s + evaluate_s
    handlers_s = float((trace.end_s - launch.began_s).sum())
    return EpochReport(
        epoch=course.epoch,
        action=action,
        loss=course.outcome.loss,
        accuracy=course.outcome.accuracy,
        duration_s=duration_s,
        start_s=start_s,
        load_s=load_s,
        fetch_s=fetch_s,
        compute_s=compute_s,
        update_s=update_s,
        wait_s=trace.barrier_s - (start_s + load_s + fetch_s + compute_s + update_s),
        evaluate_s=evaluate_s,
        cold_starts=int(course.placement.cold.sum()),
        memory_utilization=float(memory_needed_mb(job, n)) / action.memory_mb,
        cpu_utilization=min(1.0, float(trace.compute_s.sum()) / max(handlers_s, 1e-12)),
        pushes=len(trace.push),
        pushes_planned=course.split.pushes,
        mean_staleness=_mean_staleness(job.update_rule, trace),
        updates_lost=course.outcome.lost,
        update_retries=int(trace.retries),
        unfinished=int(np.count_nonzero(trace.done < np.diff(course.split.first_push))),
        gradients=statistics(course.outcome.sums),
        usage=_usage(costing, course, duration_s),
        init_s=float(launch.init_s.sum()) / max(1, int(course.placement.cold.sum())),
    )


def _mean_staleness(rule: UpdateRule, trace: events.Trace) -> float:
    if rule in BARRIER_RULES or not len(trace.push):
        return 0.0
    return float(np.mean(np.arange(len(trace.push)) - trace.read_version))


def _usage(costing: Costing, course: Course, duration_s: float) -> Usage:
    action, billing, job = course.plan.action, costing.world.billing, costing.job
    handler_ms = (course.trace.end_s - course.launch.began_s) * MS_PER_S
    handler_ms = np.clip(handler_ms, 0.0, course.plan.timeout_s * MS_PER_S)
    init_ms = course.launch.init_s * MS_PER_S
    billed = billed_ms_array(handler_ms, init_ms, billing.granularity, billing.init_billed)
    evaluations = 1 if job.evaluator_is_function else 0
    evaluate_s = float(course.laws.evaluate_billed_s)
    if job.update_rule is UpdateRule.AVERAGE:
        evaluate_s += float(course.laws.merge_s)
    evaluate_s = min(evaluate_s, float(course.plan.timeout_s))  # the platform would kill it then
    evaluator_ms = billed_ms(evaluate_s * MS_PER_S, 0.0, billing.granularity) if evaluations else 0
    puts, gets = _requests(costing, course)
    return Usage(
        memory_mb=action.memory_mb,
        billed_ms=int(billed.sum()),
        requests=action.functions + evaluations,
        ephemeral_mb=billing.ephemeral_storage,
        evaluator_billed_ms=evaluator_ms,
        evaluator_memory_mb=action.memory_mb * evaluations,
        s3_puts=puts + (costing.setup_puts if course.epoch == 1 else 0),
        s3_gets=gets,
        s3_gb_s=costing.stored_gb(action.functions) * duration_s,
        log_bytes=(action.functions + evaluations) * billing.log_per_invocation,
        egress_bytes=int(egress_bytes(job, action.functions)),
        cache_s=course.began_s + duration_s if costing.uses_cache else 0.0,
    )


def _requests(costing: Costing, course: Course) -> tuple[int, int]:
    """S3 (puts, gets) of the epoch."""
    trace, split = course.trace, course.split
    steps = 1
    if costing.job.update_rule is UpdateRule.SYNC:
        steps = int(trace.read_version.max()) + 1 if len(trace.push) else 0
    puts, gets = s3_requests(
        costing.job,
        course.plan.action.functions,
        attempts=len(trace.push) + int(trace.retries),
        unanswered=int(np.count_nonzero(trace.done < np.diff(split.first_push))),
        steps=steps,
        loads=int(course.placement.load.sum()) * int(course.laws.load_requests),
    )
    return int(puts), int(gets)


def statistics(sums: replay.Sums) -> GradientStatistics:
    """The gradient statistics of an epoch, from its running sums; NaN where there are too few."""
    count = sums.pushes
    if count.sum() == 0:
        return GradientStatistics(math.nan, math.nan, math.nan)
    mean = sums.gradient.sum(axis=0, dtype=np.float64) / count.sum()
    curvature = math.nan
    if count.min() > 0:
        moved = sums.params[1] / count[1] - sums.params[0] / count[0]
        turned = sums.gradient[1] / count[1] - sums.gradient[0] / count[0]
        length = float(moved @ moved)
        curvature = float(turned @ moved) / length if length > 0 else math.nan
    return GradientStatistics(float(sums.square.sum() / count.sum()), float(mean @ mean), curvature)
