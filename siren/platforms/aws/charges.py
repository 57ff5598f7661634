"""What each part of a deployment costs, from the price book: nothing here is a guess."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from siren.money.amounts import ceil_usd, exact, usd_text
from siren.money.price_book import PriceBook
from siren.platforms.aws.part import Settings
from siren.units import MB_PER_GB, SECONDS_PER_HOUR, counted

HOURS_PER_MONTH = 31 * 24
"""The longest month: a standing cost is not shown too low."""
CENTS = 2
FREE = "no charge"
"""IAM, VPCs, subnets, security groups and reserved concurrency (AWS pricing pages, 2026)."""


@dataclass(frozen=True)
class Charge:
    """One price of a part.

    Attributes:
        usd: Dollars a unit.
        unit: What they are for, e.g. "GB and month".
        standing: Whether it runs up by itself, without a run.
    """

    usd: Decimal
    unit: str
    standing: bool = False

    def __str__(self) -> str:
        return f"${usd_text(self.usd)} per {self.unit}"


def charges(
    book: PriceBook, region: str, architecture: str, settings: Settings, memory_mb: int
) -> dict[str, list[Charge]]:
    """Prices by kind of part; a part without an entry is free of charge.

    Args:
        book: The price book.
        region: AWS region.
        architecture: "x86" or "arm64".
        settings: The deployment's.
        memory_mb: Largest memory of a version, for the dearest hour.

    Raises:
        PriceError: A price is not known.
    """
    gb_s = book.duration_tiers(region, architecture)[0].usd
    busy = f"{counted(settings.concurrency, 'function')} of {memory_mb:,} MB"
    ceiling = Fraction(gb_s) * settings.concurrency * memory_mb / MB_PER_GB * SECONDS_PER_HOUR
    found = {
        "bucket": [
            Charge(book.tiers(region, "s3.storage")[0].usd, "GB and month"),
            Charge(book.value(region, "s3.put.usd"), "PUT or LIST"),
            Charge(book.value(region, "s3.get.usd"), "GET"),
            Charge(book.value(region, "transfer.internet_out.tier1.usd_per_gb"), "GB that leaves the region"),
        ],
        "log group": [
            Charge(book.value(region, "cwlogs.lambda.tier1.usd_per_gb"), "GB written"),
            Charge(book.value(region, "cwlogs.storage.usd_per_gb_month"), "GB and month"),
        ],
        "function": [
            Charge(gb_s, "GB-second"),
            Charge(book.value(region, "lambda.request.usd"), "request"),
            Charge(ceil_usd(ceiling, CENTS), f"hour in which {busy} run: the most there is"),
        ],
    }
    if settings.redis:
        found["network"] = [Charge(book.value(region, "vpc.gateway_endpoint.usd"), "S3 endpoint")]
        hour = book.cache_node_usd_per_h(region, settings.cache_node)
        with exact():
            month = hour * HOURS_PER_MONTH
        found["cache"] = [
            Charge(hour, "started hour, also when nothing runs", standing=True),
            Charge(month, "month of 31 days", standing=True),
        ]
    return found
