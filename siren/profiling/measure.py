"""Measuring: a few actions, one cold epoch and some warm ones each, under a ledger that holds the budget.

Two tours of epochs. The first trains with the rule `average` over S3, the cheapest there is, with larger
mini-batches than the job's: together with the job's own they tell what a sample takes from what a push
does. (Under `split` mini-batches follow the number of functions, so one tour is enough.) The second
trains as the job does, over its own channel, from one function to several that contend for it.

The same on every platform: `prepare` makes the tours and costs nothing, `measure` runs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np

from siren.errors import BudgetError
from siren.loop import JobLoop, Limits
from siren.money.amounts import exact
from siren.money.ledger import Ledger
from siren.money.pricer import RunTotals
from siren.platforms.base import Platform
from siren.platforms.manager.platform import FunctionPlatform
from siren.platforms.select import Selected, facts_of
from siren.policies import FixedPolicy, JobView
from siren.types import Action, BatchRule, ChannelKind, Decision, EpochReport, UpdateRule
from siren.units import counted
from siren.workloads.spec_file import nearest_divisors
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing, EpochPlan, Outlook
from siren.worlds.world import World

Connect = Callable[[Workload, World, int], Selected]
"""How a platform is made: (workload, world, seed)."""

WARM = 5
"""Warm epochs of an action."""

TRIMMED = 5
"""Of so many or more the fastest and the slowest are left out."""

COUNTS = (1, 4, 16)
"""Functions of the second tour, times the fewest that end an epoch in `LONGEST_S`; at most what the job, the
world and the machine can run at once."""

LONGEST_S = 60.0
"""Functions that are expected to take longer are too slow to measure with."""

LARGER = 4
"""Mini-batches of the first tour over the job's own, about."""

FIRST_SHARE = Decimal("0.25")
"""Share of the budget that the first tour may take."""

PATIENCE = 4.0
"""An epoch may take so many times what is assumed before it is cut off."""


@dataclass(frozen=True)
class Tour:
    """What is trained, and where.

    Attributes:
        platform: Started; nothing of it is running yet.
        view: The job with its laws as they are assumed.
        initial: Held-out (loss, accuracy) of the initial model.
        share: Share of what is left of the budget.
        actions: What is measured, the most telling first.
        notes: Lines that the user must see.
    """

    platform: Platform
    view: JobView
    initial: tuple[float, float]
    share: Decimal
    actions: tuple[Action, ...]
    notes: tuple[str, ...]


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

    @property
    def initialised(self) -> bool:
        """Whether initialisations were reported; Lambda may have done them ahead of time."""
        return self.cold and self.report.init_s > 0


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        epochs: In order; none has unfinished functions.
        spent_usd: What they were billed.
        platform: Its name.
        notes: Lines that the user must see.
    """

    epochs: tuple[Epoch, ...]
    spent_usd: Decimal
    platform: str
    notes: tuple[str, ...] = ()

    def warm(self) -> list[Epoch]:
        """Warm epochs, the fastest and the slowest of each action left out where there are enough."""
        groups: dict[tuple[int, Action], list[Epoch]] = {}
        for epoch in self.epochs:
            if not epoch.cold:
                groups.setdefault((id(epoch.costing), epoch.report.action), []).append(epoch)
        return [epoch for group in groups.values() for epoch in _trimmed(group)]


def _trimmed(epochs: Sequence[Epoch]) -> Sequence[Epoch]:
    ordered = sorted(epochs, key=lambda epoch: epoch.report.duration_s)
    return ordered[1:-1] if len(ordered) >= TRIMMED else ordered


@contextlib.contextmanager
def prepare(
    workload: Workload,
    world: World,
    connect: Connect,
    budget_usd: Decimal,
    seed: int,
    functions_max: int | None = None,
) -> Iterator[list[Tour]]:
    """The tours, whose platforms are closed at the end. Spends nothing.

    Args:
        workload, world: The job as it is assumed.
        connect: Makes a platform.
        budget_usd: What all epochs may cost.
        seed: Of the platforms.
        functions_max: Functions that can run at once where more would take turns; None without such a limit.

    Raises:
        ActionError: No action can run the job.
        UsageError, PlatformError: The platform is not to be had.
    """
    with contextlib.ExitStack() as stack:
        tours = []
        for tour, share in _tours(workload):
            selected = connect(tour, world, seed)
            platform, costing = selected.platform, selected.costing
            stack.callback(platform.close)
            initial = platform.start()
            outlook = Outlook(0.0, 1, RunTotals(), budget_usd)
            view = JobView(costing, platform, tour.spec.training, initial[0], outlook, explains=False)
            actions = actions_of(costing, tour is workload, functions_max)
            notes = selected.notes
            if functions_max and set(actions) != set(actions_of(costing, tour is workload)):
                notes += (f"so points of more than {counted(functions_max, 'function')} are left out",)
            tours.append(Tour(platform, view, initial, share, tuple(actions), notes))
        yield tours


def measure(
    tours: Sequence[Tour], budget_usd: Decimal, report: Callable[[str], None] = lambda text: None
) -> Measured:
    """Measures as many actions as the budget pays, the most telling first.

    Args:
        tours: See `prepare`.
        budget_usd: What all epochs may cost.
        report: Told what happens.

    Raises:
        BudgetError: Not one warm epoch could be paid.
        WorkloadError, PlatformError: An epoch failed; a note of it says what has been billed.
    """
    tours = [_connected(tour) for tour in tours]
    epochs: list[Epoch] = []
    spent_usd = Decimal(0)
    for tour in tours:
        with exact():
            ledger = Ledger((budget_usd - spent_usd) * tour.share)
        try:
            epochs += _measured(tour, ledger, report)
        except BaseException as error:
            if tour.platform.spends_money:
                error.add_note(_billed(spent_usd, ledger, budget_usd))
            raise
        finally:
            tour.platform.close()
        with exact():
            spent_usd += ledger.spent_usd
    if all(epoch.cold for epoch in epochs):
        poor = BudgetError(f"${budget_usd:f} cannot pay a cold and a warm epoch of this job: give more")
        if tours[0].platform.spends_money:
            poor.add_note(_billed(spent_usd, None, budget_usd))
        raise poor
    notes = tuple(dict.fromkeys(note for tour in tours for note in tour.notes))
    return Measured(tuple(epochs), spent_usd, tours[-1].platform.name, notes)


def _billed(spent_usd: Decimal, ledger: Ledger | None, budget_usd: Decimal) -> str:
    """What earlier tours and the present one have been billed, in words."""
    with exact():
        billed_usd = spent_usd + (ledger.spent_usd if ledger else 0)
    return f"at most ${billed_usd:f} of ${budget_usd:f} was billed"


def _connected(tour: Tour) -> Tour:
    """The tour on a platform that is ready; without half vCPUs where functions are not held to them."""
    if not isinstance(tour.platform, FunctionPlatform):
        return tour
    tour.platform.connect()
    confinement = facts_of(tour.platform).get("endpoint", {}).get("confinement", {})
    if not confinement or confinement["cpu"].startswith("cgroup"):
        return tour
    whole = tour.actions[0].memory_mb
    actions = tuple(dict.fromkeys(Action(action.functions, whole) for action in tour.actions))
    note = f"functions are not held to their share of a core here, so all are measured with {whole:,} MB"
    return replace(tour, actions=actions, notes=(*tour.notes, note))


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


def actions_of(costing: Costing, own: bool, functions_max: int | None = None) -> list[Action]:
    """Actions to measure: about one vCPU, then about half of one, then functions that contend.

    Args:
        costing: The laws as they are assumed.
        own: Whether the job trains as it is; else one function is enough.
        functions_max: Most functions at once, beyond what the job and the world allow; None for no more.

    Raises:
        ActionError: None of them can run the job.
    """
    limits, per_vcpu = costing.world.limits, costing.world.cpu.memory_per_vcpu
    sizes = [m for m in limits.memory_grid if m <= 1.01 * per_vcpu] or [limits.memory_grid[0]]
    whole, half = sizes[-1], min(sizes, key=lambda m: abs(m - per_vcpu / 2))
    most = min(costing.job.functions_max, limits.functions_max, functions_max or limits.functions_max)
    fewest = next((n for n in _counts(most) if _expected_s(costing, n, half) <= LONGEST_S), most)
    counts = [min(c * fewest, most) for c in COUNTS] if own else [fewest]
    wanted = [Action(counts[0], whole), *(Action(n, half) for n in counts)]
    allowed = [action for action in dict.fromkeys(wanted) if not costing.refusal(action)]
    if not allowed:
        costing.check_action(wanted[0])
    return allowed


def _counts(most: int) -> list[int]:
    return [2**k for k in range(most.bit_length()) if 2**k <= most]


def _expected_s(costing: Costing, functions: int, memory_mb: int) -> float:
    n, m = np.array([float(functions)]), np.array([float(memory_mb)])
    return float(costing.expect(n, m, n, n).handler_s[0])


def _measured(tour: Tour, ledger: Ledger, report: Callable[[str], None]) -> list[Epoch]:
    """The epochs of a tour."""
    limits = Limits(0.0, len(tour.actions) * (1 + WARM))
    policy = FixedPolicy(tour.actions[0])
    loop = JobLoop(tour.platform, policy, tour.view, ledger, limits, tour.initial)
    found: list[Epoch] = []
    for action in tour.actions:
        report(f"{counted(action.functions, 'function')} of {action.memory_mb} MB")
        found += _epochs(loop, action)
    return found


def _epochs(loop: JobLoop, action: Action) -> list[Epoch]:
    """A cold and some warm epochs of an action, as far as they can be paid."""
    found = []
    for _ in range(1 + WARM):
        plan = patient_plan(loop.view.costing, action, loop.outlook)
        if plan is None:
            break
        record = loop.run(Decision(action, "measuring"), plan)
        loop.book(record)
        if not record.status.report.unfinished:
            found.append(Epoch(loop.view.costing, record.status.report))
    return found


def patient_plan(costing: Costing, action: Action, outlook: Outlook) -> EpochPlan | None:
    """A reservation with patience, since what is assumed may be wrong; None if it cannot be paid."""
    n, m = np.array([float(action.functions)]), np.array([float(action.memory_mb)])
    upper_s = float(costing.expect(n, m, n, n).upper_s[0])
    return costing.plan(action, PATIENCE * upper_s, upper_s, outlook)
