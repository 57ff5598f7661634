"""The best fixed action in hindsight, and the cheapest budget that a job can be done with.

How fast a fixed action converges depends on n alone, what an epoch takes and costs on (n, m). So a
short ladder of counts is followed without a budget (`scout`), every (n, m) is priced by the closed
forms, and the most promising are then played in whole episodes, the budget enforced, on the seeds that
choose. In the simulator the candidates come from `siren.simulator.search`, which plays the whole grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from siren.errors import UsageError
from siren.evaluation import seeds
from siren.evaluation.episode import Episode
from siren.evaluation.jobs import EvaluationJob, JobInSimulator, JobInTwin, grid_of
from siren.policies import FixedPolicy, Policy
from siren.simulator.job import ActionGrid, FixedRuns, fixed_runs
from siren.simulator.search import FAILURE, Arena, Trials, fixed_candidates
from siren.simulator.twin_jobs import loss_curve, rewind
from siren.twin.twin import Twin
from siren.types import Action, BatchRule
from siren.worlds.costing import Costing

if TYPE_CHECKING:
    from siren.evaluation.case import Case

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Candidate = TypeVar("Candidate")

SCOUT_EPOCHS = 40
"""Epochs that a count is followed for."""

LARGE_EPOCH = 2e9
"""Samples times parameters of an epoch from which a job gets `SPARING` effort: a quarter of a second or more
of one core in the twin, whatever its laws say of functions."""

SLIGHT = 0.98
"""A count that saves less than this, of time or of dollars, saves nothing."""

CONFIRMED = 4
"""Actions of the compiled simulator's ranking that are played with the real ledger."""

CLIMBS = 5
"""Times that the best action may move on to its best neighbour: losses depend on memory too, near the cliff,
and the ladder has one size of each count."""

REFINED = 1.15
"""Ratio of the counts that are played around the best."""


@dataclass(frozen=True)
class Effort:
    """How much is tried to find the best fixed action of a job on real gradients.

    Attributes:
        ladder_step: Every so many counts of the simulator's ladder are scouted.
        scouts: Runs of every count.
        proposed, sizes_each: Actions that are played first, and how many of them may have one count.
        rounds: (seeds, candidates that stay after them); the last play on all seeds that choose.
    """

    ladder_step: int
    scouts: int
    proposed: int
    sizes_each: int
    rounds: tuple[tuple[int, int], ...]


THOROUGH = Effort(2, seeds.SCOUT_COUNT, 12, 3, ((6, 6), (12, 4)))
"""Counts at a ratio of 1.32."""

SPARING = Effort(2, 1, 6, 2, ((3, 3), (6, 2)))
"""For jobs whose episodes take minutes. Where mini-batches keep their size, counts that save nothing are
left out: more functions make updates staler, and so need as many epochs or more."""


def effort_for(job: EvaluationJob) -> Effort:
    """By what an epoch of it computes in the twin; it depends on no machine."""
    large = job.costing.job.samples * job.costing.job.parameters > LARGE_EPOCH
    return SPARING if large and isinstance(job, JobInTwin) else THOROUGH


@dataclass(frozen=True)
class Baseline:
    """The best fixed action of a case.

    Attributes:
        functions, memory_mb: The action.
        success_rate, time_s, cost_usd: Of its successes, on the seeds that chose it.
        tried: Candidates that were played.
    """

    functions: int
    memory_mb: int
    success_rate: float
    time_s: float
    cost_usd: float
    tried: int

    @property
    def action(self) -> Action:
        """The action."""
        return Action(self.functions, self.memory_mb)

    @property
    def failure_s(self) -> float:
        """What a failure of any policy counts as."""
        return FAILURE * self.time_s


@dataclass(frozen=True)
class Scouted:
    """How many epochs fixed counts need to the target.

    Attributes:
        grid: The counts, with every memory size.
        epochs: (counts, runs) Epochs; -1 where the target was not reached.
    """

    grid: ActionGrid
    epochs: Ints

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {"functions": self.grid.functions.tolist(), "epochs": self.epochs.tolist()}

    @classmethod
    def from_json(cls, job: EvaluationJob, kept: dict[str, Any]) -> Scouted:
        """What `to_json` returned, for the same job."""
        whole, counts = grid_of(job), np.array(kept["functions"], np.int64)
        return cls(ActionGrid(job.costing, counts, whole.memory_mb), np.array(kept["epochs"], np.int64))

    def runs(self) -> list[FixedRuns]:
        """What every action takes, by run of the ladder."""
        steps = np.arange(max(int(self.epochs.max()), 0) + 1)
        found = []
        for epochs in self.epochs.T:
            there = (epochs[:, None] >= 0) & (steps >= epochs[:, None])
            found.append(fixed_runs(self.grid, np.where(there, 0.0, 1.0), 0.5))
        return found

    @property
    def cheapest_usd(self) -> float:
        """The least budget that is enough for a fixed action in the median run.

        Raises:
            UsageError: No fixed action reaches the target.
        """
        needed = np.median(np.stack([runs.needed_usd for runs in self.runs()]), axis=0)
        if not np.isfinite(needed.min()):
            raise UsageError(
                f"no fixed action in world {self.grid.costing.world.name} reaches the job's target in the "
                "epochs that it is followed for: choose other rules, or an easier target_loss"
            )
        return float(needed.min())


def scout(job: EvaluationJob) -> Scouted:
    """Follows fixed counts without a budget."""
    if isinstance(job, JobInSimulator):
        return _follow_draws(job)
    assert isinstance(job, JobInTwin)
    return _follow_runs(job)


def _follow_draws(job: JobInSimulator) -> Scouted:
    """Every count of the ladder, in the compiled simulator."""
    arena = Arena(job.job)
    epochs = arena.epochs_alone(seeds.scout_seeds())
    return Scouted(arena.grid, np.where(epochs > 0, epochs, -1))


def _follow_runs(job: JobInTwin) -> Scouted:
    """Real gradients, at the memory size nearest to one vCPU that the count can run at."""
    whole = grid_of(job)
    effort = effort_for(job)
    counts = np.unique(np.append(whole.functions[:: effort.ladder_step], whole.functions[-1]))
    grid = ActionGrid(job.costing, counts, whole.memory_mb)
    if effort is SPARING and job.training.batch_rule is BatchRule.CONSTANT:
        grid = ActionGrid(job.costing, counts[_saving(grid)], whole.memory_mb)
    away = np.abs(grid.memory_mb - job.costing.world.cpu.memory_per_vcpu)
    sizes = np.where(grid.allowed, away, np.inf).argmin(axis=1)
    twin = Twin(job.workload, job.costing, seed=seeds.SCOUT)
    target = job.training.target_loss
    epochs = np.full((len(grid.functions), effort.scouts), -1, np.int64)
    for s, seed in enumerate(seeds.scout_seeds()[: effort.scouts]):
        for k, n in enumerate(grid.functions.tolist()):
            hopeless = s >= 2 and (epochs[k, :s] < 0).all()
            if hopeless or not grid.allowed[k].any():
                continue
            rewind(twin, seed)
            losses = loss_curve(twin, Action(n, int(grid.memory_mb[sizes[k]])), SCOUT_EPOCHS, target)
            if losses[-1] <= target:
                epochs[k, s] = len(losses) - 1
    return Scouted(grid, epochs)


def _saving(grid: ActionGrid) -> NDArray[np.bool_]:
    """Counts that at some memory size save time or dollars over every action of fewer functions."""
    epoch_s, usd = (np.where(grid.allowed, x[0], np.inf) for x in (grid.duration_s, grid.marginal_usd))
    saves = np.zeros(len(grid.functions), np.bool_)
    for k in range(len(grid.functions)):
        fewer_s, fewer_usd = epoch_s[:k].reshape(-1, 1), usd[:k].reshape(-1, 1)
        as_good = (SLIGHT * fewer_s <= epoch_s[k]) & (SLIGHT * fewer_usd <= usd[k])
        saves[k] = (grid.allowed[k] & ~as_good.any(axis=0)).any()
    return saves


class Playable(Protocol):
    """A job with a budget."""

    def episode(self, policy: Policy, seed: int) -> Episode:
        """Plays it once."""
        ...


class Race:
    """Plays candidates of a case on the seeds that choose; every episode once.

    Args:
        case: The case.
        policy_of: The policy of a candidate, which is hashable.
    """

    def __init__(self, case: Playable, policy_of: Callable[[Candidate], Policy]) -> None:
        self._case = case
        self._policy_of: Callable[[Any], Policy] = policy_of
        self._played: dict[Any, list[tuple[bool, float, float]]] = {}

    @property
    def tried(self) -> int:
        """Candidates that were played."""
        return len(self._played)

    def trials(self, candidate: Any, count: int) -> Trials:
        """The candidate on the first `count` seeds."""
        played = self._played.setdefault(candidate, [])
        policy = self._policy_of(candidate)
        for seed in seeds.select_seeds()[len(played) : count]:
            episode = self._case.episode(policy, seed)
            played.append((episode.success, episode.duration_s, float(episode.cost_usd)))
        success, elapsed_s, cost_usd = np.array(played[:count], np.float64).T
        return Trials(success > 0, elapsed_s, cost_usd)

    def best(
        self,
        candidates: Sequence[Candidate],
        rounds: Sequence[tuple[int, int]] = THOROUGH.rounds,
        last: int = seeds.SELECT_COUNT,
    ) -> tuple[Candidate, Trials]:
        """The candidate of least failure-counted time on `last` seeds, after rounds in which most leave."""
        left = list(candidates)
        for count, stay in rounds:
            if len(left) > stay:
                ranks = ranked([self.trials(candidate, count) for candidate in left])
                left = [left[k] for k in ranks[:stay]]
        trials = [self.trials(candidate, last) for candidate in left]
        at = ranked(trials)[0]
        return left[at], trials[at]


def ranked(trials: Sequence[Trials]) -> list[int]:
    """Indices from best to worst by failure-counted time.

    A failure counts as `FAILURE` times the mean time of the fastest among the most reliable: those that
    fail at most once more often than the most reliable one.
    """
    rates = np.array([t.success_rate for t in trials])
    times = np.array([t.time_s for t in trials])
    allowance = 1.01 / len(trials[0].success)
    failure_s = FAILURE * times[rates >= rates.max() - allowance].min()
    if not np.isfinite(failure_s):
        return list(range(len(trials)))
    counted = [np.where(t.success, t.elapsed_s, failure_s).mean() for t in trials]
    return [int(k) for k in np.argsort(counted, kind="stable")]


def best_fixed(case: Case) -> Baseline:
    """The best fixed action of the whole grid, chosen on `seeds.select_seeds`."""
    propose = _from_arena if isinstance(case.job, JobInSimulator) else _from_ladder
    proposed, rounds = propose(case), effort_for(case.job).rounds
    race = Race(case, FixedPolicy)
    before, (action, trials) = None, race.best(proposed, rounds)
    for _ in range(CLIMBS):
        if action == before:
            break
        before = action
        action, trials = race.best([before, *near(case.job.costing, before)], rounds)
    success = trials.success
    return Baseline(
        functions=action.functions,
        memory_mb=action.memory_mb,
        success_rate=trials.success_rate,
        time_s=trials.time_s if success.any() else _expected_s(case, action),
        cost_usd=float(trials.cost_usd[success].mean() if success.any() else case.budget_usd),
        tried=race.tried,
    )


def _expected_s(case: Case, action: Action) -> float:
    """The expected time of an action that never finished within the budget, or of the nearest that does."""
    grid, runs = case.scouted.grid, case.scouted.runs()
    durations = np.median(np.stack([r.duration_s for r in runs]), axis=0)
    away = np.abs(np.log(grid.functions / action.functions))[:, None] + np.abs(
        np.log(grid.memory_mb / action.memory_mb)
    )
    return float(durations.flat[np.where(np.isfinite(durations), away, np.inf).argmin()])


def _from_ladder(case: Case) -> list[Action]:
    """The most promising actions of the job's own effort."""
    effort = effort_for(case.job)
    return promising(case.scouted, float(case.budget_usd), effort.proposed, effort.sizes_each)


def promising(scouted: Scouted, budget: float, proposed: int, sizes_each: int) -> list[Action]:
    """The most promising actions by the scouted epochs and the closed forms; none if none fits.

    Args:
        scouted: How many epochs fixed counts need.
        budget: Dollars.
        proposed: How many actions at most.
        sizes_each: How many of them may have one count.
    """
    grid, runs = scouted.grid, scouted.runs()
    duration_s = np.stack([r.duration_s for r in runs])
    within = np.stack([r.needed_usd for r in runs]) <= budget
    fits = within.mean(axis=0)
    mean_s = np.where(within, duration_s, 0.0).sum(axis=0) / np.maximum(within.sum(axis=0), 1)
    failure_s = FAILURE * np.where(fits == fits.max(), mean_s, np.inf).min()
    counted = np.where(within, duration_s, failure_s).mean(axis=0)
    chosen: list[Action] = []
    for flat in np.argsort(np.where(fits > 0, counted, np.inf), axis=None, kind="stable").tolist():
        level, size = np.unravel_index(flat, counted.shape)
        n, m = int(grid.functions[level]), int(grid.memory_mb[size])
        if fits[level, size] > 0 and sum(a.functions == n for a in chosen) < sizes_each:
            chosen.append(Action(n, m))
        if len(chosen) == proposed:
            break
    return chosen


def _from_arena(case: Case) -> list[Action]:
    """The best of the whole grid in the compiled simulator, on the seeds that choose."""
    job = case.simulated
    arena = Arena(job, FAILURE * _fastest_s(case))
    schedules = fixed_candidates(arena, seeds.select_seeds())
    played = arena.play(schedules, seeds.select_seeds())
    order = ranked([Trials(o.success, o.elapsed_s, o.cost_usd) for o in played])
    places = [schedules[k].first for k in order[:CONFIRMED]]
    grid = arena.grid
    return list(
        dict.fromkeys(Action(int(grid.functions[p.level]), int(grid.memory_mb[p.size])) for p in places)
    )


def _fastest_s(case: Case) -> float:
    """The least expected time of an action that fits the budget."""
    runs = case.scouted.runs()
    duration_s = np.median(np.stack([r.duration_s for r in runs]), axis=0)
    needed_usd = np.median(np.stack([r.needed_usd for r in runs]), axis=0)
    return float(duration_s[needed_usd <= float(case.budget_usd)].min())


def near(costing: Costing, action: Action) -> list[Action]:
    """A little more and fewer functions, the neighbouring sizes of memory, and those with as much in all."""
    limit, sizes = (
        min(costing.job.functions_max, costing.world.limits.functions_max),
        costing.world.limits.memory_grid,
    )
    n, m = action.functions, action.memory_mb
    counts = {round(n * REFINED**k) for k in (-1, 1)} | {n - 1, n + 1}
    at = sizes.index(m)
    others = [Action(k, m) for k in sorted(counts) if 1 <= k <= limit and k != n]
    beside = [sizes[k] for k in (at - 1, at + 1) if 0 <= k < len(sizes)]
    alike = [Action(min(max(round(n * m / size), 1), limit), size) for size in beside]
    return list(dict.fromkeys([*others, *(Action(n, size) for size in beside), *alike]))
