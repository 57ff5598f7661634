"""A plan: what a job is expected to take before anything is spent, for one budget or for several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Any, TextIO

import numpy as np
from pydantic import TypeAdapter

from siren.errors import BudgetError
from siren.planning.machines import VmOption, vm_options
from siren.planning.prediction import (
    FirstAction,
    Prediction,
    first_action,
    play_fresh,
    prediction_of,
    rehearsed_stage,
)
from siren.planning.verdict import Verdict, verdict_on
from siren.rehearsal.job import RehearsedJob
from siren.rehearsal.rehearse import Rehearsal
from siren.rehearsal.show import progress
from siren.rehearsal.stage import Stage
from siren.simulator.job import ActionGrid, FixedRuns, fixed_runs, memory_grid

AMPLE = Decimal(1_000_000)
"""A budget that limits nothing: what a frontier's first rehearsal is given."""

SLACK = 1.05
"""A frontier's budgets are so many times what a fixed action needs in expectation."""

CENTS = Decimal("1e-6")
"""What they are rounded up to."""

AFTERWARDS = 0.25
"""Seconds for the machines' curves, and for the predictions of a policy, over those of a rehearsal."""


@dataclass(frozen=True)
class BudgetPlan:
    """What is expected for one budget.

    Attributes:
        budget_usd: The budget.
        choice: What `siren.run` would use by default.
        best_fixed: The best fixed action; equal to `choice` where nothing was better.
        why: Why the rehearsal chose so.
        first: What would be done first.
        verdict: Functions or machines.
    """

    budget_usd: Decimal
    choice: Prediction
    best_fixed: Prediction
    why: str
    first: FirstAction
    verdict: Verdict


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        workload, world: Names.
        target_loss: The job's target.
        rehearsed_loss: The target that was rehearsed: an easier one on a sub-sample.
        share: Samples of a rehearsed epoch over those of a whole one.
        budgets: By budget, ascending.
        machines: What the job takes on EC2, by cluster; none if synchronous SGD does not get there.
    """

    workload: str
    world: str
    target_loss: float
    rehearsed_loss: float
    share: float
    budgets: tuple[BudgetPlan, ...]
    machines: tuple[VmOption, ...]


def to_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON; budgets and reservations are exact decimal text."""
    found: dict[str, Any] = TypeAdapter(Plan).dump_python(plan, mode="json")
    return found


class Planner:
    """Makes plans of one job.

    Args:
        job: The job; its budget is not looked at.
        seconds: Real seconds of a rehearsal.
        stderr: Where progress is shown if it is a terminal.
        again: Whether to rehearse even what was rehearsed before.
    """

    def __init__(self, job: RehearsedJob, seconds: float, stderr: TextIO, *, again: bool = False) -> None:
        self._job, self._seconds, self._stderr, self._again = job, seconds, stderr, again
        self._whole = Stage(job.workload, job.costing)
        self._machines: dict[float, tuple[VmOption, ...]] = {}

    def for_budget(self, budget_usd: Decimal) -> Plan:
        """The plan for one budget.

        Raises:
            BudgetError: No fixed action was found to reach the target within it.
        """
        found = self._rehearsed(budget_usd)
        machines = self._vms(found)
        return self._plan([self._budget(found, budget_usd, machines)], found, machines)

    def frontier(self, points: int) -> Plan:
        """Plans for so many budgets, from the cheapest that a fixed action needs to that of the fastest.

        Raises:
            BudgetError: No fixed action was found to reach the target at any budget.
        """
        ample = self._rehearsed(AMPLE)
        machines = self._vms(ample)
        budgets = budgets_of(fixed_frontier(self._whole, ample), points)
        plans = []
        for budget_usd in budgets:
            try:
                found = self._rehearsed(budget_usd)
                plans.append(self._budget(found, budget_usd, machines))
            except BudgetError:  # what was expected to fit does not: the frontier begins above it
                continue
        if not plans:
            raise BudgetError(f"no budget from ${budgets[0]:f} to ${budgets[-1]:f} can pay this job")
        return self._plan(plans, ample, machines)

    def _plan(self, plans: Sequence[BudgetPlan], found: Rehearsal, machines: tuple[VmOption, ...]) -> Plan:
        return Plan(
            workload=self._job.workload.name,
            world=self._job.costing.world.name,
            target_loss=self._job.workload.spec.training.target_loss,
            rehearsed_loss=found.target_loss,
            share=found.share,
            budgets=tuple(plans),
            machines=machines,
        )

    def _rehearsed(self, budget_usd: Decimal) -> Rehearsal:
        job = self._job
        asked = RehearsedJob(job.workload, job.costing, job.settings, budget_usd, job.resolved, job.agents)
        return asked.rehearse(self._seconds, self._stderr, again=self._again)[0]

    def _vms(self, found: Rehearsal) -> tuple[VmOption, ...]:
        stage, _ = rehearsed_stage(self._whole, self._job.settings, found)
        seconds = AFTERWARDS * self._seconds
        with self._progress(seconds) as report:
            report("what machines would take")
            return tuple(vm_options(stage, found.target_loss, seconds))

    def _budget(self, found: Rehearsal, budget_usd: Decimal, machines: Sequence[VmOption]) -> BudgetPlan:
        stage, settings = rehearsed_stage(self._whole, self._job.settings, found)
        fixed = found.standings[0].candidate
        candidates = [found.choice, *([fixed] if fixed != found.choice else [])]
        first = first_action(self._whole, found.choice, budget_usd)
        seconds = AFTERWARDS * self._seconds * len(candidates)
        with self._progress(seconds) as report:
            trials = play_fresh(
                stage, settings, candidates, budget_usd, found.target_loss, seconds, report=report
            )
        predictions = [prediction_of(candidate.name, trials) for candidate in candidates]
        choice = predictions[0]
        return BudgetPlan(
            budget_usd=budget_usd,
            choice=choice,
            best_fixed=predictions[-1],
            why=found.why,
            first=first,
            verdict=verdict_on(choice, machines, budget_usd),
        )

    def _progress(self, seconds: float) -> AbstractContextManager[Callable[[str], None]]:
        return progress(self._stderr, seconds)


def fixed_frontier(stage: Stage, found: Rehearsal) -> FixedRuns:
    """What every fixed action is expected to take, by the epochs that a rehearsal's ladder measured."""
    reached = [(n, epochs) for n, epochs in found.ladder if epochs]
    counts, epochs = np.array(reached, np.int64).T
    grid = ActionGrid(stage.costing, counts, memory_grid(stage.costing.world))
    excess = np.where(np.arange(epochs.max() + 1) >= epochs[:, None], 0.0, 1.0)
    return fixed_runs(grid, excess, 0.5)


def budgets_of(runs: FixedRuns, points: int) -> list[Decimal]:
    """Budgets at equal ratios, from the cheapest fixed action's to that of the fastest.

    Raises:
        BudgetError: No action reaches the target.
    """
    usable = np.isfinite(runs.duration_s)
    if not usable.any():
        raise BudgetError("no fixed action reaches the target: give an easier one")
    low = SLACK * float(runs.needed_usd[usable].min())
    at = np.unravel_index(int(np.where(usable, runs.duration_s, np.inf).argmin()), runs.duration_s.shape)
    high = max(SLACK * float(runs.needed_usd[at]), low)
    ladder = np.geomspace(low, high, max(points, 1))
    rounded = [Decimal(repr(float(usd))).quantize(CENTS, rounding=ROUND_UP) for usd in ladder]
    return list(dict.fromkeys(rounded))
