"""Exact dollar amounts: the decimal context, checks, text forms and the budget that a user types.

Every sum and product of money runs in `exact()`: 80 digits, and a result that would have to be
rounded raises `decimal.Inexact` instead. With amounts below `USD_LIMIT` and at most
`MAX_DECIMALS` decimals (both checked wherever an amount enters), sums never come near it.
"""

from __future__ import annotations

import decimal
import math
import numbers
import re
from contextlib import AbstractContextManager
from decimal import Decimal
from fractions import Fraction

from siren.errors import BudgetError, LedgerError

ZERO = Decimal(0)
USD_LIMIT = Decimal(10) ** 15
"""Amounts reach neither this nor the precision of the context."""
MAX_DECIMALS = 36
"""Enough for ms/1000 (3) x MB/1024 (10) x a price (up to 20 decimals) without rounding."""
QUANTITY_LIMIT = 10**18
"""Counts and quantities above this are refused: they are faults, not usage."""
_SMALLEST = Decimal("1e-330")
BUDGET_LIMIT = Decimal(10) ** 9
BUDGET_DECIMALS = 6

_EXACT = decimal.Context(
    prec=80,
    rounding=decimal.ROUND_HALF_EVEN,
    traps=[
        decimal.Inexact,
        decimal.InvalidOperation,
        decimal.DivisionByZero,
        decimal.Overflow,
        decimal.Subnormal,
        decimal.Underflow,
    ],
)
_BUDGET = re.compile(r"\$?(?P<whole>[0-9]*)(?:\.(?P<decimals>[0-9]*))?")


def exact() -> AbstractContextManager[decimal.Context]:
    """A decimal context in which a result that needs rounding raises `decimal.Inexact`."""
    return decimal.localcontext(_EXACT)


def check_usd(usd: Decimal, what: str) -> Decimal:
    """Return `usd` without trailing zeros if the ledger can account for it.

    Args:
        usd: Dollars; finite, in [0, `USD_LIMIT`), at most `MAX_DECIMALS` decimals.
        what: What the amount is, for the message.

    Returns:
        The same amount, normalised: equal amounts have one text form.

    Raises:
        LedgerError: It is anything else, a float or an int included.
    """
    if not isinstance(usd, Decimal):
        raise LedgerError(f"{what} must be a Decimal, not {type(usd).__name__}: pass Decimal('0.5')")
    if not usd.is_finite() or usd < 0 or usd >= USD_LIMIT:
        raise LedgerError(f"{what} is {usd} dollars: give a finite amount from 0 to {USD_LIMIT:f}")
    if usd == 0:
        return ZERO
    if len(usd.as_tuple().digits) > _EXACT.prec:
        raise LedgerError(f"{what} has more than {_EXACT.prec} digits: round it up before accounting it")
    normal = usd.normalize(_EXACT)
    exponent = normal.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -MAX_DECIMALS:
        raise LedgerError(f"{what} has more than {MAX_DECIMALS} decimals: round it up before accounting it")
    return normal


def usd_text(usd: Decimal) -> str:
    """The exact decimal text of an amount, without exponent or trailing zeros: "0.5", "12"."""
    if usd == 0:
        return "0"
    text = f"{usd:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def check_count(value: int, what: str) -> int:
    """Return a count that may be billed.

    Args:
        value: An int from 0 to `QUANTITY_LIMIT`.
        what: What is counted, for the message.

    Raises:
        LedgerError: It is not such an int.
    """
    # numpy's integers are Integral without being int.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 0 <= value <= QUANTITY_LIMIT:
        raise LedgerError(f"{what} is {value!r}: give a whole number from 0 to {QUANTITY_LIMIT}")
    return int(value)


def exact_quantity(value: float | Decimal, what: str) -> Fraction:
    """The exact value of a quantity; a float stands for its shortest text (its `repr`).

    0.1 is one tenth here, not the binary number next to it: this is what a log line, a JSON file
    or a user wrote.

    Args:
        value: An int, a float or a Decimal, finite, from 0 to `QUANTITY_LIMIT`.
        what: What is measured, for the message.

    Raises:
        LedgerError: It is negative, NaN, infinite, absurdly large, or not a number.
    """
    if isinstance(value, bool) or not isinstance(value, (numbers.Integral, float, Decimal)):
        raise LedgerError(f"{what} is {value!r}: give a number")
    # Finite first: comparing a signalling NaN raises. The last bound keeps the integers small.
    if isinstance(value, Decimal):
        finite = value.is_finite()
    else:  # math.isfinite overflows on huge ints
        finite = not isinstance(value, float) or math.isfinite(value)
    if not finite or not (value == 0 or _SMALLEST <= value <= QUANTITY_LIMIT):
        raise LedgerError(f"{what} is {value!r}: give a finite number from 0 to {QUANTITY_LIMIT}")
    if isinstance(value, float):
        return Fraction(Decimal(repr(float(value))))
    return Fraction(value if isinstance(value, Decimal) else int(value))


def ceil_usd(usd: Fraction, decimals: int = 18) -> Decimal:
    """Dollars rounded up to `decimals` decimals: for the few prices that do not divide evenly."""
    scale = 10**decimals
    with exact():
        return Decimal(math.ceil(usd * scale)).scaleb(-decimals)


def parse_budget(text: str) -> Decimal:
    """The dollars that a user typed as a budget.

    Args:
        text: "2", "2.00" or "$2.00": positive, below a billion dollars, at most 6 decimals.

    Returns:
        The exact amount, as typed.

    Raises:
        BudgetError: Anything else; one line that shows what is accepted.
    """
    shown = repr(text if len(text) <= 40 else text[:37] + "...")
    accepted = "write a positive amount of dollars such as 2, 2.50 or $2.50"
    match = _BUDGET.fullmatch(text.strip())
    if match is None or not (match["whole"] or match["decimals"]):
        raise BudgetError(f"the budget {shown} is not a positive amount of dollars: {accepted}")
    whole, decimals = match["whole"] or "0", match["decimals"] or ""
    if len(decimals) > BUDGET_DECIMALS:
        raise BudgetError(f"the budget {shown} has more than {BUDGET_DECIMALS} decimals: {accepted}")
    if len(whole.lstrip("0")) >= len(f"{BUDGET_LIMIT:f}"):
        raise BudgetError(f"the budget {shown} is a billion dollars or more: {accepted}")
    budget_usd = Decimal(f"{whole}.{decimals or '0'}" if decimals else whole)
    if budget_usd == 0:
        raise BudgetError(f"the budget {shown} is zero: {accepted}")
    return budget_usd
