"""`python -m siren.prices`: shows the snapshot, reads AWS's list through recorded answers."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import tyro

from siren.money import load_price_book
from siren.money.price_book import SHIPPED_BOOK
from siren.money.price_refresh import QUERIES, Query, read_tiers
from siren.prices import PricesConfig, main

boto3 = pytest.importorskip("boto3")
from botocore.stub import Stubber  # noqa: E402 - after the skip

REGION = "us-east-1"
ROOT = Path(__file__).parents[1]
BOOK = load_price_book()

USAGE = {
    "lambda.duration.x86.tier{tier}.usd_per_gb_s": "Lambda-GB-Second",
    "lambda.duration.arm64.tier{tier}.usd_per_gb_s": "Lambda-GB-Second-ARM",
    "lambda.request.usd": "Request",
    "lambda.ephemeral.usd_per_gb_s": "Lambda-Storage-GB-Second",
    "s3.put.usd": "Requests-Tier1",
    "s3.get.usd": "Requests-Tier2",
    "s3.storage.tier{tier}.usd_per_gb_month": "TimedStorage-ByteHrs",
}
NODES = BOOK.cache_nodes(REGION)


def item(usagetype: str, tiers: list[tuple[str, str, str]], **attributes: str) -> str:
    """An item of PriceList as `GetProducts` gives it (`pricing` in botocore 1.44.5)."""
    dimensions = {
        f"SKU.JRTCKXETXF.{i}": {
            "unit": "unit",
            "beginRange": begin,
            "endRange": end,
            "description": "d",
            "appliesTo": [],
            "rateCode": f"SKU.JRTCKXETXF.{i}",
            "pricePerUnit": {"USD": usd},
        }
        for i, (begin, end, usd) in reversed(list(enumerate(tiers)))
    }
    return json.dumps(
        {
            "product": {
                "productFamily": "f",
                "attributes": {"usagetype": usagetype, **attributes},
                "sku": "SKU",
            },
            "serviceCode": "S",
            "terms": {
                "OnDemand": {
                    "SKU.JRTCKXETXF": {
                        "priceDimensions": dimensions,
                        "sku": "SKU",
                        "effectiveDate": "2027-01-01T00:00:00Z",
                        "offerTermCode": "JRTCKXETXF",
                        "termAttributes": {},
                    }
                }
            },
            "version": "20270115000000",
            "publicationDate": "2027-01-15T00:00:00Z",
        }
    )


def shipped_tiers(query: Query, node: str = "") -> list[tuple[str, str, str]]:
    """What the snapshot holds, in AWS's words."""
    if "{tier}" in query.key:
        tiers = BOOK.tiers(REGION, query.key.partition(".tier")[0])
        return [(str(t.start), "Inf" if t.end is None else str(t.end), f"{t.usd:.10f}") for t in tiers]
    return [("0", "Inf", f"{BOOK.value(REGION, query.key.format(node=node)):.10f}")]


def answer(query: Query, prefix: str = "") -> list[str]:
    """The items of one query, with rows around them that are not meant."""
    if "{node}" in query.key:
        reserved = ("0", "Inf", "0.0000000000")
        return [
            *(
                item(f"{prefix}NodeUsage:{n}", [reserved, *shipped_tiers(query, n)], instanceType=n)
                for n in NODES
            ),
            item(f"{prefix}NodeUsage:cache.r7g.large", [("0", "Inf", "0.2190000000")]),
        ]
    usagetype = USAGE[query.key]
    return [
        item(f"Global-{usagetype}", [("0", "400000", "0.0000000000")]),
        item(f"{prefix}{usagetype}", shipped_tiers(query)),
        item(f"{prefix}Lambda-Managed-Instances-{usagetype}", [("0", "Inf", "9.0000000000")]),
    ]


def request(query: Query, region: str = REGION) -> dict[str, Any]:
    fields = [("regionCode", region), *query.filters]
    return {
        "ServiceCode": query.service,
        "Filters": [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in fields],
        "FormatVersion": "aws_v1",
        "MaxResults": 100,
    }


@pytest.fixture
def client() -> Any:
    return boto3.client(
        "pricing",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


@pytest.fixture
def stubber(client: Any) -> Iterator[Stubber]:
    with Stubber(client) as stubber:
        yield stubber


def record(
    stubber: Stubber, changes: dict[str, list[str]] | None = None, region: str = REGION, prefix: str = ""
) -> None:
    """Recorded answers to all queries; `changes` replaces those of a key."""
    for query in QUERIES:
        items = (changes or {}).get(query.key, answer(query, prefix))
        stubber.add_response(
            "get_products", {"FormatVersion": "aws_v1", "PriceList": items}, request(query, region)
        )


def refresh(client: Any, **config: Any) -> int:
    return main(PricesConfig(refresh=True, **config), client)


# --- showing ---


def test_the_table_shows_every_price_with_source_and_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(PricesConfig()) == 0
    out = capsys.readouterr().out
    assert all(key in out for key in BOOK.entries(REGION))
    assert "0.0000166667" in out
    assert "2026-09-19" in out


def test_grep_selects_and_json_holds_exact_strings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(PricesConfig(grep="T4G.small", as_json=True)) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["value"] for row in data["prices"]] == ["0.032", "0.0168"]
    assert data["region"] == REGION


def test_no_match_is_an_empty_list_and_a_warning(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert main(PricesConfig(grep="zzz", as_json=True)) == 0
    assert json.loads(capsys.readouterr().out)["prices"] == []
    assert "--grep" in caplog.text


def test_errors_are_one_line_with_a_documented_exit_code(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(PricesConfig(region="mars-1")) == 2
    assert main(PricesConfig(snapshot=tmp_path / "none.json")) == 4
    assert main(PricesConfig(write=tmp_path / "new.json")) == 2
    assert len(caplog.messages) == 3
    assert not any("\n" in message for message in caplog.messages)
    assert capsys.readouterr().out == ""


def test_the_options_are_named_as_documented() -> None:
    config = tyro.cli(PricesConfig, args=["--json", "--grep", "s3", "--region", "us-east-1"])
    assert config == PricesConfig(as_json=True, grep="s3")


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}, {"COLUMNS": "40", "TERM": "xterm-256color"}])
def test_piped_output_has_no_control_characters_and_is_not_cut(env: dict[str, str]) -> None:
    keep = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "siren.prices", "--grep", "elasticache"],
        cwd=ROOT, env={**keep, **env}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert all(char.isprintable() or char == "\n" for char in done.stdout)
    assert "elasticache.serverless.redis.usd_per_million_ecpu" in done.stdout


def test_a_wrong_option_exits_with_2() -> None:
    command = [sys.executable, "-m", "siren.prices", "--nope"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""


# --- refreshing ---


def test_an_unchanged_list_says_so(client: Any, stubber: Stubber, capsys: pytest.CaptureFixture[str]) -> None:
    record(stubber)
    assert refresh(client) == 0
    assert capsys.readouterr().out == "21 prices of us-east-1 read, none changed\n"
    stubber.assert_no_pending_responses()


def test_changed_prices_are_shown_old_and_new(
    client: Any, stubber: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    tiers = [("0", "6000000000", "0.0000200000"), ("6000000000", "Inf", "0.0000150000")]
    key = "lambda.duration.x86.tier{tier}.usd_per_gb_s"
    record(stubber, {key: [item("Lambda-GB-Second", tiers)]})
    assert refresh(client, as_json=True) == 0
    data = json.loads(capsys.readouterr().out)
    changes = {row["key"]: (row["old"], row["new"]) for row in data["changes"]}
    assert list(changes) == [key.format(tier=tier) for tier in (1, 2, 3)]
    old, new = changes[key.format(tier=1)]
    assert (old["value"], new["value"], new["as_of"]) == ("0.0000166667", "0.00002", "2027-01-15")
    assert new["source"] == "AWS Price List AWSLambda"
    assert changes[key.format(tier=2)][1]["to"] is None
    assert changes[key.format(tier=3)][1] is None


def test_the_change_table_has_old_and_new(
    client: Any, stubber: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    record(stubber, {"s3.put.usd": [item("Requests-Tier1", [("0", "Inf", "0.0000060000")])]})
    assert refresh(client) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "s3.put.usd" in line)
    assert "0.000005" in row
    assert "0.000006" in row


def test_pages_are_followed(client: Any, stubber: Stubber, capsys: pytest.CaptureFixture[str]) -> None:
    for query in QUERIES:
        items = answer(query)
        for n, one in enumerate(items):
            more = {"NextToken": f"t{n + 1}"} if n + 1 < len(items) else {}
            expected = request(query) | ({"NextToken": f"t{n}"} if n else {})
            stubber.add_response("get_products", {"PriceList": [one], **more}, expected)
    assert refresh(client) == 0
    assert "none changed" in capsys.readouterr().out
    stubber.assert_no_pending_responses()


def test_a_written_snapshot_is_a_new_file_that_can_be_read(
    client: Any, stubber: Stubber, tmp_path: Path
) -> None:
    path, shipped = tmp_path / "mine.json", SHIPPED_BOOK.read_bytes()
    tiers = [("0", "Inf", "0.0000200000")]
    record(stubber, {"lambda.duration.x86.tier{tier}.usd_per_gb_s": [item("Lambda-GB-Second", tiers)]})
    assert refresh(client, write=path) == 0
    book = load_price_book(path)
    assert [tier.usd for tier in book.duration_tiers(REGION, "x86")] == [Decimal("0.00002")]
    assert book.instance_usd_per_h(REGION, "c5.large") == BOOK.instance_usd_per_h(REGION, "c5.large")
    content = path.read_bytes()
    assert refresh(client, write=path) == 2
    assert (path.read_bytes(), SHIPPED_BOOK.read_bytes()) == (content, shipped)


def test_the_shipped_folder_is_never_written(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert refresh(client, write=SHIPPED_BOOK) == 2
    assert refresh(client, write=SHIPPED_BOOK.with_name("other.json")) == 2
    assert "a file of your own" in caplog.messages[1]


def test_a_file_that_cannot_be_written_exits_with_4(client: Any, stubber: Stubber, tmp_path: Path) -> None:
    record(stubber)
    assert refresh(client, write=tmp_path / "none" / "x.json") == 4


def test_another_region_gets_its_own_prices_and_the_common_rules(
    client: Any, stubber: Stubber, tmp_path: Path
) -> None:
    record(stubber, region="eu-west-2", prefix="EUW2-")
    assert refresh(client, region="eu-west-2", write=tmp_path / "eu.json") == 0
    book = load_price_book(tmp_path / "eu.json")
    assert book.memory_range_mb("eu-west-2") == (128, 10240)
    assert book.duration_tiers("eu-west-2", "arm64") == BOOK.duration_tiers(REGION, "arm64")
    assert book.entries(REGION) == BOOK.entries(REGION)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "check the region's name"),
        (["{"], "not JSON"),
        (["[]"], "unknown format"),
        ([item("Request", [("0", "Inf", "NaN")])], "unknown format"),
        ([item("Request", [("0", "Inf", "-1")])], "unknown format"),
        ([item("Request", [("0", "Inf", "abc")])], "unknown format"),
        ([item("Request", [])], "no on-demand price"),
        ([item("Request", [("0", "5", "0.1"), ("5", "Inf", "0.2")])], "2 tiers"),
        ([item("Request", [("0", "Inf", "0.1"), ("0", "Inf", "0.2")])], "two prices"),
        ([item("Request", [("0", "Inf", "0.1")]), item("Request", [("0", "Inf", "0.2")])], "two prices"),
    ],
)
def test_an_answer_that_is_not_understood_is_never_guessed_at(
    items: list[str],
    message: str,
    client: Any,
    stubber: Stubber,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record(stubber, {"lambda.request.usd": items})
    assert refresh(client) == 4
    assert message in caplog.text
    assert capsys.readouterr().out == ""


def test_a_reserved_instance_dimension_does_not_hide_the_price() -> None:
    product = json.loads(item("NodeUsage:x", [("0", "Inf", "0.0680000000"), ("0", "Inf", "0.0000000000")]))
    assert [tier.usd for tier in read_tiers(product)] == [Decimal("0.068")]


@pytest.mark.parametrize("code", ["AccessDeniedException", "ExpiredTokenException"])
def test_an_error_of_aws_is_one_line_and_exit_code_4(
    code: str, client: Any, stubber: Stubber, caplog: pytest.LogCaptureFixture
) -> None:
    stubber.add_client_error("get_products", code, "not\nfor you")
    assert refresh(client) == 4
    assert code in caplog.messages[0]
    assert "pricing:GetProducts" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]


def test_a_missing_boto3_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert main(PricesConfig(refresh=True)) == 2
    assert "[aws]" in caplog.text


def test_missing_credentials_are_one_line_and_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with caplog.at_level(logging.ERROR, "siren"):
        assert main(PricesConfig(refresh=True)) == 4
    assert "credentials" in caplog.messages[-1]
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    assert main(PricesConfig(refresh=True)) == 4
