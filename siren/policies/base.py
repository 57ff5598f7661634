"""The `Policy` protocol, and the view of a job that policies decide from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from siren.errors import ActionError
from siren.types import Action, Decision, EpochRecord, Forecast
from siren.units import MB_PER_GB
from siren.workloads.spec import TrainingSpec
from siren.worlds.costing import WORKER_MARGIN_S, Costing, EpochPlan, Outlook
from siren.worlds.refit import RECENT, Scales, fit_scales, scaled

LADDER = 1.25
"""Ratio between the function counts that are tried."""

CHEAPEST = 16
"""So many of the actions with the cheapest expected epochs are asked for their worst case."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for several actions at once; arrays of one length.

    Attributes:
        functions, memory_mb: The actions.
        duration_s: Expected epoch time.
        marginal_usd: Expected bill of the epoch, without what the run as a whole is billed.
        excess_usd: What the reservation exceeds the expected bill by.
        upper_s: High quantile of one function's time.
        handler_s: Expected time of one function.
    """

    functions: NDArray[np.float64]
    memory_mb: NDArray[np.float64]
    duration_s: NDArray[np.float64]
    marginal_usd: NDArray[np.float64]
    excess_usd: NDArray[np.float64]
    upper_s: NDArray[np.float64]
    handler_s: NDArray[np.float64]


class _Epoch(NamedTuple):
    """What the laws expect of an action with so many cold starts and so many loads.

    Attributes:
        now: (duration_s, marginal_usd, handler_s, billed_s), as in `Predictions`.
        upper_s: As there.
        timeout_s: The timeout that covers it.
    """

    now: tuple[float, float, float, float]
    upper_s: float
    timeout_s: int


Start = tuple[Action, int, int]
"""(action, functions that start cold, functions that load their shard)."""

_EPOCHS: WeakKeyDictionary[Costing, dict[Start, _Epoch]] = WeakKeyDictionary()
"""What was asked of the laws of a job before: the next run of it need not ask again."""

_REFITTED: WeakKeyDictionary[Costing, dict[Scales, Costing]] = WeakKeyDictionary()


class Starts(Protocol):
    """What a job's view asks of the platform; every `siren.platforms.base.Platform` answers."""

    def check_action(self, action: Action) -> None:
        """Refuses an action that the job cannot run there."""
        ...

    def expect_starts(self, action: Action, timeout_s: int) -> tuple[int, int]:
        """How many functions of the next epoch would (start cold, load their shard)."""
        ...


class JobView:
    """What a policy may know of a job: the laws, the money, and the state of the run.

    Args:
        costing: Laws and prices.
        platform: Where the job runs; asked for its warm environments.
        training: How the job trains.
        initial_loss: Held-out loss of the initial model.
        outlook: The state of the run; it is renewed before every decision.
        explains: Whether decisions are to hold forecasts; without them policies are faster.

    Attributes:
        scales: How the run's times differ from what the laws expected before it.
    """

    def __init__(
        self,
        costing: Costing,
        platform: Starts,
        training: TrainingSpec,
        initial_loss: float,
        outlook: Outlook,
        *,
        explains: bool = True,
    ) -> None:
        self.costing = costing
        self.training = training
        self.initial_loss = initial_loss
        self.outlook = outlook
        self.explains = explains
        self.scales = Scales()
        self._platform = platform
        self._laws = costing
        self._epochs = _EPOCHS.setdefault(costing, {})

    def learn(self, history: Sequence[EpochRecord]) -> None:
        """Refits the laws of time to the run, see `siren.worlds.refit`; prices and bounds stay.

        Args:
            history: All epochs so far.
        """
        scales = fit_scales(self.costing, [record.status.report for record in history[-RECENT:]])
        if scales != self.scales:
            self.scales, self._laws = scales, _refitted(self.costing, scales)
            self._epochs = _EPOCHS.setdefault(self._laws, {})

    @functools.cached_property
    def functions(self) -> tuple[int, ...]:
        """Function counts worth trying: a geometric ladder up to the job's and the world's limit."""
        limit = min(self.costing.job.functions_max, self.costing.world.limits.functions_max)
        counts = {limit}
        step = 1.0
        while step < limit:
            counts.add(round(step))
            step = max(step * LADDER, step + 1)
        return tuple(sorted(counts))

    @functools.cached_property
    def actions(self) -> tuple[Action, ...]:
        """Every action of the ladder that is `useful`; all are asked about at once."""
        costing, limits = self.costing, self.costing.world.limits
        every = (Action(n, m) for n in self.functions for m in limits.memory_grid)
        fit = [action for action in every if not costing.refusal(action)]
        if not fit:
            return ()
        n, m = np.array([(a.functions, a.memory_mb) for a in fit], np.float64).T
        ends = costing.expect(n, m, n, n).handler_s <= costing.longest_work_s
        return tuple(action for action, does in zip(fit, ends.tolist(), strict=True) if does)

    def check_action(self, action: Action) -> None:
        """Refuses an action that this job cannot run, or would pay for and not finish.

        Raises:
            ActionError: Says what would be accepted.
        """
        self._platform.check_action(action)
        futility = self.costing.futility(action)
        if futility:
            raise ActionError(futility)

    def useful(self, action: Action) -> bool:
        """Whether the job can run the action, and would finish an epoch of it."""
        return not (self.costing.refusal(action) or self.costing.futility(action))

    def predict(self, actions: Sequence[Action]) -> Predictions:
        """The expected time and cost of each action in the present state of the run."""
        self._expect([(a, a.functions, a.functions) for a in actions])
        cold = self._epochs
        timeouts = [cold[a, a.functions, a.functions].timeout_s for a in actions]
        starts = [(a, *self._platform.expect_starts(a, t)) for a, t in zip(actions, timeouts, strict=True)]
        self._expect(starts)
        rows = np.array([self._epochs[start].now for start in starts]).reshape(-1, 4)
        n = np.array([a.functions for a in actions], np.float64)
        m = np.array([a.memory_mb for a in actions], np.float64)
        duration_s, marginal_usd, handler_s, billed_s = np.ascontiguousarray(rows.T)
        upper_s = [cold[a, a.functions, a.functions].upper_s for a in actions]
        lifetimes = np.array([self.costing.lifetimes(upper) for upper in upper_s])
        longest_s = (np.array(timeouts) + self.costing.world.limits.init_max) * lifetimes
        return Predictions(
            functions=n,
            memory_mb=m,
            duration_s=duration_s,
            marginal_usd=marginal_usd,
            excess_usd=n * m / MB_PER_GB * (longest_s - billed_s) * self.costing.usd_per_gb_s,
            upper_s=np.array(upper_s),
            handler_s=handler_s,
        )

    def _expect(self, starts: Sequence[Start]) -> None:
        """Adds what is not known yet to `_epochs`, all at once."""
        unknown = [start for start in starts if start not in self._epochs]
        if not unknown:
            return
        numbers = [(a.functions, a.memory_mb, cold, loading) for a, cold, loading in unknown]
        n, m, cold, loading = np.ascontiguousarray(np.array(numbers, np.float64).T)
        expected = self._laws.expect(n, m, cold, loading)
        columns = (
            expected.duration_s,
            self._laws.marginal_usd(n, m, expected),
            expected.handler_s,
            expected.billed_s,
        )
        now = np.stack(columns, axis=1).tolist()
        upper_s = self._upper_s(n, m, cold, loading, np.asarray(expected.upper_s)).tolist()
        for start, row, upper in zip(unknown, now, upper_s, strict=True):
            timeout_s = next(self.costing.rungs(upper, 0.0))
            self._epochs[start] = _Epoch((row[0], row[1], row[2], row[3]), upper, timeout_s)

    def _upper_s(
        self,
        n: NDArray[np.float64],
        m: NDArray[np.float64],
        cold: NDArray[np.float64],
        loading: NDArray[np.float64],
        refitted_s: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """A high quantile of a function's time: the one from before the run while its timeout still covers.

        Another timeout is another function version, whose environments are all cold.
        """
        if self._laws is self.costing:
            return refitted_s
        prior_s = np.asarray(self.costing.expect(n, m, cold, loading).upper_s)
        timeouts = np.array([next(self.costing.rungs(upper, 0.0)) for upper in prior_s.tolist()])
        return np.where(refitted_s + WORKER_MARGIN_S <= timeouts, prior_s, refitted_s)

    def cost_usd(self, p: Predictions, epochs: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
        """The expected bill of so many epochs from now on."""
        return epochs * p.marginal_usd + self.costing.standing_usd(epochs * p.duration_s, self.outlook)

    def plan(self, action: Action) -> EpochPlan | None:
        """The action with a timeout whose worst case fits what is left; None if none does."""
        p = self.predict([action])
        return self.costing.plan(action, float(p.upper_s[0]), float(p.handler_s[0]), self.outlook)

    def cheapest_usd(self, actions: Sequence[Action]) -> Decimal:
        """Worst case of the cheapest of these actions, with the shortest useful timeout."""
        p = self.predict(actions)
        worst = []
        for k in np.argsort(p.marginal_usd, kind="stable")[:CHEAPEST].tolist():
            *_, (timeout_s, lifetimes) = self.costing.terms(float(p.upper_s[k]), float(p.handler_s[k]))
            worst.append(self.costing.worst_case(actions[k], timeout_s, self.outlook, lifetimes))
        return min(worst)

    def neighbours(self, action: Action) -> tuple[Action, ...]:
        """Half and double the functions, one memory step down and up, as far as they exist."""
        job, limits = self.costing.job, self.costing.world.limits
        most = min(job.functions_max, limits.functions_max)
        n, m, grid = action.functions, action.memory_mb, limits.memory_grid
        at = grid.index(m)
        near = [Action(k, m) for k in (n // 2, n * 2) if 1 <= k <= most]
        near += [Action(n, grid[k]) for k in (at - 1, at + 1) if 0 <= k < len(grid)]
        return tuple(action for action in near if self.useful(action))

    def forecast(self, action: Action, loss: float) -> Forecast:
        """The forecast of one action, whose loss the policy predicts itself."""
        p = self.predict([action])
        plan = self.costing.plan(action, float(p.upper_s[0]), float(p.handler_s[0]), self.outlook)
        return Forecast(
            action=action,
            duration_s=float(p.duration_s[0]),
            cost_usd=float(self.cost_usd(p)[0]),
            loss=loss,
            fits=plan is not None,
            note="" if plan else "its worst case does not fit the budget that is left",
        )

    def explain(self, decision: Decision, loss_after: Callable[[Action], float]) -> Decision:
        """The decision with forecasts of its action and the neighbours, if they are wanted.

        Args:
            decision: What was decided.
            loss_after: The loss that the policy expects after an epoch of an action; NaN if unknown.
        """
        if not self.explains:
            return decision
        near = self.neighbours(decision.action)
        return dataclasses.replace(
            decision,
            forecast=self.forecast(decision.action, loss_after(decision.action)),
            neighbours=tuple(self.forecast(action, loss_after(action)) for action in near),
        )


def _refitted(costing: Costing, scales: Scales) -> Costing:
    """`scaled`, once for all runs of a job: factors come in steps, and so again and again."""
    if scales == Scales():
        return costing
    known = _REFITTED.setdefault(costing, {})
    if scales not in known:
        known[scales] = scaled(costing, scales)
    return known[scales]


def affordable(job: JobView, action: Action) -> Action | None:
    """The action if it can be run and paid, or the nearest to it in this order that can.

    At its own memory, then at less, then at more; at each of them the most functions below it, then the
    fewest above it. Simulated episodes do the same, see `siren.simulator.core.take`.

    Returns:
        None if there is no such action.
    """
    grid = job.costing.world.limits.memory_grid
    sizes = (
        *(m for m in reversed(grid) if m <= action.memory_mb),
        *(m for m in grid if m > action.memory_mb),
    )
    fewer = tuple(n for n in reversed(job.functions) if n < action.functions)
    counts = (action.functions, *fewer, *(n for n in job.functions if n > action.functions))
    every = (Action(n, m) for m in sizes for n in counts)
    return next((near for near in every if job.useful(near) and job.plan(near) is not None), None)


class Policy(Protocol):
    """Decides each epoch's action.

    Attributes:
        name: As in `--policy`.
    """

    name: str

    def start(self, job: JobView) -> None:
        """A job begins, or goes on after an interruption.

        Raises:
            ActionError: The policy can never run this job.
        """
        ...

    def decide(self, history: Sequence[EpochRecord]) -> Decision | None:
        """The next epoch's action; None when nothing useful fits what is left of the budget."""
        ...
