"""The billed milliseconds and the dollars of each kind of usage, against AWS's own numbers."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.errors import LedgerError
from siren.money import billing, load_price_book
from siren.money.billing import billed_ms, billed_ms_array

D = Decimal
BOOK = load_price_book()
REGION = "us-east-1"
X86 = BOOK.duration_tiers(REGION, "x86")
FREE_GB_S = BOOK.value(REGION, "lambda.free_tier.gb_s")
FREE_REQUESTS = BOOK.value(REGION, "lambda.free_tier.requests")

times_ms = st.one_of(
    st.floats(0, 1e6, allow_subnormal=True),
    st.integers(0, 10**6).map(float),
    st.integers(0, 10**9).map(lambda us: us / 1000),
    st.integers(0, 10**8).map(lambda n: n / 100),
)


def cents(usd: Decimal) -> Decimal:
    return usd.quantize(D("0.01"), ROUND_HALF_UP)


def price(key: str) -> Decimal:
    return BOOK.value(REGION, key)


def requests_usd(requests: int, *, free: bool) -> Decimal:
    billed = billing.net_of_free(D(requests), FREE_REQUESTS) if free else D(requests)
    return billing.times(billed, price("lambda.request.usd"))


# --- billed milliseconds ---


@pytest.mark.parametrize(
    ("duration_ms", "init_ms", "expected"),
    [  # REPORT lines of 2026-10-08, 2026-03 (2) and 2021-10
        (3923.569, 145.399, 4069),
        (2.32, 565.67, 568),
        (86.19, 2156.57, 2243),
        (6.05, 2630.22, 2637),
    ],
)
def test_there_is_one_ceiling_over_the_sum_of_init_and_duration(
    duration_ms: float, init_ms: float, expected: int
) -> None:
    assert billed_ms(duration_ms, init_ms) == expected
    assert billed_ms_array([duration_ms], [init_ms]).tolist() == [expected]
    assert math.ceil(duration_ms) + math.ceil(init_ms) == expected + 1


@pytest.mark.parametrize(
    ("duration_ms", "init_ms", "granularity_ms", "expected"),
    [
        (0.1, 0.2, 1, 1),
        (0.7, 0.1, 1, 1),
        (1.1, 2.2, 1, 4),
        (4.35, 0.65, 1, 5),
        (2.675, 0.325, 1, 3),
        (1.005, 0.995, 1, 2),
        (8.41, 91.59, 100, 100),
        (0.0, 0.0, 1, 0),
        (100.0, 0.0, 100, 100),
        (100.01, 0.0, 100, 200),
        (1e-300, 3.0, 1, 4),
    ],
)
def test_binary_rounding_never_adds_or_hides_a_millisecond(
    duration_ms: float, init_ms: float, granularity_ms: int, expected: int
) -> None:
    assert billed_ms(duration_ms, init_ms, granularity_ms) == expected
    assert billed_ms_array(duration_ms, init_ms, granularity_ms) == expected


def test_some_sums_are_wrong_in_floats_and_right_here() -> None:
    pairs = [(a / 1000, b / 1000) for a in range(1, 60) for b in range(1, 60)]
    exact = [math.ceil(Fraction(str(a)) + Fraction(str(b))) for a, b in pairs]
    assert [billed_ms(a, b) for a, b in pairs] == exact
    a, b = 0.07 * 100, 92.93  # 7.000000000000001: the float is what was measured, so it counts
    assert billed_ms(a, b) == 100
    assert billed_ms(1.1, 2.9) == 4
    assert billed_ms(1.4, 1.6000000000000001) == 3
    assert billed_ms(4069.1, 0.9) == 4070


def test_init_is_free_in_worlds_before_august_2025() -> None:
    assert billed_ms(120.5, 900.0, 100, init_billed=False) == 200
    assert billed_ms_array([120.5], [900.5], 100, init_billed=False).tolist() == [200]


@given(times_ms, times_ms, st.sampled_from([1, 100]), st.booleans())
def test_the_billed_time_is_the_smallest_multiple_that_covers_the_decimal_sum(
    duration_ms: float, init_ms: float, granularity_ms: int, init_billed: bool
) -> None:
    total = Fraction(repr(duration_ms)) + (Fraction(repr(init_ms)) if init_billed else 0)
    billed = billed_ms(duration_ms, init_ms, granularity_ms, init_billed)
    assert billed % granularity_ms == 0
    assert total <= billed < total + granularity_ms


@given(
    st.lists(st.tuples(times_ms, times_ms), min_size=1, max_size=30),
    st.sampled_from([1, 7, 100]),
    st.booleans(),
)
def test_the_vectorised_time_equals_the_exact_one(
    pairs: list[tuple[float, float]], granularity_ms: int, init_billed: bool
) -> None:
    duration, init = (np.array(column) for column in zip(*pairs, strict=True))
    expected = [billed_ms(d, i, granularity_ms, init_billed) for d, i in pairs]
    assert billed_ms_array(duration, init, granularity_ms, init_billed).tolist() == expected


def test_the_vectorised_time_equals_the_exact_one_next_to_every_multiple() -> None:
    whole = np.repeat(np.arange(1.0, 400.0), 5)
    init = np.tile([0.1, 0.3, 0.37, 0.999, 0.0], 399)
    for duration in (whole - init, np.nextafter(whole - init, 0), np.nextafter(whole - init, 1e9)):
        expected = [billed_ms(float(d), float(i)) for d, i in zip(duration, init, strict=True)]
        assert billed_ms_array(duration, init).tolist() == expected


def test_a_sum_that_floats_round_onto_a_whole_number_is_billed_exactly() -> None:
    assert 2.0000000000000004 + 3.0 == 5.0
    assert billed_ms(2.0000000000000004, 3.0) == 6
    assert billed_ms_array([2.0000000000000004, 99.99999999999999], [3.0, 1e-15]).tolist() == [6, 100]


def test_arrays_keep_their_shape_and_broadcast() -> None:
    assert billed_ms_array([[1.2], [2.0]], [0.5, 1.5]).tolist() == [[2, 3], [3, 4]]
    assert billed_ms_array(np.zeros((0,))).shape == (0,)
    assert billed_ms_array(1.5).shape == ()


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, -0.001])
def test_impossible_times_are_refused(bad: float) -> None:
    for call in (billed_ms, billed_ms_array):
        with pytest.raises(LedgerError, match="duration_ms"):
            call(bad)
        with pytest.raises(LedgerError, match="init_ms"):
            call(1.0, bad)


@pytest.mark.parametrize("bad", [D("NaN"), D("sNaN"), D("Infinity"), D("1e-99999"), 10**400, True, "1"])
def test_impossible_exact_times_are_refused(bad: object) -> None:
    with pytest.raises(LedgerError, match="duration_ms"):
        billed_ms(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_an_impossible_granularity_is_refused(bad: int) -> None:
    with pytest.raises(LedgerError, match="granularity_ms"):
        billed_ms(1.0, granularity_ms=bad)


# --- AWS's worked examples (AWS Lambda pricing page, 2026) ---


def test_page_example_of_three_million_requests() -> None:
    gb_s = billing.gb_seconds(1536, 3_000_000 * 120)
    billable = billing.net_of_free(gb_s, FREE_GB_S)
    compute, requests = billing.tiered_usd(billable, X86), requests_usd(3_000_000, free=True)
    assert billable == 140_000
    assert (cents(compute), cents(requests), cents(compute + requests)) == (D("2.33"), D("0.40"), D("2.73"))
    assert billing.ephemeral_gb_s(512, 3_000_000 * 120) == 0


def test_page_example_of_ephemeral_storage_counts_seconds_times_gb_above_512_mb() -> None:
    total_ms = 6_000_000 * 280
    compute = billing.tiered_usd(billing.net_of_free(billing.gb_seconds(4096, total_ms), FREE_GB_S), X86)
    requests = requests_usd(6_000_000, free=True)
    storage_gb_s = billing.ephemeral_gb_s(2048, total_ms)
    storage = billing.times(storage_gb_s, price("lambda.ephemeral.usd_per_gb_s"))
    assert storage_gb_s == 2_520_000
    assert [cents(x) for x in (compute, requests, storage)] == [D("105.33"), D("1.00"), D("0.08")]
    assert cents(compute + requests + storage) == D("106.41")


def test_page_example_of_provisioned_concurrency_with_overflow() -> None:
    kept = billing.times(billing.provisioned_gb_s(100, 1536, 8 * 3600), price("lambda.pc.x86.usd_per_gb_s"))
    on = billing.times(billing.gb_seconds(1536, 500_000 * 100), price("lambda.pc_duration.x86.usd_per_gb_s"))
    off = billing.tiered_usd(billing.net_of_free(billing.gb_seconds(1536, 2_500_000 * 120), FREE_GB_S), X86)
    requests = requests_usd(3_000_000, free=True)
    parts = [kept, on, off, requests]
    assert [cents(x) for x in parts] == [D("18.00"), D("0.73"), D("0.83"), D("0.40")]
    assert cents(sum(parts, start=D(0))) == D("19.96")


def test_page_example_of_provisioned_concurrency_all_day() -> None:
    kept = billing.times(billing.provisioned_gb_s(7, 4096, 24 * 3600), price("lambda.pc.x86.usd_per_gb_s"))
    on = billing.times(
        billing.gb_seconds(4096, 2_000_000 * 280), price("lambda.pc_duration.x86.usd_per_gb_s")
    )
    parts = [kept, on, requests_usd(2_000_000, free=False)]
    assert [cents(x) for x in parts] == [D("10.08"), D("21.78"), D("0.40")]
    assert cents(sum(parts, start=D(0))) == D("32.26")


def test_page_example_of_snapstart() -> None:
    prices = {
        "cache_usd_per_gb_s": price("lambda.snapstart.cache.usd_per_gb_s"),
        "restore_usd_per_gb": price("lambda.snapstart.restore.usd_per_gb"),
    }
    kept, restored = billing.snapstart_usd(1024, 31 * 86400, 74_400, **prices)
    assert (cents(kept), cents(restored)) == (D("4.03"), D("10.40"))
    assert billing.snapstart_usd(1024, 1, 0, **prices) == billing.snapstart_usd(1024, 10800, 0, **prices)


def test_page_example_of_streaming() -> None:
    streamed = billing.streamed_gb(1_000_000, 7)
    assert cents(streamed) == D("976.56")
    assert cents(billing.times(streamed, price("lambda.streaming.usd_per_gb"))) == D("7.81")
    assert billing.streamed_gb(10, 6) == 0
    with pytest.raises(LedgerError):
        billing.streamed_gb(10, -1)


# --- the other items ---


@pytest.mark.parametrize(
    ("event_bytes", "requests"),
    [(0, 1), (262_144, 1), (262_145, 2), (262_144 + 65_536, 2), (327_681, 3), (1 << 20, 13)],
)
def test_large_events_count_as_several_requests(event_bytes: int, requests: int) -> None:
    assert billing.async_requests(event_bytes) == requests


def test_constants_agree_with_the_price_book() -> None:
    assert BOOK.count(REGION, "lambda.ephemeral.free_mb") == billing.FREE_EPHEMERAL_MB
    assert BOOK.count(REGION, "lambda.async.request_first_bytes") == billing.ASYNC_FIRST_BYTES
    assert BOOK.count(REGION, "lambda.async.request_extra_chunk_bytes") == billing.ASYNC_CHUNK_BYTES
    assert BOOK.count(REGION, "lambda.pc.rounding_s") == billing.PROVISIONED_ROUNDING_S
    assert BOOK.count(REGION, "lambda.snapstart.cache.min_s") == billing.SNAPSTART_MIN_S
    assert BOOK.count(REGION, "lambda.streaming.free_mb_per_request") == billing.STREAM_FREE_MB
    assert BOOK.count(REGION, "lambda.billing.mb_per_gb") == 1024
    assert BOOK.count(REGION, "elasticache.node.rounding_s") == 3600


def test_each_tier_is_billed_at_its_own_price() -> None:
    billion = D(10) ** 9
    prices = [tier.usd for tier in X86]
    assert billing.tiered_usd(billion, X86) == billion * prices[0]
    assert billing.tiered_usd(2 * billion, X86, 5 * billion) == billion * (prices[0] + prices[1])
    assert billing.tiered_usd(20 * billion, X86) == billion * (6 * prices[0] + 9 * prices[1] + 5 * prices[2])
    assert billing.tiered_usd(billion, X86, 15 * billion) == billion * prices[2]
    assert billing.tiered_usd(D(0), X86, 6 * billion) == 0


@given(st.decimals(0, 10**11, places=5), st.decimals(0, 10**11, places=5), st.decimals(0, 10**11, places=5))
def test_a_bill_split_in_two_adds_up_across_tiers(a: Decimal, b: Decimal, used: Decimal) -> None:
    split = billing.tiered_usd(a, X86, used) + billing.tiered_usd(b, X86, used + a)
    assert split == billing.tiered_usd(a + b, X86, used)
    assert billing.tiered_usd(a, X86, used) <= a * billing.highest_price(X86, used)


@pytest.mark.parametrize("bad", [D("-1"), D("NaN"), D("Infinity")])
def test_impossible_quantities_are_refused(bad: Decimal) -> None:
    with pytest.raises(LedgerError):
        billing.tiered_usd(bad, X86)
    with pytest.raises(LedgerError):
        billing.tiered_usd(D(1), X86, bad)
    with pytest.raises(LedgerError):
        billing.gb_seconds(128, -1)


@pytest.mark.parametrize(
    ("until_s", "hours"), [(0, 0), (0.001, 1), (3600.0, 1), (3600.0000001, 2), (7200, 2)]
)
def test_cache_nodes_are_billed_by_started_hour(until_s: float, hours: int) -> None:
    assert billing.cache_hours(until_s) == hours


def test_storage_is_rounded_up_to_the_attodollar() -> None:
    assert billing.storage_usd(28 * 86400, D("0.023")) == D("0.023")
    third = billing.storage_usd(1.0, D("0.023"))
    assert third >= D("0.023") / 2_419_200 > third - D("1e-18")
    assert billing.storage_usd(1e-300, D("0.023")) == D("1e-18")
    assert billing.storage_usd(0.0, D("0.023")) == 0


def test_a_gigabyte_of_log_is_two_to_the_thirty_bytes() -> None:
    assert billing.traffic_usd(1 << 30, D("0.50")) == D("0.50")
    assert 0 < billing.traffic_usd(1, D("0.50")) < D("1e-9")
