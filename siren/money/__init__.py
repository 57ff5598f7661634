"""Prices, bills and the ledger: every dollar that Siren reserves or spends."""

from __future__ import annotations

from siren.money.amounts import parse_budget
from siren.money.bill import ITEMS, Bill
from siren.money.ledger import Ledger, Reservation
from siren.money.price_book import PriceBook, PriceEntry, PriceTier, load_price_book
from siren.money.pricer import EpochBounds, Pricer, RunTotals

__all__ = [
    "ITEMS",
    "Bill",
    "EpochBounds",
    "Ledger",
    "PriceBook",
    "PriceEntry",
    "PriceTier",
    "Pricer",
    "Reservation",
    "RunTotals",
    "load_price_book",
    "parse_budget",
]
