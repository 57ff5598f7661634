"""The fixed policy: one action for every epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from siren.errors import UsageError
from siren.policies.base import JobView
from siren.types import Action, Decision, EpochRecord

_FORM = re.compile(r"(\d+)x(\d+)")


class FixedPolicy:
    """Runs the same action every epoch.

    Args:
        action: The action.
    """

    def __init__(self, action: Action) -> None:
        self.action = action
        self.name = f"fixed:{action}"
        self._job: JobView | None = None

    @classmethod
    def parse(cls, text: str) -> FixedPolicy:
        """The policy of `FUNCTIONSxMEMORY`, e.g. `20x1769`.

        Raises:
            UsageError: The text has another form.
        """
        match = _FORM.fullmatch(text.strip().lower())
        if not match or len(match[1]) > 6 or len(match[2]) > 6:
            raise UsageError(
                f"policy 'fixed:{text}' must be fixed:FUNCTIONSxMEMORY with memory in MB, e.g. fixed:20x1769"
            )
        return cls(Action(int(match[1]), int(match[2])))

    def start(self, job: JobView) -> None:
        """See `Policy.start`."""
        job.check_action(self.action)
        self._job = job

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """See `Policy.decide`."""
        assert self._job is not None
        if self._job.plan(self.action) is None:
            return None
        reason = f"fixed at {self.action.functions} functions of {self.action.memory_mb} MB"
        return self._job.explain(Decision(self.action, reason), lambda action: math.nan)
