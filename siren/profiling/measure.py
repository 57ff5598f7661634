"""Measuring: a few actions, one cold epoch and some warm ones each, under a ledger that holds the budget.

Two tours of epochs. The first trains with the rule `average` over S3, the cheapest there is, with larger
mini-batches than the job's: together with the job's own they tell what a sample takes from what a push
does. (Under `split` mini-batches follow the number of functions, so one tour is enough.) The second
trains as the job does, over its own channel, from one function to several that contend for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from siren.errors import BudgetError
from siren.loop import JobLoop, Limits
from siren.money.amounts import exact
from siren.money.ledger import Ledger
from siren.money.pricer import RunTotals
from siren.platforms.base import Platform
from siren.policies import FixedPolicy, JobView
from siren.twin.twin import job_of
from siren.types import Action, BatchRule, ChannelKind, Decision, EpochReport, UpdateRule
from siren.workloads.spec_file import nearest_divisors
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing, EpochPlan, Outlook, make_costing
from siren.worlds.world import World

Connect = Callable[[Workload, Costing, int], Platform]
"""How a platform is made: (workload, costing, seed)."""

WARM = 5
"""Warm epochs of an action; the fastest and the slowest of them are left out."""

COUNTS = (1, 4, 16)
"""Functions of the second tour, times the fewest that end an epoch in `LONGEST_S`."""

LONGEST_S = 60.0
"""Functions that are expected to take longer are too slow to measure with."""

LARGER = 4
"""Mini-batches of the first tour over the job's own, about."""

FIRST_SHARE = Decimal("0.25")
"""Share of the budget that the first tour may take."""

PATIENCE = 4.0
"""An epoch may take so many times what is assumed before it is cut off."""


@dataclass(frozen=True)
class Epoch:
    """A measured epoch.

    Attributes:
        costing: The laws as they are assumed, of the tour that it belongs to.
        report: What the platform told.
    """

    costing: Costing
    report: EpochReport

    @property
    def cold(self) -> bool:
        """Whether any function started cold."""
        return self.report.cold_starts > 0


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        epochs: In order; none has unfinished functions.
        spent_usd: What they were billed.
        platform: Its name.
    """

    epochs: tuple[Epoch, ...]
    spent_usd: Decimal
    platform: str

    def warm(self) -> list[Epoch]:
        """Warm epochs, the fastest and the slowest of each action left out where there are enough."""
        groups: dict[tuple[int, Action], list[Epoch]] = {}
        for epoch in self.epochs:
            if not epoch.cold:
                groups.setdefault((id(epoch.costing), epoch.report.action), []).append(epoch)
        return [epoch for group in groups.values() for epoch in _trimmed(group)]


def _trimmed(epochs: Sequence[Epoch]) -> Sequence[Epoch]:
    ordered = sorted(epochs, key=lambda epoch: epoch.report.duration_s)
    return ordered[1:-1] if len(ordered) >= WARM else ordered


def measure(
    workload: Workload,
    world: World,
    connect: Connect,
    budget_usd: Decimal,
    seed: int,
    report: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Measures as many actions as the budget pays, the most telling first.

    Args:
        workload, world: The job as it is assumed.
        connect: Makes the platform.
        budget_usd: What all epochs may cost.
        seed: Of the platform.
        report: Told what happens.

    Raises:
        BudgetError: Not one warm epoch could be paid.
        ActionError: No action can run the job.
    """
    epochs: list[Epoch] = []
    spent_usd, name = Decimal(0), ""
    for tour, share in _tours(workload):
        costing = make_costing(world, job_of(tour))
        with exact():
            purse_usd = (budget_usd - spent_usd) * share
        actions = actions_of(costing, tour is workload)
        made, usd, name = _tour(tour, costing, connect, purse_usd, seed, actions, report)
        epochs += made
        with exact():
            spent_usd += usd
    if not any(not epoch.cold for epoch in epochs):
        raise BudgetError(f"${budget_usd:f} cannot pay a cold and a warm epoch of this job: give more")
    return Measured(tuple(epochs), spent_usd, name)


def _tours(workload: Workload) -> list[tuple[Workload, Decimal]]:
    """Workloads to train, each with its share of what is left of the budget."""
    if workload.spec.training.batch_rule is BatchRule.SPLIT:
        return [(workload, Decimal(1))]
    return [(with_larger_batches(workload), FIRST_SHARE), (workload, Decimal(1))]


def with_larger_batches(workload: Workload) -> Workload:
    """The job under `average` over S3, with mini-batches that are about `LARGER` times as large."""
    training = workload.spec.training
    batch = nearest_divisors(workload.samples, min(LARGER * training.batch_size, workload.samples))[-1]
    changes = {"update_rule": UpdateRule.AVERAGE, "channel": ChannelKind.S3, "batch_size": batch}
    spec = workload.spec.model_copy(update={"training": training.model_copy(update=changes)})
    return Workload(workload.name, spec, workload.model, workload.dataset, workload.folder)


def actions_of(costing: Costing, own: bool) -> list[Action]:
    """Actions to measure: about one vCPU, then about half of one, then functions that contend.

    Args:
        costing: The laws as they are assumed.
        own: Whether the job trains as it is; else one function is enough.
    """
    limits, per_vcpu = costing.world.limits, costing.world.cpu.memory_per_vcpu
    sizes = [m for m in limits.memory_grid if m <= 1.01 * per_vcpu] or [limits.memory_grid[0]]
    whole, half = sizes[-1], min(sizes, key=lambda m: abs(m - per_vcpu / 2))
    most = min(costing.job.functions_max, limits.functions_max)
    fewest = next((n for n in _counts(most) if _expected_s(costing, n, half) <= LONGEST_S), most)
    counts = [c * fewest for c in COUNTS if c * fewest <= most] if own else [fewest]
    wanted = [Action(counts[0], whole), *(Action(n, half) for n in counts)]
    return [action for action in dict.fromkeys(wanted) if not costing.refusal(action)]


def _counts(most: int) -> list[int]:
    return [2**k for k in range(most.bit_length()) if 2**k <= most]


def _expected_s(costing: Costing, functions: int, memory_mb: int) -> float:
    n, m = np.array([float(functions)]), np.array([float(memory_mb)])
    return float(costing.expect(n, m, n, n).handler_s[0])


def _tour(
    workload: Workload,
    costing: Costing,
    connect: Connect,
    budget_usd: Decimal,
    seed: int,
    actions: Sequence[Action],
    report: Callable[[str], None],
) -> tuple[list[Epoch], Decimal, str]:
    """(epochs, what they were billed, the platform's name)."""
    platform = connect(workload, costing, seed)
    try:
        initial = platform.start()
        ledger = Ledger(budget_usd)
        training = workload.spec.training
        view = JobView(
            costing, platform, training, initial[0], Outlook(0.0, 1, RunTotals(), budget_usd), explains=False
        )
        limits = Limits(0.0, len(actions) * (1 + WARM))
        loop = JobLoop(platform, FixedPolicy(actions[0]), view, ledger, limits, initial)
        found: list[Epoch] = []
        for action in actions:
            report(f"{action.functions} functions of {action.memory_mb} MB")
            found += _epochs(loop, action)
        return found, ledger.spent_usd, platform.name
    finally:
        platform.close()


def _epochs(loop: JobLoop, action: Action) -> list[Epoch]:
    """A cold and some warm epochs of an action, as far as they can be paid."""
    found = []
    for _ in range(1 + WARM):
        plan = _plan(loop, action)
        if plan is None:
            break
        record = loop.run(Decision(action, "measuring"), plan)
        loop.book(record)
        if not record.status.report.unfinished:
            found.append(Epoch(loop.view.costing, record.status.report))
    return found


def _plan(loop: JobLoop, action: Action) -> EpochPlan | None:
    """A reservation with patience, since what is assumed may be wrong."""
    costing = loop.view.costing
    n, m = np.array([float(action.functions)]), np.array([float(action.memory_mb)])
    upper_s = float(costing.expect(n, m, n, n).upper_s[0])
    outlook = Outlook(loop.platform.clock_s, loop.epoch, loop.totals, loop.ledger.left_usd)
    return costing.plan(action, PATIENCE * upper_s, upper_s, outlook)
