"""The shipped price snapshot and its look-ups."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from siren.errors import PriceError, RunFolderError
from siren.money import PriceBook, load_price_book
from siren.money.price_book import SHIPPED_BOOK, check_memory_mb

BOOK = load_price_book()
R = "us-east-1"


def test_the_shipped_snapshot_has_prices_with_source_and_date() -> None:
    entries = BOOK.entries(R)
    assert len(entries) == 113
    assert BOOK.compiled == "2026-11-22"
    assert all(entry.source and entry.as_of[:2] == "20" and entry.unit for entry in entries.values())
    assert all(isinstance(entry.value, Decimal) for entry in entries.values())


def test_known_prices_are_exact() -> None:
    assert BOOK.value(R, "lambda.request.usd") == Decimal("0.0000002")
    assert [tier.usd for tier in BOOK.duration_tiers(R, "arm64")] == [
        Decimal("0.0000133334"),
        Decimal("0.0000120001"),
        Decimal("0.0000106667"),
    ]
    assert [tier.end for tier in BOOK.duration_tiers(R, "x86_64")] == [6_000_000_000, 15_000_000_000, None]
    assert [tier.start for tier in BOOK.tiers(R, "s3.storage")] == [0, 51200, 512000]
    assert BOOK.cache_node_usd_per_h(R, "cache.t4g.small") == Decimal("0.032")
    assert BOOK.instance_usd_per_h(R, "c5.large") == Decimal("0.085")
    assert "cache.m5.large" in BOOK.cache_nodes(R)
    assert BOOK.memory_range_mb(R) == (128, 10240)


def test_what_has_no_price_is_refused_and_the_message_names_what_is_accepted() -> None:
    with pytest.raises(PriceError, match="us-east-1"):
        BOOK.entries("eu-west-1")
    with pytest.raises(PriceError, match="arm64, x86"):
        BOOK.duration_tiers(R, "riscv")
    with pytest.raises(PriceError, match=r"cache\.t4g\.small"):
        BOOK.cache_node_usd_per_h(R, "cache.t9.small")
    with pytest.raises(PriceError, match=r"c5\.large"):
        BOOK.instance_usd_per_h(R, "p5.48xlarge")
    with pytest.raises(PriceError, match=r"did you mean 'lambda\.request\.usd'"):
        BOOK.value(R, "lambda.requests.usd")
    with pytest.raises(PriceError, match=r"siren\.prices"):
        BOOK.value(R, "zzz")
    with pytest.raises(PriceError, match="tiered"):
        BOOK.tiers(R, "zzz")
    with pytest.raises(PriceError, match="whole"):
        BOOK.count(R, "lambda.request.usd")


@pytest.mark.parametrize("bad", [127, 10241, 0, -1, 128.0, "128", True, None])
def test_memory_outside_the_range_is_refused(bad: Any) -> None:
    with pytest.raises(PriceError, match="128 to 10240"):
        check_memory_mb(bad)


def test_memory_within_the_range_is_accepted() -> None:
    assert [check_memory_mb(mb) for mb in (128, 1769, 10240)] == [128, 1769, 10240]
    with pytest.raises(PriceError, match="128 to 3008"):
        check_memory_mb(3009, (128, 3008))


def test_a_written_snapshot_reads_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(BOOK.to_json()))
    assert load_price_book(path) == BOOK


def test_new_entries_leave_the_old_book_and_other_regions_alone() -> None:
    entry = BOOK.entry(R, "s3.put.usd")
    book = BOOK.with_entries("eu-west-1", [entry], "2027-01-01")
    assert set(book.entries("eu-west-1")) == {"s3.put.usd"}
    assert book.entries(R) == BOOK.entries(R)
    assert "eu-west-1" not in BOOK.regions


def broken(change: str) -> str:
    data = json.loads(SHIPPED_BOOK.read_text())
    rows = data["regions"][R]
    match change:
        case "float":
            rows[0]["value"] = 0.1
        case "negative":
            rows[0]["value"] = "-1"
        case "nan":
            rows[0]["value"] = "NaN"
        case "text":
            rows[0]["value"] = "abc"
        case "twice":
            rows.append(rows[0])
        case "missing":
            del rows[0]["unit"]
        case "confidence":
            rows[0]["confidence"] = "X"
        case "control":
            rows[0]["note"] = "\x1b[31m"
        case "format":
            data["format"] = 2
        case "list":
            data = []
    return json.dumps(data)


@pytest.mark.parametrize(
    "change",
    ["float", "negative", "nan", "text", "twice", "missing", "confidence", "control", "format", "list"],
)
def test_a_snapshot_that_breaks_its_schema_is_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(broken(change))
    with pytest.raises(PriceError, match="schema"):
        load_price_book(path)


def test_a_snapshot_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="check the path"):
        load_price_book(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(PriceError, match="not JSON"):
        load_price_book(tmp_path / "text.json")


def test_tiers_with_a_gap_are_refused() -> None:
    entries = dict(BOOK.entries(R))
    del entries["lambda.duration.x86.tier2.usd_per_gb_s"]
    with pytest.raises(PriceError, match="gap"):
        PriceBook("2026", {R: entries}).duration_tiers(R, "x86")
