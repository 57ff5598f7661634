"""The loop of a run: what it does when a platform, a policy or the disk fails."""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from siren.analysis._disk import Disk
from siren.analysis.run_folder import RunFolder
from siren.errors import (
    ActionError,
    BudgetError,
    PlatformError,
    RunFolderError,
    WorkloadError,
)
from siren.loop import EXPLODED, ROLL_BACKS, Limits
from siren.money import Ledger
from siren.money.amounts import exact
from siren.money.pricer import RunTotals
from siren.policies import FixedPolicy, JobView
from siren.testing.fakes import FakePlatform
from siren.testing.tiny import tiny_costing, tiny_workload
from siren.training import Trainer, preflight
from siren.types import Action, RunHeader, RunObserver, StopReason, Usage
from siren.worlds.costing import Outlook

WORKLOAD = tiny_workload()
COSTING = tiny_costing(WORKLOAD)
ACTION = Action(4, 1024)
BUDGET = Decimal(2)


class Witness(RunObserver):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.noted: list[str] = []
        self.past = -1

    def started(self, header, past, initial_loss) -> None:
        self.told.append("started")
        self.past = len(past)

    def epoch_started(self, epoch, decision) -> None:
        self.told.append(f"launched {epoch}")

    def epoch_ended(self, record) -> None:
        self.told.append(f"ended {record.status.report.epoch}")

    def note(self, text) -> None:
        self.noted.append(text)

    def finished(self, summary) -> None:
        self.told.append("finished")

    def close(self) -> None:
        self.told.append("closed")


def trainer_on(
    path: Path,
    platform: FakePlatform,
    *,
    policy=None,
    limits: Limits | None = None,
    observer: RunObserver | None = None,
    disk: Disk | None = None,
    roll_back: bool = False,
) -> Trainer:
    """A trainer that begins in a new folder, or goes on in one that exists."""
    policy = policy or FixedPolicy(ACTION)
    header = RunHeader(
        workload="tiny",
        title="",
        dataset="",
        world="aws-2026",
        platform="fake",
        policy=policy.name,
        batch_rule=COSTING.job.batch_rule,
        update_rule=COSTING.job.update_rule,
        channel=COSTING.job.channel,
        seed=0,
        budget_usd=BUDGET,
        target_loss=0.1,
        max_epochs=5,
        spends_money=False,
        folder=str(path),
    )
    ledger_path = path / "ledger.jsonl"
    if path.exists():
        folder = RunFolder.open(path, disk)
        ledger = Ledger.load(ledger_path, BUDGET) if ledger_path.exists() else Ledger(BUDGET, ledger_path)
    else:
        folder = RunFolder.create(path, {"budget_usd": BUDGET}, {}, disk)
        ledger = Ledger(BUDGET, ledger_path)
    initial = platform.start()
    outlook = Outlook(0.0, 1, RunTotals(), BUDGET)
    job = JobView(COSTING, platform, WORKLOAD.spec.training, initial[0], outlook)
    policy.start(job)
    return Trainer(
        platform=platform,
        policy=policy,
        view=job,
        ledger=ledger,
        folder=folder,
        observer=observer or RunObserver(),
        header=header,
        limits=limits or Limits(0.1, 5),
        layout=WORKLOAD.model.layout,
        initial=initial,
        roll_back=roll_back,
    )


def test_observers_are_told_everything_in_order(tmp_path):
    witness = Witness()
    trainer_on(tmp_path / "run", FakePlatform(COSTING), observer=witness, limits=Limits(0.1, 2)).run()
    assert witness.told == [
        "started",
        "launched 1",
        "ended 1",
        "launched 2",
        "ended 2",
        "closed",
        "finished",
    ]
    again = Witness()
    trainer_on(tmp_path / "run", FakePlatform(COSTING), observer=again, limits=Limits(0.1, 3)).run()
    assert again.past == 2
    assert again.told[:3] == ["started", "launched 3", "ended 3"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PlatformError("the region is on fire: use another"), StopReason.PLATFORM_FAILURE),
        (WorkloadError("model.py:3 raised: correct it"), StopReason.USAGE_ERROR),
        (ActionError("too many: choose fewer"), StopReason.USAGE_ERROR),
        (KeyboardInterrupt(), StopReason.INTERRUPTED),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("replays", [True, False])
def test_a_failed_epoch_ends_the_run_and_keeps_what_was_earned(tmp_path, error, reason, replays):
    platform = FakePlatform(COSTING, losses=(0.9, 0.8), failures={3: error}, replays=replays)
    witness = Witness()
    summary = trainer_on(tmp_path / "run", platform, observer=witness).run()
    assert (summary.stop_reason, summary.epochs, summary.best_loss) == (reason, 2, 0.8)
    assert str(error) in summary.stop_detail
    assert witness.told[-2:] == ["closed", "finished"]
    ledger = Ledger.load(tmp_path / "run" / "ledger.jsonl", BUDGET)
    assert ledger.open_reservation is None
    launched = not replays and not isinstance(error, ActionError)  # a refused action cost nothing
    assert ledger.bill["unconfirmed"] == (platform.launched[-1].reserve_usd if launched else 0)
    resumed = trainer_on(tmp_path / "run", FakePlatform(COSTING, losses=(0.9, 0.8, 0.05))).run()
    assert resumed.stop_reason is StopReason.TARGET_REACHED
    assert resumed.epochs == 3


def test_an_error_of_siren_itself_leaves_no_reservation_open(tmp_path):
    platform = FakePlatform(COSTING, failures={2: ZeroDivisionError("a fault of ours")})
    with pytest.raises(ZeroDivisionError):
        trainer_on(tmp_path / "run", platform).run()
    assert Ledger.load(tmp_path / "run" / "ledger.jsonl", BUDGET).open_reservation is None
    assert trainer_on(tmp_path / "run", FakePlatform(COSTING)).run().epochs == 5


class Cut(BaseException):
    """The process ends here."""


def cut_at(step: str, file: str, count: int) -> Disk:
    """A disk that ends the process after the `count`-th such step."""
    seen = 0

    def witness(now: str, path: Path) -> None:
        nonlocal seen
        seen += now == step and file in path.name
        if now == step and file in path.name and seen == count:
            raise Cut

    return Disk(witness)


@pytest.mark.parametrize("times", [1, 3])
def test_an_epoch_that_cannot_be_replayed_is_charged_in_full_and_once(tmp_path, times):
    path, lost_usd = tmp_path / "run", Decimal(0)
    for time in range(times):
        platform = FakePlatform(COSTING, seed=time, replays=False)
        # The second epoch's line is never written: checkpoint 0, 1, 2 or, when resumed, 1, 2.
        disk = cut_at("rename", "epoch-000002", 1)
        with pytest.raises(Cut):
            trainer_on(path, platform, disk=disk).run()
        ledger = Ledger.load(path / "ledger.jsonl", BUDGET)
        assert ledger.open_reservation is not None
        with exact():
            lost_usd += ledger.open_reservation.usd
    platform = FakePlatform(COSTING, seed=9, replays=False)
    summary = trainer_on(path, platform).run()
    assert summary.epochs == 5
    assert summary.bill["unconfirmed"] == lost_usd
    assert [plan.action for plan in platform.launched] == [ACTION] * 4
    records = RunFolder.open(path).events(outside_usd=lost_usd)
    with exact():
        paid_usd = sum((record.status.cost_usd for record in records), start=Decimal(0))
        assert summary.cost_usd == paid_usd + lost_usd <= BUDGET
        assert records[-1].status.budget_left_usd == BUDGET - summary.cost_usd
    assert trainer_on(path, FakePlatform(COSTING, replays=False)).run().cost_usd == summary.cost_usd


def test_an_epoch_that_has_its_line_is_not_charged_again(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Cut):
        trainer_on(path, FakePlatform(COSTING, replays=False), disk=cut_at("fsync", "events", 2)).run()
    assert Ledger.load(path / "ledger.jsonl", BUDGET).open_reservation is not None
    summary = trainer_on(path, FakePlatform(COSTING, replays=False)).run()
    assert summary.bill["unconfirmed"] == 0
    assert summary.epochs == 5


def test_a_damaged_account_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "run"
    trainer_on(path, FakePlatform(COSTING)).run()
    (path / "events.jsonl").write_bytes(b"")
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    with pytest.raises(RunFolderError, match=r"ledger.jsonl has 5 epochs, events.jsonl 0"):
        trainer_on(path, FakePlatform(COSTING)).run()
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_the_saved_model_is_the_best_one(tmp_path):
    path = tmp_path / "run"
    losses = (0.9, 0.5, 0.7, 0.6, 0.8)
    summary = trainer_on(path, FakePlatform(COSTING, losses=losses)).run()
    assert (summary.best_epoch, summary.best_loss, summary.final_loss) == (2, 0.5, 0.8)
    params, layout, metadata = RunFolder.open(path).read_model()
    assert np.array_equal(params, np.full(4, 2, np.float32))
    assert layout == WORKLOAD.model.layout
    assert metadata["epoch"] == "2"


def test_a_model_that_never_gets_better_than_its_start_is_saved_as_it_started(tmp_path):
    summary = trainer_on(tmp_path / "run", FakePlatform(COSTING, losses=(1.5,))).run()
    assert (summary.best_epoch, summary.best_loss) == (0, 1.0)
    assert not RunFolder.open(tmp_path / "run").read_model()[0].any()


@pytest.mark.parametrize("loss", [math.nan, math.inf, EXPLODED * 1.01], ids=str)
def test_a_loss_that_explodes_ends_the_run(tmp_path, loss):
    path = tmp_path / "run"
    summary = trainer_on(path, FakePlatform(COSTING, losses=(0.9, loss))).run()
    assert (summary.stop_reason, summary.epochs, summary.best_epoch) == (StopReason.DIVERGED, 2, 1)
    assert "lower the learning rate" in summary.stop_detail
    again = trainer_on(path, FakePlatform(COSTING)).run()
    assert again.stop_reason is StopReason.DIVERGED
    assert again.epochs == 2


@pytest.mark.parametrize("loss", [math.nan, math.inf, EXPLODED * 1.01], ids=str)
def test_a_loss_that_explodes_sets_the_model_back_to_the_best_one(tmp_path, loss):
    losses = (0.9, loss, 0.8, 0.05)
    platform, witness = FakePlatform(COSTING, losses=losses), Witness()
    summary = trainer_on(tmp_path / "run", platform, observer=witness, roll_back=True).run()
    assert (summary.stop_reason, summary.epochs) == (StopReason.TARGET_REACHED, 4)
    assert platform.params[0] == 3  # epochs 1, 3 and 4; epoch 2 is undone, and paid
    assert witness.noted == ["epoch 2 diverged: going on with the model of epoch 1"]
    limits = Limits(0.1, 2)
    trainer_on(tmp_path / "cut", FakePlatform(COSTING, losses=losses), limits=limits, roll_back=True).run()
    resumed = trainer_on(tmp_path / "cut", FakePlatform(COSTING, losses=losses), roll_back=True).run()
    assert (resumed.epochs, resumed.bill) == (4, summary.bill)
    paths = [tmp_path / name / "events.jsonl" for name in ("run", "cut")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_run_that_diverges_again_and_again_is_given_up(tmp_path):
    platform = FakePlatform(COSTING, losses=(0.9, math.nan))
    summary = trainer_on(tmp_path / "run", platform, limits=Limits(0.1, 99), roll_back=True).run()
    assert (summary.stop_reason, summary.epochs) == (StopReason.DIVERGED, 1 + ROLL_BACKS + 1)


def test_a_rise_of_the_loss_does_not_end_the_run(tmp_path):
    summary = trainer_on(tmp_path / "run", FakePlatform(COSTING, losses=(0.9, EXPLODED * 0.9, 0.05))).run()
    assert summary.stop_reason is StopReason.TARGET_REACHED


def test_an_interruption_ends_the_run_after_its_epoch(tmp_path):
    class Interrupter(RunObserver):
        def epoch_started(self, epoch, decision) -> None:
            trainer.interrupted = epoch == 2

    trainer = trainer_on(tmp_path / "run", FakePlatform(COSTING), observer=Interrupter())
    summary = trainer.run()
    assert (summary.stop_reason, summary.epochs) == (StopReason.INTERRUPTED, 2)
    assert trainer_on(tmp_path / "run", FakePlatform(COSTING)).run().epochs == 5


def test_limits_are_asked_before_every_epoch(tmp_path):
    platform = FakePlatform(COSTING)
    assert trainer_on(tmp_path / "a", platform, limits=Limits(2.0, 5)).run().epochs == 0
    platform = FakePlatform(COSTING)
    timed = trainer_on(tmp_path / "b", platform, limits=Limits(0.1, 500, max_time_s=1e-6)).run()
    assert (timed.stop_reason, timed.epochs) == (StopReason.LIMIT_REACHED, 1)


def view(budget: str) -> JobView:
    outlook = Outlook(0.0, 1, RunTotals(), Decimal(budget))
    return JobView(COSTING, FakePlatform(COSTING), WORKLOAD.spec.training, 1.0, outlook)


def test_preflight_refuses_a_budget_below_the_cheapest_epoch():
    with pytest.raises(BudgetError, match=r"the budget cannot pay one epoch: \$0\.010000 is left"):
        preflight(FixedPolicy(ACTION), view("0.01"))
    preflight(FixedPolicy(ACTION), view("0.2"))


def test_preflight_refuses_an_action_that_can_never_run():
    with pytest.raises(ActionError):
        preflight(FixedPolicy(Action(4, 1000)), view("2"))


def test_what_preflight_names_as_the_cheapest_epoch_is_enough():
    policy = FixedPolicy(ACTION)
    needed_usd = view("0.01").cheapest_usd([ACTION])
    preflight(policy, view(str(needed_usd)))
    with exact(), pytest.raises(BudgetError):
        preflight(policy, view(str(needed_usd - Decimal("1e-18"))))


def test_a_policy_that_gives_up_ends_the_run(tmp_path):
    class Quitter(FixedPolicy):
        def decide(self, history):
            return super().decide(history) if len(history) < 2 else None

    summary = trainer_on(tmp_path / "run", FakePlatform(COSTING), policy=Quitter(ACTION)).run()
    assert (summary.stop_reason, summary.epochs) == (StopReason.BUDGET_EXHAUSTED, 2)


def test_a_policy_that_names_what_cannot_be_run_ends_the_run(tmp_path):
    class Dreamer(FixedPolicy):
        def decide(self, history):
            decision = super().decide(history)
            return dataclasses.replace(decision, action=Action(25, 1024)) if history else decision

    summary = trainer_on(tmp_path / "run", FakePlatform(COSTING), policy=Dreamer(ACTION)).run()
    assert (summary.stop_reason, summary.epochs) == (StopReason.USAGE_ERROR, 1)
    assert "choose at most 24" in summary.stop_detail


@pytest.mark.parametrize("requests", [0, 7])
def test_an_epoch_of_which_nothing_was_launched_costs_what_was_asked_for_it(tmp_path, requests):
    error = PlatformError("Lambda could not be reached: check the network")
    error.unlaunched = Usage(memory_mb=1024, billed_ms=0, requests=0, s3_puts=requests)
    platform = FakePlatform(COSTING, losses=(0.9, 0.8), failures={2: error}, replays=False)
    summary = trainer_on(tmp_path / "run", platform).run()
    assert (summary.stop_reason, summary.epochs) == (StopReason.PLATFORM_FAILURE, 1)
    assert summary.bill["unconfirmed"] == requests * COSTING.pricer.s3_put_usd
    assert Ledger.load(tmp_path / "run" / "ledger.jsonl", BUDGET).open_reservation is None
    resumed = trainer_on(tmp_path / "run", FakePlatform(COSTING, losses=(0.9, 0.05), replays=False)).run()
    assert (resumed.stop_reason, resumed.epochs) == (StopReason.TARGET_REACHED, 2)
    assert resumed.bill["unconfirmed"] == requests * COSTING.pricer.s3_put_usd


def test_the_hours_of_a_pause_are_billed_and_told(tmp_path):
    hours, at_once, late = 5, Witness(), Witness()
    first = trainer_on(tmp_path / "run", FakePlatform(COSTING), observer=at_once, limits=Limits(0.1, 2)).run()
    platform = FakePlatform(COSTING, idle_s=hours * 3600.0)
    last = trainer_on(tmp_path / "run", platform, observer=late, limits=Limits(0.1, 3)).run()
    assert (first.epochs, last.epochs) == (2, 3)
    assert last.bill["cache"] >= first.bill["cache"] + hours * COSTING.pricer.cache_usd_per_h
    assert at_once.noted == []
    assert len(late.noted) == 1
    assert "ran on for 5.0 h in which nothing was trained" in late.noted[0]


def test_a_run_whose_pause_costs_more_than_is_left_does_not_go_on(tmp_path):
    trainer_on(tmp_path / "run", FakePlatform(COSTING), limits=Limits(0.1, 2)).run()
    spent = Ledger.load(tmp_path / "run" / "ledger.jsonl", BUDGET).spent_usd
    platform = FakePlatform(
        COSTING, idle_s=3600 * float((BUDGET - spent) / COSTING.pricer.cache_usd_per_h + 2)
    )
    summary = trainer_on(tmp_path / "run", platform).run()
    assert (summary.stop_reason, summary.epochs, summary.cost_usd) == (StopReason.BUDGET_EXHAUSTED, 2, spent)
    assert platform.launched == []
    assert "in which nothing was trained" in summary.stop_detail
    assert "siren.teardown" in summary.stop_detail
