"""A clock that tests turn, so that what a rehearsal does depends on no machine."""

from __future__ import annotations

import time

import pytest


class Clock:
    """`time` whose `monotonic` and `perf_counter` move on by `step_s` whenever it is asked."""

    def __init__(self, step_s: float) -> None:
        self.step_s, self.now_s = step_s, 100.0

    def monotonic(self) -> float:
        self.now_s += self.step_s
        return self.now_s

    perf_counter = monotonic

    def __getattr__(self, name: str):
        return getattr(time, name)


def turn(monkeypatch: pytest.MonkeyPatch, step_s: float) -> Clock:
    """Puts one clock into all that rehearses."""
    clock = Clock(step_s)
    for module in ("rehearse", "sizing", "ladder", "workers", "stage", "search"):
        monkeypatch.setattr(f"siren.rehearsal.{module}.time", clock)
    return clock
