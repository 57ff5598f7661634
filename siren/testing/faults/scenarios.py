"""The faults of the suite, each as a scenario: how it is injected, and what a run may make of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from siren.testing.crashes import KILLED
from siren.testing.faults.rig import Ended, Plan, Rig, until
from siren.testing.faults.store import StoreFault
from siren.testing.faults.verdict import DONE, MEANS, Expected, Params, Verdict, examine, last_params
from siren.types import StopReason

RESUMES = 4
PLATFORM_FAILURE, USAGE_ERROR = (
    reason.exit_code for reason in (StopReason.PLATFORM_FAILURE, StopReason.USAGE_ERROR)
)
FAILS = frozenset({PLATFORM_FAILURE})
ABANDONED = {"timeout_s": 20}
"""Nobody can end functions that wait at a barrier of an epoch that was given up, or ended without them."""

PAIRS = (
    ("overwrite", "s3"),
    ("cas", "s3"),
    ("average", "s3"),
    ("sync", "s3"),
    ("overwrite", "redis"),
    ("additive", "redis"),
    ("staleness", "redis"),
    ("average", "redis"),
    ("sync", "redis"),
)

Injected = Callable[[], int]
"""How often a fault has happened."""


@dataclass(frozen=True)
class Scenario:
    """One kind of fault.

    Attributes:
        name: In words, for the table.
        inject: Prepares it; returns how to count it.
        expected: What it may do to a run.
        plan: What it changes of a run's plan.
        channels: Over which it can happen.
        start: How the run is begun, where not by `Rig.run`.
    """

    name: str
    inject: Callable[[Rig], Injected]
    expected: Expected = field(default_factory=Expected)
    plan: Mapping[str, Any] = field(default_factory=dict)
    channels: frozenset[str] = frozenset({"s3", "redis"})
    start: Callable[[Rig, Plan, Path], Ended] = Rig.run


class Suite:
    """Plays scenarios on a rig.

    Args:
        rig: Where.
        folder: For run folders.
    """

    def __init__(self, rig: Rig, folder: Path) -> None:
        self._rig, self._folder = rig, folder
        self._calm: dict[Plan, Params] = {}
        self._runs = 0

    def __iter__(self) -> Iterator[Path]:
        """The run folders so far."""
        return iter(sorted(self._folder.glob("run-*")))

    def play(self, scenario: Scenario, plan: Plan) -> Verdict:
        """One run with one kind of fault, resumed until it has ended."""
        plan, rig = replace(plan, **scenario.plan), self._rig
        calm, out = self._calm_params(plan), self._next()
        count = scenario.inject(rig)
        rig.settle_down()
        rig.bills.since()
        rig.store.seen.clear()
        ends, injected = [scenario.start(rig, plan, out)], count()
        unanswered = sum(
            each["injected"] for each in rig.endpoint.faults() if each["kind"] == "drop_response"
        )
        rig.clear()
        while ends[-1].code != DONE and len(ends) <= RESUMES:
            ends.append(rig.resume(out) if (out / "config.json").exists() else rig.run(plan, out))
        rig.settle_down()
        billed, asked = rig.bills.since(), dict(rig.store.seen)
        return examine(plan, out, ends, scenario.expected, calm, billed, injected, asked, unanswered)

    def _calm_params(self, plan: Plan) -> Params | None:
        """The model of a run without a fault, where one is like another."""
        if plan.rule not in MEANS:
            return None
        alike = replace(plan, memory_mb=Plan.memory_mb, timeout_s=Plan.timeout_s)
        if alike not in self._calm:
            out = self._next()
            ended = self._rig.run(alike, out)
            assert ended.code == DONE, ended.said
            self._calm[alike] = last_params(out, plan.epochs)
        return self._calm[alike]

    def _next(self) -> Path:
        self._runs += 1
        return self._folder / f"run-{self._runs}"


# --- how faults are injected -----------------------------------------------------------------------


def endpoint_faults(*faults: Mapping[str, Any]) -> Callable[[Rig], Injected]:
    """Faults of the endpoint, see `siren.platforms.endpoint.faults.Fault`."""

    def inject(rig: Rig) -> Injected:
        for fault in faults:
            rig.endpoint.inject(**fault)
        return lambda: sum(fault["injected"] for fault in rig.endpoint.faults())

    return inject


def orders(*each: Mapping[str, Any]) -> Callable[[Rig], Injected]:
    """Orders to functions, see `Rig.order`."""

    def inject(rig: Rig) -> Injected:
        done = [rig.order(**order) for order in each]
        return lambda: sum(path.exists() for path in done)

    return inject


def store_faults(**fault: Any) -> Callable[[Rig], Injected]:
    """A fault of S3, see `siren.testing.faults.store.StoreFault`."""

    def inject(rig: Rig) -> Injected:
        injected = rig.store.inject(StoreFault(**fault))
        return lambda: injected.injected

    return inject


def cache_emptied(rig: Rig) -> Injected:
    """Redis forgets everything while a function computes a gradient."""
    done = rig.order("pause", "after gradient", nth=2)
    url, emptied = rig.grounds.backend.redis_url, []
    assert url

    def empty() -> None:
        import redis

        until(done.exists, "a function has begun")
        with redis.Redis.from_url(url) as client:
            emptied.append(client.flushall())

    thread = threading.Thread(target=empty)
    thread.start()

    def count() -> int:
        thread.join()
        return len(emptied)

    return count


def scheduler_killed(rig: Rig) -> Injected:
    """The start itself is what kills, once."""
    rig.steps()  # their run must not count as one of the scenario's
    return lambda: 1


# --- the scheduler is killed -----------------------------------------------------------------------


def killed_inside_an_epoch(rig: Rig, plan: Plan, out: Path) -> Ended:
    """SIGKILL of the scheduler while its functions compute; they go on without it."""
    done = rig.order("pause", "after gradient", nth=2)
    return rig.run_and_kill(plan, out, kill_when=done)


def killed_at(step: str, occurrence: int = 1, later: int = 0) -> Callable[[Rig, Plan, Path], Ended]:
    """SIGKILL before a step on the disk of the run folder.

    Args:
        step: Its name, see `siren.testing.crashes.Steps`.
        occurrence: Which of that name; 1 is the first.
        later: So many steps after that one.
    """

    def start(rig: Rig, plan: Plan, out: Path) -> Ended:
        at = [number for number, name in enumerate(rig.steps()) if name == step][occurrence - 1]
        return rig.run_and_kill(plan, out, watch=out, kill_at=at + later)

    return start


# --- the scenarios ---------------------------------------------------------------------------------


def function_dies(point: str, nth: int, functions: int = 1) -> Scenario:
    """Processes of functions end at a point of their loop."""
    each = {"do": "exit", "point": point, "nth": nth}
    return Scenario(f"a function dies {point}", orders(*[each] * functions), Expected(retries=functions))


def _redis(scenario: Scenario) -> Scenario:
    return replace(scenario, channels=frozenset({"redis"}))


def _s3(scenario: Scenario) -> Scenario:
    return replace(scenario, channels=frozenset({"s3"}))


DEATHS = (
    function_dies("before get", 1),
    function_dies("after get", 2),
    function_dies("before gradient", 1),
    function_dies("after gradient", 3),
    _s3(function_dies("before put", 1)),
    _s3(function_dies("after put", 1)),
    _redis(function_dies("before redis", 6)),
    _redis(function_dies("after redis", 7)),
    replace(function_dies("after gradient", 1, functions=2), name="both functions die"),
    Scenario(
        "a function is killed from outside",
        endpoint_faults({"kind": "kill", "delay_s": 0.01, "count": 1, "after": 2}),
        Expected(retries=1),
    ),
)
HANG = Scenario(
    "a function hangs until Lambda's timeout",
    orders({"do": "hang", "point": "after gradient", "nth": 2}),
    Expected(whole=False, retries=1),
    plan={"timeout_s": 3},
)
MEMORY = Scenario(
    "a function runs out of memory",
    orders({"do": "memory", "point": "before gradient", "nth": 2}),
    Expected(
        mixed=True, retries=1, says=r"function \d of epoch 1 ran out of 1024 MB and is run again with 1280 MB"
    ),
    plan={"memory_mb": 1024},
)
THROTTLED = Scenario(
    "429: too many requests",
    endpoint_faults(
        {"kind": "throttle", "count": 6},
        {"kind": "throttle", "count": 6, "after": 6, "reason": "CallerRateLimitExceeded"},
    ),
    Expected(throttles=12),
    plan={"functions": 4},
)
ERROR_500 = Scenario(
    "500 from Lambda", endpoint_faults({"kind": "error500", "after": 1}), Expected(answered=False, retries=1)
)
ERROR_503 = Scenario(
    "503 from Lambda", endpoint_faults({"kind": "error503", "after": 2}), Expected(answered=False, retries=1)
)
ERRORS = Scenario(
    "nothing but 500 from Lambda",
    endpoint_faults({"kind": "error500", "count": 100, "after": 2}),
    Expected(answered=False, ends=FAILS),
)
LOST = Scenario(
    "a response is lost after the work",
    endpoint_faults({"kind": "drop_response"}),
    Expected(answered=False, retries=1),
)
ALL_LOST = Scenario(
    "every response of an epoch is lost",
    endpoint_faults({"kind": "drop_response", "count": 100, "after": 2}),
    Expected(answered=False, ends=FAILS),
)
DUPLICATED = Scenario(
    "an event is delivered twice",
    endpoint_faults({"kind": "duplicate", "count": 3}),
    Expected(repeated=True),
    plan=ABANDONED,
)
DELAYED = Scenario("functions start late", endpoint_faults({"kind": "delay", "delay_s": 0.5, "count": 2}))
LAMBDA = (THROTTLED, ERROR_500, ERROR_503, ERRORS, LOST, ALL_LOST, DUPLICATED, DELAYED)

SLOW_DOWN = Scenario("S3: 503 SlowDown", store_faults(kind="503", every=5))
INTERNAL = Scenario("S3: 500", store_faults(kind="500", every=5))
INTERNAL_DONE = Scenario(
    "S3: 500 after a write was done", store_faults(kind="500 done", method="PUT", every=2)
)
RESET_DONE = Scenario(
    "S3: the connection breaks after a write was done", store_faults(kind="reset done", method="PUT", every=3)
)
CUT = Scenario("S3: an object breaks off", store_faults(kind="cut", method="GET", every=4))
CHANGED = Scenario(
    "S3: an object is changed on its way",
    store_faults(kind="changed", method="GET", key=r"\.npz", every=4, body=lambda body: body[:-1] + b"?"),
)
SLOW = Scenario("S3: slow", store_faults(kind="slow", delay_s=0.05))
DOWN = Scenario(
    "S3: 503 to every write from the second epoch on",
    store_faults(kind="503", method="PUT", key=r"/epochs/2-"),
    Expected(ends=FAILS),
)
STORE = (SLOW_DOWN, INTERNAL, INTERNAL_DONE, RESET_DONE, CUT, CHANGED, SLOW, DOWN)


def _flipped(body: bytes) -> bytes:
    """The same length, with its middle changed."""
    middle = len(body) // 2
    return body[:middle] + bytes(byte ^ 0xFF for byte in body[middle : middle + 64]) + body[middle + 64 :]


def damaged(name: str, body: Callable[[bytes], bytes]) -> Scenario:
    """An object with a model holds something else, once."""
    fault = store_faults(kind="other", method="GET", key=r"\.npz", count=1, body=body)
    return Scenario(f"S3: a model is {name}", fault, Expected(answered=False, ends=FAILS), plan=ABANDONED)


DAMAGED = (
    damaged("empty", lambda body: b""),
    damaged("cut short", lambda body: body[: len(body) // 2]),
    damaged("changed", _flipped),
    damaged("a megabyte of zeros", lambda body: bytes(1 << 20)),
)
EMPTIED = _redis(
    Scenario("Redis forgets everything", cache_emptied, Expected(answered=False, ends=FAILS), plan=ABANDONED)
)
RAISED = Scenario(
    "model.py raises once",
    orders({"do": "raise", "point": "before gradient", "nth": 3}),
    Expected(answered=False, ends=frozenset({USAGE_ERROR})),
    plan=ABANDONED,
)


def _killed(name: str, start: Callable[[Rig, Plan, Path], Ended]) -> Scenario:
    expected = Expected(answered=False, ends=frozenset({KILLED}))
    return Scenario(f"the scheduler is killed {name}", scheduler_killed, expected, start=start)


KILLS = (
    _killed("before it reserved", killed_at("write ledger.jsonl")),
    _killed("when it had reserved", killed_at("fsync ledger.jsonl", later=1)),
    _killed("inside an epoch", killed_inside_an_epoch),
    _killed("after an epoch, before its checkpoint", killed_at("mkdir checkpoints", 3)),
    _killed("after the checkpoint, before the commit", killed_at("write events.jsonl", 2)),
    _killed("inside the commit", killed_at("tear events.jsonl")),
    _killed("after the commit, before the bill was settled", killed_at("write ledger.jsonl", 2)),
    _killed("inside the settlement", killed_at("tear ledger.jsonl", 2)),
)
EVERYTHING = Scenario(
    "all of Lambda's at once, over S3 that fails too",
    lambda rig: _both(
        endpoint_faults(
            {"kind": "throttle", "count": 3},
            {"kind": "kill", "delay_s": 0.02, "after": 3},
            {"kind": "drop_response", "after": 5},
            {"kind": "duplicate", "after": 6},
        )(rig),
        store_faults(kind="500", every=9)(rig),
    ),
    Expected(answered=False, retries=1, throttles=3),
    plan={"functions": 4},
)
SCENARIOS = (*DEATHS, HANG, MEMORY, *LAMBDA, *STORE, *DAMAGED, EMPTIED, RAISED, *KILLS, EVERYTHING)


def _both(one: Injected, other: Injected) -> Injected:
    return lambda: one() + other()
