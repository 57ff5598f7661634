"""How far a worker is: its clock, what it counts, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from siren.channels.base import Push

MARGIN_S = 0.05
"""Least time left with which another push is begun."""
PUSH_MARGIN = 1.5
"""And so many times the longest push so far."""
PLATFORM_MARGIN_S = 0.25
"""The platform's own timeout kills: stop so long before it (`siren.worlds.costing.WORKER_MARGIN_S`)."""


class Deadline:
    """When the worker stops itself.

    Args:
        seconds: From now.
        context: Lambda's context, which knows when the platform kills; None outside of it.
    """

    def __init__(self, seconds: float, context: Any = None) -> None:
        if context is not None:
            left_s = context.get_remaining_time_in_millis() / 1000 - PLATFORM_MARGIN_S
            seconds = min(seconds, left_s)
        self._end = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Seconds until then; negative afterwards."""
        return self._end - time.monotonic()

    def near(self, push_s: float = 0.0) -> bool:
        """Whether there is too little time for something that took `push_s`."""
        return self.left_s < max(MARGIN_S, PUSH_MARGIN * push_s)


@dataclass
class Meter:
    """What an attempt measures; see `siren.worker.messages.Status`.

    Attributes:
        seconds: By name.
        pushes, staleness_sum, retries, square_norm_sum, loaded_rows: Counts and sums.
    """

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("load_s", "fetch_s", "compute_s", "update_s"), 0.0)
    )
    pushes: int = 0
    staleness_sum: int | None = 0
    retries: int = 0
    square_norm_sum: float = 0.0
    loaded_rows: int = 0

    def pushed(self, push: Push) -> None:
        """Counts a push that was applied; a staleness that is not known leaves the sum unknown."""
        if not push.applied:
            return
        self.pushes += 1
        if push.staleness is None or self.staleness_sum is None:
            self.staleness_sum = None
        else:
            self.staleness_sum += push.staleness

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the seconds of its block."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - start


@dataclass(frozen=True)
class Result:
    """How an attempt ended; see `siren.worker.messages.Status`."""

    state: str
    position: int
    version: int
    model_key: str = ""
