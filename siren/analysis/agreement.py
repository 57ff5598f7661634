"""The simulator beside the twin: expected and drawn epochs, predicted and real losses of fixed actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from siren.money.pricer import RunTotals
from siren.simulator import quadratic
from siren.simulator.fitting import Setting
from siren.simulator.job import ActionGrid
from siren.simulator.quadratic import Quadratic
from siren.simulator.twin_jobs import loss_curve, rewind
from siren.twin.twin import Twin
from siren.types import Action, EpochReport
from siren.worlds.costing import Costing, EpochPlan

Floats = NDArray[np.float64]

KINDS = ("cold", "warm")
"""Epochs that are compared: a run's first, and the one after it with the same action."""

TIMEOUT_S = 10**6
"""No function is cut off."""

LEAST_RUNS = 3
"""Runs that a spread is judged by, at least."""


def drawn_epochs(
    twin_of: Callable[[int], Twin], action: Action, seeds: Iterable[int], error: float = 0.0
) -> Floats:
    """(runs, 2, 2): seconds and dollars of a cold and a warm epoch in the twin.

    Dollars are those of the epoch alone, without what the run as a whole is billed.

    Args:
        twin_of: A fresh twin for a seed.
        action: What runs.
        seeds: One run each.
        error: Relative standard error of all four means at which no more seeds are taken; 0 for all.
    """
    plan, found = EpochPlan(action, TIMEOUT_S, float(TIMEOUT_S), Decimal(0)), []
    for seed in seeds:
        twin = twin_of(seed)
        told = [twin.run_epoch(plan) for _ in KINDS]
        found.append([(report.duration_s, epoch_usd(twin.costing, report)) for report in told])
        if len(found) >= LEAST_RUNS:
            spread = np.std(found, axis=0, ddof=1) / np.mean(found, axis=0)
            if spread.max() <= error * np.sqrt(len(found)):
                break
    return np.array(found)


def epoch_usd(costing: Costing, told: EpochReport) -> float:
    """The bill of an epoch without what the run as a whole is billed: the cache, and the set-up."""
    bill = costing.pricer.price_epoch(told.usage, previous=RunTotals())
    setup = costing.setup_puts * costing.pricer.s3_put_usd if told.epoch == 1 else Decimal(0)
    return float(bill.total - bill["cache"] - setup)


def expected_epochs(costing: Costing, action: Action) -> Floats:
    """(2, 2): expected seconds and dollars of a cold and a warm epoch, as the simulator takes them."""
    grid = ActionGrid(costing, np.array([action.functions]), np.array([action.memory_mb]))
    warm, _, cold = grid.starts
    expected = [(epoch.duration_s, costing.marginal_usd(*grid.mesh, epoch)) for epoch in (cold, warm)]
    return np.array([[np.squeeze(number) for number in pair] for pair in expected], np.float64)


def fixed_losses(twin: Twin, actions: Sequence[Action], epochs: int, seeds: Sequence[int]) -> Floats:
    """(actions, seeds, epochs + 1): held-out losses of fixed actions, the initial one first.

    Losses after one that is not finite are infinite.

    Args:
        twin: The job; it is set back before every run.
        actions: One run each for every seed.
        epochs: Of each run.
        seeds: Seeds of the runs.
    """
    losses = np.full((len(actions), len(seeds), epochs + 1), np.inf)
    for k, action in enumerate(actions):
        for s, seed in enumerate(seeds):
            rewind(twin, seed)
            curve = loss_curve(twin, action, epochs)
            losses[k, s, : len(curve)] = np.where(np.isfinite(curve), curve, np.inf)
    return losses


def predicted_losses(model: Quadratic, setting: Setting, initial_loss: float, epochs: int) -> Floats:
    """(counts, epochs + 1): losses that a fitted model expects of every fixed count of the setting.

    Args:
        model: What was fitted.
        setting: The counts, their batches and delays.
        initial_loss: Of the job; the model's lowest loss lies `model.excess` below it.
        epochs: How far to look.
    """
    functions = setting.functions.astype(np.float64)
    maps = quadratic.responses(model, setting.rule, functions, setting.pushes, setting.batch, setting.delay)
    losses: Floats = initial_loss - model.excess + quadratic.mean_excess(model, maps, epochs)
    return losses
