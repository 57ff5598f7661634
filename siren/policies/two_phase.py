"""Two phases: one action until the gap to the target has shrunk, then another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from siren.policies.base import JobView, affordable
from siren.types import Action, Decision, EpochRecord


class TwoPhasePolicy:
    """Runs `first` until the gap to the target is a share of the initial gap, and `second` from then on.

    What the budget cannot pay becomes the nearest smaller action that it can.

    Args:
        first, second: The actions.
        switch: The share; once in the second phase, always there.
    """

    def __init__(self, first: Action, second: Action, switch: float) -> None:
        self.first, self.second, self.switch = first, second, switch
        self.name = f"two-phase:{first}-{second}@{switch:g}"
        self._job: JobView | None = None

    def start(self, job: JobView) -> None:
        """See `Policy.start`."""
        job.check_action(self.first)
        job.check_action(self.second)
        self._job = job

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """See `Policy.decide`."""
        job = self._job
        assert job is not None
        target = job.training.target_loss
        losses = [job.initial_loss, *(record.status.report.loss for record in history)]
        near = any(loss - target <= self.switch * (job.initial_loss - target) for loss in losses)
        action = affordable(job, self.second if near else self.first)
        if action is None:
            return None
        reason = f"phase {2 if near else 1} of two"
        return job.explain(Decision(action, reason), lambda action: math.nan)
