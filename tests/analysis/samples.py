"""Made-up runs whose money adds up exactly."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal

import numpy as np

from siren.types import (
    Action,
    BatchRule,
    ChannelKind,
    Decision,
    EpochRecord,
    EpochReport,
    EpochStatus,
    Forecast,
    GradientStatistics,
    RunHeader,
    RunObserver,
    RunSummary,
    StopReason,
    UpdateRule,
    Usage,
)


def header(**changes) -> RunHeader:
    return dataclasses.replace(
        RunHeader(
            workload="mlp-mnist",
            title="Perceptron on MNIST",
            dataset="MNIST, 60,000 + 10,000 images of digits (CC BY-SA 3.0)",
            world="aws-2026",
            platform="twin",
            policy="greedy",
            batch_rule=BatchRule.CONSTANT,
            update_rule=UpdateRule.ADDITIVE,
            channel=ChannelKind.REDIS,
            seed=1,
            budget_usd=Decimal("2.00"),
            target_loss=0.08,
            max_epochs=200,
            spends_money=False,
            folder="runs/2026-11-22T06-30-12-mlp-mnist",
        ),
        **changes,
    )


def _report(epoch: int, action: Action, loss: float, rng: np.random.Generator) -> EpochReport:
    speed = min(1.0, action.memory_mb / 1769)
    parts = {
        "start_s": 0.9 if epoch % 6 == 1 else 0.05,
        "load_s": 0.6 if epoch % 6 == 1 else 0.0,
        "fetch_s": 1.1 + 0.01 * action.functions + rng.uniform(0, 0.2),
        "compute_s": 60.0 / action.functions / speed * rng.uniform(0.95, 1.05),
        "update_s": 0.8 + 0.02 * action.functions,
        "wait_s": rng.uniform(0.2, 0.6),
    }
    evaluate_s = 0.25
    total_s = sum(parts.values())
    return EpochReport(
        epoch=epoch,
        action=action,
        loss=loss,
        accuracy=math.exp(-loss * 0.4),
        duration_s=total_s + evaluate_s,
        **parts,
        evaluate_s=evaluate_s,
        cold_starts=action.functions if epoch % 6 == 1 else 0,
        memory_utilization=0.3,
        cpu_utilization=parts["compute_s"] / total_s,
        pushes=600,
        pushes_planned=600,
        mean_staleness=action.functions - 1.0,
        updates_lost=0,
        update_retries=0,
        unfinished=0,
        gradients=GradientStatistics(1.5, 0.25, math.nan if epoch == 1 else 3.5),
        usage=Usage(
            memory_mb=action.memory_mb,
            billed_ms=math.ceil(total_s * 1000) * action.functions,
            requests=action.functions,
            s3_gets=action.functions,
            log_bytes=300,
        ),
    )


def epochs(
    count: int,
    budget_usd: Decimal = Decimal("2.00"),
    seed: int = 0,
    functions=(20, 40, 40, 80, 80, 40),
    decay: float = 0.12,
    floor: float = 0.07,
) -> tuple[EpochRecord, ...]:
    """Epochs of a run that learns; every cost has many digits."""
    rng = np.random.default_rng(seed)
    left_usd, elapsed_s, records = budget_usd, 0.0, []
    for epoch in range(1, count + 1):
        action = Action(functions[(epoch - 1) // 4 % len(functions)], 1769 if epoch <= 8 else 2048)
        loss = floor + 2.2 * math.exp(-decay * epoch) * rng.uniform(0.95, 1.05)
        report = _report(epoch, action, loss, rng)
        compute_usd = (
            Decimal(report.usage.billed_ms) * action.memory_mb / 1024 / 1000 * Decimal("0.0000133334")
        )
        bill = {
            "compute": compute_usd,
            "requests": action.functions * Decimal("0.0000002"),
            "cache": Decimal("0.017") if epoch == 1 else Decimal(0),
            "logs": Decimal("0"),
        }
        cost_usd = sum(bill.values(), start=Decimal(0))
        left_usd -= cost_usd
        elapsed_s += report.duration_s
        forecast = Forecast(action, report.duration_s * 1.1, float(cost_usd) * 0.9, math.nan, True)
        doubled = Action(action.functions * 2, action.memory_mb)
        neighbour = Forecast(doubled, 3.0, 0.02, loss, False, "does not fit")
        records.append(
            EpochRecord(
                decision=Decision(action, "best progress per second", forecast, (neighbour,)),
                timeout_s=30,
                reserved_usd=cost_usd * 3,
                status=EpochStatus(report, cost_usd, bill, left_usd, elapsed_s),
            )
        )
    return tuple(records)


def summary(records=(), reason=StopReason.TARGET_REACHED, **header_changes) -> RunSummary:
    head = header(**header_changes)
    bill: dict[str, Decimal] = {}
    for record in records:
        for item, usd in record.status.bill.items():
            bill[item] = bill.get(item, Decimal(0)) + usd
    last = records[-1].status if records else None
    return RunSummary(
        header=head,
        stop_reason=reason,
        stop_detail="the held-out loss reached the target",
        cost_usd=sum(bill.values(), start=Decimal(0)),
        bill=bill,
        initial_loss=2.3,
        final_loss=last.report.loss if last else 2.3,
        final_accuracy=last.report.accuracy if last else math.nan,
        best_loss=last.report.loss if last else 2.3,
        best_epoch=len(records),
        epochs=len(records),
        duration_s=last.elapsed_s if last else 0.0,
        wall_s=12.5,
    )


def play(observer: RunObserver, records, ending: RunSummary, past=0) -> None:
    """Tell an observer a run as the trainer does."""
    observer.started(ending.header, tuple(records[:past]), ending.initial_loss)
    for record in records[past:]:
        observer.epoch_started(record.status.report.epoch, record.decision)
        observer.epoch_ended(record)
    observer.finished(ending)
