"""What an epoch is billed, and that it is never more than its worst case."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siren.errors import LedgerError, PriceError
from siren.money import Bill, EpochBounds, PriceBook, Pricer, RunTotals, load_price_book
from siren.money.amounts import exact
from siren.types import Usage

D = Decimal
BOOK = load_price_book()


def pricer(**changes: Any) -> Pricer:
    return Pricer(BOOK, **{"region": "us-east-1", "architecture": "x86", **changes})


def price(usage: Usage, previous: RunTotals | None = None, **changes: Any) -> Bill:
    return pricer(**changes).price_epoch(usage, previous=previous or RunTotals())


def test_an_epoch_is_billed_item_by_item() -> None:
    usage = Usage(
        memory_mb=1024,
        billed_ms=100_000,
        requests=11,
        ephemeral_mb=1536,
        evaluator_billed_ms=4_000,
        evaluator_memory_mb=2048,
        s3_puts=1000,
        s3_gets=10_000,
        s3_gb_s=28 * 86400.0,
        log_bytes=1 << 29,
        cache_s=3600.5,
    )
    assert price(usage, cache_node="cache.t4g.small") == Bill(
        {
            "compute": D("0.00166667"),
            "requests": D("0.0000022"),
            "ephemeral_storage": D("104") * D("0.0000000309"),
            "evaluation": D("8") * D("0.0000166667"),
            "s3_requests": D("0.009"),
            "s3_storage": D("0.023"),
            "cache": D("0.064"),
            "logs": D("0.25"),
        }
    )


def test_arm_is_cheaper_and_both_names_of_x86_are_the_same() -> None:
    usage = Usage(memory_mb=1024, billed_ms=1000, requests=0)
    assert price(usage, architecture="arm64").total == D("0.0000133334")
    assert price(usage, architecture="x86_64") == price(usage)


def test_tiers_follow_what_the_run_and_the_month_already_used() -> None:
    usage = Usage(
        memory_mb=1024, billed_ms=2000, requests=0, evaluator_memory_mb=1024, evaluator_billed_ms=1000
    )
    six = D(6) * 10**9
    assert price(usage, RunTotals(gb_s=six - 1))["compute"] == D("0.0000166667") + D("0.000015")
    assert price(usage, RunTotals(gb_s=six - 1))["evaluation"] == D("0.000015")
    assert price(usage, RunTotals(gb_s=six - 3)) == price(usage)
    assert price(usage, RunTotals(gb_s=six / 2), month_gb_s_used=six / 2)["compute"] == 2 * D("0.000015")


def test_a_started_cache_hour_is_billed_once() -> None:
    node = "cache.t3.micro"
    usages = [
        Usage(memory_mb=0, billed_ms=0, requests=0, cache_s=s) for s in (1.0, 3599.0, 3601.0, 3602.0, 90_00.0)
    ]
    totals, bills = RunTotals(), []
    for usage in usages:
        bills.append(price(usage, totals, cache_node=node)["cache"])
        totals = totals.after(usage)
    assert [usd / D("0.017") for usd in bills] == [1, 0, 1, 0, 1]
    assert totals.cache_hours == 3
    assert totals.after(Usage(memory_mb=0, billed_ms=0, requests=0)).cache_hours == 3


def test_totals_add_training_and_evaluation_and_survive_json() -> None:
    usage = Usage(
        memory_mb=1769, billed_ms=12_345, requests=1, evaluator_memory_mb=3008, evaluator_billed_ms=77
    )
    totals = RunTotals(D("0.5"), 2).after(usage)
    assert totals.gb_s == D("0.5") + (D(1769) * 12_345 + D(3008) * 77) / 1_024_000
    assert RunTotals.from_json(json.loads(json.dumps(totals.to_json()))) == totals
    bads: list[dict[str, Any]] = [
        {},
        {"gb_s": "x", "cache_hours": 0},
        {"gb_s": "1", "cache_hours": -1},
        {"gb_s": "NaN", "cache_hours": 0},
        {"gb_s": None, "cache_hours": 0},
    ]
    for bad in bads:
        with pytest.raises(LedgerError):
            RunTotals.from_json(bad)


@pytest.mark.parametrize(
    "change",
    [
        {"region": "eu-west-1"},
        {"architecture": "x86-64"},
        {"cache_node": "cache.t9.small"},
    ],
)
def test_what_has_no_price_is_refused_before_anything_runs(change: dict[str, Any]) -> None:
    with pytest.raises(PriceError):
        pricer(**change)


def test_a_region_without_a_price_for_logs_is_refused_before_anything_runs() -> None:
    entries = {key: e for key, e in BOOK.entries("us-east-1").items() if not key.startswith("cwlogs")}
    with pytest.raises(PriceError, match="cwlogs"):
        Pricer(PriceBook("2026", {"us-east-1": entries}), region="us-east-1", architecture="x86")


@pytest.mark.parametrize(
    "change", [{"granularity_ms": 0}, {"month_gb_s_used": D("NaN")}, {"month_gb_s_used": D(-1)}]
)
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LedgerError):
        pricer(**change)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"memory_mb": 127}, PriceError),
        ({"memory_mb": 10241}, PriceError),
        ({"evaluator_billed_ms": 1}, PriceError),
        ({"ephemeral_mb": 10241}, PriceError),
        ({"ephemeral_mb": 0}, PriceError),
        ({"cache_s": 1.0}, PriceError),
        ({"billed_ms": -1}, LedgerError),
        ({"billed_ms": 1.5}, LedgerError),
        ({"requests": -1}, LedgerError),
        ({"s3_puts": -1}, LedgerError),
        ({"s3_gets": -1}, LedgerError),
        ({"s3_gb_s": float("nan")}, LedgerError),
        ({"s3_gb_s": -0.1}, LedgerError),
        ({"log_bytes": -1}, LedgerError),
        ({"cache_s": float("inf")}, LedgerError),
    ],
)
def test_impossible_usage_is_refused(change: dict[str, Any], error: type[Exception]) -> None:
    usage = dataclasses.replace(Usage(memory_mb=1024, billed_ms=1, requests=1), **change)
    with pytest.raises(error):
        price(usage)


def test_a_worlds_own_memory_range_is_kept() -> None:
    usage = Usage(memory_mb=4096, billed_ms=1, requests=1)
    with pytest.raises(PriceError, match="128 to 3008"):
        price(usage, memory_range_mb=(128, 3008))


def test_the_worst_case_is_every_function_at_its_timeout() -> None:
    bounds = EpochBounds(functions=10, memory_mb=1024, timeout_s=60, max_init_s=10, retries=2)
    usage = pricer().worst_usage(bounds)
    assert (usage.billed_ms, usage.requests) == (10 * 70_000, 30)
    assert pricer().worst_case(bounds, previous=RunTotals()) == 700 * D("0.0000166667") + 30 * D("0.0000002")
    assert pricer(init_billed=False).worst_usage(bounds).billed_ms == 10 * 60_000
    rerun = dataclasses.replace(
        bounds, reruns=1, evaluations=1, evaluator_memory_mb=512, evaluator_timeout_s=20
    )
    usage = pricer().worst_usage(rerun)
    assert (usage.billed_ms, usage.evaluator_billed_ms, usage.requests) == (1_400_000, 60_000, 44)


def test_the_worst_case_takes_the_dearest_price_that_can_still_apply() -> None:
    bounds = EpochBounds(functions=1000, memory_mb=10240, timeout_s=900, max_init_s=0)
    first, last = (pricer().worst_bill(bounds, previous=RunTotals(D(used))) for used in (0, 15_000_000_000))
    assert first["compute"] == 9_000_000 * D("0.0000166667")
    assert last["compute"] == 9_000_000 * D("0.0000133334")
    assert pricer().worst_bill(bounds, previous=RunTotals(D(5_999_999_999)))["compute"] == first["compute"]


def test_a_cache_hour_that_is_paid_is_not_in_the_worst_case() -> None:
    bounds = EpochBounds(functions=0, memory_mb=128, timeout_s=1, max_init_s=0, cache_until_s=7201)
    with_cache = pricer(cache_node="cache.t3.small")
    assert with_cache.worst_case(bounds, previous=RunTotals(cache_hours=2)) == D("0.034")
    assert with_cache.worst_case(bounds, previous=RunTotals(cache_hours=3)) == 0
    with pytest.raises(PriceError, match="cache_node"):
        pricer().worst_case(bounds, previous=RunTotals())


@pytest.mark.parametrize(
    "change",
    [{"timeout_s": float("nan")}, {"max_init_s": -1.0}, {"functions": -1}, {"reruns": -1}, {"spares": -1}],
)
def test_impossible_bounds_are_refused(change: dict[str, Any]) -> None:
    bounds = EpochBounds(functions=1, memory_mb=128, timeout_s=1, max_init_s=1)
    with pytest.raises(LedgerError):
        pricer().worst_case(dataclasses.replace(bounds, **change), previous=RunTotals())


memory = st.integers(128, 10240)
seconds = st.floats(0, 900) | st.integers(0, 900)


@st.composite
def bounds_and_usage(draw: st.DrawFn) -> tuple[Pricer, EpochBounds, Usage, RunTotals]:
    """A pricer, bounds of an epoch, what it used within them, and what the run used before."""
    of = pricer(
        architecture=draw(st.sampled_from(["x86", "arm64"])),
        granularity_ms=draw(st.sampled_from([1, 100])),
        init_billed=draw(st.booleans()),
        cache_node="cache.r6g.large",
        month_gb_s_used=draw(st.decimals(0, 2 * 10**10, places=3)),
    )
    evaluations = draw(st.integers(0, 1))
    bounds = EpochBounds(
        functions=draw(st.integers(1, 1000)),
        memory_mb=draw(memory),
        timeout_s=draw(seconds),
        max_init_s=draw(st.floats(0, 10)),
        retries=draw(st.integers(0, 3)),
        reruns=draw(st.integers(0, 3)),
        spares=draw(st.integers(0, 3)),
        ephemeral_mb=draw(st.integers(512, 10240)),
        s3_puts=draw(st.integers(0, 10**6)),
        s3_gets=draw(st.integers(0, 10**6)),
        s3_gb_s=draw(st.floats(0, 1e9)),
        log_bytes=draw(st.integers(0, 10**12)),
        cache_until_s=draw(st.floats(0, 1e5)),
        evaluations=evaluations,
        evaluator_memory_mb=draw(memory) if evaluations else 0,
        evaluator_timeout_s=draw(seconds),
    )
    worst = of.worst_usage(bounds)

    def within(limit: int) -> int:
        return draw(st.integers(0, limit) | st.just(limit))

    usage = dataclasses.replace(
        worst,
        billed_ms=within(worst.billed_ms),
        requests=within(worst.requests),
        evaluator_billed_ms=within(worst.evaluator_billed_ms),
        s3_puts=within(worst.s3_puts),
        s3_gets=within(worst.s3_gets),
        s3_gb_s=draw(st.floats(0, bounds.s3_gb_s)),
        log_bytes=within(worst.log_bytes),
        ephemeral_mb=draw(st.integers(512, worst.ephemeral_mb)),
        cache_s=draw(st.floats(0, bounds.cache_until_s)),
    )
    previous = RunTotals(draw(st.decimals(0, 2 * 10**10, places=3)), draw(st.integers(0, 30)))
    return of, bounds, usage, previous


@given(bounds_and_usage())
@settings(max_examples=500, deadline=None)
def test_no_epoch_within_its_bounds_is_billed_more_than_its_worst_case(
    case: tuple[Pricer, EpochBounds, Usage, RunTotals],
) -> None:
    of, bounds, usage, previous = case
    bill, worst = of.price_epoch(usage, previous=previous), of.worst_bill(bounds, previous=previous)
    assert all(bill[item] <= worst[item] for item in bill)
    assert bill.total <= of.worst_case(bounds, previous=previous) == worst.total


@given(bounds_and_usage())
@settings(max_examples=100, deadline=None)
def test_an_epoch_in_two_parts_is_billed_like_one(case: tuple[Pricer, EpochBounds, Usage, RunTotals]) -> None:
    of, _, usage, previous = case
    whole = dataclasses.replace(usage, s3_gb_s=0.0, log_bytes=0, evaluator_billed_ms=0)
    first = dataclasses.replace(whole, billed_ms=whole.billed_ms // 3, cache_s=whole.cache_s / 3, requests=0)
    second = dataclasses.replace(whole, billed_ms=whole.billed_ms - first.billed_ms, s3_puts=0, s3_gets=0)
    parts = of.price_epoch(first, previous=previous) + of.price_epoch(second, previous=previous.after(first))
    assert parts == of.price_epoch(whole, previous=previous)
    with exact():
        assert previous.after(first).after(second) == previous.after(whole)
