"""The REPORT line that Lambda writes after an invocation: what was billed, in its own words.

`LogType=Tail` returns the last 4 KB of an invocation's log in base64; REPORT comes last, so it is in
there, whatever the worker printed (facts of AWS's telemetry schema and of recorded lines, 2026). Text and
JSON log formats both occur. Billed milliseconds are read, never computed.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass
from typing import Any

_FIELDS = {
    "duration_ms": r"Duration: ([\d.]+) ms",
    "billed_ms": r"Billed Duration: ([\d.]+) ms",
    "memory_mb": r"Memory Size: ([\d.]+) MB",
    "max_memory_mb": r"Max Memory Used: ([\d.]+) MB",
    "init_ms": r"Init Duration: ([\d.]+) ms",
    "restore_ms": r"Restore Duration: ([\d.]+) ms",
}
# A field's name begins the line or follows a tab: "Duration" must not be found in "Billed Duration".
_TEXT = {name: re.compile(rf"(?:^|\t|  )\s*{pattern}") for name, pattern in _FIELDS.items()}
_REQUEST = re.compile(r"REPORT\s+RequestId:\s*(\S+)\s*")
_STATUS = re.compile(r"Status: (\w+)")
_JSON_NAMES = {
    "duration_ms": "durationMs",
    "billed_ms": "billedDurationMs",
    "memory_mb": "memorySizeMB",
    "max_memory_mb": "maxMemoryUsedMB",
    "init_ms": "initDurationMs",
    "restore_ms": "restoreDurationMs",
}
_NEEDED = ("duration_ms", "billed_ms", "memory_mb", "max_memory_mb")


@dataclass(frozen=True)
class Report:
    """What Lambda says of one invocation.

    Attributes:
        request_id: The invocation's.
        duration_ms: The handler's time.
        billed_ms: What is billed, initialisation included.
        memory_mb: Memory of the version.
        max_memory_mb: The most that its environment has used.
        init_ms: Initialisation of a cold start, or the restoring of a snapshot; 0 for a warm one.
        status: `success`, `error`, `timeout` or `failure`; empty where the line has none.
    """

    request_id: str
    duration_ms: float
    billed_ms: int
    memory_mb: int
    max_memory_mb: int
    init_ms: float = 0.0
    status: str = ""


def parse_log(tail: str) -> Report | None:
    """The last report of a `LogResult`; None if it holds none that can be read.

    Args:
        tail: base64, as the API returns it; its first line may be cut off.
    """
    try:
        text = base64.b64decode(tail, validate=True).decode("utf-8", errors="replace")
    except (binascii.Error, ValueError):
        return None
    for line in reversed(text.splitlines()):
        found = parse_line(line)
        if found is not None:
            return found
    return None


def parse_line(line: str) -> Report | None:
    """The report that one line of a log holds, in text or in JSON; None if it holds none."""
    line = line.strip()
    if line.startswith("{"):
        return _from_json(line)
    started = _REQUEST.match(line)
    if started is None:
        return None
    rest = line[started.end() :]
    found = {name: pattern.search(rest) for name, pattern in _TEXT.items()}
    values = {name: match.group(1) for name, match in found.items() if match}
    status = _STATUS.search(rest)
    return _report(started.group(1), values, status.group(1) if status else "")


def _from_json(line: str) -> Report | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or record.get("type") != "platform.report":
        return None
    record = record.get("record")
    if not isinstance(record, dict) or not isinstance(record.get("metrics"), dict):
        return None
    metrics = record["metrics"]
    values = {name: metrics[key] for name, key in _JSON_NAMES.items() if key in metrics}
    return _report(str(record.get("requestId", "")), values, str(record.get("status", "")))


def _report(request_id: str, values: dict[str, Any], status: str) -> Report | None:
    """The report, if all numbers that it needs are there and are quantities."""
    try:
        numbers = {name: float(value) for name, value in values.items()}
    except (TypeError, ValueError):
        return None
    if any(name not in numbers for name in _NEEDED):
        return None
    if not all(math.isfinite(number) and number >= 0 for number in numbers.values()):
        return None
    return Report(
        request_id=request_id,
        duration_ms=numbers["duration_ms"],
        billed_ms=math.ceil(numbers["billed_ms"]),
        memory_mb=int(numbers["memory_mb"]),
        max_memory_mb=math.ceil(numbers["max_memory_mb"]),
        init_ms=numbers.get("init_ms", numbers.get("restore_ms", 0.0)),
        status=status,
    )
