"""The ledger: what was promised is on disk, and the budget is never exceeded."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siren.errors import LedgerError, OverBudgetError, RunFolderError
from siren.money import Bill, Ledger, Reservation

D = Decimal


def compute(usd: Decimal | str) -> Bill:
    return Bill({"compute": D(usd)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def state(ledger: Ledger) -> tuple[Any, ...]:
    return (ledger.spent_usd, ledger.reserved_usd, ledger.left_usd, ledger.bill, ledger.open_reservation)


def test_a_reservation_is_set_aside_and_replaced_by_the_bill() -> None:
    ledger = Ledger(D("2.00"))
    ledger.reserve(1, D("0.5"))
    assert (ledger.reserved_usd, ledger.spent_usd, ledger.left_usd) == (D("0.5"), D(0), D("1.5"))
    ledger.settle(1, compute("0.2"))
    assert (ledger.reserved_usd, ledger.spent_usd, ledger.left_usd) == (D(0), D("0.2"), D("1.8"))
    assert ledger.bill == compute("0.2")
    assert dict(ledger.settled) == {1: compute("0.2")}
    assert ledger.budget_usd == 2


def test_a_reservation_above_what_is_left_is_refused_and_nothing_is_written(path: Path) -> None:
    ledger = Ledger(D(1), path)
    ledger.reserve(1, D(1))
    ledger.settle(1, compute("0.75"))
    before = path.read_bytes()
    with pytest.raises(OverBudgetError) as caught:
        ledger.reserve(2, D("0.250000000000000000000000000001"))
    assert (caught.value.requested_usd, caught.value.left_usd) == (
        D("0.250000000000000000000000000001"),
        D("0.25"),
    )
    assert path.read_bytes() == before
    ledger.reserve(2, D("0.25"))
    assert ledger.left_usd == 0


def test_only_one_reservation_is_open_at_a_time() -> None:
    ledger = Ledger(D(1))
    ledger.reserve(1, D("0.1"))
    with pytest.raises(LedgerError, match="epoch 1 is not settled"):
        ledger.reserve(2, D("0.1"))
    with pytest.raises(LedgerError, match="not reserved"):
        ledger.settle(2, compute("0.1"))


def test_a_bill_above_its_reservation_is_recorded_and_stops_the_run(path: Path) -> None:
    ledger = Ledger(D(1), path)
    ledger.reserve(1, D("0.9"))
    with pytest.raises(LedgerError, match="the spend is recorded"):
        ledger.settle(1, compute("1.1"))
    for seen in (ledger, Ledger.load(path, D(1))):
        assert seen.spent_usd == D("1.1")
        assert seen.left_usd == D("-0.1")
        assert seen.open_reservation is None
        with pytest.raises(OverBudgetError):
            seen.reserve(2, D("0.01"))


def test_settling_again_with_an_equal_bill_changes_nothing_and_a_different_one_is_refused(path: Path) -> None:
    ledger = Ledger(D(1), path)
    ledger.reserve(1, D("0.5"))
    ledger.settle(1, compute("0.2"))
    before = path.read_bytes(), state(ledger)
    ledger.settle(1, compute("0.200"))
    assert (path.read_bytes(), state(ledger)) == before
    with pytest.raises(LedgerError, match="repeat it exactly"):
        ledger.settle(1, compute("0.3"))
    with pytest.raises(LedgerError, match="settled already"):
        ledger.reserve(1, D("0.1"))


def test_a_lost_epoch_can_be_paid_a_second_time_on_request() -> None:
    ledger = Ledger(D(1))
    ledger.reserve(1, D("0.5"))
    ledger.settle(1, compute("0.2"))
    ledger.reserve(1, D("0.5"), again=True)
    ledger.settle(1, compute("0.3"))
    assert ledger.spent_usd == D("0.5")
    ledger.settle(1, compute("0.3"))


@pytest.mark.parametrize(
    "bad", [D("NaN"), D("sNaN"), D("Infinity"), D(-1), D("1e20"), D("1e-40"), 0.5, 1, None]
)
def test_amounts_that_are_not_exact_are_refused_everywhere(bad: Any) -> None:
    with pytest.raises(LedgerError):
        Ledger(bad)
    ledger = Ledger(D(1))
    with pytest.raises(LedgerError):
        ledger.reserve(1, bad)
    assert ledger.open_reservation is None
    with pytest.raises(LedgerError):
        ledger.reserve(-1, D("0.1"))


def test_a_budget_of_zero_is_refused() -> None:
    with pytest.raises(LedgerError, match="positive"):
        Ledger(D(0))


def test_a_loaded_ledger_equals_the_one_that_was_written(path: Path) -> None:
    ledger = Ledger(D(1), path)
    ledger.reserve(1, D("0.5"))
    ledger.settle(1, compute("0.123456789012345678"))
    ledger.reserve(2, D("0.4"))
    again = Ledger.load(path, D(1))
    assert state(again) == state(ledger)
    assert again.open_reservation == Reservation(2, D("0.4"))
    again.settle(2, compute("0.1"))
    assert state(Ledger.load(path, D(2)))[:1] == (D("0.223456789012345678"),)


def test_a_lost_epoch_is_charged_at_its_worst_case_and_may_run_again(path: Path) -> None:
    Ledger(D(1), path).reserve(1, D("0.4"))
    ledger = Ledger.load(path, D(1))
    assert ledger.charge_worst_case() == Bill({"unconfirmed": D("0.4")})
    assert ledger.left_usd == D("0.6")
    again = Ledger.load(path, D(1))
    assert state(again) == state(ledger)
    again.reserve(1, D("0.5"))
    again.settle(1, compute("0.1"))
    assert again.bill == Bill({"unconfirmed": D("0.4"), "compute": D("0.1")})
    with pytest.raises(LedgerError, match="no open reservation"):
        again.charge_worst_case()


def test_an_epoch_that_failed_is_charged_what_it_cost_and_may_run_again(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(D(1), path)
    with pytest.raises(LedgerError, match="no open reservation"):
        ledger.charge_failed(D("0.1"))
    ledger.reserve(1, D("0.4"))
    assert ledger.charge_failed(D("0.01")) == Bill({"unconfirmed": D("0.01")})
    ledger.reserve(1, D("0.4"))
    assert ledger.charge_failed(D(0)) == Bill()  # nothing: the reservation is dropped
    assert (ledger.spent_usd, ledger.left_usd, ledger.open_reservation) == (D("0.01"), D("0.99"), None)
    again = Ledger.load(path, D(1))
    assert (again.spent_usd, again.open_reservation) == (D("0.01"), None)
    again.reserve(1, D("0.4"))
    with pytest.raises(LedgerError, match="more than the"):
        again.charge_failed(D("0.5"))
    assert again.spent_usd == D("0.51")


def test_a_replayed_epoch_gets_its_reservation_back(path: Path) -> None:
    Ledger(D(1), path).reserve(1, D("0.4"))
    ledger = Ledger.load(path, D(1))
    ledger.release_for_replay()
    assert ledger.left_usd == 1
    again = Ledger.load(path, D(1))
    assert again.open_reservation is None
    again.reserve(1, D("0.4"))
    with pytest.raises(LedgerError, match="no open reservation"):
        Ledger(D(1)).release_for_replay()


def full(path: Path) -> Ledger:
    ledger = Ledger(D(1), path)
    ledger.reserve(1, D("0.5"))
    ledger.settle(1, compute("0.2"))
    ledger.reserve(2, D("0.3"))
    ledger.settle(2, compute("0.3"))
    return ledger


def test_a_kill_at_any_byte_leaves_a_ledger_that_loads_and_goes_on(path: Path) -> None:
    full(path)
    content = path.read_bytes()
    ends = [0, *(i + 1 for i, byte in enumerate(content) if byte == ord("\n"))]
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        ledger = Ledger.load(path, D(1))
        assert path.stat().st_size == max(end for end in ends if end <= cut)
        assert ledger.left_usd >= 0
        if ledger.open_reservation:
            ledger.charge_worst_case()
        ledger.reserve(9, ledger.left_usd)
        assert state(Ledger.load(path, D(1))) == state(ledger)


def test_a_torn_tail_of_zeros_is_cut_off(path: Path) -> None:
    full(path)
    content = path.read_bytes()
    path.write_bytes(content + b"\0" * 40)
    assert Ledger.load(path, D(1)).spent_usd == D("0.5")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "tail", [b"hello", b"\xff\xfe", b"{}", b"\n", b"[]\n", b"{\n", b'{"record":\n', b"\0\n"]
)
def test_other_damage_is_refused_and_the_file_is_not_touched(path: Path, tail: bytes) -> None:
    full(path)
    content = path.read_bytes() + tail
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match="line 5"):
        Ledger.load(path, D(1))
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "entry",
    [
        {"record": "settle", "epoch": 3, "bill": {}},
        {"record": "release", "epoch": 2},
        {"record": "reserve", "epoch": 3},
        {"record": "reserve", "epoch": 3, "usd": 0.1},
        {"record": "reserve", "epoch": 3, "usd": "NaN"},
        {"record": "reserve", "epoch": 3, "usd": "x"},
        {"record": "reserve", "epoch": -3, "usd": "0.1"},
        {"record": "reserve", "epoch": "3", "usd": "0.1"},
        {"record": "refund", "epoch": 1, "usd": "0.1"},
        {"record": "reserve", "usd": "0.1"},
    ],
)
def test_entries_that_contradict_the_account_are_refused(path: Path, entry: dict[str, Any]) -> None:
    full(path)
    with path.open("a") as file:
        file.write(json.dumps(entry, separators=(",", ":")) + "\n")
    with pytest.raises(LedgerError, match="line 5"):
        Ledger.load(path, D(1))


def test_a_line_that_is_missing_in_the_middle_is_noticed(path: Path) -> None:
    full(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:1] + lines[2:]))
    with pytest.raises(LedgerError, match="line 2"):
        Ledger.load(path, D(1))


def test_an_existing_file_is_never_started_over(path: Path) -> None:
    full(path)
    with pytest.raises(RunFolderError, match="load it to resume"):
        Ledger(D(1), path)
    with pytest.raises(RunFolderError, match="check the run folder"):
        Ledger.load(path.with_name("none"), D(1))


def test_a_missing_folder_is_named_and_nothing_is_reserved(tmp_path: Path) -> None:
    ledger = Ledger(D(1), tmp_path / "none" / "ledger.jsonl")
    with pytest.raises(RunFolderError, match="resume the run"):
        ledger.reserve(1, D("0.5"))
    assert ledger.open_reservation is None
    (tmp_path / "none").mkdir()
    ledger.reserve(1, D("0.5"))


def test_a_second_process_on_the_same_ledger_is_noticed(path: Path) -> None:
    first = Ledger(D(1), path)
    first.reserve(1, D("0.5"))
    second = Ledger.load(path, D(1))
    second.settle(1, compute("0.1"))
    with pytest.raises(RunFolderError, match="another process"):
        first.settle(1, compute("0.2"))
    assert first.open_reservation is not None
    assert Ledger.load(path, D(1)).spent_usd == D("0.1")


@pytest.mark.parametrize("call", ["write", "fsync", "write, then truncate"])
def test_a_full_disk_books_nothing_and_the_ledger_goes_on_once_there_is_room(
    path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = full(path)
    before, content = state(ledger), path.read_bytes()
    write = os.write

    def fail(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def half(handle: int, data: bytes) -> int:
        if len(data) < 20:
            fail()
        return write(handle, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half if "write" in call else write)
        patch.setattr(os, "fsync", fail if call == "fsync" else os.fsync)
        if "truncate" in call:
            patch.setattr(os, "ftruncate", fail)
        with pytest.raises(RunFolderError, match=r"No space left on device; nothing was booked\. Make room"):
            ledger.reserve(3, D("0.1"))
    assert state(ledger) == before
    assert state(Ledger.load(path, D(1))) == before
    path.write_bytes(content if "truncate" not in call else content + b'{"record":"rese')
    ledger.reserve(3, D("0.1"))
    assert state(Ledger.load(path, D(1))) == state(ledger)


def test_a_failed_settlement_leaves_the_reservation_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(D(1), path)
    ledger.reserve(1, D("0.5"))
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system"))
        )
        with pytest.raises(RunFolderError, match="Read-only"):
            ledger.settle(1, compute("0.2"))
        with pytest.raises(RunFolderError):
            ledger.release_for_replay()
    assert ledger.open_reservation == Reservation(1, D("0.5"))
    ledger.settle(1, compute("0.2"))


def test_an_entry_is_flushed_and_synced_before_the_call_returns(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    fsync = os.fsync

    def spy(handle: int) -> None:
        fsync(handle)
        synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", spy)
    Ledger(D(1), path).reserve(1, D("0.5"))
    line = b'{"record":"reserve","epoch":1,"usd":"0.5"}\n'
    assert synced == [line, line]  # the file, and the folder that names it
    assert path.read_bytes() == line


# --- any sequence ---

STEPS = ("reserve", "settle", "charge", "release", "crash", "again")
# One integer per step draws four times as fast as a tuple: the kind, a percentage, 1/10,000 dollars.
steps = st.lists(st.integers(0, len(STEPS) * 100 * 30_000), max_size=12)


budgets = st.integers(1, 50_000).map(lambda n: D(n) / 10_000)


def decode(step: int) -> tuple[str, int, Decimal]:
    rest, kind = divmod(step, len(STEPS))
    amount, percent = divmod(rest, 100)
    return STEPS[kind], percent, D(amount) / 10_000


def take(ledger: Ledger, step: str, usd: Decimal, percent: int, epoch: int) -> None:
    """One step; a settlement bills some part of the reservation."""
    reservation = ledger.open_reservation
    if step == "reserve":
        ledger.reserve(epoch, usd)
    elif step == "again":
        ledger.reserve(max(1, epoch - 1), usd, again=True)
    elif step == "settle" and reservation:
        ledger.settle(reservation.epoch, compute(reservation.usd * percent / 99 // D("1e-15") * D("1e-15")))
    elif step == "charge":
        ledger.charge_worst_case()
    elif step == "release":
        ledger.release_for_replay()


def check(ledger: Ledger, budget: Decimal) -> None:
    assert 0 <= ledger.spent_usd <= budget
    assert ledger.spent_usd + ledger.reserved_usd <= budget
    assert ledger.left_usd == budget - ledger.spent_usd - ledger.reserved_usd


@given(budgets, steps)
@settings(max_examples=2000, deadline=None)
def test_no_sequence_of_entries_exceeds_the_budget(budget: Decimal, sequence: list[int]) -> None:
    ledger = Ledger(budget)
    for epoch, code in enumerate(sequence):
        step, percent, usd = decode(code)
        before = state(ledger)
        try:
            take(ledger, step, usd, percent, epoch)
        except LedgerError:
            assert state(ledger) == before
        check(ledger, budget)


@given(budgets, steps, st.integers(0, 200))
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_sequence_of_entries_and_crashes_exceeds_the_budget(
    budget: Decimal, sequence: list[int], torn: int
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "ledger.jsonl"
        ledger = Ledger(budget, path)
        for epoch, code in enumerate(sequence):
            step, percent, usd = decode(code)
            if step == "crash" and path.exists():
                # The last line may be torn anywhere: it was being written.
                start = path.read_bytes().rstrip(b"\n").rfind(b"\n") + 1
                size = path.stat().st_size
                os.truncate(path, max(start, size - torn))
                ledger = Ledger.load(path, budget)
            else:
                with contextlib.suppress(LedgerError):
                    take(ledger, step, usd, percent, epoch)
            check(ledger, budget)
        if path.exists():
            assert state(Ledger.load(path, budget)) == state(ledger)
