"""Refitting the laws of time to a run while it goes on: "experience-driven", with two constants.

What is measured before a run, or assumed, is off by some tens of per cent on a real provider. A run
tells how long computing and talking to the store really took. Both are fitted as factors on what
the laws expect, and move all of it: other counts and other memory sizes as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from siren.types import EpochReport
from siren.worlds.costing import Costing
from siren.worlds.laws import epoch_laws

RECENT = 8
"""Epochs that are looked back on."""

GRAIN, DEAD = math.log(1.1), math.log(1.15)
"""Factors are whole steps of 10%, and 1 up to 15%: what noise and the laws' own error do is not followed."""

WIDEST = 3.0
"""No factor is beyond this, or below its inverse."""


@dataclass(frozen=True)
class Scales:
    """Factors on the laws of time.

    Attributes:
        compute: On the time of computing gradients.
        store: On latencies, service times and transfers of the channel.
    """

    compute: float = 1.0
    store: float = 1.0


def fit_scales(costing: Costing, reports: Sequence[EpochReport]) -> Scales:
    """The factors that the last epochs tell, to whole steps of 10%.

    Args:
        costing: The laws as they were before the run.
        reports: The run's epochs; epochs with unfinished functions tell nothing.
    """
    recent = [report for report in reports[-RECENT:] if not report.unfinished]
    if not recent:
        return Scales()
    n = np.array([float(report.action.functions) for report in recent])
    m = np.array([float(report.action.memory_mb) for report in recent])
    laws = epoch_laws(costing.world, costing.job, n, m)
    compute_s = np.asarray(laws.pushes / n * laws.compute_s)
    warm = costing.expect(n, m, 0 * n, 0 * n)
    store_s = np.maximum(np.asarray(warm.handler_s) - compute_s, 0.0)
    told_s = np.array([[r.compute_s, r.fetch_s + r.update_s] for r in recent]).sum(axis=0)
    return Scales(_factor(told_s[0], compute_s.sum()), _factor(told_s[1], store_s.sum()))


def _factor(told_s: float, expected_s: float) -> float:
    if not (told_s > 0 and expected_s > 0):
        return 1.0
    factor = math.log(told_s / expected_s)
    if abs(factor) < DEAD:
        return 1.0
    return float(np.clip(math.exp(round(factor / GRAIN) * GRAIN), 1 / WIDEST, WIDEST))


def scaled(costing: Costing, scales: Scales) -> Costing:
    """The laws with these factors; prices and limits stay."""
    if scales == Scales():
        return costing
    world, job, c, s = costing.world, costing.job, scales.compute, scales.store
    store = world.channels[job.channel]
    slower = store.model_copy(
        update={
            "read_median": store.read_median * s,
            "write_median": store.write_median * s,
            "service_base": store.service_base * s,
            "service_per_float": store.service_per_float * s,
        }
    )
    world = world.model_copy(update={"channels": {**world.channels, job.channel: slower}})
    job = replace(
        job, seconds_per_sample=job.seconds_per_sample * c, seconds_per_push=job.seconds_per_push * c
    )
    return Costing(world, job, costing.pricer, lifetimes_max=costing.lifetimes_max)
