"""What Lambda writes into a function's log around its own lines, in both formats."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from siren.money.billed_time import billed_ms


@dataclass(frozen=True)
class Report:
    """What the REPORT line of one invocation tells.

    Attributes:
        request_id: Of the invocation.
        duration_ms: From the event's delivery until the runtime asked for the next one.
        init_ms: Of an init phase before it, None where the environment was warm. One that failed is
            billed too, and has a line of its own.
        memory_mb, max_memory_mb: What the function has, and the most that it used so far.
        status: `success`, `failure` (the function raised), `error` (its process ended) or `timeout`.
        error_type: Of an error.
        init_failed: Whether that init phase failed.
    """

    request_id: str
    duration_ms: float
    init_ms: float | None
    memory_mb: int
    max_memory_mb: int
    status: str = "success"
    error_type: str | None = None
    init_failed: bool = False

    @property
    def billed_ms(self) -> int:
        """One ceiling over init and duration."""
        return billed_ms(self.duration_ms, self.init_ms or 0.0)


def round_ms(duration_s: float) -> float:
    """Milliseconds as REPORT prints them."""
    return round(duration_s * 1e3, 2)


class TextLog:
    """The plain format.

    REPORT is as aws-lambda-power-tuning 4.4.0 and maxday/lambda-perf read it; INIT_START, INIT_REPORT and
    Status are as seen in public logs.
    """

    name = "Text"

    def init_start(self, runtime: str) -> str:
        """The first line of an environment."""
        return f"INIT_START Runtime Version: {runtime.replace('python', 'python:')}.local\n"

    def init_report(self, init_ms: float, phase: str, status: str, error_type: str | None) -> str:
        """The line of an init phase that failed."""
        error = f"\tError Type: {error_type}" if error_type else ""
        return f"INIT_REPORT Init Duration: {init_ms:.2f} ms\tPhase: {phase}\tStatus: {status}{error}\n"

    def start(self, request_id: str, version: str) -> str:
        """The line before an invocation."""
        return f"START RequestId: {request_id} Version: {version}\n"

    def fault(self, request_id: str, message: str) -> str:
        """The line of a timeout or of a process that ended."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{now} {request_id} {message}\n\n"

    def end(self, report: Report) -> str:
        """The lines after an invocation."""
        fields = [
            f"REPORT RequestId: {report.request_id}",
            f"Duration: {report.duration_ms:.2f} ms",
            f"Billed Duration: {report.billed_ms} ms",
            f"Memory Size: {report.memory_mb} MB",
            f"Max Memory Used: {report.max_memory_mb} MB",
        ]
        if report.init_ms is not None and not report.init_failed:
            fields.append(f"Init Duration: {report.init_ms:.2f} ms")
        if report.status in ("error", "timeout"):
            fields.append(f"Status: {report.status}")
        if report.error_type:
            fields.append(f"Error Type: {report.error_type}")
        return f"END RequestId: {report.request_id}\n" + "\t".join(fields) + "\t\n"


class JsonLog:
    """The JSON format: platform events of the Telemetry API's schema (Lambda developer guide)."""

    name = "JSON"

    def init_start(self, runtime: str) -> str:
        """The first line of an environment."""
        record = {"initializationType": "on-demand", "phase": "init", "runtimeVersion": f"{runtime}.local"}
        return _event("platform.initStart", record)

    def init_report(self, init_ms: float, phase: str, status: str, error_type: str | None) -> str:
        """The line of an init phase that failed."""
        record: dict[str, Any] = {
            "initializationType": "on-demand",
            "phase": phase,
            "status": status,
            "metrics": {"durationMs": init_ms},
        }
        if error_type:
            record["errorType"] = error_type
        return _event("platform.initReport", record)

    def start(self, request_id: str, version: str) -> str:
        """The line before an invocation."""
        return _event("platform.start", {"requestId": request_id, "version": version})

    def fault(self, request_id: str, message: str) -> str:
        """The line of a timeout or of a process that ended."""
        return _event("platform.fault", {"requestId": request_id, "message": message})

    def end(self, report: Report) -> str:
        """The line after an invocation."""
        metrics: dict[str, Any] = {
            "durationMs": report.duration_ms,
            "billedDurationMs": report.billed_ms,
            "memorySizeMB": report.memory_mb,
            "maxMemoryUsedMB": report.max_memory_mb,
        }
        if report.init_ms is not None and not report.init_failed:
            metrics["initDurationMs"] = report.init_ms
        record: dict[str, Any] = {
            "requestId": report.request_id,
            "metrics": metrics,
            "status": report.status,
        }
        if report.error_type:
            record["errorType"] = report.error_type
        return _event("platform.report", record)


def log_format(name: str) -> TextLog | JsonLog:
    """The format of this name, `Text` or `JSON`."""
    return JsonLog() if name == JsonLog.name else TextLog()


def used_mb(peak_bytes: int, memory_mb: int) -> int:
    """Most memory used, MB rounded up, as REPORT tells it: never above the function's."""
    return min(memory_mb, math.ceil(peak_bytes / (1 << 20)))


def _event(kind: str, record: dict[str, Any]) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": now, "type": kind, "record": record}) + "\n"
