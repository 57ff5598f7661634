"""Numbers and texts as a person reads them."""

from __future__ import annotations

import math
from decimal import Decimal

from siren.units import counted


def dollars(usd: Decimal | float, decimals: int = 4) -> str:
    """Dollars, in at most `decimals` + 4 characters from a millionth to a million.

    Args:
        usd: The amount.
        decimals: Where the amount is neither large nor tiny: 4 gives "$0.0123", "$0.00012",
            "$1.2e-06", "$1234.56".
    """
    amount = float(usd)
    size = abs(amount)
    if size == 0:
        return "$0.00"
    if size >= 9999.5:
        return f"${amount:,.0f}"
    if size >= 10:
        return f"${amount:.{decimals - len(str(int(size))) + 2}f}"
    if size >= 10.0 ** (1 - decimals):
        return f"${amount:.{decimals}f}"
    return f"${amount:.{decimals + 1}f}" if size >= 10.0**-decimals else f"${_scientific(amount)}"


def budget(usd: Decimal) -> str:
    """A round amount of dollars as it was typed, cents at least: "$2.00", "$0.125"."""
    text = f"{usd:f}"
    decimals = len(text.partition(".")[2].rstrip("0"))
    return f"${usd:,.{max(2, decimals)}f}"


def exact_dollars(usd: Decimal) -> str:
    """Dollars with six decimals, for columns that add up by eye."""
    return "under $0.000001" if 0 < usd < Decimal("0.0000005") else f"${usd:,.6f}"


def seconds(duration_s: float) -> str:
    """A duration in at most six characters: "850ms", "1.23s", "12.3s", "2m05s", "1h02m", "3d04h"."""
    if not math.isfinite(duration_s):
        return "-"
    if duration_s < 0.9995:
        return "0s" if duration_s == 0 else f"{duration_s * 1000:.{0 if duration_s >= 0.00995 else 1}f}ms"
    if duration_s < 9.995:
        return f"{duration_s:.2f}s"
    if duration_s < 99.95:
        return f"{duration_s:.1f}s"
    whole = round(duration_s)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    minutes = round(duration_s / 60)
    if minutes < 100 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    hours = round(duration_s / 3600)
    return f"{hours // 24}d{hours % 24:02d}h"


def loss(value: float) -> str:
    """A loss in at most seven characters: "0.0817", "12.3456", "1.2e-05", "nan"."""
    if not math.isfinite(value):
        return "inf" if value > 0 else "-inf" if value < 0 else "nan"
    if value == 0 or 0.001 <= abs(value) < 100:
        return f"{value:.4f}"
    return f"{value:.1f}" if 100 <= abs(value) < 10_000 else _scientific(value)


def _scientific(value: float) -> str:
    """Two digits and an exponent; one digit where the exponent takes three."""
    text = f"{value:.1e}"
    return text if len(text.partition("e")[2]) <= 3 else f"{value:.0e}"


def percent(share: float) -> str:
    """A share in per cent: "97.31%"; "-" where there is none."""
    return f"{share * 100:.2f}%" if math.isfinite(share) else "-"


def functions(count: int) -> str:
    """A number of functions in words: "1 function", "20 functions"."""
    return counted(count, "function")


def clean(text: str) -> str:
    """The text on one line, without control characters: it may come from a user's file."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text).strip()


def progress(initial_loss: float, best_loss: float, target_loss: float) -> float:
    """How far the loss came from its first value to the target, on a log scale, in [0, 1]."""
    if best_loss <= target_loss:
        return 1.0
    losses = (initial_loss, best_loss, target_loss)
    if not all(math.isfinite(value) for value in losses) or initial_loss <= target_loss:
        return 0.0
    if target_loss > 0:
        initial_loss, best_loss, target_loss = (math.log(value) for value in losses)
    return min(1.0, max(0.0, (initial_loss - best_loss) / (initial_loss - target_loss)))
