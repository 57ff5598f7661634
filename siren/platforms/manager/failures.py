"""What a function's error means for the epoch: run it again, with more memory, or give up."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass

from siren.platforms.manager.report_line import Report

_OUT_OF_MEMORY = frozenset({"Runtime.OutOfMemory", "MemoryError"})
_EXIT = "Runtime.ExitError"
_TIMED_OUT = "timed out after"
_STORES = frozenset(
    {
        "BusyLoadingError",
        "ClientError",
        "ConnectionClosedError",
        "ConnectionError",
        "ConnectionResetError",
        "ConnectTimeoutError",
        "EndpointConnectionError",
        "FlexibleChecksumError",
        "HTTPClientError",
        "IncompleteReadError",
        "ReadTimeoutError",
        "RequestsSpentError",
        "ResponseStreamingError",
        "StoreBusyError",
        "TimeoutError",
    }
)
"""What botocore, redis-py and `siren.channels` raise when a store does not answer, or not well."""
_SHOWN = 400


class Cause(enum.Enum):
    """Why a function failed."""

    MEMORY = enum.auto()
    TIMEOUT = enum.auto()
    KILLED = enum.auto()
    STORE = enum.auto()
    MODEL = enum.auto()
    WORKER = enum.auto()

    @property
    def repeatable(self) -> bool:
        """Whether the same invocation may succeed the next time."""
        return self in (Cause.TIMEOUT, Cause.KILLED, Cause.STORE)


@dataclass(frozen=True)
class Failure:
    """A function's error.

    Attributes:
        cause: What it means.
        detail: What it said, in one line.
    """

    cause: Cause
    detail: str


def failure_of(payload: bytes, report: Report | None, memory_mb: int) -> Failure:
    """What a payload with `FunctionError` tells.

    Args:
        payload: What the API returned: `errorType`, `errorMessage`, perhaps `stackTrace`.
        report: The invocation's REPORT line, if it had one.
        memory_mb: Memory of the version.
    """
    try:
        error = json.loads(payload)
    except ValueError:
        error = None
    if not isinstance(error, dict):
        return Failure(Cause.WORKER, f"an answer that cannot be read: {payload[:80]!r}")
    kind, message = str(error.get("errorType", "")), " ".join(str(error.get("errorMessage", "")).split())
    detail = f"{kind or 'an error without a type'}: {message}"[:_SHOWN]
    return Failure(_cause(kind, message, error.get("stackTrace"), report, memory_mb), detail)


def _cause(kind: str, message: str, trace: object, report: Report | None, memory_mb: int) -> Cause:
    full = report is not None and report.max_memory_mb >= memory_mb
    if kind in _OUT_OF_MEMORY or (kind == _EXIT and full):  # a full environment may just exit
        return Cause.MEMORY
    if _TIMED_OUT in message or (report is not None and report.status == "timeout"):
        return Cause.TIMEOUT
    if kind == _EXIT:
        return Cause.KILLED
    if kind in _STORES:
        return Cause.STORE
    return Cause.MODEL if _in_model(trace) else Cause.WORKER


def _in_model(trace: object) -> bool:
    """Whether the innermost frame is one of the workload's own modules."""
    return isinstance(trace, list) and bool(trace) and "/workload/" in str(trace[-1]).split(",", 1)[0]
