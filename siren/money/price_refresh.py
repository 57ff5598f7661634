"""Reads current prices from the AWS Price List service through a boto3 `pricing` client.

The queries and what their answers look like: `pricing` in botocore 1.44.5, AWS's bulk files of
2026-09. Each item of `PriceList` is a JSON string; prices are decimal strings in
terms.OnDemand.*.priceDimensions.*.
What AWS does not list under a key of the snapshot (rules, logs, EC2) is left as it is.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

from siren.errors import PlatformError
from siren.money.price_book import RULE_PREFIXES, PriceBook, PriceEntry, PriceTier

logger = logging.getLogger(__name__)

PRICING_REGION = "us-east-1"
"""The service answers in us-east-1, eu-central-1 and ap-south-1 only (botocore endpoints, 2026-11)."""
BASE_REGION = "us-east-1"
PAGE_SIZE = 100


class PricingClient(Protocol):
    """The part of boto3's `pricing` client that a refresh needs."""

    def get_products(self, **request: Any) -> Mapping[str, Any]:
        """One page of products."""
        ...


@dataclass(frozen=True)
class Query:
    """How to find one price of the snapshot in AWS's list.

    Attributes:
        key: The snapshot's key; "{tier}" stands for the number of a tier, "{node}" for a node type.
        service: AWS service code.
        filters: Field and value; `regionCode` is added.
        usagetype: Regular expression of the usage type without its region prefix.
        unit: Unit of the price, as in the snapshot.
    """

    key: str
    service: str
    filters: tuple[tuple[str, str], ...]
    usagetype: str
    unit: str


def _lambda(key: str, group: str, usagetype: str, unit: str = "USD/GB-s") -> Query:
    filters = (("productFamily", "Serverless"), ("group", group))
    return Query(f"lambda.{key}", "AWSLambda", filters, usagetype, unit)


QUERIES = (
    _lambda("duration.x86.tier{tier}.usd_per_gb_s", "AWS-Lambda-Duration", "Lambda-GB-Second"),
    _lambda("duration.arm64.tier{tier}.usd_per_gb_s", "AWS-Lambda-Duration-ARM", "Lambda-GB-Second-ARM"),
    _lambda("request.usd", "AWS-Lambda-Requests", "Request", "USD/request"),
    _lambda("ephemeral.usd_per_gb_s", "AWS-Lambda-Storage-Duration", "Lambda-Storage-GB-Second"),
    Query("s3.put.usd", "AmazonS3", (("group", "S3-API-Tier1"),), "Requests-Tier1", "USD/request"),
    Query("s3.get.usd", "AmazonS3", (("group", "S3-API-Tier2"),), "Requests-Tier2", "USD/request"),
    Query(
        "s3.storage.tier{tier}.usd_per_gb_month",
        "AmazonS3",
        (("productFamily", "Storage"), ("volumeType", "Standard")),
        "TimedStorage-ByteHrs",
        "USD/GB-month",
    ),
    Query(
        "elasticache.redis.{node}.usd_per_h",
        "AmazonElastiCache",
        (("cacheEngine", "Redis"),),
        r"NodeUsage:(?P<node>cache\.\w+\.\w+)",
        "USD/h",
    ),
)


def refresh_entries(client: PricingClient, book: PriceBook, region: str) -> list[PriceEntry]:
    """Current entries of `region`: what AWS lists now, and the rules that hold in every region.

    Args:
        client: boto3's `pricing` client (or a stub of it).
        book: The snapshot to compare with; it says which cache nodes are of interest.
        region: AWS region to read.

    Raises:
        PlatformError: An answer has no price, or two, for something that the snapshot needs.
    """
    base = book.entries(BASE_REGION)
    entries = []
    if region not in book.regions:
        entries += [entry for key, entry in base.items() if key.startswith(RULE_PREFIXES)]
    nodes = book.cache_nodes(BASE_REGION)
    for query in QUERIES:
        found = _read_query(client, query, region, nodes)
        if not found:
            raise PlatformError(
                f"the AWS price list has no {query.key} for {region}: check the region's name; "
                "the shipped snapshot still works"
            )
        entries += found
    return entries


def _read_query(client: PricingClient, query: Query, region: str, nodes: Sequence[str]) -> list[PriceEntry]:
    """The entries that answer one query, from the products whose usage type matches in full."""
    # us-east-1 has no prefix, others have one such as USE2- or EUW2-.
    pattern = re.compile(rf"(?:[A-Z]{{2,4}}[0-9]?-)?{query.usagetype}")
    entries: dict[str, PriceEntry] = {}
    for product in _products(client, query, region):
        try:
            attributes = product["product"]["attributes"]
            match = pattern.fullmatch(attributes["usagetype"])
            if match is None or attributes["usagetype"].startswith("Global-"):
                continue
            node = match.groupdict().get("node", "")
            if node and node not in nodes:
                continue
            as_of = str(product["publicationDate"])[:10]
            tiers = read_tiers(product)
        except (KeyError, TypeError, AttributeError, ValueError, InvalidOperation) as error:
            raise PlatformError(
                f"the AWS price list answered in an unknown format for {query.key} "
                f"({type(error).__name__}: {error}); use the shipped snapshot and report it"
            ) from error
        for entry in _entries(query, node, tiers, as_of):
            if entry.key in entries and entries[entry.key].value != entry.value:
                raise PlatformError(
                    f"the AWS price list has two prices for {entry.key} in {region}: "
                    f"{entries[entry.key].value} and {entry.value}; use the shipped snapshot and report it"
                )
            entries[entry.key] = entry
    return list(entries.values())


def _entries(query: Query, node: str, tiers: Sequence[PriceTier], as_of: str) -> Iterator[PriceEntry]:
    tiered = "{tier}" in query.key
    if not tiered and len(tiers) != 1:
        raise PlatformError(
            f"the AWS price list has {len(tiers)} tiers for {query.key}: use the shipped snapshot"
        )
    for number, tier in enumerate(tiers, start=1):
        yield PriceEntry(
            key=query.key.format(tier=number, node=node),
            value=tier.usd,
            unit=query.unit,
            source=f"AWS Price List {query.service}",
            as_of=as_of,
            confidence="H",
            tier_from=tier.start if tiered else None,
            tier_to=tier.end if tiered else None,
        )


def read_tiers(product: Mapping[str, Any]) -> list[PriceTier]:
    """The on-demand tiers of a product, sorted by where they begin.

    A term may carry a second dimension of price zero for the same range ("reserved instance
    applied"); it is left out where a dimension with a price covers the range.

    Args:
        product: A decoded item of `PriceList`.

    Raises:
        KeyError: The item has another structure.
        ValueError: No on-demand price in dollars, a price that is not finite and >= 0, or two
            prices for a range.
    """
    tiers: dict[Decimal, PriceTier] = {}
    for term in product["terms"]["OnDemand"].values():
        for dimension in term["priceDimensions"].values():
            usd, start = Decimal(dimension["pricePerUnit"]["USD"]), Decimal(dimension["beginRange"])
            end = None if dimension["endRange"] == "Inf" else Decimal(dimension["endRange"])
            if not usd.is_finite() or usd < 0 or not start.is_finite() or start < 0:
                raise ValueError(f"a price of {usd} dollars from {start}")
            tier = PriceTier(start, end, usd)
            other = tiers.get(start, tier)
            if usd and other.usd and other != tier:
                raise ValueError(f"two prices from {start}: {other.usd} and {usd}")
            tiers[start] = tier if usd else other
    if not tiers:
        raise ValueError("no on-demand price")
    return [tiers[start] for start in sorted(tiers)]


def _products(client: PricingClient, query: Query, region: str) -> Iterator[Mapping[str, Any]]:
    """Every product that matches the filters, over all pages."""
    fields = (("regionCode", region), *query.filters)
    request: dict[str, Any] = {
        "ServiceCode": query.service,
        "Filters": [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in fields],
        "FormatVersion": "aws_v1",
        "MaxResults": PAGE_SIZE,
    }
    while True:
        page = client.get_products(**request)
        for item in page.get("PriceList", []):
            try:
                product = json.loads(item)
            except (ValueError, TypeError) as error:
                raise PlatformError(
                    f"the AWS price list sent an item for {query.key} that is not JSON; try again later"
                ) from error
            yield product
        token = page.get("NextToken")
        if not token:
            return
        request["NextToken"] = token
