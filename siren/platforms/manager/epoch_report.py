"""What an epoch of real functions tells and what it is billed for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from siren.hsp.quotas import Quotas
from siren.platforms.manager.crew import Member, Outcome
from siren.platforms.manager.purse import Charge
from siren.platforms.manager.staging import Traffic
from siren.types import Action, EpochReport, GradientStatistics, UpdateRule, Usage
from siren.units import MS_PER_S
from siren.worker.outcome import Outcome as Model
from siren.worlds.costing import Costing, EpochPlan
from siren.worlds.laws import BARRIER_RULES

Params = NDArray[np.float32]


@dataclass(frozen=True)
class Course:
    """The course of one epoch, from launch to loss.

    Attributes:
        epoch: 1 for the first.
        began_unix: Its beginning in Unix time, as functions tell theirs.
        barrier_s: From there to the end of the last function.
        duration_s: From there to the end of the evaluation.
        plan, split: How it was laid out.
        outcome: How its functions ended.
        before: The model that it started from.
        model: What it led to.
        loss, accuracy: Held-out, of the model after it.
        traffic: What the manager itself asked of the bucket.
        left_s: Seconds for which there was what the epoch put into the bucket, or will be.
        standing_s: Since the run first began.
    """

    epoch: int
    began_unix: float
    barrier_s: float
    duration_s: float
    plan: EpochPlan
    split: Quotas
    outcome: Outcome
    before: Params
    model: Model
    loss: float
    accuracy: float
    traffic: Traffic
    left_s: float
    standing_s: float


def report(costing: Costing, course: Course) -> EpochReport:
    """The epoch's report; parts of its time are means over functions."""
    members, rule = course.outcome.members, costing.job.update_rule
    n, plan = len(members), course.plan
    parts = np.array([_parts(member, course) for member in members]).sum(axis=0) / n
    start_s, load_s, fetch_s, compute_s, update_s = (float(part) for part in parts)
    handlers_s = sum(each.duration_ms for member in members for each in member.reports) / MS_PER_S
    return EpochReport(
        epoch=course.epoch,
        action=plan.action,
        loss=course.loss,
        accuracy=course.accuracy,
        duration_s=course.duration_s,
        start_s=start_s,
        load_s=load_s,
        fetch_s=fetch_s,
        compute_s=compute_s,
        update_s=update_s,
        wait_s=course.barrier_s - float(parts.sum()),
        evaluate_s=course.duration_s - course.barrier_s,
        cold_starts=sum(any(status.cold for status in member.statuses) for member in members),
        memory_utilization=_memory_utilization(members),
        cpu_utilization=min(1.0, n * compute_s / max(handlers_s, 1e-12)),
        pushes=course.model.pushes,
        pushes_planned=course.split.pushes,
        mean_staleness=_mean_staleness(members, rule),
        updates_lost=course.model.lost,
        update_retries=sum(status.retries for member in members for status in member.statuses),
        unfinished=sum(not member.done for member in members),
        gradients=_gradients(course, rule),
        usage=_usage(costing, course),
        throttles=course.outcome.throttles,
        retries=course.outcome.retries,
        init_s=_init_s(members),
    )


def _init_s(members: list[Member]) -> float:
    told = [each.init_ms / MS_PER_S for member in members for each in member.reports if each.init_ms > 0]
    return sum(told) / max(1, len(told))


def _parts(member: Member, course: Course) -> tuple[float, float, float, float, float]:
    """(start, load, fetch, compute, update) seconds of one function, over all its invocations."""
    told = member.statuses
    start_s = min(max(told[0].began - course.began_unix, 0.0), course.barrier_s) if told else 0.0
    return (
        start_s,
        sum(status.load_s for status in told),
        sum(status.fetch_s for status in told),
        sum(status.compute_s for status in told),
        sum(status.update_s for status in told),
    )


def _memory_utilization(members: list[Member]) -> float:
    shares = [each.max_memory_mb / each.memory_mb for member in members for each in member.reports]
    return min(1.0, max(shares, default=0.0))


def _mean_staleness(members: list[Member], rule: UpdateRule) -> float:
    """NaN where the channel cannot tell."""
    if rule in BARRIER_RULES:
        return 0.0
    told = [status for member in members for status in member.statuses if status.pushes]
    sums = [status.staleness_sum for status in told if status.staleness_sum is not None]
    if len(sums) < len(told):
        return math.nan
    return sum(sums) / max(1, sum(status.pushes for status in told))


def _gradients(course: Course, rule: UpdateRule) -> GradientStatistics:
    """Statistics of the gradients; |mean|^2 from how far the model moved, where the rule lets it be known.

    Under `additive` and `cas` the model moves by rate x (sum of the K gradients), under `average` by
    rate x (sum over a function's own pushes, averaged over functions), under `sync` by rate x (sum over
    steps of their mean).
    """
    members = course.outcome.members
    told = [status for member in members for status in member.statuses]
    pushes = sum(status.pushes for status in told)
    if not pushes:
        return GradientStatistics(math.nan, math.nan, math.nan)
    square = sum(status.square_norm_sum for status in told) / pushes
    done = course.model.pushes
    steps = {
        UpdateRule.ADDITIVE: done,
        UpdateRule.CAS: done,
        UpdateRule.AVERAGE: done / len(members),
        UpdateRule.SYNC: max(member.position for member in members),
    }.get(rule, 0)
    moved = course.before.astype(np.float64) - course.model.params
    length = members[0].task.rate * steps
    return GradientStatistics(square, float(moved @ moved) / length**2 if length else math.nan, math.nan)


def _usage(costing: Costing, course: Course) -> Usage:
    used, plan = course.outcome.used, course.plan
    real = costing.real_epoch(plan.action, plan.timeout_s, plan.lifetimes)
    stored_gb_s = float(costing.stored_gb(plan.action.functions)) * course.duration_s
    stored_gb_s += real.left_gb_s(real.left(used.requests), course.left_s)
    return usage_of(costing, plan.action, used, course.traffic, stored_gb_s, course.standing_s)


def usage_of(
    costing: Costing, action: Action, used: Charge, traffic: Traffic, s3_gb_s: float, standing_s: float
) -> Usage:
    """What an epoch is billed for.

    Args:
        costing: Laws and prices.
        action: What it ran on.
        used: What its functions used.
        traffic: What the manager itself asked of the bucket.
        s3_gb_s: GB that were stored times seconds.
        standing_s: Since the run first began: so long its cache has been there.
    """
    billing = costing.world.billing
    return Usage(
        memory_mb=action.memory_mb,
        billed_ms=-(-used.mb_ms // action.memory_mb),
        requests=used.requests,
        ephemeral_mb=billing.ephemeral_storage,
        s3_puts=used.s3_puts + traffic.puts,
        s3_gets=used.s3_gets + traffic.gets,
        s3_gb_s=s3_gb_s,
        log_bytes=used.requests * billing.log_per_invocation,
        egress_bytes=traffic.received_bytes + used.answer_bytes,
        cache_s=standing_s if costing.uses_cache else 0.0,
    )
