"""The ledger: an exact account in which spending more than the budget cannot happen by accident.

One JSON line per entry, appended and fsynced before the call returns:

    {"record":"reserve","epoch":1,"usd":"0.25"}            before the epoch is launched
    {"record":"settle","epoch":1,"bill":{"compute":...}}   once its bill is known
    {"record":"release","epoch":1}                         the epoch cost nothing and runs again

A crash in the middle of a write leaves a last line without its newline. The entry in it was not yet
promised to anybody, so loading drops it: a torn reservation was not launched, and a torn settlement
leaves its reservation open.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType
from typing import Any

from siren.errors import LedgerError, OverBudgetError
from siren.money.amounts import ZERO, check_count, check_usd, exact, usd_text
from siren.money.bill import Bill
from siren.money.journal import Journal

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reservation:
    """Dollars set aside for an epoch that is not settled yet.

    Attributes:
        epoch: The epoch.
        usd: Its worst case.
    """

    epoch: int
    usd: Decimal


class Ledger:
    """Exact account of a budget: reserve the worst case, run, settle what was billed.

    Spent plus reserved dollars never exceed the budget as long as no epoch is billed more than its
    reservation. If one is (the worst case was wrong), the money is gone all the same: the ledger
    records it, then raises, and `left_usd` may be negative.

    Example:
        >>> ledger = Ledger(Decimal("2.00"))
        >>> ledger.reserve(1, Decimal("0.50"))
        >>> ledger.settle(1, Bill({"compute": Decimal("0.20")}))
        >>> ledger.left_usd
        Decimal('1.8')

    Args:
        budget_usd: Dollars, positive.
        path: A new file for the entries, in an existing folder; None keeps them in memory only.

    Raises:
        LedgerError: The budget is not a positive, finite, exact amount.
        RunFolderError: `path` exists already (use `Ledger.load`).
    """

    def __init__(self, budget_usd: Decimal, path: Path | None = None) -> None:
        self._budget_usd = check_usd(budget_usd, "the budget")
        if self._budget_usd == 0:
            raise LedgerError("the budget is 0 dollars: give a positive amount")
        self._journal = None if path is None else Journal.create(path)
        self._open: Reservation | None = None
        self._settled: dict[int, Bill] = {}
        self._bill = Bill()

    @classmethod
    def load(cls, path: Path, budget_usd: Decimal) -> Ledger:
        """Read a ledger back, to go on with it.

        A torn last line is cut off the file. A reservation without settlement is
        `open_reservation`: close it with `charge_worst_case`, `release_for_replay` or `settle` before
        anything else is reserved.

        Args:
            path: A file that a ledger wrote.
            budget_usd: The budget of the run.

        Raises:
            RunFolderError: The file is missing, cannot be read, or is not the file of a ledger.
            LedgerError: Its entries contradict each other, or the budget is not valid.
        """
        ledger = cls(budget_usd)
        ledger._journal, entries = Journal.open(path)
        for number, entry in enumerate(entries, start=1):
            try:
                ledger._replay(entry)
            except (LedgerError, KeyError, TypeError, InvalidOperation) as error:
                raise LedgerError(
                    f"{path}, line {number} does not fit the lines before it ({error}): "
                    "the file was changed by hand or is damaged; restore it from a copy or start a new run"
                ) from error
        return ledger

    @property
    def budget_usd(self) -> Decimal:
        """The budget."""
        return self._budget_usd

    @property
    def spent_usd(self) -> Decimal:
        """What the settled epochs were billed."""
        return self._bill.total

    @property
    def reserved_usd(self) -> Decimal:
        """What is set aside for the epoch that runs; zero if none does."""
        return self._open.usd if self._open else ZERO

    @property
    def left_usd(self) -> Decimal:
        """Budget - spent - reserved; negative only after an epoch was billed more than its worst case."""
        with exact():
            return self._budget_usd - self.spent_usd - self.reserved_usd

    @property
    def bill(self) -> Bill:
        """The sum of all settled bills."""
        return self._bill

    @property
    def settled(self) -> Mapping[int, Bill]:
        """The latest bill of each settled epoch (read only)."""
        return MappingProxyType(self._settled)

    @property
    def open_reservation(self) -> Reservation | None:
        """The reservation that is not settled yet."""
        return self._open

    def reserve(self, epoch: int, usd: Decimal, *, again: bool = False) -> None:
        """Set the worst case of an epoch aside; it is on disk when this returns.

        Args:
            epoch: Number of the epoch, 0 or more.
            usd: The most that it may be billed.
            again: Pay for an epoch that is already settled a second time, because its work was lost.
                Not needed after `charge_worst_case`.

        Raises:
            OverBudgetError: It does not fit what is left.
            LedgerError: Another reservation is open, the epoch is settled already, or the amount is
                not an exact, finite Decimal >= 0.
            RunFolderError: It could not be written; nothing is reserved.
        """
        check_count(epoch, "the epoch")
        usd = check_usd(usd, "the reservation")
        if self._open is not None:
            raise LedgerError(
                f"cannot reserve for epoch {epoch}: epoch {self._open.epoch} is not settled; "
                "settle or close it first"
            )
        if not again and epoch in self._settled and not self._settled[epoch]["unconfirmed"]:
            raise LedgerError(
                f"epoch {epoch} is settled already: look at `settled` first, "
                "or pass again=True to pay for it twice"
            )
        if usd > self.left_usd:
            raise OverBudgetError(usd, self.left_usd)
        self._write({"record": "reserve", "epoch": epoch, "usd": usd_text(usd)})
        self._open = Reservation(epoch, usd)

    def settle(self, epoch: int, bill: Bill) -> None:
        """Replace the reservation of an epoch by its bill; it is on disk when this returns.

        Settling a settled epoch again with an equal bill changes nothing: a resumed run may replay
        it. A bill above the reservation is recorded and then raises: the money is spent whatever the
        ledger thinks of it, and a run whose worst case is wrong must not go on.

        Args:
            epoch: The epoch that was reserved.
            bill: What it was billed.

        Raises:
            LedgerError: The bill is above the reservation; or the epoch was not reserved; or it is
                settled with a different bill.
            RunFolderError: It could not be written; the reservation stays open.
        """
        check_count(epoch, "the epoch")
        if self._open is None or self._open.epoch != epoch:
            self._check_settled(epoch, bill)
            return
        reserved = self._open.usd
        self._write({"record": "settle", "epoch": epoch, "bill": bill.to_json()})
        self._close(epoch, bill)
        if bill.total > reserved:
            raise LedgerError(
                f"epoch {epoch} was billed ${usd_text(bill.total)}, more than the "
                f"${usd_text(reserved)} reserved for it: the spend is recorded; "
                "stop the run and check the platform's timeout and the prices"
            )

    def charge_worst_case(self) -> Bill:
        """Settle the open reservation in full, as `unconfirmed`: what it cost will not be known.

        Returns:
            The bill that was settled.

        Raises:
            LedgerError: No reservation is open.
            RunFolderError: It could not be written; the reservation stays open.
        """
        return self.charge_failed(self._need_open("charge").usd)

    def charge_failed(self, usd: Decimal) -> Bill:
        """Settle the open reservation at what its epoch, which failed, costs at most, as `unconfirmed`.

        Args:
            usd: With 0 the reservation is dropped.

        Returns:
            The bill that was settled.

        Raises:
            LedgerError: No reservation is open, or it is exceeded.
            RunFolderError: It could not be written; the reservation stays open.
        """
        reservation = self._need_open("charge")
        bill = Bill({"unconfirmed": usd})
        if bill.total:
            self.settle(reservation.epoch, bill)
        else:
            self.release_for_replay()
        return bill

    def release_for_replay(self) -> None:
        """Drop the open reservation because its epoch cost nothing and will run again.

        Raises:
            LedgerError: No reservation is open.
            RunFolderError: It could not be written; the reservation stays open.
        """
        reservation = self._need_open("release")
        self._write({"record": "release", "epoch": reservation.epoch})
        self._open = None

    def _need_open(self, verb: str) -> Reservation:
        if self._open is None:
            raise LedgerError(f"there is no open reservation to {verb}: check `open_reservation` first")
        return self._open

    def _check_settled(self, epoch: int, bill: Bill) -> None:
        if epoch not in self._settled:
            raise LedgerError(f"epoch {epoch} was not reserved: reserve its worst case before it runs")
        if self._settled[epoch] != bill:
            raise LedgerError(
                f"epoch {epoch} is settled with {self._settled[epoch]!r}, not {bill!r}: "
                "a replay must repeat it exactly; start a new run if the code or the seed has changed"
            )
        logger.debug("epoch %d is settled already with the same bill", epoch)

    def _write(self, entry: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.append(json.dumps(entry, separators=(",", ":")))

    def _close(self, epoch: int, bill: Bill) -> None:
        self._bill = self._bill + bill
        self._settled[epoch] = bill
        self._open = None

    def _replay(self, entry: Mapping[str, Any]) -> None:
        """Apply an entry of the file; what was written once is a fact, within the budget or not."""
        kind, epoch = entry["record"], check_count(entry["epoch"], "the epoch")
        if kind == "reserve" and self._open is None:
            if not isinstance(entry["usd"], str):
                raise LedgerError("the amount is not a decimal string")
            self._open = Reservation(epoch, check_usd(Decimal(entry["usd"]), "the reservation"))
        elif kind == "settle" and self._open is not None and self._open.epoch == epoch:
            self._close(epoch, Bill.from_json(entry["bill"]))
        elif kind == "release" and self._open is not None and self._open.epoch == epoch:
            self._open = None
        else:
            raise LedgerError(f"a {kind!r} of epoch {epoch} is not possible here")
