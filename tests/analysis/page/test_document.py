"""What a page says of a run: every number of it comes from the run's records and summary."""

from __future__ import annotations

import dataclasses
import json
import math
from decimal import Decimal
from pathlib import Path

import pytest

from siren.analysis import _format, records
from siren.analysis.page.document import run_document
from siren.analysis.page.source import Account, Run, read_run
from siren.money.ledger import Reservation
from siren.types import StopReason
from tests.analysis import samples
from tests.analysis.page import folders

RECORDS = samples.epochs(24)


def run_of(epochs=RECORDS, reason=StopReason.TARGET_REACHED, **changes) -> Run:
    summary = samples.summary(epochs, reason)
    fields = {
        "folder": Path("runs/one"),
        "header": summary.header,
        "records": epochs,
        "initial_loss": 2.3,
        "summary": summary,
        "running": False,
        "account": Account(),
        "system": folders.SYSTEM,
    }
    return Run(**{**fields, **changes})


def with_report(record, **changes):
    report = dataclasses.replace(record.status.report, **changes)
    return dataclasses.replace(record, status=dataclasses.replace(record.status, report=report))


def document_of(run: Run) -> dict:
    """The document as the browser gets it."""
    return json.loads(records.to_text(run_document(run)))


def charts_of(document: dict) -> dict:
    return {chart["id"]: chart for section in document["sections"] for chart in section["charts"]}


def test_the_numbers_at_the_top_are_those_of_the_summary():
    run = run_of()
    assert run.summary is not None
    facts = {fact["name"]: fact for fact in document_of(run)["facts"]}
    assert facts["Held-out loss"]["value"] == _format.loss(run.summary.final_loss)
    assert facts["Accuracy"]["value"] == _format.percent(run.summary.final_accuracy)
    assert facts["Time"]["value"] == _format.seconds(run.summary.duration_s)
    assert facts["Cost"]["value"] == _format.dollars(run.summary.cost_usd)
    assert facts["Cost"]["share"] == pytest.approx(float(run.summary.cost_usd) / 2.0)
    assert facts["Epochs"]["value"] == "24"


def test_losses_stand_against_time_and_against_all_dollars_that_were_spent():
    run = run_of()
    charts = charts_of(document_of(run))
    losses = [2.3, *(r.status.report.loss for r in RECORDS)]
    for name in ("loss-time", "loss-dollars"):
        assert charts[name]["series"][0]["y"] == losses
        assert charts[name]["rules"] == [{"y": 0.08, "label": "target 0.08"}]
        assert len(charts[name]["table"]["rows"]) == 25
    assert charts["loss-time"]["xs"] == [0, *(r.status.elapsed_s for r in RECORDS)]
    spent = [0.0, *(float(Decimal("2.00") - r.status.budget_left_usd) for r in RECORDS)]
    assert charts["loss-dollars"]["xs"] == pytest.approx(spent)


@pytest.mark.parametrize(
    ("factor", "unit", "per_unit"), [(1, "seconds", 1.0), (60, "minutes", 60.0), (4000, "hours", 3600.0)]
)
def test_long_runs_are_drawn_in_larger_units(factor, unit, per_unit):
    longer = tuple(
        dataclasses.replace(r, status=dataclasses.replace(r.status, elapsed_s=r.status.elapsed_s * factor))
        for r in samples.epochs(6)
    )
    chart = charts_of(document_of(run_of(longer)))["loss-time"]
    assert chart["x"]["label"] == f"{unit} on the virtual clock"
    assert chart["xs"][-1] == pytest.approx(longer[-1].status.elapsed_s / per_unit)


def test_functions_and_memory_are_those_that_ran():
    charts = charts_of(document_of(run_of()))
    actions = [r.status.report.action for r in RECORDS]
    assert charts["functions"]["series"][0]["y"] == [a.functions for a in actions]
    assert charts["memory"]["series"][0]["y"] == [a.memory_mb for a in actions]
    assert charts["functions"]["alt"] == "Between 20 and 80 functions, 40 in the last epoch."


def test_the_parts_of_an_epoch_stand_on_each_other_and_add_up():
    chart = charts_of(document_of(run_of()))["time"]
    names = [series["name"].split()[0] for series in chart["series"]]
    assert names == ["start", "load", "fetch", "compute", "update", "wait", "evaluate"]
    for below, above in zip(chart["series"], chart["series"][1:], strict=False):
        assert above["low"] == below["y"]
    assert chart["series"][0]["low"] == [0.0] * 24
    assert chart["series"][-1]["y"] == pytest.approx([r.status.report.duration_s for r in RECORDS])
    assert chart["table"]["head"] == ["epoch", "all", *names]


def test_a_part_that_never_took_time_is_in_the_table_alone():
    epochs = tuple(with_report(r, load_s=0.0) for r in samples.epochs(3))
    chart = charts_of(document_of(run_of(epochs)))["time"]
    assert "load" not in [series["tone"] for series in chart["series"]]
    assert "load" in chart["table"]["head"]


def test_the_bill_is_sorted_and_adds_up_to_the_cost():
    run = run_of()
    assert run.summary is not None
    chart = charts_of(document_of(run))["bill"]
    assert chart["values"] == sorted(chart["values"], reverse=True)
    assert sum(chart["values"]) == pytest.approx(float(run.summary.cost_usd))
    assert "logs" not in chart["names"], "it cost nothing"
    assert chart["table"]["rows"][-1][:2] == ["all", _format.exact_dollars(run.summary.cost_usd)]


def test_the_budget_burns_down_and_worst_cases_are_set_aside_below_it():
    chart = charts_of(document_of(run_of()))["budget"]
    aside, left = chart["series"]
    assert left["y"] == pytest.approx([2.0, *(float(r.status.budget_left_usd) for r in RECORDS)])
    assert aside["y"] == left["y"][:-1]
    heights = [y - low for y, low in zip(aside["y"], aside["low"], strict=True)]
    assert heights == pytest.approx([float(r.reserved_usd) for r in RECORDS])


def test_every_decision_has_reason_forecast_neighbours_and_what_happened():
    document = document_of(run_of())
    decisions = [decision for stretch in document["decisions"] for decision in stretch["decisions"]]
    assert [decision["epoch"] for decision in decisions] == list(range(1, 25))
    for decision, record in zip(decisions, RECORDS, strict=True):
        happened, expected, neighbour = decision["table"]["rows"]
        assert decision["reason"] == record.decision.reason
        assert happened[0] == "happened"
        assert happened[3] == _format.dollars(record.status.cost_usd, decimals=5)
        assert happened[4] == _format.loss(record.status.report.loss)
        assert expected[4] == "–", "this policy does not say what loss it expects"
        assert neighbour[0] == "instead"
        assert neighbour[-1] == "does not fit"


def test_epochs_with_the_same_action_stand_together():
    stretches = document_of(run_of())["decisions"]
    titles = [(stretch["title"], stretch["action"]) for stretch in stretches]
    assert titles[0] == ("Epochs 1 to 4", "20 × 1,769 MB")
    assert titles[2] == ("Epochs 9 to 12", "40 × 2,048 MB")


def test_incidents_are_told():
    epochs = (with_report(samples.epochs(1)[0], throttles=2, retries=1),)
    decision = document_of(run_of(epochs))["decisions"][0]["decisions"][0]
    assert decision["incidents"] == "2 functions throttled, 1 function retried"


@pytest.mark.parametrize(
    ("reason", "tone"),
    [
        (StopReason.TARGET_REACHED, "good"),
        (StopReason.BUDGET_EXHAUSTED, "warn"),
        (StopReason.INTERRUPTED, "warn"),
        (StopReason.PLATFORM_FAILURE, "bad"),
        (StopReason.DIVERGED, "bad"),
    ],
)
def test_a_state_is_told_in_words_and_tone(reason, tone):
    document = document_of(run_of(reason=reason))
    assert document["state"]["tone"] == tone
    assert document["state"]["text"]
    assert bool(document["resume"]) == (reason in (StopReason.INTERRUPTED, StopReason.PLATFORM_FAILURE))


def test_a_run_that_goes_on_says_which_epoch_runs():
    account = Account(reserved=Reservation(25, Decimal("0.125")))
    document = document_of(run_of(summary=None, running=True, account=account))
    assert document["state"] == {"tone": "live", "text": "running"}
    assert "Epoch 25 is running; $0.1250 is set aside" in document["lede"]


def test_a_run_that_was_killed_says_so():
    document = document_of(run_of(summary=None))
    assert document["state"]["text"] == "stopped without an end"


def test_a_run_without_epochs_has_a_page():
    document = document_of(run_of(()))
    charts = charts_of(document)
    assert charts["loss-time"]["series"][0]["y"] == [2.3]
    assert charts["time"]["xs"] == []
    assert charts["bill"]["alt"] == "Nothing has been billed yet."
    assert document["decisions"] == []


def test_losses_that_are_no_numbers_are_gaps():
    first, second = samples.epochs(2)
    epochs = (with_report(first, loss=math.inf), with_report(second, loss=math.nan, accuracy=math.nan))
    document = document_of(run_of(epochs))
    chart = charts_of(document)["loss-time"]
    assert chart["series"][0]["y"] == [2.3, None, None]
    assert [row[2] for row in chart["table"]["rows"]] == ["2.3000", "inf", "–"]
    assert "Accuracy" not in [fact["name"] for fact in document["facts"]]


def test_how_to_have_the_numbers_again_is_told_without_paths_of_the_machine():
    about = dict(map(tuple, document_of(run_of())["about"]))
    assert about["command"] == "python -m siren.run --budget 2.00 --workload 'my job'"
    assert about["commit"] == "0123456789ab"
    assert "torch" not in about["versions"]
    assert not any("/somewhere" in value for value in about.values())


def test_a_page_from_the_folder_says_what_the_page_from_memory_says(tmp_path):
    summary = folders.ended(tmp_path / "run", RECORDS)
    read = document_of(read_run(tmp_path / "run"))
    kept = run_of(summary=summary, header=summary.header, folder=tmp_path / "run")
    assert read == document_of(kept)
