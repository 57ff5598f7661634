"""What the trials of ideas share: cases, rows that outlive a kill, and a short search on real episodes."""

from __future__ import annotations

import csv
import functools
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from experiments._pages import (
    append_rows,
    commit,
)
from siren.evaluation import seeds
from siren.evaluation.cache import ChoiceCache
from siren.evaluation.case import Case, CaseKey
from siren.evaluation.episode import Episode
from siren.evaluation.jobs import TWIN, JobInTwin, JobKey
from siren.evaluation.statistics import JobEpisodes, summarise
from siren.policies import FixedPolicy
from siren.rehearsal.racing import HALVING
from siren.rehearsal.search import FAILURE, INPUTS, NEAR_GAP, POPULATION, SEEDS, SHAPES, SIGMA, SIZE
from siren.simulator.observation import LOG_SCALE
from siren.simulator.tables import FUNCTIONS_SPAN

WORLD, BUDGET = "aws-2026", 1.5
"""Where everything here is played, and its budget over the cheapest."""

FLOOR = ("softmax", "higgs")
"""Workloads of experiments/floor."""

BEST_FIXED = "best fixed (n, m)"

FIRST_SEED, FRESH_SEED, MOST_FRESH = 31_000_000, 21_000_000, 48
"""Seeds of the searches here, of what chooses between their finalists, and how many of these at most."""

FINAL_SHARE = 0.8
"""Share of a search's time after which its finalists meet."""

Vector = Sequence[float]
Play = Callable[[Vector | None, int], Episode]
"""Plays a linear policy with a seed; None stands for the best fixed action."""
Player = Callable[[int], Episode]


def report(text: str) -> None:
    """A line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Job:
    """A case with the name that it has in tables."""

    name: str
    case: Case

    @property
    def twin(self) -> JobInTwin:
        """Its job."""
        assert isinstance(self.case.job, JobInTwin)
        return self.case.job


@functools.cache
def floor_job(name: str) -> Job:
    """A workload of experiments/floor; the working folder must be the repository's."""
    key = JobKey(TWIN, f"experiments/floor/{name}", WORLD, None, None, 0, generated=False)
    return Job(name, Case(CaseKey(key, BUDGET), ChoiceCache()))


@functools.cache
def noisy_job(index: int) -> Job:
    """A generated job of `noisy-2026` under `split`."""
    key = JobKey(TWIN, "noisy-2026", WORLD, "split", None, index, generated=True)
    return Job(f"noisy-2026 {index}", Case(CaseKey(key, BUDGET), ChoiceCache()))


# --- rows --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """An episode of the report.

    Attributes:
        arm, job, seed: What played, on what.
        success, time_s, cost_usd, overspent_usd: How it went.
        unit_s, failure_s: The best fixed action's mean time on the seeds that chose it, and what a failure
            counts as.
        choice: What the arm had chosen.
        cpu_s: Processor seconds in which it had chosen.
        commit: Of the code.
    """

    arm: str
    job: str
    seed: int
    success: int
    time_s: float
    cost_usd: float
    overspent_usd: float
    unit_s: float
    failure_s: float
    choice: str
    cpu_s: float
    commit: str


class Results:
    """The rows of one idea, in a CSV to which whole cells are added.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = read_rows(path)

    def cell(self, arm: str, job: Job, choose: Callable[[], tuple[Player, str]], count: int) -> None:
        """Chooses and plays `count` report seeds, unless the file has the cell."""
        if any(row.arm == arm and row.job == job.name for row in self.rows):
            return
        best, began_s = job.case.baseline, time.process_time()
        player, choice = choose()
        cpu_s = time.process_time() - began_s
        found = []
        for seed in seeds.report_seeds(count):
            e = player(seed)
            sums = e.duration_s, float(e.cost_usd), float(e.overspent_usd), best.time_s, best.failure_s
            found.append(Row(arm, job.name, seed, int(e.success), *sums, choice, cpu_s, commit()))
        self.add(found)
        counted = np.mean([row.time_s if row.success else row.failure_s for row in found])
        won = sum(row.success for row in found)
        report(f"{job.name}: {arm}: {counted / best.time_s:.2f}, {won} of {count}; {choice}; {cpu_s:.0f} s")

    def best_fixed(self, job: Job, count: int) -> None:
        """The cell of the best fixed action."""
        action = job.case.baseline.action
        policy = FixedPolicy(action)
        self.cell(BEST_FIXED, job, lambda: (lambda seed: job.case.episode(policy, seed), str(action)), count)

    def add(self, rows: Sequence[Row]) -> None:
        """Adds rows to the file."""
        if rows:
            append_rows(self.path, [asdict(row) for row in rows])
        self.rows += rows


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if it does not exist."""
    if not path.exists():
        return []
    kinds = {"int": int, "float": float, "str": str}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(**{field.name: kinds[str(field.type)](line[field.name]) for field in fields(Row)})
            for line in csv.DictReader(file)
        ]


def compared(rows: Sequence[Row], arm: str, against: str, job: str | None = None) -> dict[str, Any]:
    """`siren.evaluation.statistics.summarise` of an arm, with another arm in the best fixed action's place.

    Args:
        rows: Of an idea.
        arm, against: Two arms that played the same seeds.
        job: On this job alone; else on all that both played.
    """
    by_arm = [_by_job(rows, name) for name in (arm, against)]
    names = [name for name in by_arm[0] if name in by_arm[1] and job in (None, name)]
    jobs = []
    for name in names:
        own, other = (_columns(table[name]) for table in by_arm)
        first = by_arm[0][name][0]
        jobs.append(JobEpisodes(*own, other[0], other[1], unit_s=first.unit_s, failure_s=first.failure_s))
    return summarise(jobs)


def _by_job(rows: Sequence[Row], arm: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.arm == arm:
            found.setdefault(row.job, []).append(row)
    return {name: sorted(own, key=lambda row: row.seed) for name, own in found.items()}


def _columns(rows: Sequence[Row]) -> tuple[Any, ...]:
    success, *rest = np.array([(r.success, r.time_s, r.cost_usd, r.overspent_usd) for r in rows]).T
    return success > 0, *rest


def speedup(found: Mapping[str, Any]) -> str:
    """A ratio of times the other way round, with its interval."""
    ratio, low, high = (found[f"ratio_to_best_fixed{end}"] for end in ("", "_low", "_high"))
    return f"{1 / ratio:.2f} [{1 / high:.2f}, {1 / low:.2f}]"


# --- a search on real episodes -----------------------------------------------------------------------


def shapes(size: int = SIZE) -> dict[str, list[float]]:
    """The weights of `siren.rehearsal.search.SHAPES`, those beyond `SIZE` zero."""
    found = {}
    for early, late in SHAPES:
        weights = np.zeros(size)
        weights[[INPUTS.index("log_gap"), len(INPUTS)]] = ramp(early, late, FUNCTIONS_SPAN)
        found[f"shape {early:g}-{late:g}"] = weights.tolist()
    return found


def ramp(early: float, late: float, span: float) -> tuple[float, float]:
    """Weight of `log_gap` and bias of a factor that goes from `early` to `late` at a gap of `NEAR_GAP`."""
    bias, end = np.log(early) / span, np.log(late) / span
    return float((end - bias) * LOG_SCALE / np.log(NEAR_GAP)), float(bias)


def cma_from(start: Vector, sigma: float = SIGMA, seed: int = 1) -> Any:
    """A CMA-ES as in `siren.rehearsal.search`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import cma
    options = {"popsize": POPULATION, "seed": seed, "verbose": -9, "verb_log": 0}
    return cma.CMAEvolutionStrategy(np.array(start), sigma, options)


class Search:
    """The search of `siren.rehearsal.search` on one job, for weights of any number.

    Args:
        play: Plays weights.
        unit_s: Time of the best fixed action.
        seconds: Processor seconds that all of it may take, from now on.
    """

    def __init__(self, play: Play, unit_s: float, seconds: float) -> None:
        self._play, self._unit_s = play, unit_s
        self._began_s, self._seconds = time.process_time(), seconds
        self.episodes = 0

    def left(self, share: float) -> bool:
        """Whether that share of the time is not over."""
        return time.process_time() < self._began_s + share * self._seconds

    def counted(self, vector: Vector | None, seed: int, failure: float = FAILURE) -> float:
        """Time of an episode over the best fixed action's, a failure counted as so many."""
        self.episodes += 1
        episode = self._play(vector, seed)
        return episode.duration_s / self._unit_s if episode.success else failure

    def raced(self, starts: Mapping[str, Vector]) -> str:
        """The name of the winner by successive halving."""
        left, scores = list(starts), {name: list[float]() for name in starts}
        for count in HALVING:
            for name in left:
                first, last = FIRST_SEED - 1000 + len(scores[name]), FIRST_SEED - 1000 + count
                scores[name] += [self.counted(starts[name], seed) for seed in range(first, last)]
            left.sort(key=lambda name: float(np.mean(scores[name])))
            left = left[: (len(left) + 1) // 2]
        return left[0]

    def improved(self, start: Vector, sigma: float = SIGMA) -> list[float]:
        """What CMA-ES finds from there, until the finalists are to meet."""
        strategy = cma_from(start, sigma)
        while self.left(FINAL_SHARE):
            vectors = [x.tolist() for x in strategy.ask()]
            first = FIRST_SEED + SEEDS * strategy.countiter
            pairs = range(first, first + SEEDS)
            strategy.tell(vectors, [np.mean([self.counted(x, seed) for seed in pairs]) for x in vectors])
        found: list[float] = strategy.result.xfavorite.tolist()
        return found

    def chosen(self, finalists: Mapping[str, Vector | None]) -> str:
        """The name of the best on fresh seeds, as many as time allows; at least one."""
        scores = {name: list[float]() for name in finalists}
        for seed in range(FRESH_SEED, FRESH_SEED + MOST_FRESH):
            for name, vector in finalists.items():
                scores[name].append(self.counted(vector, seed, 2.0))
            if not self.left(1.0):
                break
        return min(scores, key=lambda name: float(np.mean(scores[name])))


def searched(play: Play, unit_s: float, seconds: float, starts: Mapping[str, Vector]) -> tuple[Any, str]:
    """The weights that a whole search chooses, None for the best fixed action; and what they are called."""
    search = Search(play, unit_s, seconds)
    winner = search.raced(starts)
    finalists: dict[str, Vector | None] = {"fixed": None, winner: starts[winner]}
    finalists["search"] = search.improved(starts[winner])
    name = search.chosen(finalists)
    return finalists[name], f"{name} after {search.episodes} episodes from {winner}"
