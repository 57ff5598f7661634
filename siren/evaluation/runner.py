"""Plays what is still to be played, on all cores.

A task prepares a case (its budget and its baseline), or plays a policy on a few seeds of it. What a task
returns depends on nothing but the task, so results are the same with any number of processes.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from siren._pool_worker import become_pool_worker
from siren.errors import PlatformError
from siren.evaluation.cache import ChoiceCache
from siren.evaluation.case import Case, CaseFacts, CaseKey
from siren.evaluation.entrants import Entrant
from siren.evaluation.journal import Journal, Result
from siren.evaluation.seeds import report_seeds

SEEDS_PER_TASK = 6
"""Episodes of a task, so that a killed evaluation loses little and cores end together."""

TASKS_PER_WORKER = 3
"""Tasks under way, so that no process waits for the next."""

POLL_S = 0.5
"""How often the display is renewed while nothing ends."""


class Watcher(Protocol):
    """Who is told how far the evaluation is."""

    def moved(self, cases: int, episodes: int) -> None:
        """So many cases are prepared and episodes played, those of earlier processes included."""
        ...


@dataclass(frozen=True)
class Plays:
    """A policy on a few seeds of a case."""

    number: int
    entrant: Entrant
    seeds: tuple[int, ...]


@functools.lru_cache(maxsize=8)
def _case(key: CaseKey, cache: Path | None) -> Case:
    return Case(key, ChoiceCache(cache))


def prepare(key: CaseKey, cache: Path | None) -> CaseFacts:
    """Finds out what is needed of a case."""
    return _case(key, cache).facts()


def run_plays(plays: Plays, key: CaseKey, cache: Path | None) -> list[Result]:
    """Plays."""
    play = plays.entrant.player(_case(key, cache))
    found = []
    for seed in plays.seeds:
        episode = play(seed)
        result = Result(
            case=plays.number,
            policy=plays.entrant.name,
            seed=seed,
            success=episode.success,
            time_s=episode.duration_s,
            cost_usd=float(episode.cost_usd),
            overspent_usd=float(episode.overspent_usd),
            epochs=len(episode.records),
            stop_reason=str(episode.stop_reason.value),
        )
        found.append(result)
    return found


class Evaluation:
    """What is to be played, and what of it is done.

    Attributes:
        cases: The cases, in order.

    Args:
        cases: The cases, in order.
        entrants: The policies.
        seeds: Episodes of each on each.
        journal: Where results go.
        cache: Folder of choices; None for the usual one.
    """

    def __init__(
        self,
        cases: Sequence[CaseKey],
        entrants: Sequence[Entrant],
        seeds: int,
        journal: Journal,
        cache: Path | None = None,
    ) -> None:
        self.cases, self._entrants = cases, entrants
        self._seeds = report_seeds(seeds)
        self._journal, self._cache = journal, cache

    @property
    def episodes(self) -> int:
        """How many episodes there are in all."""
        return len(self.cases) * len(self._entrants) * len(self._seeds)

    def run(self, workers: int, watcher: Watcher) -> None:
        """Plays what is missing.

        Args:
            workers: Processes; with one, everything runs in this process.
            watcher: Told the progress.

        Raises:
            UsageError, WorkloadError, DatasetError: A job or a policy that cannot be.
            PlatformError: A process was killed from outside.
        """
        played = {(r.case, r.policy, r.seed) for r in self._journal.results}
        missing = {k: list(self._missing(k, played)) for k in range(len(self.cases))}
        self._tell(watcher)
        if not any(missing.values()):
            return
        if workers == 1:
            self._run_here(missing, watcher)
        else:
            self._run_there(missing, workers, watcher)

    def _missing(self, number: int, played: set[tuple[int, str, int]]) -> Iterator[Plays]:
        for entrant in self._entrants:
            left = [seed for seed in self._seeds if (number, entrant.name, seed) not in played]
            for at in range(0, len(left), SEEDS_PER_TASK):
                yield Plays(number, entrant, tuple(left[at : at + SEEDS_PER_TASK]))

    def _tell(self, watcher: Watcher) -> None:
        watcher.moved(len(self._journal.facts), len(self._journal.results))

    def _run_here(self, missing: dict[int, list[Plays]], watcher: Watcher) -> None:
        for number, tasks in missing.items():
            key = self.cases[number]
            if tasks and number not in self._journal.facts:
                self._journal.add_facts(number, key, prepare(key, self._cache))
                self._tell(watcher)
            for task in tasks:
                self._journal.add_results(run_plays(task, key, self._cache))
                self._tell(watcher)

    def _run_there(self, missing: dict[int, list[Plays]], workers: int, watcher: Watcher) -> None:
        context = multiprocessing.get_context("spawn")  # numba's and BLAS's threads must not be forked
        others = set(multiprocessing.active_children())
        with _interrupts_wait() as interrupted:
            pool = ProcessPoolExecutor(workers, mp_context=context, initializer=become_pool_worker)
            try:
                self._feed(pool, missing, watcher, workers * TASKS_PER_WORKER, interrupted)
            except BrokenProcessPool as error:
                raise PlatformError(
                    "a process of the evaluation was killed, perhaps for want of memory: repeat the command "
                    "to go on, with --workers 1 if it happens again"
                ) from error
            except BaseException:
                for child in set(multiprocessing.active_children()) - others:
                    child.terminate()
                raise
            finally:
                pool.shutdown(cancel_futures=True)

    def _feed(
        self,
        pool: ProcessPoolExecutor,
        missing: dict[int, list[Plays]],
        watcher: Watcher,
        most: int,
        interrupted: threading.Event,
    ) -> None:
        """Keeps `most` tasks under way: cases are prepared in order, and played as soon as one is."""
        waiting: deque[int | Plays] = deque()
        for number, tasks in missing.items():
            if number in self._journal.facts:
                waiting.extendleft(reversed(tasks))
            elif tasks:
                waiting.append(number)
        pending: dict[Future[Any], int | Plays] = {}
        while pending or waiting:
            while waiting and len(pending) < most:
                task = waiting.popleft()
                pending[self._submit(pool, task)] = task
            done, _ = wait(pending, timeout=POLL_S, return_when=FIRST_COMPLETED)
            if interrupted.is_set():
                raise KeyboardInterrupt
            for future in done:
                task = pending.pop(future)
                if isinstance(task, Plays):
                    self._journal.add_results(future.result())
                else:
                    self._journal.add_facts(task, self.cases[task], future.result())
                    waiting.extendleft(reversed(missing[task]))
            self._tell(watcher)

    def _submit(self, pool: ProcessPoolExecutor, task: int | Plays) -> Future[Any]:
        if isinstance(task, Plays):
            return pool.submit(run_plays, task, self.cases[task.number], self._cache)
        return pool.submit(prepare, self.cases[task], self._cache)


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set the event: raised anywhere, they may leave locks of the pool taken."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.set()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
