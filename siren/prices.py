"""Show the prices that Siren works with, and compare them with AWS's current list.

python -m siren.prices                        every price, with its source and date
python -m siren.prices --grep t4g --json      some of them, for machines
python -m siren.prices --refresh              what AWS lists now (read-only call, needs credentials)
python -m siren.prices --refresh --write my_prices.json
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import tyro

from siren.errors import MissingExtraError, PlatformError, RunFolderError, SirenError, UsageError
from siren.money.amounts import usd_text
from siren.money.price_book import SHIPPED_BOOK, PriceBook, PriceEntry, entry_to_json, load_price_book
from siren.money.price_refresh import PRICING_REGION, PricingClient, refresh_entries
from siren.types import StopReason

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger("siren.prices")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PricesConfig:
    """Show the prices that Siren works with, and compare them with AWS's current list."""

    region: str = "us-east-1"
    """AWS region. The shipped snapshot has us-east-1."""
    grep: str = ""
    """Show only prices whose name, unit or source contains this text (upper and lower case alike)."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table; prices are decimal strings."""
    snapshot: Path | None = None
    """Read this snapshot (written by --write) instead of the shipped one."""
    refresh: bool = False
    """Read AWS's current price list (pricing:GetProducts, free of charge) and show what changed."""
    write: Path | None = None
    """With --refresh: save the refreshed snapshot to this new file. Existing files stay as they are."""


def main(config: PricesConfig, client: PricingClient | None = None) -> int:
    """Print prices or, with `refresh`, their changes on stdout.

    Args:
        config: What to show.
        client: boto3's `pricing` client; made from the user's AWS configuration by default.

    Returns:
        0, or the exit code of the error that was logged: 2 for usage, 4 for AWS or a file.
    """
    try:
        if config.write is not None:
            _check_write(config)
        book = load_price_book(config.snapshot)
        if config.refresh:
            _refresh(config, book, client or _pricing_client())
        else:
            _show(config, book)
    except SirenError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says what to do; a trace would hide it
        return error.exit_code
    return StopReason.TARGET_REACHED.exit_code


def _show(config: PricesConfig, book: PriceBook) -> None:
    entries = _matching(config, book.entries(config.region).values())
    if config.as_json:
        rows = [entry_to_json(entry) for entry in entries]
        _print_json({"region": config.region, "compiled": book.compiled, "prices": rows})
        return
    table = _table(f"Prices in {config.region}, snapshot of {book.compiled}")
    for name, justify in (
        ("item", "left"),
        ("price", "right"),
        ("unit", "left"),
        ("source", "left"),
        ("as of", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for entry in entries:
        table.add_row(entry.key, usd_text(entry.value), entry.unit, entry.source, entry.as_of)
    _print_table(table)


def _refresh(config: PricesConfig, book: PriceBook, client: PricingClient) -> None:
    entries = _read_prices(client, book, config.region)
    known = book.regions.get(config.region, {})
    fresh = {entry.key: entry for entry in entries}
    stale = [key for key in known if key in fresh or _belongs(key, fresh)]
    changes = [
        (key, known.get(key), fresh.get(key))
        for key in sorted({*stale, *fresh})
        if config.grep.lower() in key.lower() and _differs(known.get(key), fresh.get(key))
    ]
    if config.as_json:
        rows = [
            {"key": key, "old": old and entry_to_json(old), "new": new and entry_to_json(new)}
            for key, old, new in changes
        ]
        _print_json({"region": config.region, "read": len(entries), "changes": rows})
    elif changes:
        table = _table(f"Changed in {config.region} since the snapshot of {book.compiled}")
        for name in ("item", "old", "new", "unit", "as of"):
            table.add_column(name, justify="right" if name in ("old", "new") else "left")
        for key, old, new in changes:
            shown = new or old
            assert shown is not None
            table.add_row(key, _value(old), _value(new), shown.unit, shown.as_of)
        _print_table(table)
    else:
        sys.stdout.write(f"{len(entries)} prices of {config.region} read, none changed\n")
    if config.write is not None:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        kept = {key: entry for key, entry in known.items() if key not in stale}
        regions = {**book.regions, config.region: kept}
        _write(
            config.write,
            dataclasses.replace(book, regions=regions).with_entries(config.region, entries, today),
        )


def _belongs(key: str, fresh: dict[str, PriceEntry]) -> bool:
    """Whether a key is a tier of a price that was read and no longer has this tier."""
    prefix = key.partition(".tier")[0] + ".tier"
    return ".tier" in key and any(name.startswith(prefix) for name in fresh)


def _differs(old: PriceEntry | None, new: PriceEntry | None) -> bool:
    if old is None or new is None:
        return True
    return (old.value, old.tier_from, old.tier_to) != (new.value, new.tier_from, new.tier_to)


def _value(entry: PriceEntry | None) -> str:
    if entry is None:
        return "-"
    tier = f" from {usd_text(entry.tier_from)}" if entry.tier_from else ""
    return usd_text(entry.value) + tier


def _matching(config: PricesConfig, entries: Iterable[PriceEntry]) -> list[PriceEntry]:
    wanted = config.grep.lower()
    found = [e for e in entries if any(wanted in text.lower() for text in (e.key, e.unit, e.source))]
    if not found:
        logger.warning("no price in %s contains %r: leave --grep out to see all", config.region, config.grep)
    return found


def _pricing_client() -> PricingClient:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise MissingExtraError("boto3", "aws") from error
    settings = Config(
        connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 3, "mode": "standard"}
    )
    try:
        client = boto3.client("pricing", region_name=PRICING_REGION, config=settings)
    except BotoCoreError as error:
        raise _aws_error(error) from error
    return cast("PricingClient", client)


def _read_prices(client: PricingClient, book: PriceBook, region: str) -> list[PriceEntry]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return refresh_entries(client, book, region)
    except (BotoCoreError, ClientError) as error:
        raise _aws_error(error) from error


def _aws_error(error: Exception) -> PlatformError:
    reason = " ".join(str(error).split())
    return PlatformError(
        f"cannot read the AWS price list: {reason}; check the network, your credentials "
        "(`aws configure`) and the permission pricing:GetProducts, or go on with the shipped snapshot"
    )


def _check_write(config: PricesConfig) -> None:
    assert config.write is not None
    if not config.refresh:
        raise UsageError("--write saves refreshed prices: add --refresh")
    if config.write.exists():
        raise UsageError(f"{config.write} exists already: name a new file (Siren never replaces a snapshot)")
    if config.write.resolve().parent == SHIPPED_BOOK.parent.resolve():
        raise UsageError(f"{config.write} is among the files that Siren ships: name a file of your own")


def _write(path: Path, book: PriceBook) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(book.to_json(), file, indent=1)
            file.write("\n")
    except OSError as error:
        raise RunFolderError(
            f"cannot write {path}: {error.strerror}; name a file in a folder of yours"
        ) from error
    logger.info("saved to %s: show it with `python -m siren.prices --snapshot %s`", path, path)


def _print_json(data: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(data, indent=1) + "\n")


def _table(title: str) -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left")


def _print_table(table: Table) -> None:
    """Print a table in the terminal's width, or unfolded and plain where stdout is not one."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = Measurement.get(console, console.options.update(max_width=1000), table).maximum
    console.print(table)


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    sys.exit(main(tyro.cli(PricesConfig, prog="python -m siren.prices")))
