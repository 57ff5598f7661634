"""The planner as a policy: it follows a model of the job and looks ahead before every epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from siren.policies.base import JobView, affordable
from siren.simulator.planner import Place, Planner
from siren.types import Action, Decision, EpochRecord


class PlannerPolicy:
    """Takes the first action of the best schedule from here; see `siren.simulator.planner`.

    Args:
        planner: The model and what follows from it.
        name: As in `--policies`.
    """

    def __init__(self, planner: Planner, name: str = "planner") -> None:
        self.name = name
        self._planner = planner
        self._job: JobView | None = None

    def start(self, job: JobView) -> None:
        """See `Policy.start`."""
        self._job = job
        self._rewind()

    def _rewind(self) -> None:
        self._energy = self._planner.initial_energy
        self._last: Place | None = None
        self._told = 0

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """See `Policy.decide`."""
        job = self._job
        assert job is not None
        if self._told > len(history):
            self._rewind()
        for record in history[self._told :]:
            self._tell(job, record)
        if not np.isfinite(self._energy).all():
            return None
        left_usd, elapsed_s = float(job.outlook.left_usd), job.outlook.standing_s
        plan = self._planner.plan(self._energy, left_usd, elapsed_s=elapsed_s, last=self._last)
        grid = self._planner.grid
        wanted = Action(int(grid.functions[plan.first.level]), int(grid.memory_mb[plan.first.size]))
        action = affordable(job, wanted)
        if action is None:
            return None
        reason = f"{plan.expected_s:.0f} s and ${plan.expected_usd:.4f} to the target are expected"
        return job.explain(Decision(action, reason), lambda action: math.nan)

    def _tell(self, job: JobView, record: EpochRecord) -> None:
        report, planner = record.status.report, self._planner
        level = int(np.abs(np.log(planner.grid.functions / report.action.functions)).argmin())
        self._last = Place(level, planner.grid.memory_mb.tolist().index(report.action.memory_mb))
        excess = report.loss - (job.initial_loss - planner.dynamics.excess)
        self._energy = planner.track(self._energy, level, excess)
        self._told += 1
