"""The money of a run's epochs, checked line by line."""

from __future__ import annotations

from decimal import Decimal

from siren.errors import RunFolderError
from siren.money.amounts import exact
from siren.types import EpochRecord


class Account:
    """Checks that epochs follow each other and that their money adds up, line by line.

    Args:
        budget_usd: The budget; None starts from the first epoch.
        outside_usd: Dollars at most that were charged beside the epochs.
    """

    def __init__(self, budget_usd: Decimal | None, outside_usd: Decimal) -> None:
        self._left_usd = budget_usd
        self._outside_usd = outside_usd

    def check(self, record: EpochRecord, number: int) -> None:
        """Take the next epoch.

        Raises:
            RunFolderError: It does not follow from the ones before.
        """
        status = record.status
        if status.report.epoch != number:
            raise RunFolderError(f"epoch {status.report.epoch} where epoch {number} belongs")
        with exact():
            total_usd = sum(status.bill.values(), start=Decimal(0))
            if total_usd != status.cost_usd:
                raise RunFolderError(f"the bill adds up to ${total_usd:f}, cost_usd is ${status.cost_usd:f}")
            if self._left_usd is not None:
                expected_usd = self._left_usd - status.cost_usd
                gap_usd = expected_usd - status.budget_left_usd
                if not 0 <= gap_usd <= self._outside_usd:
                    raise RunFolderError(
                        f"budget_left_usd is ${status.budget_left_usd:f}, "
                        f"the budget minus all costs is ${expected_usd:f}"
                    )
                self._outside_usd -= gap_usd
        self._left_usd = status.budget_left_usd
