"""The function that `siren.testing.lambda_endpoint` zips and invokes. Stdlib only."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import Counter
from typing import Any

calls: Counter[str] = Counter()
ticks: list[float] = []


def handler(event: dict[str, Any], context: Any) -> Any:
    """Does what `event["do"]` says."""
    action = event.get("do", "echo")
    calls[action] += 1
    return globals()[f"do_{action}"](event, context)


def do_echo(event: dict[str, Any], context: Any) -> Any:
    """The event, and who ran it."""
    return {"event": event, "pid": os.getpid(), "calls": sum(calls.values())}


def do_context(event: dict[str, Any], context: Any) -> Any:
    """What the runtime says of this invocation and of its environment."""
    return {
        "request_id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "name": context.function_name,
        "version": context.function_version,
        "memory_mb": int(context.memory_limit_in_mb),
        "left_ms": context.get_remaining_time_in_millis(),
        "variables": {name: os.environ.get(name) for name in event["variables"]},
    }


def do_sleep(event: dict[str, Any], context: Any) -> Any:
    """Sleeps."""
    time.sleep(event["s"])
    return {"pid": os.getpid()}


def do_fail(event: dict[str, Any], context: Any) -> Any:
    """Raises."""
    raise ValueError(event.get("message", "on purpose"))


def do_exit(event: dict[str, Any], context: Any) -> Any:
    """Ends its process without a word."""
    os._exit(event["code"])


def do_allocate(event: dict[str, Any], context: Any) -> Any:
    """Takes memory."""
    return len(bytearray(event["mb"] << 20))


def do_burn(event: dict[str, Any], context: Any) -> Any:
    """Uses so many CPU seconds; the seconds that it took."""
    began, used = time.monotonic(), time.process_time()
    while time.process_time() - used < event["cpu_s"]:
        pass
    return time.monotonic() - began


def do_print(event: dict[str, Any], context: Any) -> Any:
    """Writes a line of so many characters."""
    print("x" * event["characters"])


def do_length(event: dict[str, Any], context: Any) -> Any:
    """The size of what it got."""
    return len(event["text"])


def do_answer(event: dict[str, Any], context: Any) -> Any:
    """An answer of so many characters."""
    return "x" * event["characters"]


def do_tick(event: dict[str, Any], context: Any) -> Any:
    """Starts a thread that notes the time every 5 ms; the longest pause since it was started."""
    if not ticks:
        ticks.append(time.monotonic())
        threading.Thread(target=_tick, daemon=True).start()
        return 0.0
    noted = [*ticks, time.monotonic()]
    return max(after - before for before, after in itertools.pairwise(noted))


def do_count(event: dict[str, Any], context: Any) -> Any:
    """How often this environment did something."""
    return {"count": calls[event["what"]], "pid": os.getpid()}


def _tick() -> None:
    while True:
        time.sleep(0.005)
        ticks.append(time.monotonic())
