"""Bills, dollar amounts and the budget that a user types."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.errors import BudgetError, LedgerError
from siren.money import ITEMS, Bill, parse_budget
from siren.money.amounts import check_count, check_usd, exact, usd_text

D = Decimal
amounts = st.decimals(0, 10**6, places=20)
bills = st.dictionaries(st.sampled_from(ITEMS), amounts).map(Bill)


@given(bills, bills)
def test_adding_bills_adds_every_item_exactly(a: Bill, b: Bill) -> None:
    with exact():
        assert (a + b).total == a.total + b.total
        assert all((a + b)[item] == a[item] + b[item] for item in ITEMS)
    assert a + b == b + a
    assert a + Bill() == a


@given(bills)
def test_a_bill_survives_json(bill: Bill) -> None:
    again = Bill.from_json(json.loads(json.dumps(bill.to_json())))
    assert again == bill
    assert hash(again) == hash(bill)
    assert again.to_json() == bill.to_json()


def test_a_bill_names_every_item_and_equal_amounts_have_one_text() -> None:
    bill = Bill({"compute": D("1.500"), "cache": D("1E+1"), "logs": D("-0")})
    assert tuple(bill) == ITEMS
    assert len(bill) == len(ITEMS)
    assert (bill.to_json()["compute"], bill.to_json()["cache"], bill.to_json()["logs"]) == ("1.5", "10", "0")
    assert repr(bill) == "Bill(compute=$1.5, cache=$10)"
    assert bill == Bill({"compute": D("1.5"), "cache": D(10)})


@pytest.mark.parametrize(
    "bad", [D("NaN"), D("sNaN"), D("Infinity"), D(-1), D("1e15"), D("1e-37"), D("1." + "1" * 90), 0.5, 1, "1"]
)
def test_an_amount_that_is_not_exact_and_finite_is_refused(bad: Any) -> None:
    with pytest.raises(LedgerError):
        Bill({"compute": bad})


def test_unknown_items_and_bad_json_are_refused() -> None:
    with pytest.raises(LedgerError, match="'tax'"):
        Bill({"tax": D(1)})
    bads: list[Any] = [None, [], {"compute": 1.0}, {"compute": "abc"}, {"compute": "NaN"}, {"tax": "1"}]
    for bad in bads:
        with pytest.raises(LedgerError):
            Bill.from_json(bad)
    with pytest.raises(TypeError):
        _ = Bill() + 1  # type: ignore[operator]


@given(amounts)
def test_the_text_of_an_amount_is_exact(usd: Decimal) -> None:
    assert D(usd_text(usd)) == usd == check_usd(usd, "x")
    assert "E" not in usd_text(usd)


def test_counts_accept_numpy_integers_and_nothing_that_is_not_whole() -> None:
    assert check_count(np.int64(3), "n") == 3  # type: ignore[arg-type]
    for bad in (-1, 1.0, True, "1", 10**19):
        with pytest.raises(LedgerError, match="whole number"):
            check_count(bad, "n")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "usd"),
    [("2", "2"), ("2.00", "2"), ("$2.00", "2"), (" 0.5 ", "0.5"), (".25", "0.25"), ("3.", "3"), ("007", "7"),
     ("0.000001", "0.000001"), ("999999999.999999", "999999999.999999")],
)  # fmt: skip
def test_budgets_are_read_exactly(text: str, usd: str) -> None:
    assert parse_budget(text) == D(usd)


@pytest.mark.parametrize(
    "text",
    ["0", "0.00", "$0", "-2", "+2", "nan", "NaN", "inf", "-inf", "Infinity", "abc", "", " ", "$", ".", "1e3",
     "1e-9", "1,000", "2.0.0", "2\n3", "$$2", "0.0000001", "1000000000", "9" * 5000, "1" + "0" * 40, "\u0662",
     "2 USD", "0x2", "1_000"],
)  # fmt: skip
def test_what_is_not_a_positive_amount_of_dollars_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BudgetError) as caught:
        parse_budget(text)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 200
    assert "such as 2, 2.50 or $2.50" in message
