"""The dated price snapshot that Siren ships, and typed look-ups in it that refuse what is unknown."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from siren.errors import PriceError, RunFolderError
from siren.money.amounts import ZERO, usd_text

SHIPPED_BOOK = Path(__file__).parent / "data" / "aws_prices.json"
"""113 prices, billing rules and memory limits, compiled on 2026-11-22; the file gives each one's source."""
FORMAT = 1
RULE_PREFIXES = ("lambda.async.", "lambda.billing.", "lambda.free_tier.", "lambda.limit.")
"""Entries that are AWS's rules and hold in every region."""
_ALIASES = {"x86": "x86", "x86_64": "x86", "arm64": "arm64"}
"""AWS's API says x86_64, the usage types of its price list (2026-09) name x86 by leaving `-ARM` out."""
_TIER = re.compile(r"\.tier([1-9])\.")

Confidence = Literal["H", "M", "L"]


@dataclass(frozen=True)
class PriceEntry:
    """One price or billing rule.

    Attributes:
        key: Its name, e.g. "lambda.request.usd".
        value: Dollars, or the quantity that the unit says.
        unit: E.g. "USD/GB-s".
        source: Where it was read.
        as_of: Date of the source: YYYY, YYYY-MM or YYYY-MM-DD.
        confidence: H (from AWS, or two sources that agree, at most a year old), M (one good source, or one to
            two years old) or L (weak, older or recalled).
        tier_from: Monthly quantity at which a tier starts; None where there are no tiers.
        tier_to: Where it ends; None for the last tier.
        note: Remark of the source, or empty.
    """

    key: str
    value: Decimal
    unit: str
    source: str
    as_of: str
    confidence: Confidence
    tier_from: Decimal | None = None
    tier_to: Decimal | None = None
    note: str = ""


@dataclass(frozen=True)
class PriceTier:
    """A price that holds for the part of the month's quantity in [`start`, `end`).

    Attributes:
        start: First unit of the tier.
        end: First unit of the next tier; None for the last one.
        usd: Dollars per unit.
    """

    start: Decimal
    end: Decimal | None
    usd: Decimal


@dataclass(frozen=True)
class PriceBook:
    """List prices by region, in dollars; without tax, discounts and free tier.

    Attributes:
        compiled: Date on which the snapshot was put together.
        regions: Entries by region and key.
    """

    compiled: str
    regions: Mapping[str, Mapping[str, PriceEntry]]

    def entries(self, region: str) -> Mapping[str, PriceEntry]:
        """All entries of a region, by key.

        Raises:
            PriceError: The region has no known prices.
        """
        if region not in self.regions:
            raise PriceError(
                f"no prices are known for region {region!r}: "
                f"choose one of {', '.join(sorted(self.regions))}, or read them with "
                "`python -m siren.prices --refresh --region REGION --write PATH`"
            )
        return self.regions[region]

    def entry(self, region: str, key: str) -> PriceEntry:
        """One entry with its source and date.

        Raises:
            PriceError: The region or the key is unknown.
        """
        entries = self.entries(region)
        if key not in entries:
            near = difflib.get_close_matches(key, entries, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise PriceError(
                f"no price named {key!r} is known for {region}: {hint}"
                f"list them with `python -m siren.prices --region {region}`"
            )
        return entries[key]

    def value(self, region: str, key: str) -> Decimal:
        """The value of one entry, in its unit.

        Raises:
            PriceError: The region or the key is unknown.
        """
        return self.entry(region, key).value

    def count(self, region: str, key: str) -> int:
        """The value of an entry that is a whole number.

        Raises:
            PriceError: It is unknown, or not whole.
        """
        value = self.value(region, key)
        if value != value.to_integral_value():
            raise PriceError(f"{key} is {value}, not a whole number: correct the price snapshot")
        return int(value)

    def tiers(self, region: str, prefix: str) -> tuple[PriceTier, ...]:
        """The tiers of a price, in order, without gaps, from zero to infinity.

        Args:
            region: AWS region.
            prefix: What comes before ".tier1.", e.g. "s3.storage".

        Raises:
            PriceError: The region or price is unknown, or its tiers leave a gap.
        """
        found = sorted(
            (entry for key, entry in self.entries(region).items() if key.startswith(f"{prefix}.tier")),
            key=lambda entry: entry.tier_from or ZERO,
        )
        if not found:
            raise PriceError(
                f"no tiered price named {prefix!r} is known for {region}: see `python -m siren.prices`"
            )
        tiers = tuple(PriceTier(entry.tier_from or ZERO, entry.tier_to, entry.value) for entry in found)
        ends = [ZERO, *(tier.end for tier in tiers)]
        if [tier.start for tier in tiers] != ends[:-1] or ends[-1] is not None:
            raise PriceError(f"the tiers of {prefix!r} in {region} leave a gap: correct the price snapshot")
        return tiers

    def architectures(self, region: str) -> tuple[str, ...]:
        """Processor architectures with a duration price in `region`: "arm64", "x86"."""
        return self._names(region, "lambda.duration.", r"(\w+)\.tier1\.usd_per_gb_s")

    def check_architecture(self, region: str, architecture: str) -> str:
        """The snapshot's name of an architecture.

        Args:
            region: AWS region.
            architecture: "x86" (or AWS's other name for it, "x86_64") or "arm64".

        Raises:
            PriceError: It has no known price in `region`.
        """
        known = self.architectures(region)
        name = _ALIASES.get(architecture, architecture)
        if name not in known:
            raise PriceError(
                f"no price is known for architecture {architecture!r} in {region}: "
                f"choose one of {', '.join(known)}"
            )
        return name

    def duration_tiers(self, region: str, architecture: str) -> tuple[PriceTier, ...]:
        """Dollars per GB-second by monthly GB-seconds of the account, region and architecture.

        Raises:
            PriceError: The region or the architecture is unknown.
        """
        return self.tiers(region, f"lambda.duration.{self.check_architecture(region, architecture)}")

    def cache_nodes(self, region: str) -> tuple[str, ...]:
        """Redis node types with a known price, e.g. "cache.t4g.small"."""
        return self._names(region, "elasticache.redis.", r"(cache\.\w+\.\w+)\.usd_per_h")

    def cache_node_usd_per_h(self, region: str, node: str) -> Decimal:
        """Dollars per started hour of a Redis node.

        Raises:
            PriceError: The region or the node type is unknown.
        """
        known = self.cache_nodes(region)
        if node not in known:
            raise PriceError(
                f"no price is known for cache node {node!r} in {region}: choose one of {', '.join(known)}"
            )
        return self.value(region, f"elasticache.redis.{node}.usd_per_h")

    def instances(self, region: str) -> tuple[str, ...]:
        """EC2 instance types with a known Linux on-demand price."""
        return self._names(region, "ec2.", r"(\w+\.\w+)\.usd_per_h")

    def instance_usd_per_h(self, region: str, instance: str) -> Decimal:
        """Dollars per hour of an EC2 instance, Linux on demand.

        Raises:
            PriceError: The region or the instance type is unknown.
        """
        known = self.instances(region)
        if instance not in known:
            raise PriceError(
                f"no price is known for instance {instance!r} in {region}: choose one of {', '.join(known)}"
            )
        return self.value(region, f"ec2.{instance}.usd_per_h")

    def memory_range_mb(self, region: str) -> tuple[int, int]:
        """Smallest and largest memory of a standard function, both included."""
        return (
            self.count(region, "lambda.limit.memory_min_mb"),
            self.count(region, "lambda.limit.memory_max_mb"),
        )

    def _names(self, region: str, prefix: str, pattern: str) -> tuple[str, ...]:
        matches = (re.fullmatch(re.escape(prefix) + pattern, key) for key in self.entries(region))
        return tuple(sorted(match[1] for match in matches if match))

    def with_entries(self, region: str, entries: Iterable[PriceEntry], compiled: str) -> PriceBook:
        """A copy in which `entries` replace or join those of `region`; other regions stay.

        Args:
            region: AWS region; may be new.
            entries: New entries.
            compiled: Date of the new snapshot.
        """
        merged = dict(self.regions.get(region, {}))
        merged.update((entry.key, entry) for entry in entries)
        regions = {**self.regions, region: MappingProxyType(merged)}
        return replace(self, compiled=compiled, regions=MappingProxyType(regions))

    def to_json(self) -> dict[str, Any]:
        """The snapshot as `load_price_book` reads it; sources are written out in each entry."""
        return {
            "format": FORMAT,
            "currency": "USD",
            "compiled": self.compiled,
            "sources": {},
            "regions": {
                region: [entry_to_json(entry) for entry in entries.values()]
                for region, entries in self.regions.items()
            },
        }


def check_memory_mb(memory_mb: int, memory_range_mb: tuple[int, int] = (128, 10240)) -> int:
    """Return a memory size that AWS Lambda offers.

    Siren checks this because the API model accepts up to 32,768 MB, which only managed instances
    have (botocore 1.44.5; Lambda developer guide, quotas).

    Args:
        memory_mb: MB, in steps of 1.
        memory_range_mb: Smallest and largest size, both included; the default is Lambda's.

    Raises:
        PriceError: It is not an int within the range.
    """
    low, high = memory_range_mb
    if isinstance(memory_mb, bool) or not isinstance(memory_mb, int) or not low <= memory_mb <= high:
        raise PriceError(
            f"no price is known for a memory of {memory_mb!r} MB: give a whole number from {low} to {high}"
        )
    return memory_mb


def entry_to_json(entry: PriceEntry) -> dict[str, str | None]:
    """An entry as a JSON object; decimals are strings, tiers have "from" and "to"."""
    row: dict[str, str | None] = {
        "key": entry.key,
        "value": usd_text(entry.value),
        "unit": entry.unit,
        "source": entry.source,
        "as_of": entry.as_of,
        "confidence": entry.confidence,
    }
    if entry.tier_from is not None:
        row["from"] = usd_text(entry.tier_from)
        row["to"] = None if entry.tier_to is None else usd_text(entry.tier_to)
    if entry.note:
        row["note"] = entry.note
    return row


def load_price_book(path: Path | None = None) -> PriceBook:
    """Read a price snapshot.

    Args:
        path: A snapshot written by `python -m siren.prices --refresh --write PATH`; the shipped one
            (us-east-1, compiled 2026-11-22) by default.

    Raises:
        RunFolderError: The file cannot be read.
        PriceError: It is not a snapshot, or an entry in it is not valid.
    """
    path = path or SHIPPED_BOOK
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(
            f"cannot read the price snapshot {path}: {error.strerror}; check the path"
        ) from error
    except ValueError as error:
        raise PriceError(
            f"the price snapshot {path} is not JSON: write a new one with --refresh --write"
        ) from error
    try:
        if data["format"] != FORMAT or data["currency"] != "USD":
            raise ValueError(f"format {data['format']!r} in {data['currency']!r}, not {FORMAT} in 'USD'")
        regions = {name: _read_region(rows, data["sources"]) for name, rows in data["regions"].items()}
        return PriceBook(_printable(data["compiled"]), MappingProxyType(regions))
    except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation) as error:
        raise PriceError(
            f"the price snapshot {path} breaks its schema ({type(error).__name__}: {error}): "
            "write a new one with --refresh --write"
        ) from error


def _read_region(rows: list[dict[str, Any]], sources: dict[str, str]) -> Mapping[str, PriceEntry]:
    entries: dict[str, PriceEntry] = {}
    for row in rows:
        entry = _read_entry(row, sources)
        if entry.key in entries:
            raise ValueError(f"{entry.key} is there twice")
        entries[entry.key] = entry
    return MappingProxyType(entries)


def _read_entry(row: dict[str, Any], sources: dict[str, str]) -> PriceEntry:
    if row["confidence"] not in ("H", "M", "L"):
        raise ValueError(f"{row['key']} has confidence {row['confidence']!r}")
    return PriceEntry(
        key=_printable(row["key"]),
        value=_number(row["value"]),
        unit=_printable(row["unit"]),
        source=_printable(sources.get(row["source"], row["source"])),
        as_of=_printable(row["as_of"]),
        confidence=row["confidence"],
        tier_from=_number(row["from"]) if "from" in row else None,
        tier_to=None if row.get("to") is None else _number(row["to"]),
        note=_printable(row.get("note", "")),
    )


def _number(text: Any) -> Decimal:
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is not a decimal string")
    value = Decimal(text)
    if not value.is_finite() or value < 0:
        raise ValueError(f"{text!r} is not a finite number >= 0")
    return value


def _printable(text: Any) -> str:
    if not isinstance(text, str) or not text.isprintable():
        raise ValueError(f"{text!r} is not printable text")
    return text
