"""Units and conversions that every part of Siren agrees on."""

from __future__ import annotations

MB_PER_GB = 1024
"""AWS bills memory as MB/1024 GB (Lambda pricing page, worked examples, 2026)."""

BYTES_PER_MB = 1 << 20
MS_PER_S = 1000
SECONDS_PER_HOUR = 3600
SECONDS_PER_MONTH = 28 * 24 * SECONDS_PER_HOUR
"""The shortest month: AWS divides a GB-month's price by the month's own hours, and a bill that may
be too high by a tenth keeps the budget, one that is too low does not."""


def counted(count: int, noun: str) -> str:
    """A number of things in words: "1 function", "2,000 functions"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
