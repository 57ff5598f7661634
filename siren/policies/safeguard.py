"""Safety around every policy: what is not left to learning.

Four safeguards, each of which can be turned off to measure what it does:

* `cap`: an action whose worst case does not fit what is left becomes the nearest smaller one that
  does. (That nothing is ever overspent is the ledger's work, not this.)
* `reserve`: an action after which the job could not be finished any more, although it can be now,
  becomes the thriftiest one.
* `back_off`: after the loss rose sharply, at most half of the functions that raised it run, and no
  more than that until it is back.
* `roll_back`: a model whose loss is not finite, or explodes, is set back to the best one (by
  `siren.loop.JobLoop`); never after an ordinary rise, which cost time and successes wherever a
  prototype tried it (60 generated jobs with real SGD).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from siren.errors import UnknownNameError
from siren.policies.base import JobView, Policy, affordable
from siren.policies.greedy import effective_updates, progress_rate
from siren.types import Action, Decision, EpochRecord

SHARP_RISE = 0.3
"""A loss that is above the best one by this share of the initial gap to the target rose sharply."""

BACK_OFF = 0.5
"""Share of the functions that raised the loss which may run next."""

SLOWEST = 25.0
"""No action is thrifty that progresses so many times more slowly than the fastest."""


@dataclass(frozen=True)
class Safety:
    """Which of the safeguards are on; each can be turned off to measure what it does."""

    cap: bool = True
    reserve: bool = True
    back_off: bool = True
    roll_back: bool = True

    @classmethod
    def parse(cls, text: str) -> Safety:
        """`all`, `none`, or a list such as `cap,roll_back`.

        Raises:
            UnknownNameError: It names something else.
        """
        known = [field.name for field in fields(cls)]
        if text == "all":
            return cls()
        wanted = set() if text == "none" else {name.strip() for name in text.split(",")}
        for name in wanted:
            if name not in known:
                raise UnknownNameError("safeguard", name, [*known, "all", "none"])
        return cls(**{name: name in wanted for name in known})

    def __str__(self) -> str:
        on = [field.name for field in fields(self) if getattr(self, field.name)]
        return "all" if len(on) == len(fields(self)) else ",".join(on) or "none"


class Safeguard:
    """A policy whose every decision passes the safeguards.

    Args:
        policy: The policy.
        safety: What is on.
    """

    def __init__(self, policy: Policy, safety: Safety) -> None:
        self.policy = policy
        self.safety = safety
        self.name = policy.name
        self._job: JobView | None = None

    def start(self, job: JobView) -> None:
        """See `Policy.start`."""
        self.policy.start(job)
        self._job = job
        self._thrifty: dict[float, Action] = {}

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """See `Policy.decide`."""
        assert self._job is not None
        decision = self.policy.decide(history)
        if decision is None:
            return self._last_resort(history)
        if self.safety.back_off:
            decision = self._backed_off(decision, history)
        if self.safety.reserve:
            decision = self._finishable(decision, history)
        if self.safety.cap:
            smaller = affordable(self._job, decision.action)
            if smaller is None:
                return None
            decision = self._instead(decision, smaller, "the budget that is left allows less")
        return decision

    def _instead(self, decision: Decision, action: Action, why: str) -> Decision:
        assert self._job is not None
        if action == decision.action:
            return decision
        changed = Decision(action, f"{decision.reason}; {why}: {action}")
        return self._job.explain(changed, lambda action: math.nan)

    def _last_resort(self, history: Sequence[EpochRecord]) -> Decision | None:
        """What is nearest to the last epoch: it is known to do the model good, unlike any other action."""
        assert self._job is not None
        if not (self.safety.cap and self._job.actions):
            return None
        last = history[-1].status.report.action if history else None
        action = affordable(self._job, last or self._thriftiest(history))
        if action is None:
            return None
        what = "what is nearest to the last epoch" if last else "the thriftiest epoch"
        return Decision(action, f"the policy has no answer: {what}")

    def _backed_off(self, decision: Decision, history: Sequence[EpochRecord]) -> Decision:
        assert self._job is not None
        if not history:
            return decision
        losses = [self._job.initial_loss, *(r.status.report.loss for r in history)]
        best = min(loss for loss in losses if math.isfinite(loss))
        allowed = SHARP_RISE * max(self._job.initial_loss - self._job.training.target_loss, 0.0)
        if losses[-1] <= best + allowed:
            return decision
        share = 1.0 if losses[-1] < losses[-2] else BACK_OFF
        most = max(1, int(history[-1].status.report.action.functions * share))
        if decision.action.functions <= most:
            return decision
        action = Action(most, decision.action.memory_mb)
        if not self._job.useful(action):
            return decision
        return self._instead(decision, action, "the loss rose sharply")

    def _finishable(self, decision: Decision, history: Sequence[EpochRecord]) -> Decision:
        """The decision, or the thriftiest action if only that keeps the target within reach."""
        job = self._job
        assert job is not None
        rate = progress_rate(job, history)
        if rate <= 0 or job.training.target_loss <= 0 or not job.actions:
            return decision
        thrifty = self._thriftiest(history)
        if thrifty == decision.action:
            return decision
        loss = history[-1].status.report.loss
        needed = math.log(max(loss / job.training.target_loss, 1.0)) / rate
        p = job.predict([decision.action, thrifty])
        updates = effective_updates(job, p.functions)
        left = float(job.outlook.left_usd)
        rest = max(needed - float(updates[0]), 0.0) / float(updates[1])
        usd, seconds = p.marginal_usd, p.duration_s
        standing = job.costing.standing_usd(seconds[:1] + rest * seconds[1:], job.outlook)[0]
        wanted_usd = float(usd[0]) + rest * float(usd[1]) + float(standing)
        thrifty_usd = float(job.cost_usd(p, max(needed / float(updates[1]), 1.0))[1])
        if wanted_usd <= left or thrifty_usd > left:
            return decision
        return self._instead(decision, thrifty, "only thrift keeps the target within reach")

    def _thriftiest(self, history: Sequence[EpochRecord]) -> Action:
        """The action with the cheapest effective update, of those that are not absurdly slow.

        Of no more functions than have run: beyond them the loss may explode. That of warm functions: what
        is warm at the moment would depend on when a run was resumed.
        """
        job = self._job
        assert job is not None
        ran = max((record.status.report.action.functions for record in history), default=math.inf)
        if ran not in self._thrifty:
            known = [a for a in job.actions if a.functions <= ran] or job.actions
            n, m = np.array([(a.functions, a.memory_mb) for a in known], np.float64).T
            warm = job.costing.expect(n, m, 0 * n, 0 * n)
            updates = effective_updates(job, n)
            slow = warm.duration_s / updates
            usd = job.costing.marginal_usd(n, m, warm)
            price = np.where(slow <= SLOWEST * slow.min(), usd / updates, np.inf)
            self._thrifty[ran] = known[int(price.argmin())]
        return self._thrifty[ran]
