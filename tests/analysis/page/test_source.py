"""A run is read as it stands, at any moment, and its folder is left as it is."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from decimal import Decimal

import pytest

from siren.analysis.page.source import LEDGER, RunReader, read_run
from siren.analysis.run_folder import CONFIG, EVENTS, SUMMARY
from siren.errors import RunFolderError
from siren.types import StopReason
from tests.analysis import samples
from tests.analysis.page import folders

RECORDS = samples.epochs(6)


def contents(path):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(path.rglob("*")) if p.is_file()}


def test_an_ended_run_is_what_its_summary_says(tmp_path):
    summary = folders.ended(tmp_path / "run", RECORDS)
    run = read_run(tmp_path / "run")
    assert run.summary == summary
    assert run.header == summary.header
    assert [r.status for r in run.records] == [r.status for r in RECORDS]
    assert not run.running
    assert (run.cost_usd, dict(run.bill)) == (summary.cost_usd, dict(summary.bill))


def test_a_run_that_goes_on_is_known_from_config_checkpoint_and_ledger(tmp_path):
    folder = folders.begun(tmp_path / "run")
    folders.hold(folder)
    folders.run_epochs(folder, RECORDS[:2])
    folders.reserve(folder, 3, Decimal("0.25"))
    run = read_run(folder.path)
    assert run.running
    assert run.summary is None
    assert run.header.title == "Perceptron on MNIST"
    assert (run.header.budget_usd, run.header.target_loss) == (Decimal("2.00"), 0.08)
    assert run.initial_loss == folders.INITIAL_LOSS
    assert run.account.reserved is not None
    assert (run.account.reserved.epoch, run.account.reserved.usd) == (3, Decimal("0.25"))
    assert run.cost_usd == sum((r.status.cost_usd for r in RECORDS[:2]), Decimal(0))


def test_only_what_is_new_is_parsed_and_a_torn_line_waits_for_its_end(tmp_path, monkeypatch):
    folder = folders.begun(tmp_path / "run")
    folders.run_epochs(folder, RECORDS[:3])
    reader = RunReader(folder.path)
    first = reader.read()
    assert not reader.changed()
    folders.run_epochs(folder, RECORDS[3:4])
    path = folder.path / EVENTS
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert reader.changed()
    assert len(reader.read().records) == 3
    path.write_bytes(whole)
    again = reader.read()
    assert [r.status.report.epoch for r in again.records] == [1, 2, 3, 4]
    assert all(old is new for old, new in zip(first.records, again.records, strict=False))


def test_events_that_were_cut_are_read_from_the_start(tmp_path):
    folder = folders.begun(tmp_path / "run")
    folders.run_epochs(folder, RECORDS[:3])
    reader = RunReader(folder.path)
    reader.read()
    path = folder.path / EVENTS
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    assert len(reader.read().records) == 1


def test_reading_changes_nothing_even_where_lines_are_torn(tmp_path):
    folder = folders.begun(tmp_path / "run")
    folders.run_epochs(folder, RECORDS[:2])
    for name, torn in ((EVENTS, b'{"decision'), (LEDGER, b'{"record":"res')):
        with (folder.path / name).open("ab") as file:
            file.write(torn)
    before = contents(folder.path)
    assert len(read_run(folder.path).records) == 2
    assert contents(folder.path) == before


def test_a_killed_run_neither_runs_nor_has_ended(tmp_path):
    folder = folders.begun(tmp_path / "run")
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], check=True, capture_output=True
    )
    folders.hold(folder, int(child.stdout))
    run = read_run(folder.path)
    assert not run.running
    assert run.summary is None


def test_a_resumed_run_runs_although_an_older_summary_is_there(tmp_path):
    folders.ended(tmp_path / "run", RECORDS[:4], StopReason.INTERRUPTED)
    reader = RunReader(tmp_path / "run")
    assert not reader.read().running
    os.utime(tmp_path / "run" / SUMMARY, (1, 1))
    folders.hold(reader._folder)
    assert reader.changed()
    run = reader.read()
    assert run.running
    assert run.summary is None
    assert run.initial_loss == folders.INITIAL_LOSS


def test_a_summary_of_fewer_epochs_is_not_how_the_run_ended(tmp_path):
    folders.ended(tmp_path / "run", RECORDS[:4], StopReason.INTERRUPTED)
    reader = RunReader(tmp_path / "run")
    folders.run_epochs(reader._folder, RECORDS[4:])
    assert reader.read(running=False).summary is None


def test_a_released_reservation_is_not_set_aside_any_more(tmp_path):
    folder = folders.begun(tmp_path / "run")
    folders.reserve(folder, 1, Decimal("0.5"))
    folders._enter(folder, {"record": "release", "epoch": 1})
    assert read_run(folder.path).account.reserved is None


def test_without_a_checkpoint_the_first_loss_is_unknown(tmp_path):
    folder = folders.begun(tmp_path / "run")
    folder.checkpoint_path(0).unlink()
    assert math.isnan(read_run(folder.path).initial_loss)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (EVENTS, '{"no": "epoch"}\n', "events.jsonl, line 1"),
        (LEDGER, '{"record": "reserve", "epoch": 1, "usd": "much"}\n', "ledger.jsonl, line 1"),
        (CONFIG, "{}", "does not say what was trained"),
    ],
)
def test_damage_is_named(tmp_path, name, text, said):
    folder = folders.begun(tmp_path / "run")
    (folder.path / name).write_text(text)
    with pytest.raises(RunFolderError, match=said):
        read_run(folder.path)
