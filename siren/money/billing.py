"""What AWS charges for each kind of usage: pure functions from exact quantities to exact dollars.

Prices come from a `PriceBook`; nothing here knows a price. All results are exact, except stored
GB-months and log bytes: they do not divide evenly and are rounded up to 1e-18 dollars.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from siren.errors import LedgerError
from siren.money.amounts import ZERO, ceil_usd, check_count, exact, exact_quantity
from siren.money.billed_time import billed_ms, billed_ms_array
from siren.money.price_book import PriceTier
from siren.units import BYTES_PER_MB, MB_PER_GB, MS_PER_S, SECONDS_PER_HOUR, SECONDS_PER_MONTH

__all__ = [
    "async_requests",
    "billed_ms",
    "billed_ms_array",
    "cache_hours",
    "ephemeral_gb_s",
    "gb_seconds",
    "highest_price",
    "net_of_free",
    "provisioned_gb_s",
    "snapstart_usd",
    "storage_usd",
    "streamed_gb",
    "tiered_usd",
    "times",
    "traffic_usd",
]

FREE_EPHEMERAL_MB = 512
"""/tmp that every function has for nothing (AWS Lambda pricing page, 2026)."""
ASYNC_FIRST_BYTES = 256 * 1024
ASYNC_CHUNK_BYTES = 64 * 1024
"""An event is one request up to 256 KB, one more for each started 64 KB (AWS Lambda pricing page, 2026)."""
PROVISIONED_ROUNDING_S = 300
"""Provisioned concurrency is billed in started 5 minutes (AWS Lambda pricing page, 2026)."""
SNAPSTART_MIN_S = 10800
"""A published version's snapshot is billed for 3 hours at least (AWS Lambda pricing page, 2026)."""
STREAM_FREE_MB = 6
"""Streamed megabytes per request that cost nothing (AWS Lambda pricing page, 2026)."""
BYTES_PER_GB = BYTES_PER_MB * MB_PER_GB


def times(quantity: int | Decimal, usd: Decimal) -> Decimal:
    """`quantity` x dollars per unit, exactly."""
    with exact():
        return quantity * usd


def gb_seconds(memory_mb: int, billed_ms: int) -> Decimal:
    """GB-seconds of `billed_ms` milliseconds at `memory_mb` MB; GB = MB/1024 (Lambda pricing page, 2026)."""
    with exact():
        return (
            Decimal(check_count(memory_mb, "memory_mb"))
            * check_count(billed_ms, "billed_ms")
            / (MB_PER_GB * MS_PER_S)
        )


def ephemeral_gb_s(ephemeral_mb: int, billed_ms: int) -> Decimal:
    """GB-seconds of /tmp above the free 512 MB.

    Seconds times GB over 512 MB, whatever the memory size is: infracost multiplies by the GB-seconds
    of memory instead, which is right at 1,024 MB only (its commit 95ba4f4, 2026-08-21).

    Args:
        ephemeral_mb: Size of /tmp.
        billed_ms: Billed milliseconds, summed over invocations.
    """
    return gb_seconds(max(0, check_count(ephemeral_mb, "ephemeral_mb") - FREE_EPHEMERAL_MB), billed_ms)


def tiered_usd(quantity: Decimal, tiers: Sequence[PriceTier], used: Decimal = ZERO) -> Decimal:
    """Dollars for `quantity` more units in a month in which `used` units are already billed.

    Args:
        quantity: Units to bill, >= 0.
        tiers: From `PriceBook.tiers`: in order, no gaps, the last one open.
        used: Units that the account, region and architecture consumed before in this month.

    Raises:
        LedgerError: A quantity is negative or not finite.
    """
    for name, value in (("quantity", quantity), ("used", used)):
        exact_quantity(value, name)
    with exact():
        end, usd = used + quantity, ZERO
        for tier in tiers:
            top = end if tier.end is None else min(end, tier.end)
            usd += max(ZERO, top - max(used, tier.start)) * tier.usd
        return usd


def highest_price(tiers: Sequence[PriceTier], used: Decimal) -> Decimal:
    """The dearest dollars per unit that may apply from `used` units of the month on."""
    return max(tier.usd for tier in tiers if tier.end is None or tier.end > used)


def net_of_free(quantity: Decimal, free: Decimal) -> Decimal:
    """What is left to bill of a month's quantity after its free tier.

    The free tier (1e6 requests and 400,000 GB-s a month; price list of 2026-09-19) belongs to the
    account as a whole, so Siren's bills never take it off; this is for comparing with an invoice.
    """
    with exact():
        return max(ZERO, quantity - free)


def async_requests(event_bytes: int) -> int:
    """Requests that one asynchronous event is billed as: 1, and 1 for each started 64 KB above 256 KB.

    A 1 MB event is 13 requests (AWS Lambda pricing page, 2026).
    """
    over = max(0, check_count(event_bytes, "event_bytes") - ASYNC_FIRST_BYTES)
    return 1 + -(-over // ASYNC_CHUNK_BYTES)


def cache_hours(until_s: float | Decimal) -> int:
    """Started hours of a cache node that is needed for `until_s` seconds (Vantage CUR notes, 2026)."""
    return math.ceil(exact_quantity(until_s, "cache_s") / SECONDS_PER_HOUR)


def storage_usd(gb_s: float | Decimal, usd_per_gb_month: Decimal) -> Decimal:
    """Dollars for stored GB x seconds, rounded up to 1e-18 dollars.

    Args:
        gb_s: GB times the seconds they were stored.
        usd_per_gb_month: Price of a GB-month of `SECONDS_PER_MONTH`.
    """
    return ceil_usd(exact_quantity(gb_s, "stored GB-s") * Fraction(usd_per_gb_month) / SECONDS_PER_MONTH)


def traffic_usd(traffic_bytes: int, usd_per_gb: Decimal) -> Decimal:
    """Dollars for ingested or transferred bytes, rounded up to 1e-18 dollars; GB = 2**30 bytes."""
    return ceil_usd(check_count(traffic_bytes, "traffic_bytes") * Fraction(usd_per_gb) / BYTES_PER_GB)


def provisioned_gb_s(environments: int, memory_mb: int, configured_s: float | Decimal) -> Decimal:
    """GB-seconds of provisioned concurrency, each environment in started 5 minutes (pricing page, 2026)."""
    periods = math.ceil(exact_quantity(configured_s, "configured_s") / PROVISIONED_ROUNDING_S)
    return gb_seconds(memory_mb, environments * periods * PROVISIONED_ROUNDING_S * MS_PER_S)


def snapstart_usd(
    memory_mb: int, cached_s: int, restores: int, *, cache_usd_per_gb_s: Decimal, restore_usd_per_gb: Decimal
) -> tuple[Decimal, Decimal]:
    """Dollars for keeping one version's snapshot and for restoring it (Python 3.12+; price list, 2026-09-19).

    Args:
        memory_mb: Memory of the function.
        cached_s: Seconds that the version was published; 3 hours are billed at least.
        restores: How often it was restored.
        cache_usd_per_gb_s: Price "lambda.snapstart.cache.usd_per_gb_s".
        restore_usd_per_gb: Price "lambda.snapstart.restore.usd_per_gb".
    """
    cached = gb_seconds(memory_mb, max(cached_s, SNAPSTART_MIN_S) * MS_PER_S)
    restored_gb = gb_seconds(memory_mb, check_count(restores, "restores") * MS_PER_S)
    return times(cached, cache_usd_per_gb_s), times(restored_gb, restore_usd_per_gb)


def streamed_gb(responses: int, megabytes: int) -> Decimal:
    """Billed GB of `responses` streamed answers of `megabytes` MB each: 6 MB of each are free."""
    if megabytes < 0:
        raise LedgerError(f"a response of {megabytes} MB: give 0 or more")
    with exact():
        return Decimal(check_count(responses, "responses") * max(0, megabytes - STREAM_FREE_MB)) / MB_PER_GB
