"""A few processes that rehearse at once, and stop when time is up."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from siren._pool_worker import become_pool_worker
from siren.errors import PlatformError
from siren.rehearsal.stage import Stage
from siren.twin.twin import job_of
from siren.workloads.profile import profiled
from siren.workloads.registry import load_workload
from siren.worlds import load_world
from siren.worlds.costing import make_costing

MOST_WORKERS = 8
"""More processes than this would hardly find work."""

_stage: Stage | None = None


@dataclass(frozen=True)
class StageSettings:
    """How another process makes the same stage.

    Attributes:
        workload, overrides: See `siren.workloads.registry.load_workload`.
        world: A world's name or file.
        fraction: Share of an epoch's samples.
        profile: A file of measured constants, see `siren.workloads.profile`; empty for none.
    """

    workload: str
    overrides: Mapping[str, object]
    world: str
    fraction: float
    profile: str = ""


def make_stage(settings: StageSettings) -> Stage:
    """The stage that the settings describe."""
    workload = load_workload(settings.workload, overrides=settings.overrides)
    workload, world = profiled(workload, load_world(settings.world), settings.profile)
    return Stage(workload, make_costing(world, job_of(workload)), settings.fraction)


def _prepare(settings: StageSettings) -> None:
    global _stage  # noqa: PLW0603 - one stage a process, made once
    become_pool_worker()
    if _stage is None:
        _stage = make_stage(settings)


def _do(method: str, arguments: tuple[Any, ...]) -> Any:
    assert _stage is not None
    return getattr(_stage, method)(*arguments)


def usual_count() -> int:
    """One process for each core, at most `MOST_WORKERS`."""
    return min(os.cpu_count() or 1, MOST_WORKERS)


class Workers:
    """Runs methods of a `Stage` in other processes, until a deadline.

    Args:
        stage: The stage; processes that are forked share its memory.
        settings: How others make it; None to work in this process alone.
        deadline: On the stage's clock; nothing is started after it, and nothing waited for.
        count: How many processes; by default `usual_count`.

    Raises:
        PlatformError: A process was killed from outside.
    """

    def __init__(
        self, stage: Stage, settings: StageSettings | None, deadline: float, count: int | None = None
    ) -> None:
        self.deadline = deadline
        self.count = 1 if settings is None else count or usual_count()
        self._stage, self.clock = stage, stage.clock
        self._executor = None if settings is None else _executor(stage, settings, self.count)

    @property
    def left_s(self) -> float:
        """Seconds to the deadline."""
        return self.deadline - self.clock()

    def each(self, method: str, calls: Iterable[tuple[Any, ...]], until: float) -> Iterator[Any]:
        """The results of calls as they come; no call starts after `until`, a time on the stage's clock.

        Raises:
            WorkloadError, UsageError: What a call raised.
            PlatformError: A process was killed from outside.
        """
        until = min(until, self.deadline)
        if self._executor is None:
            for arguments in calls:
                if self.clock() >= until:
                    return
                yield getattr(self._stage, method)(*arguments)
        else:
            with _deaths_told():
                yield from self._elsewhere(self._executor, method, iter(calls), until)

    def _elsewhere(
        self, executor: ProcessPoolExecutor, method: str, waiting: Iterator[tuple[Any, ...]], until: float
    ) -> Iterator[Any]:
        running = set[Future[Any]]()
        exhausted = False
        while True:
            while not exhausted and len(running) < self.count and self.clock() < until:
                arguments = next(waiting, None)
                if arguments is None:
                    exhausted = True
                else:
                    running.add(executor.submit(_do, method, arguments))
            if not running:
                return
            done, running = wait(running, timeout=max(self.left_s, 0.0), return_when=FIRST_COMPLETED)
            if not done:  # the deadline
                return
            for future in done:
                yield future.result()

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        if self._executor is None:
            return
        processes = list((self._executor._processes or {}).values())
        self._executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            with contextlib.suppress(Exception):
                process.terminate()


@contextlib.contextmanager
def _deaths_told() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise PlatformError(
            "a process of the rehearsal was killed, perhaps for want of memory: close other programs and "
            "repeat the command, or do without a rehearsal"
        ) from error


def _executor(stage: Stage, settings: StageSettings, count: int) -> ProcessPoolExecutor:
    global _stage  # noqa: PLW0603 - forked processes inherit it
    method = "fork" if sys.platform == "linux" else "spawn"
    _stage = stage
    try:
        context = multiprocessing.get_context(method)
        executor = ProcessPoolExecutor(count, context, _prepare, (settings,))
        if method == "fork":  # all are forked now, before anything else starts threads
            with _deaths_told():
                for future in [executor.submit(os.getpid) for _ in range(count)]:
                    future.result()
        return executor
    finally:
        _stage = None
