"""The bill of an epoch or a run: named items in exact dollars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation

from siren.errors import LedgerError
from siren.money.amounts import ZERO, check_usd, exact, usd_text

ITEMS = (
    "compute",
    "requests",
    "ephemeral_storage",
    "evaluation",
    "s3_requests",
    "s3_storage",
    "cache",
    "logs",
    "transfer",
    "unconfirmed",
)
"""What a bill may name. `unconfirmed` is what an epoch costs at most that failed: its reservation in full if
nobody knows what it used."""


class Bill(Mapping[str, Decimal]):
    """An immutable mapping of every name in `ITEMS` to dollars; what is not given is zero.

    Example:
        >>> bill = Bill({"compute": Decimal("0.25"), "requests": Decimal("0.0000002")})
        >>> bill.total
        Decimal('0.2500002')

    Args:
        items: Dollars by item.

    Raises:
        LedgerError: A name is not in `ITEMS`, or an amount is not an exact, finite Decimal >= 0.
    """

    __slots__ = ("_items", "_total")

    def __init__(self, items: Mapping[str, Decimal] | None = None) -> None:
        given = dict(items or {})
        unknown = sorted(set(given) - set(ITEMS))
        if unknown:
            raise LedgerError(f"a bill has no item {unknown[0]!r}: use {', '.join(ITEMS)}")
        self._items = {
            name: check_usd(given[name], f"the item {name!r}") if name in given else ZERO for name in ITEMS
        }
        with exact():
            self._total = sum(self._items.values(), start=ZERO)

    def __getitem__(self, item: str) -> Decimal:
        """Dollars of an item."""
        return self._items[item]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order of `ITEMS`."""
        return iter(self._items)

    def __len__(self) -> int:
        """The number of items, zeros included."""
        return len(self._items)

    def __hash__(self) -> int:
        """Equal bills hash alike."""
        return hash(tuple(self._items.values()))

    def __repr__(self) -> str:
        """The items that are not zero."""
        shown = ", ".join(f"{name}=${usd_text(usd)}" for name, usd in self._items.items() if usd)
        return f"Bill({shown})"

    def __add__(self, other: Bill) -> Bill:
        """Add item by item."""
        if not isinstance(other, Bill):
            return NotImplemented
        with exact():
            return Bill({name: usd + other[name] for name, usd in self._items.items()})

    @property
    def total(self) -> Decimal:
        """The sum of all items, in dollars."""
        return self._total

    def to_json(self) -> dict[str, str]:
        """Every item as an exact decimal string; `from_json` gives an equal bill back."""
        return {name: usd_text(usd) for name, usd in self._items.items()}

    @classmethod
    def from_json(cls, data: object) -> Bill:
        """Read what `to_json` wrote.

        Args:
            data: A dict of item name to decimal string; missing items are zero.

        Raises:
            LedgerError: It is not a dict of such strings, or `Bill` refuses it.
        """
        if not isinstance(data, dict) or not all(isinstance(usd, str) for usd in data.values()):
            raise LedgerError(f"a bill is a JSON object of decimal strings, not {data!r:.80}")
        try:
            return cls({name: Decimal(usd) for name, usd in data.items()})
        except InvalidOperation as error:
            raise LedgerError(f"a bill holds an amount that is not a decimal: {data!r:.200}") from error
