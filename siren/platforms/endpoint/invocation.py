"""One invocation: what goes in, what comes out, what Lambda says where the function cannot."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass

from siren.platforms.endpoint.logs import Report


@dataclass(frozen=True)
class Mishap:
    """What a test makes happen to an invocation.

    Attributes:
        after_s: Seconds from the event's delivery to the SIGKILL.
        out_of_memory: Whether it counts as a kill for want of memory.
    """

    after_s: float
    out_of_memory: bool


@dataclass(frozen=True)
class Call:
    """One invocation.

    Attributes:
        request_id: Its id; an attempt to repeat an Event has the same.
        payload: JSON.
        arn: As it was invoked.
        client_context: JSON, if any.
        mishap: For tests.
    """

    request_id: str
    payload: bytes
    arn: str
    client_context: str | None = None
    mishap: Mishap | None = None


@dataclass(frozen=True)
class Outcome:
    """How an invocation ended.

    Attributes:
        payload: The function's answer, or the error, JSON.
        failed: Whether it is an error.
        log: The last 4 KB of its log.
        report: What REPORT says.
    """

    payload: bytes
    failed: bool
    log: bytes
    report: Report


def error_payload(kind: str, message: str) -> bytes:
    """What Lambda answers in the function's place."""
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


def how_it_ended(code: int | None) -> str:
    """How the runtime's process ended, in Lambda's words; `code` is negative if a signal ended it."""
    if not code:
        return "Runtime exited without providing a reason"
    if code > 0:
        return f"Runtime exited with error: exit status {code}"
    return f"Runtime exited with error: signal: {(signal.strsignal(-code) or str(-code)).lower()}"
