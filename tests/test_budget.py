"""No run ever spends more than its budget: over random worlds, jobs, budgets and policies.

Three layers of the same promise, from many cheap cases to few dear ones; `CASES` adds them up.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siren.errors import ActionError, LedgerError, OverBudgetError
from siren.loop import Limits
from siren.money import Bill, Ledger
from siren.money.amounts import exact
from siren.money.pricer import RunTotals
from siren.platforms.base import Platform
from siren.platforms.twin import TwinPlatform
from siren.policies import FixedPolicy, JobView, Policy, Safeguard, Safety
from siren.testing.draws import PAIRS, costing_of, draw_budget, draw_job, draw_policy, draw_world
from siren.testing.fakes import FakePlatform, MemoryFolder
from siren.testing.platform import PLENTY, Subject, check_usage
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.training import Trainer
from siren.twin.twin import job_of
from siren.types import Action, Decision, EpochReport, RunHeader, RunObserver, RunSummary, StopReason
from siren.workloads.workload import Workload
from siren.worlds.costing import Costing, EpochPlan, Outlook

LEDGER_CASES = 7_200
FAKE_CASES = 2_600
TWIN_CASES = 400
CASES = LEDGER_CASES + FAKE_CASES + TWIN_CASES
PARTS = 4
"""Each layer is split, so that several processes can share it."""

SEEDS = st.integers(0, 2**48)


def test_the_promise_is_tried_ten_thousand_times():
    assert CASES >= 10_000
    assert all(cases % PARTS == 0 for cases in (LEDGER_CASES, FAKE_CASES, TWIN_CASES))


def tried(rule, cases: int, part: int) -> int:
    """Runs `rule(rng)`, which tells its epochs, until so many cases had some; returns their number.

    A case in which nothing could be launched shows nothing and does not count.
    """
    told, failed = [], set()

    @settings(max_examples=cases * 2, suppress_health_check=list(HealthCheck), database=None)
    @given(seed=SEEDS)
    def check(seed: int) -> None:
        if seed in failed or sum(epochs > 0 for epochs in told) < cases:
            failed.add(seed)
            told.append(rule(random.Random(f"{part}, {seed}")))
            failed.discard(seed)

    check()
    print(f"{len(told):,} cases, {sum(epochs > 0 for epochs in told):,} with epochs, {sum(told):,} epochs")
    return sum(epochs > 0 for epochs in told)


class Watched:
    """A policy whose decisions are looked at before they run."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self.name = policy, policy.name
        safety = policy.safety if isinstance(policy, Safeguard) else Safety.parse("none")
        self._capped, self.roll_back = safety.cap, safety.roll_back

    def start(self, job: JobView) -> None:
        self._job = job
        self._policy.start(job)

    def decide(self, history) -> Decision | None:
        decision = self._policy.decide(history)
        if self._capped and decision is not None:
            assert self._job.useful(decision.action)
            assert self._job.plan(decision.action) is not None
        if self._capped and decision is None:
            assert all(self._job.plan(action) is None for action in self._job.actions)
        return decision


def run(
    platform: Platform, policy, costing: Costing, workload: Workload, budget_usd: Decimal, max_epochs: int
) -> tuple[RunSummary, Ledger, MemoryFolder]:
    training, job = workload.spec.training, costing.job
    header = RunHeader(
        workload="tiny",
        title="",
        dataset="",
        world=costing.world.name,
        platform=platform.name,
        policy=policy.name,
        batch_rule=job.batch_rule,
        update_rule=job.update_rule,
        channel=job.channel,
        seed=0,
        budget_usd=budget_usd,
        target_loss=training.target_loss,
        max_epochs=max_epochs,
        spends_money=False,
        folder="memory",
    )
    ledger, folder = Ledger(budget_usd), MemoryFolder(budget_usd)
    initial = platform.start()
    job_view = JobView(costing, platform, training, initial[0], Outlook(0.0, 1, RunTotals(), budget_usd))
    policy = Watched(policy)
    policy.start(job_view)
    trainer = Trainer(
        platform=platform,
        policy=policy,
        view=job_view,
        ledger=ledger,
        folder=folder,
        observer=RunObserver(),
        header=header,
        limits=Limits(training.target_loss, max_epochs),
        layout=workload.model.layout,
        initial=initial,
        roll_back=policy.roll_back,
    )
    return trainer.run(), ledger, folder


def check_money(summary: RunSummary, ledger: Ledger, folder: MemoryFolder, budget_usd: Decimal) -> None:
    """The promise: within the budget, epoch by epoch and in the end, and every sum exact."""
    records = folder.events()
    assert summary.stop_reason is not StopReason.USAGE_ERROR, summary.stop_detail
    assert ledger.open_reservation is None
    assert summary.cost_usd <= budget_usd
    with exact():
        assert summary.cost_usd == sum(summary.bill.values(), start=Decimal(0))
        assert summary.cost_usd == sum((r.status.cost_usd for r in records), start=Decimal(0))
        left_usd = budget_usd
        for record in records:
            status = record.status
            assert status.cost_usd == sum(status.bill.values(), start=Decimal(0))
            assert status.cost_usd <= record.reserved_usd <= left_usd
            left_usd -= status.cost_usd
            assert status.budget_left_usd == left_usd >= 0
        assert ledger.left_usd == left_usd


def view_of(platform: Platform, costing: Costing, workload: Workload, budget_usd: Decimal) -> JobView:
    outlook = Outlook(0.0, 1, RunTotals(), budget_usd)
    return JobView(costing, platform, workload.spec.training, 1.0, outlook)


def ledger_rule(rng: random.Random) -> int:
    """Whatever a platform uses within its timeout fits the reservation, and all of them the budget."""
    costing = costing_of(draw_world(rng), draw_job(rng))
    limits = costing.world.limits
    budget_usd = draw_budget(rng, costing)
    ledger, platform, totals = Ledger(budget_usd), FakePlatform(costing, rng.getrandbits(32)), RunTotals()
    epoch = 1
    for _ in range(rng.randint(1, 4)):
        most = min(limits.functions_max, costing.job.functions_max)
        action = Action(rng.randint(1, most), rng.choice(limits.memory_grid))
        outlook = Outlook(platform.clock_s, epoch, totals, ledger.left_usd)
        plan = costing.plan(action, 10 ** rng.uniform(-1, 3), 10 ** rng.uniform(-1, 2), outlook)
        if plan is None:
            any_plan = Subject(lambda: platform, costing, ()).plan(action, outlook=outlook)
            if any_plan.reserve_usd > ledger.left_usd:
                with pytest.raises(OverBudgetError):
                    ledger.reserve(epoch, any_plan.reserve_usd)
            continue
        ledger.reserve(epoch, plan.reserve_usd)
        usage = platform.run_epoch(plan).usage
        bill = costing.pricer.price_epoch(usage, previous=totals)
        ledger.settle(epoch, bill)
        totals, epoch = totals.after(usage), epoch + 1
        assert ledger.spent_usd <= budget_usd
        assert ledger.left_usd >= 0
    return epoch - 1


@pytest.mark.parametrize("part", range(PARTS))
def test_reservations_cover_whatever_a_timeout_allows(part):
    assert tried(ledger_rule, LEDGER_CASES // PARTS, part) >= LEDGER_CASES // PARTS


@functools.cache
def _workload() -> Workload:
    return tiny_workload()


def fake_rule(rng: random.Random) -> int:
    """A whole run on a platform that uses as much as it may, or nearly."""
    costing = costing_of(draw_world(rng), draw_job(rng))
    budget_usd = draw_budget(rng, costing)
    losses = tuple(rng.uniform(0.3, 2.0) for _ in range(4))
    platform = FakePlatform(costing, rng.getrandbits(32), losses=losses, greed=rng.choice([0.0, 0.3, 1.0]))
    actions = view_of(platform, costing, _workload(), budget_usd).actions
    if not actions:
        return 0
    policy = draw_policy(rng, actions)
    try:
        outcome = run(platform, policy, costing, _workload(), budget_usd, max_epochs=rng.randint(1, 4))
    except ActionError:  # a learned policy looks for a reference that can be paid
        return 0
    check_money(*outcome, budget_usd)
    return outcome[0].epochs


@pytest.mark.parametrize("part", range(PARTS))
def test_budget_is_never_exceeded_when_functions_use_all_that_their_timeout_allows(part):
    assert tried(fake_rule, FAKE_CASES // PARTS, part) >= FAKE_CASES // PARTS


@functools.cache
def _twin_workload(pair: tuple[str, str], batch_rule: str, evaluator: str, kernel: bool) -> Workload:
    channel, rule = pair
    training = {"channel": channel, "update_rule": rule, "batch_rule": batch_rule, "evaluator": evaluator}
    return tiny_workload(kernel=kernel, training={**training, "target_loss": 0.01})


class CheckedTwin(TwinPlatform):
    """A twin whose every quantity is held against its own bound: dollars alone leave much slack."""

    def __init__(self, workload: Workload, costing: Costing, seed: int) -> None:
        super().__init__(workload, costing, seed)
        self._costing, self._totals = costing, RunTotals()

    def run_epoch(self, plan: EpochPlan) -> EpochReport:
        outlook = Outlook(self.clock_s, self._twin.epoch + 1, self._totals, PLENTY)
        bounds = self._costing.bounds(plan.action, plan.timeout_s, outlook)
        report = super().run_epoch(plan)
        check_usage(report.usage, self._costing.pricer.worst_usage(bounds))
        self._totals = self._totals.after(report.usage)
        return report


def twin_rule(rng: random.Random) -> int:
    """A whole run of real SGD whose functions straggle, hang and hit their deadlines."""
    batch_rule = rng.choice(["constant", "split"])
    evaluator = rng.choice(["scheduler", "function"])
    workload = _twin_workload(rng.choice(PAIRS), batch_rule, evaluator, rng.random() < 0.8)
    costing = costing_of(draw_world(rng), job_of(workload))
    budget_usd = draw_budget(rng, costing)
    platform = CheckedTwin(workload, costing, rng.getrandbits(32))
    actions = view_of(platform, costing, workload, budget_usd).actions
    if not actions:
        return 0
    policy = draw_policy(rng, actions)
    try:
        outcome = run(platform, policy, costing, workload, budget_usd, max_epochs=rng.randint(1, 5))
    except ActionError:
        return 0
    check_money(*outcome, budget_usd)
    return outcome[0].epochs


@pytest.mark.parametrize("part", range(PARTS))
def test_budget_is_never_exceeded_when_an_epoch_overruns(part):
    assert tried(twin_rule, TWIN_CASES // PARTS, part) >= TWIN_CASES // PARTS


def test_a_platform_that_breaks_its_promise_ends_the_run_and_is_recorded():
    workload = _workload()
    costing = tiny_costing(workload)
    platform = FakePlatform(costing, overruns={2: 1000}, greed=1.0)
    policy = FixedPolicy(Action(4, 1024))
    with pytest.raises(LedgerError, match="the spend is recorded"):
        run(platform, policy, costing, workload, Decimal(2), 10)
    assert len(platform.launched) == 2


def test_a_run_whose_next_epoch_does_not_fit_stops_and_says_what_would():
    workload = _workload()
    costing = tiny_costing(workload)
    platform, policy = FakePlatform(costing, greed=1.0), FixedPolicy(Action(8, 1024))
    summary, ledger, folder = run(platform, policy, costing, workload, Decimal("0.05"), 10_000)
    assert summary.stop_reason is StopReason.BUDGET_EXHAUSTED
    assert len(folder.events()) > 1
    assert "give a larger budget" in summary.stop_detail
    needed_usd = view_of(platform, costing, workload, PLENTY).cheapest_usd([policy.action])
    with exact():
        assert ledger.left_usd < needed_usd


def test_money_is_exact_even_in_a_budget_of_a_billion_dollars():
    workload = _workload()
    costing = tiny_costing(workload)
    budget_usd = Decimal("999999999.999999")
    platform = TwinPlatform(workload, costing, 0)
    outcome = run(platform, FixedPolicy(Action(7, 1769)), costing, workload, budget_usd, 5)
    check_money(*outcome, budget_usd)


def test_a_bill_of_floats_is_refused():
    ledger = Ledger(Decimal(1))
    ledger.reserve(1, Decimal("0.5"))
    with pytest.raises(LedgerError):
        ledger.settle(1, Bill({"compute": 0.1}))  # type: ignore[dict-item]
    assert ledger.reserved_usd == Decimal("0.5")


def test_the_timeout_of_a_plan_is_one_that_the_platform_enforces():
    workload = _workload()
    costing = tiny_costing(workload)
    platform = FakePlatform(costing)
    view = view_of(platform, costing, workload, Decimal(2))
    for action in view.actions:
        plan = view.plan(action)
        assert plan is not None
        assert plan.timeout_s in costing.world.limits.timeout_rungs
        assert plan.deadline_s < plan.timeout_s


def test_no_plan_is_made_beyond_what_is_left():
    workload = _workload()
    costing = tiny_costing(workload)
    view = view_of(FakePlatform(costing), costing, workload, Decimal(2))
    for left in ("0.0001", "0.033", "0.04", "1"):
        view.outlook = dataclasses.replace(view.outlook, left_usd=Decimal(left))
        plans = [view.plan(action) for action in view.actions]
        assert all(plan is None or plan.reserve_usd <= Decimal(left) for plan in plans)
