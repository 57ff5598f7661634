"""Faults that tests inject into invocations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from siren.platforms.endpoint.errors import ApiError, invalid, throttled

KINDS = ("throttle", "error500", "error503", "drop_response", "duplicate", "kill", "oom", "delay")


@dataclass
class Fault:
    """What happens to some invocations.

    Attributes:
        kind: `throttle`, `error500` and `error503` refuse them; `drop_response` does the work and closes
            the connection; `duplicate` delivers the event twice at once; `kill` and `oom` end the process
            `delay_s` into the invocation; `delay` waits `delay_s` before it.
        function: Name of the function; None for all.
        after: So many invocations go well first.
        count: To how many it then happens.
        delay_s: See `kind`.
        reason: Of a throttle.
        injected: To how many it has happened.
    """

    kind: str
    function: str | None = None
    after: int = 0
    count: int = 1
    delay_s: float = 0.0
    reason: str = "ConcurrentInvocationLimitExceeded"
    injected: int = 0

    def refusal(self) -> ApiError | None:
        """What the API answers instead, if that is the kind."""
        match self.kind:
            case "throttle":
                return throttled(self.reason)
            case "error500":
                return ApiError(
                    500, "ServiceException", "An error occurred and the request cannot be processed."
                )
            case "error503":
                return ApiError(503, "ServiceUnavailableException", "Service Unavailable")
        return None


class Faults:
    """Those that are still to come, and those that have been."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, request: Mapping[str, Any]) -> None:
        """Adds one, from JSON.

        Raises:
            ApiError: It is none.
        """
        known = {each.name for each in fields(Fault)} - {"injected"}
        if not set(request) <= known or request.get("kind") not in KINDS:
            raise invalid(f"a fault has a kind of {', '.join(KINDS)} and any of {', '.join(sorted(known))}")
        fault = Fault(**request)
        numbers = (fault.after, fault.count, fault.delay_s)
        if not all(isinstance(each, int | float) and 0 <= each < math.inf for each in numbers):
            raise invalid("after, count and delay_s of a fault are numbers of at least 0")
        self._faults.append(fault)

    def take(self, function: str) -> list[Fault]:
        """What happens to the next invocation of a function."""
        happening = []
        for fault in self._faults:
            if fault.function not in (None, function) or fault.injected >= fault.count:
                continue
            if fault.after > 0:
                fault.after -= 1
            else:
                fault.injected += 1
                happening.append(fault)
        return happening

    def clear(self) -> None:
        """Forgets all."""
        self._faults.clear()

    def to_json(self) -> list[dict[str, Any]]:
        """All of them, with how often each has happened."""
        return [asdict(fault) for fault in self._faults]
