"""REPORT lines as Lambda writes them, and lines that are none."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siren.platforms.manager.report_line import Report, parse_line, parse_log

ID = "8f507cfc-example"


def text(*parts: str) -> str:
    return f"REPORT RequestId: {ID}\t" + "\t".join(parts) + "\t"


def as_json(status: str = "success", **metrics: object) -> str:
    record = {"requestId": ID, "metrics": metrics, "status": status}
    return json.dumps({"time": "2026-11-22T10:00:00Z", "type": "platform.report", "record": record})


COLD = text(
    "Duration: 3923.57 ms",
    "Billed Duration: 4069 ms",
    "Memory Size: 1769 MB",
    "Max Memory Used: 88 MB",
    "Init Duration: 145.40 ms",
)
WARM = text("Duration: 2.32 ms", "Billed Duration: 3 ms", "Memory Size: 128 MB", "Max Memory Used: 40 MB")


@pytest.mark.parametrize(
    ("line", "report"),
    [
        (COLD, Report(ID, 3923.57, 4069, 1769, 88, 145.4)),
        (WARM, Report(ID, 2.32, 3, 128, 40)),
        (WARM.replace("\t", "  "), Report(ID, 2.32, 3, 128, 40)),
        (
            text(
                "Duration: 3000.00 ms",
                "Billed Duration: 3000 ms",
                "Memory Size: 128 MB",
                "Max Memory Used: 30 MB",
                "Status: timeout",
            ),
            Report(ID, 3000.0, 3000, 128, 30, status="timeout"),
        ),
        (
            text(
                "Duration: 2338.66 ms",
                "Billed Duration: 2521 ms",
                "Memory Size: 512 MB",
                "Max Memory Used: 99 MB",
                "Restore Duration: 450.10 ms",
                "Billed Restore Duration: 182 ms",
            ),
            Report(ID, 2338.66, 2521, 512, 99, 450.1),
        ),
        (
            as_json(
                durationMs=3923.569,
                billedDurationMs=4069.0,
                memorySizeMB=1769,
                maxMemoryUsedMB=88.0,
                initDurationMs=145.399,
            ),
            Report(ID, 3923.569, 4069, 1769, 88, 145.399, "success"),
        ),
        (
            as_json("timeout", durationMs=3000, billedDurationMs=3000, memorySizeMB=128, maxMemoryUsedMB=30),
            Report(ID, 3000.0, 3000, 128, 30, status="timeout"),
        ),
    ],
)
def test_a_line_is_read(line: str, report: Report | None):
    assert parse_line(line) == report


@pytest.mark.parametrize(
    "line",
    [
        "",
        f"START RequestId: {ID} Version: 3",
        f"REPORT RequestId: {ID}",
        WARM.replace("Billed Duration: 3 ms", ""),
        "print: REPORT RequestId of the last one",
        '{"type": "platform.report"',
        '{"type": "platform.report", "record": []}',
        '{"type": "platform.start", "record": {"metrics": {}}}',
        as_json(durationMs="x", billedDurationMs=1, memorySizeMB=1, maxMemoryUsedMB=1),
        as_json(durationMs=float("nan"), billedDurationMs=1, memorySizeMB=1, maxMemoryUsedMB=1),
        as_json(durationMs=-1, billedDurationMs=1, memorySizeMB=1, maxMemoryUsedMB=1),
        as_json(durationMs=1, billedDurationMs=None, memorySizeMB=1, maxMemoryUsedMB=1),
    ],
)
def test_other_lines_are_not(line: str):
    assert parse_line(line) is None


def tail(*lines: str) -> str:
    return base64.b64encode("\n".join(lines).encode()[-4096:]).decode()


def test_the_last_report_counts_whatever_was_printed_before():
    forged = WARM.replace("Billed Duration: 3", "Billed Duration: 1")
    log = tail("x" * 5000, forged, f"END RequestId: {ID}", WARM, "XRAY TraceId: 1-2\tSampled: true")
    assert parse_log(log) == Report(ID, 2.32, 3, 128, 40)


def test_a_log_without_report_or_base64_gives_none():
    assert parse_log(tail("hello")) is None
    assert parse_log("not base64!") is None
    assert parse_log("") is None


@given(st.binary(max_size=300))
def test_no_log_makes_it_raise(content: bytes):
    assert parse_log(base64.b64encode(content).decode()) is None
