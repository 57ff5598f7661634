"""REPORT lines, in both formats."""

from __future__ import annotations

import json

import pytest

from siren.platforms.endpoint.logs import JsonLog, Report, TextLog, used_mb
from siren.testing.lambda_target import REPORT

ID = "6c2f7d6e-0b1e-4f0a-9d51-3f7d3c5a9b11"


# Log lines that decide the rounding question (facts on AWS, 1.2).
@pytest.mark.parametrize(
    ("duration_ms", "init_ms", "billed"), [(3923.569, 145.399, 4069), (2.32, 565.67, 568), (1.0, None, 1)]
)
def test_init_and_duration_are_rounded_up_once(duration_ms, init_ms, billed):
    assert Report(ID, duration_ms, init_ms, 128, 40).billed_ms == billed


def test_a_report_is_one_line_of_fields_between_tabs():
    text = TextLog().end(Report(ID, 2.32, 565.67, 1024, 90))
    assert text == (
        f"END RequestId: {ID}\n"
        f"REPORT RequestId: {ID}\tDuration: 2.32 ms\tBilled Duration: 568 ms\tMemory Size: 1024 MB\t"
        "Max Memory Used: 90 MB\tInit Duration: 565.67 ms\t\n"
    )
    assert REPORT.search(text)


def test_a_failed_process_has_status_and_type_and_a_raised_error_has_not():
    ended = TextLog().end(Report(ID, 2.0, None, 128, 128, "error", "Runtime.OutOfMemory"))
    assert "\tStatus: error\tError Type: Runtime.OutOfMemory\t\n" in ended
    assert "Status" not in TextLog().end(Report(ID, 2.0, None, 128, 40, "failure"))


def test_an_init_phase_that_failed_is_billed_and_has_a_line_of_its_own():
    report = Report(ID, 30.0, 10_000.0, 128, 40, init_failed=True)
    assert report.billed_ms == 10_030
    assert "Init Duration" not in TextLog().end(report)
    assert "initDurationMs" not in JsonLog().end(report)
    line = TextLog().init_report(10_000.0, "init", "timeout", None)
    assert line == "INIT_REPORT Init Duration: 10000.00 ms\tPhase: init\tStatus: timeout\n"


def test_json_tells_the_same():
    told = json.loads(JsonLog().end(Report(ID, 2.32, 565.67, 1024, 90, "error", "Runtime.ExitError")))
    assert told["type"] == "platform.report"
    assert told["record"] == {
        "requestId": ID,
        "metrics": {
            "durationMs": 2.32,
            "billedDurationMs": 568,
            "memorySizeMB": 1024,
            "maxMemoryUsedMB": 90,
            "initDurationMs": 565.67,
        },
        "status": "error",
        "errorType": "Runtime.ExitError",
    }


@pytest.mark.parametrize(
    ("peak_bytes", "used"), [(1, 1), (40 << 20, 40), ((40 << 20) + 1, 41), (1 << 40, 128)]
)
def test_used_memory_is_rounded_up_and_never_above_the_functions(peak_bytes, used):
    assert used_mb(peak_bytes, 128) == used
