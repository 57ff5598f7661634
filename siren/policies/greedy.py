"""The greedy policy: the best predicted progress a second whose cost fits the budget."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from siren.errors import ActionError
from siren.policies.base import JobView, Predictions
from siren.types import Action, BatchRule, Decision, EpochRecord, Forecast, UpdateRule

FIRST_FUNCTIONS = 16
"""Most functions in the first epoch, before anything is known of the job's curvature."""

CLIFF_MARGIN = 0.25
"""Share of the estimated stability cliff that is used."""

RISE = 1.02
"""A loss above this multiple of the best one counts as a rise."""

BACK_OFF, RECOVER = 0.5, 1.25
"""Factors on the cap of functions after a rise, and after an epoch without one."""

EQUALLY_FAST = 0.97
"""Speeds whose ratio is above this count as equal, and the cheaper action wins."""

UNKNOWN_EPOCHS = 10.0
"""Epochs that a job is taken to need before its rate of progress is known."""

MEMORY = 4
"""Epochs that the estimated rate of progress looks back on."""


class GreedyPolicy:
    """Per epoch the action with the best predicted progress a second that the budget can pay for.

    Progress is the fall of log(loss / target). It is taken to be proportional to the updates
    that reach the model, at a rate estimated from the last epochs; how many reach it follows
    from the update rule (see `effective_updates`). Additive updates progress independently of n up to a
    sharp cliff near 1 / (learning rate x curvature), so asynchronous functions are capped below
    it, by the secant curvature of the gradients, and the cap halves when the loss rises. An
    action is preferred if going on with it to the target fits what is left; when none does, the
    cheapest progress is chosen. Among actions that are as good as equally fast, the cheapest is.
    """

    name = "greedy"

    def __init__(self) -> None:
        self._job: JobView | None = None

    def start(self, job: JobView) -> None:
        """See `Policy.start`."""
        if not job.actions:
            raise ActionError(
                "no action of this world can finish an epoch of this job: choose another world, or fewer "
                "samples_per_epoch"
            )
        self._job = job

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """See `Policy.decide`."""
        assert self._job is not None
        job = self._job
        loss = history[-1].status.report.loss if history else job.initial_loss
        cap = function_cap(job, history)
        actions = [a for a in job.actions if a.functions <= cap] or list(job.actions[:1])
        p = job.predict(actions)
        updates = effective_updates(job, p.functions)
        rate = progress_rate(job, history)
        order, how = _rank(job, p, updates, rate, loss)
        chosen = next((k for k in order.tolist() if job.plan(actions[k]) is not None), None)
        if chosen is None:
            return None
        action = actions[chosen]
        left = job.outlook.left_usd
        reason = (
            f"{how} of {len(actions)} actions of at most {cap} functions with ${left:.4f} left: "
            f"{updates[chosen] / p.duration_s[chosen]:.3g} effective updates a second "
            f"at ${p.marginal_usd[chosen]:.3g} an epoch"
        )
        told = job.explain(Decision(action, reason), functools.partial(self._loss_after, rate, loss))
        return dataclasses.replace(told, neighbours=tuple(_capped(f, cap) for f in told.neighbours))

    def _loss_after(self, rate: float, loss: float, action: Action) -> float:
        assert self._job is not None
        updates = float(effective_updates(self._job, np.array([float(action.functions)]))[0])
        return loss * math.exp(-rate * updates) if rate > 0 else math.nan


def _capped(forecast: Forecast, cap: int) -> Forecast:
    if forecast.action.functions > cap and not forecast.note:
        return dataclasses.replace(forecast, note=f"above the cap of {cap} functions")
    return forecast


def _rank(
    job: JobView, p: Predictions, updates: NDArray[np.float64], rate: float, loss: float
) -> tuple[NDArray[np.int64], str]:
    """The actions from best to worst, and by what they were ranked."""
    left = float(job.outlook.left_usd)
    speed = updates / p.duration_s
    distance = math.log(max(loss, job.training.target_loss) / job.training.target_loss)
    epochs = distance / (rate * updates) if rate > 0 else np.full(len(updates), UNKNOWN_EPOCHS)
    epochs = np.maximum(1.0, epochs)
    lasting = job.cost_usd(p, epochs) + p.excess_usd <= left
    if lasting.any():
        steps = np.floor(np.log(speed / speed[lasting].max()) / math.log(EQUALLY_FAST))
        return np.lexsort((p.marginal_usd, steps, ~lasting)), "fastest progress"
    return np.argsort(p.marginal_usd / updates, kind="stable"), "cheapest progress"


def effective_updates(job: JobView, functions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Updates of an epoch that move the model on, in units of one push of the workload's batch size.

    `additive` and `cas`: every push. `staleness`: every push, damped. `overwrite`: one chain of
    reads and writes survives, about pushes / n. `average` and `sync`: a function's own steps.
    """
    laws_job, training = job.costing.job, job.training
    pushes = np.asarray(laws_job.pushes(functions), np.float64)
    rule = laws_job.update_rule
    if rule is UpdateRule.STALENESS:
        pushes = pushes / (1 + (functions - 1) / training.staleness_scale)
    elif rule in (UpdateRule.OVERWRITE, UpdateRule.AVERAGE, UpdateRule.SYNC):
        pushes = pushes / functions
    if laws_job.batch_rule is BatchRule.SPLIT:
        batch = laws_job.samples / np.asarray(laws_job.pushes(functions), np.float64)
        pushes = pushes * np.array([training.rate(1, b) for b in batch.tolist()]) / training.learning_rate
    return pushes


def progress_rate(job: JobView, history: Sequence[EpochRecord]) -> float:
    """Fall of log loss per effective update over the last epochs; 0 while unknown."""
    recent = history[-MEMORY:]
    if not recent:
        return 0.0
    before = history[-len(recent) - 1].status.report.loss if len(history) > len(recent) else job.initial_loss
    loss = recent[-1].status.report.loss
    if not (loss > 0 and math.isfinite(before / loss)):  # one of them diverged
        return 0.0
    functions = np.array([float(r.status.report.action.functions) for r in recent])
    updates = float(effective_updates(job, functions).sum())
    return math.log(max(before / loss, 1.0)) / updates


def function_cap(job: JobView, history: Sequence[EpochRecord]) -> int:
    """Most functions that the greedy policy lets run free at once."""
    most = job.functions[-1]
    if job.costing.job.update_rule in (UpdateRule.AVERAGE, UpdateRule.SYNC, UpdateRule.OVERWRITE):
        return most
    cap, best = float(min(FIRST_FUNCTIONS, most)), job.initial_loss
    for record in history:
        report = record.status.report
        if not report.loss <= RISE * best:  # NaN is a rise
            cap = max(1.0, min(cap, report.action.functions) * BACK_OFF)
        else:
            cap = min(cap * RECOVER, _cliff(job, record), float(most))
        best = min(best, report.loss)
    return max(1, int(cap))


def _cliff(job: JobView, record: EpochRecord) -> float:
    curvature = record.status.report.gradients.secant_curvature
    rate = job.training.rate(record.status.report.epoch, job.training.batch_size)
    if not curvature > 0:
        return math.inf
    return max(1.0, CLIFF_MARGIN / (rate * curvature))
